"""Breaks the code on purpose, one line at a time, and runs the tests that should find it.

    python -m tests.mutations [WORD]     only the mutations whose name has the word

Works on a copy. Prints a Markdown table; exit code 1 when a mutation survives.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutation:
    name: str
    path: str
    old: str
    new: str
    tests: str


DISK, STAGING = "archiver/stores/disk.py", "archiver/stores/local_staging.py"
ANSWER, BURST = "archiver/transfer/answer.py", "archiver/transfer/burst.py"
COMMIT, COMMITS = "archiver/stores/commit.py", "tests/stores/test_commit.py"
WIRES, LANES = "tests/transfer/test_wires.py", "tests/transfer/test_lanes.py"
FILE, FETCH = "archiver/transfer/file.py", "archiver/transfer/fetch.py"
WINDOW, INSPECTION = "archiver/rdb/window.py", "archiver/rdb/inspection.py"
METER, TAIR = "archiver/rdb/meter.py", "archiver/sources/tair.py"
ORDER = "tests/stores/test_local.py"
BATCH = "tests/faults/test_batch.py"
FILESYSTEM, SYNCS = "archiver/stores/filesystem.py", "tests/stores/test_filesystem.py"
S3 = "archiver/stores/s3"
LINE = "tests/test_line.py"
COPYOUT, RESTORING = "archiver/archive/copyout.py", "tests/archive/test_restoring.py"
JUDGEMENT, LEDGER = "archiver/drill/judgement.py", "archiver/drill/ledger.py"
COUNTING, COUNTS = "archiver/drill/counting.py", "tests/drill/test_counting.py"
DRILL = "tests/drill/test_drill.py"
SCRUB, REPAIR = "tests/scrub/test_verify.py", "tests/scrub/test_repair.py"
HOSTILE = "tests/faults/test_hostile.py"
STATEFUL = "tests/stateful/test_stateful.py::test_a_sequence_that_went_wrong_once"

MUTATIONS = (
    Mutation("data is not synced before the journal", STAGING, "            os.fdatasync(self._descriptor)\n", "            pass\n", ORDER),
    Mutation("the journal is not synced", STAGING, "            os.fdatasync(self._log)\n", "", ORDER),
    Mutation("data is not synced before the rename", STAGING, "            yield [disk.UnsyncedFile(self._path, self._descriptor), *waiting.values()]\n", "            yield [*waiting.values()]\n", ORDER),
    Mutation("the directory is not synced after the rename", STAGING, "        yield (folders := folders_to_sync(self._root, folder, self._durable))\n", "        folders = folders_to_sync(self._root, folder, self._durable)\n", ORDER),
    Mutation("a record is not synced", STAGING, "            yield [disk.UnsyncedFile(self._path, self._descriptor), *waiting.values()]\n", "            yield [disk.UnsyncedFile(self._path, self._descriptor)]\n", ORDER),
    Mutation("new parents are not synced", STAGING, "        yield (folders := folders_to_sync(self._root, folder, self._durable))\n", "        folders = folders_to_sync(self._root, folder, self._durable)\n        yield folders[:1]\n", ORDER),
    Mutation("the record gets its name before the object", STAGING, "        if final != self._path:\n            disk.make_directories(f\"{self._root}/{folder}\")\n            disk.rename(self._path, final)\n            self._path = final\n        yield (folders := folders_to_sync(self._root, folder, self._durable))\n        self._durable.update(_above(folder))\n        self._forget_others()\n        for path, document in waiting.items():\n            disk.rename(document.path, path)\n", "        disk.make_directories(f\"{self._root}/{folder}\")\n        for path, document in waiting.items():\n            disk.rename(document.path, path)\n        if final != self._path:\n            disk.make_directories(f\"{self._root}/{folder}\")\n            disk.rename(self._path, final)\n            self._path = final\n        yield (folders := folders_to_sync(self._root, folder, self._durable))\n        self._durable.update(_above(folder))\n        self._forget_others()\n", ORDER),
    Mutation("the record's folder is not synced", STAGING, "        yield folders[:1]\n", "", ORDER),
    Mutation("a record that lies ready is not finished", "archiver/stores/local.py", "        if path.suffix == RECORD_SUFFIX and came_home and any(one.exists() for one in objects):", "        if False:", ORDER),
    Mutation("a sweep records a damaged object whose successor did not come home", "archiver/stores/local.py", " and came_home and ", " and ", ORDER),
    Mutation("a sweep looks at files before their documents", "archiver/stores/local.py", "key=lambda path: (path.suffix != DOCUMENT, path.name)", "key=lambda path: path.name", ORDER),
    Mutation("a sweep records an object whose name is not durable", "archiver/stores/local.py", "                unsynced.sync()\n", "                pass\n", ORDER),
    Mutation("a sweep records an object that was mended in its place", STAGING, "        suffix = DOCUMENT if self._path == self._staged else TEMPORARY\n", "        suffix = DOCUMENT\n", ORDER),
    Mutation("a batch: bytes are not synced", STAGING, "            yield [disk.UnsyncedFile(self._path, self._descriptor), *waiting.values()]\n", "", BATCH),
    Mutation("a batch: objects are not synced", STAGING, "        yield (folders := folders_to_sync(self._root, folder, self._durable))\n", "        folders = folders_to_sync(self._root, folder, self._durable)\n", BATCH),
    Mutation("a batch: documents are not synced", STAGING, "        yield folders[:1]\n", "", BATCH),
    Mutation("a batch: each goes on by itself", "archiver/stores/local.py", "        return drive(commits, self._sync)", "        return [stored for commit in commits for stored in drive([commit], self._sync)]", BATCH),
    Mutation("a batch: commits are not closed", "archiver/stores/commit.py", "            commit.close()\n", "            pass\n", "tests/stores/test_commit.py"),
    Mutation("a batch: those that are not home pile up", "archiver/line.py", "            async for first in queue:\n                async with self._alone:\n                    pass  # those that are not home have all begun: they do not pile up\n", "            async for first in queue:\n", "tests/test_small.py"),
    Mutation("a batch: what came home before a cancellation is not told", "archiver/transfer/small.py", "    finally:  # what came home before a cancellation is told, too\n", "    except ZeroDivisionError:\n        pass\n    else:\n", "tests/test_small.py"),
    Mutation("a lane is opened beside one that failed", FILE, "                group.start_soon(self._widen, group, widening)\n", "                watches.start_soon(self._widen, group, widening)\n", LANES),
    Mutation("a batch: a backup is staged twice", "archiver/line.py", "        elif finding.transfer.stem in self._home:", "        elif False:", "tests/test_small.py"),
    Mutation("one sync: what it says is not looked at", FILESYSTEM, ".syncfs(descriptor) != 0:", ".syncfs(descriptor) is None:", SYNCS),
    Mutation("one sync: a file system that an error stopped", FILESYSTEM, "    os.fsync(descriptor)\n", "", SYNCS),
    Mutation("one sync: of two threads one is not told that it failed", FILESYSTEM, "                self._failed = error\n", "", SYNCS),
    Mutation("one sync: a second beside it is not held up", FILESYSTEM, "        with self._syncing:\n", "        if True:\n", SYNCS),
    Mutation("one sync: mounts with odd names are overlooked", FILESYSTEM, "kinds[_unescaped(fields[4])] = kind", "kinds[os.fsdecode(fields[4])] = kind", SYNCS),
    Mutation("one sync: any file system is trusted", FILESYSTEM, "        and kind_of(path) in _SYNCS_AS_A_WHOLE\n", "", SYNCS),
    Mutation("If-Match is not sent", FETCH, '            headers["If-Match"] = pin.etag', "            pass", "tests/transfer/test_fetch.py"),
    Mutation("a changed object is accepted", FETCH, "            if pin is not None:\n                check_pin(url, pin, body.answer)\n", "", f"{HOSTILE} tests/transfer/test_fetch.py"),
    Mutation("a short body is accepted", "archiver/transfer/wire.py", "        if size == 0:\n            raise SourceUnavailable(f\"{self.place.authority}: the answer ended early\")", "        if size == 0:\n            return len(block)", "tests/transfer/test_fetch.py"),
    Mutation("Content-Range is not looked at", ANSWER, "    if first != start or last != min(stop, total) - 1 or length != last - first + 1:", "    if False:", "tests/transfer/test_fetch.py"),
    Mutation("an encoded body is accepted", ANSWER, '    if headers.get("content-encoding", "identity").lower() not in ("", "identity"):', "    if False:", "tests/transfer/test_fetch.py"),
    Mutation("the declared CRC-64 is not compared", "archiver/transfer/vouch.py", "        return crc == declared", "        return True", f"{LINE} {HOSTILE}"),
    Mutation("the RDB footer is not compared", METER, "        return Footer.OK if written == self._crc else Footer.MISMATCH", "        return Footer.OK", "tests/rdb/test_meter.py"),
    Mutation("zeros behind a dump pass for its checksum", WINDOW, "self.mark == EOF_OPCODE and self.written != 0 and self.written", "self.written", "tests/rdb/test_damage.py"),
    Mutation("a dump's own checksum is not compared", INSPECTION, "    return Footer.OK if written == computed else Footer.MISMATCH", "    return Footer.OK", "tests/rdb"),
    Mutation("what lies behind a dump is overlooked", INSPECTION, "    if padding:\n", "    if False:\n", "tests/rdb/test_damage.py"),
    Mutation("an end that lies beyond the file is believed", WINDOW, "        if self.position > self.end:\n            raise Ended(self._base + self.end, \"the file ends\")\n", "", "tests/rdb/test_damage.py tests/rdb/test_contents.py"),
    Mutation("a transaction without its EXEC is kept", "archiver/rdb/commands.py", "            if not self._in_transaction:\n", "            if True:\n", "tests/rdb/test_commands.py"),
    Mutation("BackupSize is not compared", FILE, "        if pin.total != size:", "        if False:", LINE),
    Mutation("a resumed part is not read back", FILE, "            if self._crcs[part.index] in (None, crc):", "            if True:", "tests/test_resume.py"),
    Mutation("a listing is read once", TAIR, "            if pages == 1 or not found:", "            if True:", "tests/sources/test_tair.py"),
    Mutation("a backup listed twice is given twice", TAIR, "if hash(b.identity) not in seen", "if True", "tests/sources/test_tair.py"),
    Mutation("a drip is endured", "archiver/transfer/pace.py", "        if rate < self._least.bytes_per_second:", "        if False:", "tests/transfer/test_pace.py tests/test_line.py"),
    Mutation("ids are not looked at", "archiver/archive/layout.py", "    if len(text) > _MOST_ID_LENGTH or not _ID.fullmatch(text):", "    if False:", f"{LINE} tests/archive"),
    Mutation("nobody is locked out", "archiver/stores/lock.py", "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "        pass  # no lock", "tests/stores/test_local.py"),
    Mutation("leftovers are not swept", "archiver/stores/local.py", "                if why:\n                    path", "                if False:\n                    path", "tests/stores/test_local.py"),
    Mutation("a secret prints itself", "archiver/secret.py", '        return "***"', "        return self._value", "tests/test_secret.py"),
    Mutation("the library's error keeps its chain", ANSWER, '    raise SourceUnavailable(f"{url}: {why}") from None', '    raise SourceUnavailable(f"{url}: {why}") from error', "tests/transfer/test_fetch.py"),
    Mutation("a restored dump's own checksum is not looked at", COPYOUT, "    if rdb.footer is Footer.MISMATCH:", "    if False:", RESTORING),
    Mutation("the SHA-256 is not compared on the way out", COPYOUT, "    if sha256 != record.sha256:", "    if False:", RESTORING),
    Mutation("the CRC-64 is not compared on the way out", COPYOUT, "        if str(crc) != str(said):", "        if False:", RESTORING),
    Mutation("a restored file is not synced before the rename", COPYOUT, "                os.fsync(self._descriptor)\n", "                pass\n", RESTORING),
    Mutation("a restore takes any set", "archiver/archive/restoring.py", "        if found.is_complete:\n            return found, tuple", "        if True:\n            return found, tuple", RESTORING),
    Mutation("the nodes around a set are not looked at", "archiver/archive/backupsets.py", "    missing = set(missing_nodes(folder, folders))", "    missing: set[str] = set()", RESTORING),
    Mutation("SHA256SUMS is not held against the records", "archiver/archive/backupsets.py", "        for name, why in _against_sums(records, sums):", "        for name, why in ():", f"{RESTORING} {DRILL}"),
    Mutation("a drill does not mind a difference of counts", JUDGEMENT, "    if difference is not None and difference.beyond_tolerance:", "    if False:", DRILL),
    Mutation("a drill counts keys of all types together", COUNTING, "    by_type = loaded is None or (loaded.consistent and not loaded.sampled)", "    by_type = False", COUNTS),
    Mutation("expired keys are not explained", COUNTING, "    perhaps = parsed.expiries.expired_at(ended)[1]", "    perhaps = 0", COUNTS),
    Mutation("keys that should be dead are welcome", COUNTING, "    undead = max(0, least - deficit)", "    undead = 0", COUNTS),
    Mutation("a drill does not mind a missing node", JUDGEMENT, "    if backup_set.gaps or not files:", "    if not files:", DRILL),
    Mutation("a drill trusts the exit code of a server", JUDGEMENT, "    if attempt.verdict.outcome is not ServerOutcome.LOADED:", "    if attempt.verdict.outcome is not ServerOutcome.LOADED and attempt.verdict.exit_code != 0:", DRILL),
    Mutation("a drill does not mind what our parser finds", JUDGEMENT, "    if inspection.verdict in _DAMAGED:", "    if False:", DRILL),
    Mutation("a refusal of a dump with a right checksum is damage", JUDGEMENT, "        if proven and verdict.cause is not Cause.CHECKSUM:", "        if False:", DRILL),
    Mutation("an assertion on a node that did not load holds", JUDGEMENT, "    if not there or len(there) < len(results):", "    if not there:", "tests/drill/test_judgement.py"),
    Mutation("evidence is not linked to the one before", LEDGER, "        return Link(Path(keys[-1]).stem, hashlib.sha256(data).hexdigest())", "        return None", DRILL),
    Mutation("evidence is written without the lock", LEDGER, "                async with self._archive.writing():\n                    return", "                if True:\n                    return", DRILL),
    Mutation("broken evidence does not count", "archiver/drill/procedure.py", "        codes = {self.evidence.conclusion.exit_code, _INTEGRITY if self.faults else EXIT_OK}", "        codes = {self.evidence.conclusion.exit_code}", DRILL),
    Mutation("a change to a record goes unseen by a restore", "archiver/archive/backupsets.py", "        if found := contradictions(record):", "        if found := ():", f"{RESTORING} {DRILL}"),
    Mutation("a field's expiry explains the loss of any key", COUNTING, "    perhaps += min(emptied, hashes if by_type else deficit)", "    perhaps += emptied", COUNTS),
    Mutation("lost functions are overlooked", COUNTING, "    other_functions = census.libraries not in (None, contents.functions)", "    other_functions = False", COUNTS),
    Mutation("a sample is not called one", JUDGEMENT, "    if any(one.sampled for one in databases):", "    if False:", DRILL),
    Mutation("evidence is lost when the archive is busy", LEDGER, "        except (StoreError, StoreForbidden) as error:\n            return await", "        except StoreForbidden as error:\n            return await", DRILL),
    Mutation("damage that was passed over is no failure", "archiver/archive/restoring.py", "        if self.damaged or any(one.damage for one in self.passed_over):", "        if self.damaged:", RESTORING),
    Mutation("scratch is left", "archiver/drill/procedure.py", "                removed = await in_thread(workplace.remove)", "                removed = True", DRILL),
    Mutation("verify: the SHA-256 is not compared", "archiver/scrub/judge.py", "    if measured.sha256 == record.sha256:", "    if True:", SCRUB),
    Mutation("verify: the source's CRC-64 does not decide", "archiver/scrub/judge.py", '        return ["the CRC-64 of the source"] if declared == measured.crc64 else []', "        pass", "tests/scrub/test_judge.py"),
    Mutation("verify: a CRC-64 outvotes two SHA-256", "archiver/scrub/judge.py", "    if not named:\n", "    if declared is not None:\n", "tests/scrub/test_judge.py"),
    Mutation("repair: bytes of the right CRC-64 are taken", "archiver/scrub/from_archive.py", '        if said.keys() == {"the record"} and declared is not None:', "        if declared is not None:", REPAIR),
    Mutation("verify: what an earlier one saw is not compared", "archiver/scrub/judge.py", "    if claims.verified is not None and claims.verified != measured.sha256:", "    if False:", SCRUB),
    Mutation("verify: swapped files are not named", "archiver/scrub/judge.py", "    if other is not None:", "    if False:", SCRUB),
    Mutation("verify: a record's place is not compared", "archiver/archive/consistency.py", "        if said != place\n", "        if False\n", SCRUB),
    Mutation("verify: a record may contradict itself", "archiver/archive/consistency.py", "        if said != value\n", "        if False\n", SCRUB),
    Mutation("verify: what SHA256SUMS alone names is overlooked", "archiver/scrub/survey.py", "    found.named |= by_key.keys()\n", "", SCRUB),
    Mutation("verify: what was here once is forgotten", "archiver/scrub/survey.py", "sorted((found.named | before) - recorded", "sorted(found.named - recorded", SCRUB),
    Mutation("verify: sets with too few nodes pass", "archiver/scrub/verify.py", "        for folder, why in incomplete(tallies).items():", "        for folder, why in ():", SCRUB),
    Mutation("verify: the chain of evidence is not checked", "archiver/scrub/verify.py", "    await run.check_evidence()\n", "", SCRUB),
    Mutation("verify: pages are not made again", "archiver/scrub/evidence.py", "                if _is_ours(data) and", "                if False and", SCRUB),
    Mutation("verify: a time to come is trusted", "archiver/scrub/verify.py", "        return self._since <= result.at <= datetime.now(UTC) and result.size == size\n", "        return self._since <= result.at and result.size == size\n", SCRUB),
    Mutation("verify: a file of another size may be left out of a sample", "archiver/scrub/verify.py", "            doubtful = size != claims.record.size or claims.are_at_odds\n", "            doubtful = False\n", SCRUB),
    Mutation("verify: wrong once and passed over all the same", "archiver/scrub/verify.py", " or result.at is None or result.wrong_at:", " or result.at is None:", SCRUB),
    Mutation("verify: a missing object is no finding", "archiver/scrub/survey.py", "            found.findings.append(Finding(key, Fault.MISSING, text, f\"{record.size:,} bytes\"))\n", "", SCRUB),
    Mutation("verify: findings do not count for the exit code", "archiver/scrub/model.py", "        codes = {IntegrityError.exit_code} if self.findings else set[int]()", "        codes = set[int]()", SCRUB),
    Mutation("repair: what is wrong there, too, is taken", "archiver/scrub/from_archive.py", "        if wrong:\n            raise IntegrityError(f\"{theirs.key}", "        if False:\n            raise IntegrityError(f\"{theirs.key}", REPAIR),
    Mutation("repair: bytes that all here speak against are taken", "archiver/scrub/from_archive.py", "        if said and not any(said.values()):", "        if False:", REPAIR),
    Mutation("repair: the damaged object is overwritten in place", "archiver/scrub/from_archive.py", "        await put_aside(self._store, stem, measured.size)\n", "", REPAIR),
    Mutation("repair: what reads right by now is fetched again", "archiver/scrub/from_source.py", "                for stem in sorted(stems - right):", "                for stem in sorted(stems):", REPAIR),
    Mutation("repair: what was put aside is not brought back", "archiver/scrub/aside.py", "            await store.bring_back(f\"{stem}.{kind}\")", "            pass", REPAIR),
    Mutation("repair: what is repaired is not verified again", "archiver/scrub/repair.py", "findings=[f for f in summary.findings if f.folder not in wrong] + still,", "findings=[],", REPAIR),
    Mutation("seal: a record changes a line of SHA256SUMS", "archiver/archive/archive.py", "            if said != record.sha256 and", "            if False and", "tests/scrub/test_sums.py"),
    Mutation("repair: a held backup is not fetched again", "archiver/line.py", " and finding.transfer.stem not in self.options.again:", ":", REPAIR),
    Mutation("a slow connection is endured", "archiver/transfer/pace.py", "        return self._enabled and self._hedged + size <= _SPARE + self._finished // _SHARE", "        return False", "tests/transfer/test_hedge.py"),
    Mutation("bucket: no checksum is sent", f"{S3}/dialect.py", "        if self.check is Check.CRC64NVME:\n            return", "        if False:\n            return", "tests/bucket/test_pull.py"),
    Mutation("bucket: what is read back is not compared", f"{S3}/sending.py", "        if digest.hexdigest() != sha256:", "        if False:", "tests/bucket/test_pull.py"),
    Mutation("bucket: a damaged object is mended in place", f"{S3}/staging.py", "    def mends_in_place(self) -> bool:\n        return False", "    def mends_in_place(self) -> bool:\n        return True", "tests/bucket/test_home.py"),
    Mutation("bucket: a journal is believed without the store", f"{S3}/upload.py", "there.issuperset(ours)", "True", "tests/bucket/test_uploads.py"),
    Mutation("bucket: orphans stay", f"{S3}/uploads.py", "        if upload.ours and not upload.resumable:", "        if False:", "tests/bucket/test_uploads.py"),
    Mutation("bucket: the uploads of others are ended", f"{S3}/uploads.py", "        if upload.ours and not upload.resumable:", "        if not upload.resumable:", "tests/bucket/test_uploads.py"),
    Mutation("bucket: a living holder is passed over", f"{S3}/lease.py", "            raise _busy(bucket, now[0])", "            return now[1]", "tests/bucket/test_uploads.py"),
    Mutation("bucket: a lost lease is not noticed", f"{S3}/lease.py", "        if self._lost is not None:\n            raise self._lost", "        pass", "tests/bucket/test_uploads.py"),
    Mutation("a document is not synced", DISK, "        file.sync()\n", "        pass\n", ORDER),
    Mutation("new parents of a document are not synced", DISK, "        folder.sync()\n", "        pass\n", ORDER),
    Mutation("small: a flipped byte in a batch is accepted", "archiver/transfer/small.py", "        crc = int(crc64.xz(data))\n", "        crc = pin.crc64 or 0\n", "tests/transfer/test_small.py"),
    Mutation("small: a wrong length in a burst is accepted", BURST, "            if answer.pin.total != len(data):", "            if False:", WIRES),
    Mutation("small: a connection with an unread body is given back", BURST, "        if asked.reusable and asked", "        if asked", WIRES),
    Mutation("a connection with an unread body is given back", FETCH, "            if body.left == 0 and head", "            if head", WIRES),
    Mutation("lanes are not given back", FILE, "            self._shared.lanes.closed()\n", "", LANES),
    Mutation("a lane that leaves is still counted", FILE, "            self._lanes -= 1\n", "", LANES),
    Mutation("lanes are given back twice", FILE, "            self._shared.lanes.closed()\n", "            self._shared.lanes.closed()\n            self._shared.lanes.closed()\n", LANES),
    Mutation("the barrier of a batch is skipped", COMMIT, "                sync(list(waited_for))\n", "                pass\n", f"{COMMITS} {ORDER}"),
    Mutation("a batch waits for its last alone", COMMIT, "waited_for |= dict", "waited_for = dict", COMMITS),
    Mutation("the file system is not synced for many", "archiver/stores/filesystem.py", "            _syncfs(self._descriptor)\n", "            pass\n", SYNCS),
    Mutation("what is committed has not the size that was checked", STAGING, "        if size != expected:", "        if False:", ORDER),
    Mutation("a set's own folder is taken for durable", STAGING, "        self._durable.update(_above(folder))", "        self._durable.update((folder, *_above(folder)))", ORDER),
    Mutation("small: a kept connection that was interrupted is dialled over", "archiver/transfer/wire.py", "        self._check()  # its socket may be open still\n", "", "tests/transfer/test_burst.py"),
    Mutation("small: a slow line is asked for everything at once", BURST, "ahead = 1 if self.is_slow else self._most", "ahead = self._most", "tests/transfer/test_burst.py"),
    Mutation("small: connections are dialled ahead without an end", BURST, "                        if time.monotonic() >= until:\n                            break", "                        if False:\n                            break", "tests/transfer/test_burst.py"),
    Mutation("a slow disk gets more connections", FILE, "fetcher.came - came < ENOUGH * (fetcher.waits.seconds - waited)", "fetcher.came - came < ENOUGH * LOOK_SECONDS", LANES),
    Mutation("small: silence is waited for again and again", BURST, "            self.was_silent = True\n", "", "tests/transfer/test_burst.py"),
    Mutation("small: a slow head makes a slow line", BURST, "            began = time.monotonic()\n", "            began = self._sent_at\n", "tests/transfer/test_burst.py"),
    Mutation("small: what was asked for is not read when time is up", BURST, "                if not self._asked:\n", "                if not self._asked or (self._reading and time.monotonic() >= until):\n", "tests/transfer/test_burst.py"),
    Mutation("copy: what is read is not held against its record", "archiver/copying.py", "            if receipt.sha256 == record.sha256:", "            if True:", STATEFUL),
    Mutation("pull: the size of a held object is not compared", "archiver/archive/inventory.py", "        if size != record.size:", "        if size is None:", STATEFUL),
)  # fmt: skip


def survives(mutation: Mutation) -> str | None:
    """The first failing test, or None when none failed."""
    with tempfile.TemporaryDirectory() as copy:
        for name in ("archiver", "tests", "examples", "benchmarks"):
            shutil.copytree(HERE / name, Path(copy) / name)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(HERE / name, copy)
        path = Path(copy) / mutation.path
        text = path.read_text()
        if text.count(mutation.old) != 1:
            sys.exit(f"{mutation.name}: the line to break is not there once, in {mutation.path}")
        path.write_text(text.replace(mutation.old, mutation.new))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", *mutation.tests.split()],
            cwd=copy, env={**os.environ, "PYTHONPATH": copy}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1):
            sys.exit(f"{mutation.name}: the tests did not run: {done.stdout[-2000:]}{done.stderr}")
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        return failed[0].split()[1] if failed else None


def main() -> None:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    lived = 0
    print("| what was broken | what found it |\n|---|---|")
    for mutation in MUTATIONS:
        if word in mutation.name:
            found = survives(mutation)
            lived += found is None
            print(f"| {mutation.name} | {f'`{found}`' if found else '**nothing**'} |", flush=True)
    sys.exit(1 if lived else 0)


if __name__ == "__main__":
    main()
