"""Breaks the code on purpose, one line at a time, and runs the tests that should find it.

    python -m tests.mutations [WORD]     only the mutations whose name has the word

Works on copies, as many at a time as there are processors. Prints a Markdown table; exit code 1
when a mutation survives.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent.parent
# The slowest take a minute; what hangs is found as well.
MOST_SECONDS = 900


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
LINE_CODE, REPLACING_CODE = "archiver/line.py", "archiver/archive/replacing.py"
REPLACING = "tests/scrub/test_replacing.py"
S3_LISTING, S3_STAGING = "tests/stores/test_s3_listing.py", "tests/stores/test_s3_staging.py"
LINE = "tests/test_line.py"
COPYOUT, RESTORING = "archiver/archive/copyout.py", "tests/archive/test_restoring.py"
RESTORED_TWICE, BACKUP_SETS = "tests/archive/test_copyout.py", "tests/archive/test_backupsets.py"
LOGS = "tests/archive/test_logs.py"
JUDGEMENT, LEDGER = "archiver/drill/judgement.py", "archiver/drill/ledger.py"
COUNTING, COUNTS = "archiver/drill/counting.py", "tests/drill/test_counting.py"
DRILL, ASSERTIONS = "tests/drill/test_drill.py", "tests/drill/test_judgement.py"
MARKS, WORKPLACES = "archiver/drill/mark.py", "tests/drill/test_workplace.py"
SETS, HISTORIES = "archiver/archive/sets.py", "tests/archive/test_sets.py"
ONE_ANSWER = "tests/archive/test_one_answer.py"
SCRUB, REPAIR = "tests/scrub/test_verify.py", "tests/scrub/test_repair.py"
HOSTILE = "tests/faults/test_hostile.py"
THREADS = "archiver/threads.py"
WATCHING, NO_SILENCE = "archiver/cli/watching.py", "tests/cli/test_no_silence.py"
AGE_CODE, AGE = "archiver/archive/age.py", "tests/cli/test_age.py"
ENVIRONMENT = "tests/cli/test_environment.py"
HOLDER, HOLDERS = "archiver/stores/holder.py", "tests/stores/test_holder.py"
DOCUMENTS, BAD = "archiver/documents.py", "tests/scrub/test_bad_documents.py"
DECODING, KEPT_OUT = "tests/test_documents.py", "tests/cli/test_bad_documents.py"
HIDDEN, KEPT_HIDDEN = "tests/scrub/test_hidden_folders.py", "tests/cli/test_hidden_folders.py"
COPYING, LOST = "tests/test_copying.py", "tests/archive/test_lost.py"
COMING = "tests/archive/test_coming.py"
NOT_GIVEN = "tests/cli/test_not_given.py"
ODD, ODD_RUNS = "tests/stores/test_oddstore.py", "tests/bucket/test_odd_servers.py"
STREAMS = "tests/cli/test_streams.py"
EVIDENCE = "tests/cli/test_evidence.py"
POWER = "tests/faults/test_power.py"
WIRE, NETWORK, PROXIES = "archiver/transfer/wire.py", "archiver/network.py", "archiver/proxies.py"
PROXIED, HOSTS = "tests/network/test_through_a_proxy.py", "tests/network/test_hosts.py"
DIALLING, OUTAGES = "tests/network/test_dialling.py", "tests/network/test_outages.py"
GARBAGE = "tests/network/test_garbage.py"
SAYS = "tests/drill/test_what_it_says.py"
CONFINED = "tests/drill/test_server.py"
GIVEN_UP = "tests/stores/test_connections.py"
SIGNALLED = (
    "tests/cli/test_signals.py::test_a_bucket_that_does_not_answer_is_not_waited_for "
    "tests/cli/test_signals.py::test_what_does_not_end_is_left_to_the_next_run"
)
BUCKET_OUTAGES, ACCESS = "tests/bucket/test_outages.py", "tests/bucket/test_access.py"
UNSYNCED, ODD_USERS = "tests/stores/test_unsynced_folders.py", "tests/cli/test_odd_users.py"
STATEFUL = "tests/stateful/test_stateful.py::test_a_sequence_that_went_wrong_once"

VERDICTS = "tests/scrub/test_verdicts.py"
ACK = "tests/archive/test_acknowledged.py"
KNOWN = "archiver/archive/acknowledged.py"
MUTATIONS: tuple[Mutation, ...] = (
    Mutation("a record that contradicts its place is copied", "archiver/archive/reading.py", "    if wrong := contradictions(record):", "    if wrong := ():", BAD),
    Mutation("a seal names a file that is not there", "archiver/archive/archive.py", "            if sizes.get(record.object_key) != record.size:", "            if False:", BAD),
    Mutation("what is in the way of a record stays there", "archiver/scrub/from_archive.py", "            kept = await self._store.clear(key)\n", "            kept = None\n", BAD),
    Mutation("a folder with the name of a record is not listed", "archiver/stores/local.py", "(not key.endswith(_FILES) or _FOLDER.fullmatch(key)):", "True:", BAD),
    Mutation("a FIFO is opened and waited for", DISK, "    if kind := kind_at(path):", "    if kind := None:", f"{BAD} tests/stores/test_documents.py"),
    Mutation("a document is read whatever its size", DISK, "if size > most else _read(descriptor, size, most)", "if False else _read(descriptor, size, size)", "tests/stores/test_documents.py"),
    Mutation("a document in a bucket is read whatever its size", f"{S3}/bucket.py", "data = b\"\" if size > most else body.read(most + 1)", "data = body.read()", "tests/stores/test_documents.py"),
    Mutation("what keeps one file from being read ends the run", DISK, "        if error.errno not in _OF_ONE_FILE:", "        if True:", KEPT_OUT),
    Mutation("a listing ends at a folder that cannot be read", "archiver/stores/local.py", "            if folder == self.root:\n                raise\n", "            raise\n", HIDDEN),
    Mutation("a link in the place of a folder is passed over", "archiver/stores/local.py", "        if _FOLDER.fullmatch(key) or (is_link and not key.endswith(_FILES)):\n            return self._hidden(", "        if is_link and not key.endswith(_FILES):\n            return None\n        if _FOLDER.fullmatch(key):\n            return self._hidden(", KEPT_HIDDEN),
    Mutation("a listing that begins behind a link does not say so", "archiver/stores/local.py", "                if kind == disk.LINK or not (key == _EVIDENCE or key.endswith(_FILES)):", "                if False:", f"{KEPT_HIDDEN} {LOST}"),
    Mutation("a pull goes on in a folder that it cannot see", "archiver/archive/inventory.py", "        if (hiding := _hiding(month, *_keys(stem))) is not None:", "        if (hiding := None) is not None:", HIDDEN),
    Mutation("a pull does not ask where a set may be hidden", "archiver/archive/inventory.py", "            if _hiding(other, prefix) is not None:", "            if False:", HIDDEN),
    Mutation("verify does not say what hides an instance", "archiver/scrub/survey.py", '            if "/" not in entry.key and entry.is_file:', '            if "/" not in entry.key:', HIDDEN),
    Mutation("ls does not say what is hidden", "archiver/archive/catalogue.py", "                rows += [_bare_row(one.key, one.error)] if is_meant else []\n", "", KEPT_HIDDEN),
    Mutation("a restore takes an older set than one that is hidden", "archiver/archive/backupsets.py", "                folders.append(_folder(files, began, hides))\n", "                pass\n", KEPT_HIDDEN),
    Mutation("a chain of evidence is begun anew beside a hidden one", "archiver/drill/ledger.py", "                raise entry.hides", "                pass", HIDDEN),
    Mutation("a full disk stops a drill", LEDGER, "        except NoSpace as error:\n            return error\n", "        except NoSpace:\n            raise\n", EVIDENCE),
    Mutation("an archive that cannot be written stops a drill", LEDGER, "            self._instead = self._beside\n            return error\n", "            raise\n", f"{DRILL} {EVIDENCE}"),
    Mutation("evidence goes with any error that is not of the store", LEDGER, "        except ArchiverError as error:\n            return await self._keep_apart(make, error)", "        except (StoreError, ArchiveBusy) as error:\n            return await self._keep_apart(make, error)", DRILL),
    Mutation("a full directory keeps evidence out of the archive", LEDGER, "    except ArchiverError as error:\n        both", "    except ArchiveBusy as error:\n        both", f"{DRILL} {EVIDENCE}"),
    Mutation("a directory that lacks the evidence is a success", LEDGER, "trouble=both, exit_code=error.exit_code)", "trouble=both)", f"{DRILL} {EVIDENCE}"),
    Mutation("a page without room costs the evidence", LEDGER, "    except ArchiverError as error:\n        return error.message, EXIT_OK\n", "    except ArchiveBusy as error:\n        return error.message, EXIT_OK\n", DRILL),
    Mutation("evidence is written twice when its lock is not given back", LEDGER, "            if written is None:\n                raise\n", "            raise\n", DRILL),
    Mutation("a drill begins an archive where its own is gone", LEDGER, "            archive.store, lock_wait=lock_wait, beginning=Beginning.NEVER\n", "            archive.store, lock_wait=lock_wait\n", DRILL),
    Mutation("evidence that cannot be seen is as it was", "archiver/drill/procedure.py", "        codes |= set() if self.unseen is None else {self.unseen.exit_code}\n", "", DRILL),
    Mutation("evidence that is printed has no JUnit beside it", "archiver/cli/drill.py", "    if given[\"junit\"] is not None:\n        with", "    if given[\"junit\"] is not None and code != 6:\n        with", EVIDENCE),
    Mutation("a full stdout ends a run", "archiver/cli/streams.py", "            except OSError as error:\n                self.lost", "            except BlockingIOError as error:\n                self.lost", STREAMS),
    Mutation("a full stdout is a success", "archiver/cli/streams.py", "    return worst_exit_code({code, StoreError.exit_code})", "    return code", STREAMS),
    Mutation("a full stdout is not said", "archiver/cli/streams.py", "                    _say_that_it_is_lost(error)\n", "                    pass\n", STREAMS),
    Mutation("a closed stdout gives its number to a file", "archiver/cli/streams.py", "    for _ in closed:\n", "    for _ in ():\n", STREAMS),
    Mutation("a stdout that is not waited for ends a run", "archiver/cli/streams.py", "            select.select([], [self._descriptor], [])\n", "            return None  # type: ignore[return-value]\n", STREAMS),
    Mutation("evidence goes with a stdout that is gone", "archiver/cli/drill.py", "    if not is_out:\n", "    if False:\n", STREAMS),
    Mutation("a damaged archive.json is a wrong option", "archiver/archive/archive.py", "            raise DamagedArchive(\n", "            raise UnsupportedFormat(\n", KEPT_OUT),
    Mutation("a newer archive is a damaged one", "archiver/archive/archive.py", "        if number > layout.FORMAT:\n            raise UnsupportedFormat(", "        if number > layout.FORMAT:\n            raise DamagedArchive(", KEPT_OUT),
    Mutation("a newer archive is taken for one of ours", "archiver/archive/archive.py", "        if number > layout.FORMAT:\n", "        if False:\n", "tests/archive/test_archive.py"),
    Mutation("a bucket is to be mounted", "archiver/archive/archive.py", "hint=f\"{self.store.doubt} leave", "hint=\"is its disk mounted? leave", "tests/archive/test_writing.py"),
    Mutation("drill: nothing to drill is a wrong option", "archiver/drill/selection.py", "        raise NoSuchBackup(\n", "        raise __import__(\"archiver\").errors.UsageError(\n", "tests/drill/test_selection.py"),
    Mutation("what no set is called is only not there", "archiver/archive/backupsets.py", "    if layout.set_start(key) is None:\n        raise UsageError(", "    if layout.set_start(key) is None:\n        raise NoSuchBackup(", "tests/drill/test_selection.py"),
    Mutation("restore: nothing to restore is a wrong option", "archiver/archive/backupsets.py", "        raise NoSuchBackup(f\"{archive.store}: there is no backup of", "        raise UsageError(f\"{archive.store}: there is no backup of", RESTORING),
    Mutation("verify: nothing to verify is a wrong option", "archiver/scrub/verify.py", "                raise NoSuchBackup(", "                raise __import__(\"archiver\").errors.UsageError(", SCRUB),
    Mutation("what to do about a broken chain is not said", "archiver/cli/drill.py", "    if any(one.exit_code == IntegrityError.exit_code for one in drilled.faults):\n", "    if False:\n", EVIDENCE),
    Mutation("a copy goes by records alone", "archiver/archive/contents.py", "        for key in filter(layout.is_object, self.entries):\n", "        for key in ():\n", f"{COPYING} {LOST}"),
    Mutation("an object that is still coming in is damage", "archiver/archive/contents.py", "_COMING_HINT, was_recorded=False)", "_COMING_HINT)", COMING),
    Mutation("what SHA256SUMS names is still coming in", "archiver/archive/contents.py", "*, was_recorded: bool = True) -> None:", "*, was_recorded: bool = False) -> None:", f"{LOST} {COMING}"),
    Mutation("any file in a set's folder is one of its backups", "archiver/archive/layout.py", 'return is_of_a_set(key) and is_object_name(key.rpartition("/")[2])', 'return is_of_a_set(key) and key.endswith(tuple(f".{kind}" for kind in Kind))', COMING),
    Mutation("any name in SHA256SUMS wants a record", "archiver/archive/contents.py", "lacks = layout.record_key(layout.stem_of(key)) if layout.is_object(key) else key", "lacks = layout.record_key(layout.stem_of(key))", COMING),
    Mutation("the copy of a set waits for whatever SHA256SUMS names", "archiver/copying.py", "[name for name in names if layout.is_object_name(name)]", "list(names)", COMING),
    Mutation("a copy for nothing copies what came just now", "archiver/copying.py", "        self._tell_if_nothing()\n        return True\n", "        await self.all()\n        return True\n", COPYING),
    Mutation("a copy does not ask SHA256SUMS what there was", "archiver/archive/contents.py", "            doubted |= one.unrecorded(sums or ())\n", "            doubted |= one.unrecorded()\n", COPYING),
    Mutation("a copy tells of a record that comes meanwhile", "archiver/archive/contents.py", "            if not came:\n                yield unrecorded", "            if True:\n                yield unrecorded", COPYING),
    Mutation("a copy passes over what nobody sees into", "archiver/archive/contents.py", "                if wants(entry.key):\n                    yield", "                if False:\n                    yield", HIDDEN),
    Mutation("what an earlier verify saw is forgotten", "archiver/archive/contents.py", "        for key, result in self.seen.items():", "        for key, result in ():", LOST),
    Mutation("a set that only a verify knows is passed over", "archiver/archive/contents.py", "                for gone in seen.left():\n                    yield gone\n                await", "                await", LOST),
    Mutation("a month that only a verify knows is passed over", "archiver/archive/contents.py", "    async for month in seen.other_months():", "    async for month in seen.other_months() if False else ():", LOST),
    Mutation("what is hidden is called lost as well", "archiver/archive/contents.py", "self._wants(folder) and not hidden:", "self._wants(folder):", LOST),
    Mutation("a file in the place of a set hides nothing", "archiver/stores/local.py", "        if _FOLDER.fullmatch(key) or (is_link", "        if (is_link", LOST),
    Mutation("what SHA256SUMS names and has no record is a gap", "archiver/archive/backupsets.py", "        if await _has_come(archive, key):", "        if True:", f"{LOST} {RESTORING}"),
    Mutation("ls passes over what has no record", "archiver/archive/catalogue.py", "            rows.append(_damaged_row(lost.key, lost.error))\n", "            pass\n", LOST),
    Mutation("ls does not hold records against SHA256SUMS", "archiver/archive/catalogue.py", "    wrong: ArchiverError | None = at_odds(record, sums)", "    wrong: ArchiverError | None = None", LOST),
    Mutation("a pull does not read a standard set's SHA256SUMS", "archiver/archive/inventory.py", "            finding = replace(finding, transfer=replace(transfer, set_sealed=agrees))", "            pass", LOST),
    Mutation("a standard set is nothing without SHA256SUMS", "archiver/archive/backupsets.py", "    gaps, notes = (doubts, []) if folder.is_of_cluster else ([], doubts)", "    gaps, notes = doubts, list[str]()", RESTORING),
    Mutation("a mirror check does not compare SHA256SUMS", "archiver/copying.py", "        elif found := await _unsealed(target, there, one):\n            yield found\n", "", LOST),
    Mutation("a mirror check believes a changed line", "archiver/copying.py", "                yield _unusable(archive, record.object_key, odds)\n            yield _Usable", "                pass\n            yield _Usable", LOST),
    Mutation("a copy believes a changed line", "archiver/copying.py", "            self._observer(events.Failed(key, odds, backup))", "            pass", LOST),
    Mutation("an archive is copied into itself", "archiver/archive/archive.py", "    if one[: len(other)] == other or other[: len(one)] == one:", "    if False:", LOST),
    Mutation("an archive is begun for nothing", "archiver/copying.py", "    if not await target.check_place() and await run.is_for_nothing():", "    if False:", LOST),
    Mutation("what the disk does not give is asked for again", "archiver/transfer/stored.py", "            except UnreadableObject:\n                raise  # to ask", "            except ZeroDivisionError:\n                raise  # to ask", NOT_GIVEN),
    Mutation("a restore ends at an object that the disk does not give", "archiver/archive/restoring.py", "            except (IntegrityError, UnreadableObject) as error:\n                damage", "            except IntegrityError as error:\n                damage", NOT_GIVEN),
    Mutation("the list of restore does not look for an archive", "archiver/cli/restore.py", "    await archive.expect()\n    async for", "    async for", NOT_GIVEN),
    Mutation("a pull fetches again what the disk does not give", "archiver/line.py", "        if finding.unreadable is not None and not is_repaired:", "        if False:", BAD),
    Mutation("true is a number", DOCUMENTS, "        if isinstance(value, bool) or not isinstance(value, int):", "        if not isinstance(value, int):", DECODING),
    Mutation("a name twice in one object", DOCUMENTS, "    if len(found) != len(pairs):", "    if False:", DECODING),
    Mutation("numbers of any length", DOCUMENTS, "    if len(text) > MOST_DIGITS + 1:", "    if False:", DECODING),
    Mutation("nested as deep as it likes", DOCUMENTS, "    for _ in range(MOST_DEPTH):", "    for _ in range(MOST_DEPTH * 1000):", DECODING),
    Mutation("names with a NUL", DOCUMENTS, "[\\x00-\\x1f", "[\\x01-\\x1f", f"{DECODING} {BAD}"),
    Mutation("times beyond what can be reckoned with", DOCUMENTS, "    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:", "    if False:", DECODING),
    Mutation("data is not synced before the journal", STAGING, "                os.fdatasync(self._descriptor)\n", "                pass\n", ORDER),
    Mutation("the journal is not synced", STAGING, "            os.fdatasync(self._log)\n", "", ORDER),
    Mutation("data is not synced before the rename", STAGING, "            yield [file, *waiting.values(), staging, *self._parents()]\n", "            yield [*waiting.values(), staging, *self._parents()]\n", ORDER),
    Mutation("the directory is not synced after the rename", STAGING, "        yield named\n        self._forget_others(final)\n", "        self._forget_others(final)\n", ORDER),
    Mutation("a record is not synced", STAGING, "            yield [file, *waiting.values(), staging, *self._parents()]\n", "            yield [file, staging, *self._parents()]\n", ORDER),
    Mutation("new parents are not synced", STAGING, "            yield [file, *waiting.values(), staging, *self._parents()]\n", "            yield [file, *waiting.values(), staging]\n", ORDER),
    Mutation("the record gets its name before the object", STAGING, "        self._make_way(final)\n        self._check_staged()\n        disk.rename(self._staged, final)\n        self._has_come_home = True\n        yield from self._bring_documents(final, waiting)\n        return replace(", "        yield from self._bring_documents(final, waiting)\n        disk.rename(self._staged, final)\n        return replace(", ORDER),
    Mutation("the record's folder is not synced", STAGING, "        yield named\n\n", "\n", ORDER),
    Mutation("a record that lies ready is not finished", "archiver/stores/local.py", "        if not self._came_home(document, path):", "        if True:", ORDER),
    Mutation("a sweep records a damaged object whose successor did not come home", "archiver/stores/local.py", "            and (not os.path.lexists(staged) or _is_same(home, staged))\n", "", ORDER),
    Mutation("a sweep does not know a file by its other name", "archiver/stores/local.py", "(not os.path.lexists(staged) or _is_same(home, staged))", "not os.path.lexists(staged)", ORDER),
    Mutation("a sweep takes what others keep there", STAGING, "    return _OURS.fullmatch(name) is not None", "    return True", ORDER),
    Mutation("a sweep looks at files before their documents", "archiver/stores/local.py", "    return path.suffix != DOCUMENT, not about_a_record, path.name", "    return path.suffix == DOCUMENT, not about_a_record, path.name", ORDER),
    Mutation("a sweep records an object whose name is not durable", "archiver/stores/local.py", "            unsynced.sync()\n", "            pass\n", ORDER),
    Mutation("a sweep records an object that was in its place before", STAGING, "        suffix = TEMPORARY if self._present else DOCUMENT\n", "        suffix = DOCUMENT\n", ORDER),
    Mutation("a batch: bytes are not synced", STAGING, "            yield [file, *waiting.values(), staging, *self._parents()]\n", "", BATCH),
    Mutation("a batch: objects are not synced", STAGING, "        yield named\n        self._forget_others(final)\n", "        self._forget_others(final)\n", BATCH),
    Mutation("a batch: documents are not synced", STAGING, "        yield named\n\n", "\n", BATCH),
    Mutation("a batch: each goes on by itself", "archiver/stores/local.py", "        return drive(commits, sync)", "        return [stored for commit in commits for stored in drive([commit], sync)]", BATCH),
    Mutation("a batch: commits are not closed", "archiver/stores/commit.py", "            commit.close()\n", "            pass\n", "tests/stores/test_commit.py"),
    Mutation("a batch: those that are not home pile up", "archiver/line.py", "            async for first in queue:\n                async with self._alone:\n                    pass  # those that are not home have all begun: they do not pile up\n", "            async for first in queue:\n", "tests/test_small.py"),
    Mutation("a batch: what came home before a cancellation is not told", "archiver/transfer/small.py", "    finally:  # what came home before a cancellation is told, too\n", "    except ZeroDivisionError:\n        pass\n    else:\n", "tests/test_small.py"),
    Mutation("a lane is opened beside one that failed", FILE, "                group.start_soon(self._widen, group, widening)\n", "                watches.start_soon(self._widen, group, widening)\n", LANES),
    Mutation("a batch: a backup is staged twice", "archiver/line.py", "        elif finding.transfer.stem in self._home:", "        elif False:", "tests/test_small.py"),
    Mutation("one sync: what it says is not looked at", FILESYSTEM, ".syncfs(descriptor) != 0:", ".syncfs(descriptor) is None:", SYNCS),
    Mutation("one sync: a file system that an error stopped", FILESYSTEM, "    disk.sync_folder(descriptor, folder)\n", "", SYNCS),
    Mutation("one sync: of two threads one is not told that it failed", FILESYSTEM, "                self._failed = error\n", "", SYNCS),
    Mutation("one sync: a second beside it is not held up", FILESYSTEM, "        with self._syncing:\n", "        if True:\n", SYNCS),
    Mutation("one sync: mounts with odd names are overlooked", FILESYSTEM, "kinds[unescaped(fields[4])] = kind", "kinds[os.fsdecode(fields[4])] = kind", SYNCS),
    Mutation("one sync: any file system is trusted", FILESYSTEM, "        and kind_of(path) in _SYNCS_AS_A_WHOLE\n", "", SYNCS),
    Mutation("If-Match is not sent", FETCH, '            headers["If-Match"] = pin.etag', "            pass", "tests/transfer/test_fetch.py"),
    Mutation("a changed object is accepted", FETCH, "            if pin is not None:\n                check_pin(asked, pin, body.answer)\n", "", f"{HOSTILE} tests/transfer/test_fetch.py"),
    Mutation("a short body is accepted", "archiver/transfer/wire.py", "        if size == 0:\n            raise SourceUnavailable(", "        if size == 0:\n            return len(block)\n            raise SourceUnavailable(", "tests/transfer/test_fetch.py"),
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
    Mutation("a resumed part is not read back", FILE, "            if self._crcs[part.index] == crc:", "            if True:", "tests/test_resume.py"),
    Mutation("a listing is read once", TAIR, "            if pages == 1 or not found:", "            if True:", "tests/sources/test_tair.py"),
    Mutation("a backup listed twice is given twice", TAIR, "if hash(b.identity) not in seen", "if True", "tests/sources/test_tair.py"),
    Mutation("a drip is endured", "archiver/transfer/pace.py", "        if rate < self._least.bytes_per_second:", "        if False:", "tests/transfer/test_pace.py tests/test_line.py"),
    Mutation("ids are not looked at", "archiver/fields.py", "    if len(text) > _MOST_ID_LENGTH or not ID.fullmatch(text) or is_litter(text):", "    if False:", f"{LINE} tests/archive"),
    Mutation("nobody is locked out", "archiver/stores/lock.py", "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "        pass  # no lock", "tests/stores/test_local.py"),
    Mutation("leftovers are not swept", "archiver/stores/local.py", "                if why:\n                    self._check_lock()", "                if False:\n                    self._check_lock()", "tests/stores/test_local.py"),
    Mutation("a secret prints itself", "archiver/secret.py", '        return "***"', "        return self._value", "tests/test_secret.py"),
    Mutation("the library's error keeps its chain", ANSWER, '    raise SourceUnavailable(f"{asked}: {why}") from None', '    raise SourceUnavailable(f"{asked}: {why}") from error', "tests/transfer/test_fetch.py"),
    Mutation("a restored dump's own checksum is not looked at", COPYOUT, "    if rdb.footer is Footer.MISMATCH:", "    if False:", RESTORING),
    Mutation("the SHA-256 is not compared on the way out", COPYOUT, "    if sha256 != record.sha256:", "    if False:", RESTORING),
    Mutation("the CRC-64 is not compared on the way out", COPYOUT, "        if str(crc) != str(said):", "        if False:", RESTORING),
    Mutation("a restored file is not synced before the rename", COPYOUT, "        disk.sync_file(self._descriptor, self._path)\n", "        pass\n", RESTORING),
    Mutation("a restore takes any set", "archiver/archive/restoring.py", "            if found.is_complete:\n", "            if True:\n", RESTORING),
    Mutation("a damaged set is passed over unasked", "archiver/archive/restoring.py", "            if not found.damage or skip_damaged:\n", "            if True:\n", RESTORING),
    Mutation("a node is named before the others are checked", "archiver/archive/restoring.py", "            if staged and (self.partial or not damage):\n", "            if staged:\n", RESTORING),
    Mutation("what was staged of a damaged set stays", "archiver/archive/restoring.py", "                    await in_thread(one.discard)\n", "                    pass\n", RESTORING),
    Mutation("a lock is believed though its file was named", COPYOUT, "                if _names(path, descriptor):\n", "                if True:\n", RESTORED_TWICE),
    Mutation("a name given away meanwhile is taken", COPYOUT, "            if os.path.lexists(self._target):\n", "            if False:\n", RESTORED_TWICE),
    Mutation("a copy that was taken away is named", COPYOUT, "            if not _names(self._path, self._descriptor):\n", "            if False:\n", RESTORED_TWICE),
    Mutation("what an earlier copy left is not checked", COPYOUT, "    return _check(record, meter, crc) if meter.sha256() == record.sha256 else None\n", "    return meter.verdict(is_log=record.is_log)\n", RESTORING),
    Mutation("a log is told by its suffix", "archiver/archive/backup_types.py", "    if said in set(BackupType):\n", "    if False:\n", BACKUP_SETS),
    Mutation("an unreadable record is taken for a log", "archiver/archive/backup_types.py", "            with suppress(ArchiverError):\n", "            found.add(key)\n            with suppress(ArchiverError):\n", BACKUP_SETS),
    Mutation("a record at odds with itself says what is a log", "archiver/archive/backup_types.py", " and not contradictions(record):", ":", BACKUP_SETS),
    Mutation("an empty dump is complete", "archiver/archive/backup_types.py", "        elif of_it is BackupType.FULL and record.size == 0:\n", "        elif False:\n", BACKUP_SETS),
    Mutation("a node with a log alone is complete", "archiver/archive/backup_types.py", "        if set(types) == {BackupType.INCREMENTAL}:\n", "        if False:\n", BACKUP_SETS),
    Mutation("a newer log is chosen before a dump", "archiver/archive/backupsets.py", "    return not is_log, record.started_at, record.key\n", "    return is_log, record.started_at, record.key\n", BACKUP_SETS),
    Mutation("logs are neighbours of dumps in ls", "archiver/archive/catalogue.py", "        return self.type == BackupType.INCREMENTAL\n", "        return False\n", BACKUP_SETS),
    Mutation("a log has to end as a dump does", METER, "        if footer is Footer.MISMATCH and (is_log or self._is_preamble()):\n", "        if footer is Footer.MISMATCH and self._is_preamble():\n", "tests/rdb/test_meter.py"),
    Mutation("a dump may be cut as a log may", METER, "        if footer is Footer.MISMATCH and (is_log or self._is_preamble()):\n", "        if footer is Footer.MISMATCH:\n", "tests/rdb/test_meter.py"),
    Mutation("a verify takes a cut log for a damaged dump", "archiver/archive/measure.py", "    kind, rdb = meter.verdict(is_log=is_log)\n", "    kind, rdb = meter.verdict(is_log=False)\n", LOGS),
    Mutation("a pull takes a cut log for a damaged dump", "archiver/transfer/vouch.py", "    kind, rdb = meter.verdict(is_log=backup.is_log)\n", "    kind, rdb = meter.verdict(is_log=False)\n", LOGS),
    Mutation("a command for a log that no server loads", "archiver/archive/instructions.py", "    return log.verdict in _REFUSED or within_preamble\n", "    return log.verdict in _REFUSED\n", LOGS),
    Mutation("commands of a cut transaction count", "archiver/rdb/commands.py", "                self._good_commands = self._commands\n", "            self._good_commands = self._commands\n", "tests/rdb/test_commands.py"),
    Mutation("a full backup may be cut in a drill", "archiver/drill/judgement.py", "    may_be_cut = is_log and inspection", "    may_be_cut = inspection", "tests/drill/test_logs.py"),
    Mutation("the nodes around a set are not looked at", "archiver/archive/backupsets.py", "    missing = set(folders.missing_nodes(folder))", "    missing: set[str] = set()", RESTORING),
    Mutation("a node missing two nights running goes unseen", SETS, "    after = min((number for number in has if number > place), default=None)\n    if before is None:", "    after = min((number for number in has if number > place + 1), default=None)\n    if before is None:", HISTORIES),
    Mutation("a node that was removed is missing for ever", SETS, "    if _was_removed(left, lacking):\n        return None\n", "", HISTORIES),
    Mutation("a node that is gone is removed at once", SETS, "    if back is not None:\n        return f", "    if True:\n        return back and f", HISTORIES),
    Mutation("a cluster that grew makes older sets incomplete", SETS, "        return None  # added to the cluster\n", "        pass\n", HISTORIES),
    Mutation("any new node passes for one that is gone", SETS, "    return 0 < len(went) == len(came)\n", "    return 0 < len(went) <= len(came)\n", HISTORIES),
    Mutation("shards with folders of their own lack each other", SETS, "            if backup.takes(one):", "            if False:", HISTORIES),
    Mutation("a pull compares with what it lists alone", "archiver/archive/setbook.py", "        unfinished = incomplete(self._sets, around)\n", "        unfinished = incomplete(self._sets)\n", ONE_ANSWER),
    Mutation("ls compares with what is listed alone", "archiver/archive/catalogue.py", "        for key, why in incomplete(tallies, known[instance_id]).items():", "        for key, why in incomplete(tallies).items():", ONE_ANSWER),
    Mutation("a set that may lack a node is never sealed", "archiver/line.py", "            if one.has_all:\n", "            if one.has_all and one.why is None:\n", ONE_ANSWER),
    Mutation("SHA256SUMS is not held against the records", "archiver/archive/backupsets.py", "        if (odds := at_odds(record, sums)) is not None\n    ]", "        if (odds := at_odds(record, {})) is not None\n    ]", f"{LOST} {RESTORING} {DRILL}"),
    Mutation("a drill does not mind a difference of counts", JUDGEMENT, "    if difference is not None and difference.beyond_tolerance:", "    if False:", DRILL),
    Mutation("a drill counts keys of all types together", COUNTING, "    by_type = loaded is None or (loaded.consistent and not loaded.sampled)", "    by_type = False", COUNTS),
    Mutation("expired keys are not explained", COUNTING, "    perhaps = parsed.expiries.expired_at(ended)[1]", "    perhaps = 0", COUNTS),
    Mutation("keys that should be dead are welcome", COUNTING, "    undead = max(0, least - deficit)", "    undead = 0", COUNTS),
    Mutation("a drill does not mind a missing node", JUDGEMENT, "    if backup_set.gaps or not files:", "    if not files:", DRILL),
    Mutation("a drill trusts the exit code of a server", JUDGEMENT, "    if attempt.verdict.outcome is not ServerOutcome.LOADED:", "    if attempt.verdict.outcome is not ServerOutcome.LOADED and attempt.verdict.exit_code != 0:", DRILL),
    Mutation("a drill does not mind what our parser finds", JUDGEMENT, "    if inspection.verdict in _DAMAGED and not may_be_cut:", "    if False:", DRILL),
    Mutation("a refusal of a dump with a right checksum is damage", JUDGEMENT, "        if proven and verdict.cause is not Cause.CHECKSUM:", "        if False:", DRILL),
    Mutation("an assertion on a node that did not load holds", JUDGEMENT, "    if not there or len(there) < len(results):", "    if not there:", ASSERTIONS),
    Mutation("a node without the key has a say in an assertion", JUDGEMENT, "    having = [one for one in there if one.has_key]\n", "    having = there\n", ASSERTIONS),
    Mutation("of several nodes that have a key one is enough", JUDGEMENT, "    decisive = min(having or there", "    decisive = max(having or there", ASSERTIONS),
    Mutation("a key that is not there has a length of 0", "archiver/drill/assertions.py", '        if not await client.ask("EXISTS", key):\n', "        if answer is None:\n", "tests/drill/test_assertions.py"),
    Mutation("a node without a file in the set is asked nothing", "archiver/drill/procedure.py", "        results += [()] * len(backup_set.missing)\n", "", DRILL),
    Mutation("a drill removes what has no mark", MARKS, "        raise NotOurs(\"it has no mark of a drill\") from None\n", "        return Maker(\"\", \"\", 0, 0)\n", WORKPLACES),
    Mutation("a drill believes a mark that was copied", MARKS, "    if (document[\"name\"], document[\"inode\"]) != (name, inode):", "    if False:", WORKPLACES),
    Mutation("a drill follows a mark that is a link", MARKS, "        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "        flags = os.O_RDONLY | os.O_NONBLOCK", WORKPLACES),
    Mutation("a drill removes what lives on another machine", MARKS, "        if kind in _OF_ONE_MACHINE:\n", "        if True:\n", WORKPLACES),
    Mutation("a drill removes what a living process made", MARKS, " and now[1] == self.began:", " and False:", WORKPLACES),
    Mutation("a drill takes a number that was given again for its maker", MARKS, " and now[1] == self.began:", ":", WORKPLACES),
    Mutation("a drill removes what is locked", "archiver/drill/workplace.py", "        except BlockingIOError:\n            return False\n", "        except BlockingIOError:\n            pass\n", WORKPLACES),
    Mutation("a drill removes the mark before the rest", "archiver/drill/workplace.py", "            if name != MARK:\n", "            if True:\n", WORKPLACES),
    Mutation("evidence is not linked to the one before", LEDGER, "                return last, Link(Path(key).stem, hashlib.sha256(data).hexdigest())", "                return last, None", DRILL),
    Mutation("evidence is written without the lock", LEDGER, "        return self._archive.writing(self._observe)\n", "        return __import__(\"contextlib\").nullcontext()\n", DRILL),
    Mutation("broken evidence does not count", "archiver/drill/procedure.py", "        codes = {self.evidence.conclusion.exit_code, *(one.exit_code for one in self.faults)}", "        codes = {self.evidence.conclusion.exit_code}", DRILL),
    Mutation("a change to a record goes unseen by a restore", "archiver/archive/reading.py", "    if wrong := contradictions(record):", "    if wrong := ():", f"{RESTORING} {DRILL}"),
    Mutation("a field's expiry explains the loss of any key", COUNTING, "    perhaps += min(emptied, hashes if by_type else deficit)", "    perhaps += emptied", COUNTS),
    Mutation("lost functions are overlooked", COUNTING, "    other_functions = census.libraries not in (None, contents.functions)", "    other_functions = False", COUNTS),
    Mutation("a sample is not called one", JUDGEMENT, "    if any(one.sampled for one in databases):", "    if False:", DRILL),
    Mutation("evidence is lost when the archive is busy", LEDGER, "        except ArchiverError as error:\n            return await", "        except StoreError as error:\n            return await", DRILL),
    Mutation("damage that was passed over is no failure", "archiver/archive/restoring.py", "        damage = [*self.damage, *(d for one in self.passed_over for d in one.damage)]", "        damage = [*self.damage]", RESTORING),
    Mutation("scratch is left", "archiver/drill/procedure.py", "                removed = await in_thread_anyway(workplace.remove)", "                removed = True", DRILL),
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
    Mutation("verify: sets with too few nodes pass", "archiver/scrub/verify.py", "        for folder, lacks in missing_nodes(sets).items():", "        for folder, lacks in ():", SCRUB),
    Mutation("verify: the chain of evidence is not checked", "archiver/scrub/verify.py", "    await run.check_evidence()\n", "", SCRUB),
    Mutation("verify: pages are not made again", "archiver/scrub/evidence.py", " and version == __version__:", " and False:", SCRUB),
    Mutation("verify: a time to come is trusted", "archiver/scrub/verify.py", "        return self._since <= result.at <= datetime.now(UTC) and result.size == size\n", "        return self._since <= result.at and result.size == size\n", SCRUB),
    Mutation("verify: a file of another size may be left out of a sample", "archiver/scrub/verify.py", "            doubtful = size != claims.record.size or claims.are_at_odds\n", "            doubtful = False\n", SCRUB),
    Mutation("verify: wrong once and passed over all the same", "archiver/scrub/verify.py", " or result.at is None or result.wrong_at:", " or result.at is None:", SCRUB),
    Mutation("verify: a missing object is no finding", "archiver/scrub/survey.py", "            found.findings.append(Finding(key, Fault.MISSING, text, f\"{record.size:,} bytes\"))\n", "", SCRUB),
    Mutation("verify: findings do not count for the exit code", "archiver/scrub/model.py", "        codes = {finding.exit_code for finding in self.findings}", "        codes = set[int]()", SCRUB),
    Mutation("repair: what is wrong there, too, is taken", "archiver/scrub/from_archive.py", "        if wrong := judge(Claims(theirs, sums), measured):", "        if wrong := ():", REPAIR),
    Mutation("repair: bytes that all here speak against are taken", "archiver/scrub/from_archive.py", "        if said and not any(said.values()):", "        if False:", REPAIR),
    Mutation("what has another name is written to", STAGING, "or status.st_nlink > 1:", "or False:", ORDER),
    Mutation("a document that was left is written to", DISK, "_TO_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC", "_TO_MAKE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC", ORDER),
    Mutation("notes of parts are taken all at once", STAGING, "b\"\".join(self._unnoted.popleft() for _ in range(len(self._unnoted)))", "b\"\".join(self._unnoted); self._unnoted.clear()", ORDER),
    Mutation("what has a name is replaced whoever speaks for it", REPLACING_CODE, "    if said and not for_new and not forced and _outweigh(said, own, receipt):", "    if False:", REPLACING),
    Mutation("one changed digit of a verify keeps a lost log away", REPLACING_CODE, "(receipt.is_vouched_for and not own)", "False", REPLACING),
    Mutation("one word of a verify counts for nothing", REPLACING_CODE, "(receipt.is_vouched_for and not own)", "not own", REPLACING),
    Mutation("what is replaced is not kept", REPLACING_CODE, "        if _may_be_wanted(present.get(key), size, receipt, is_certain=certain):", "        if False:", f"{REPLACING} {REPAIR}"),
    Mutation("unproven bytes in their place are recorded", "archiver/transfer/vouch.py", "    return measured.rdb.footer is Footer.OK\n", "    return True\n", REPLACING),
    Mutation("parts are resumed of a source that names no version", FILE, "        if not _is_pinned(resumable.pin):", "        if False:", REPLACING),
    Mutation("one that does not fit ends the run", "archiver/errors.py", "    ends_run = False\n\n\n# 7", "    ends_run = True\n\n\n# 7", REPLACING),
    Mutation("a full disk begins more", LINE_CODE, "                if self._full is None:\n                    await self._bring_one(book", "                if True:\n                    await self._bring_one(book", REPLACING),
    Mutation("a copy overwrites what says something else", "archiver/copying.py", "        if difference is Difference.OTHER and not self._options.replace:", "        if False:", REPLACING),
    Mutation("a copy doubles a set", "archiver/copying.py", "_described(record), await inventory.folder_for(record)", "_described(record), record.folder", REPLACING),
    Mutation("a range's end is in it", "archiver/archive/layout.py", "    return first < range_.end and", "    return first <= range_.end and", REPLACING),
    Mutation("repair: what an earlier verify saw is believed", "archiver/scrub/repair.py", "    await forget(archive.store, supplied.confirmed)\n", "", REPAIR),
    Mutation("repair: our record is kept though the bytes contradict it", "archiver/scrub/from_archive.py", "        trusted = theirs if ours is None or judge(Claims(ours), measured) else ours", "        trusted = theirs if ours is None or ours.sha256 != measured.sha256 else ours", REPAIR),
    Mutation("repair: an instance that is gone stops all", "archiver/scrub/from_source.py", "                if error.ends_run:\n                    raise", "                raise", REPAIR),
    Mutation("seal: a damaged line of a lost node is dropped", "archiver/archive/archive.py", "        if left:\n            raise BadDocument(", "        if False:\n            raise BadDocument(", "tests/scrub/test_sums.py"),
    Mutation("seal: a name that the other archive has is dropped", "archiver/archive/archive.py", "            named = {**mending.others, **named}\n", "", "tests/scrub/test_sums.py"),
    Mutation("seal: bytes that nobody can read are no line", "archiver/archive/sums.py", "        return left if dark < self.room + _FEWEST_OF_A_LINE else [", "        return left if True else [", "tests/scrub/test_sums.py"),
    Mutation("seal: zero bytes are no line", "archiver/archive/sums.py", "    return Salvage(found, tuple(unreadable), zeros)", "    return Salvage(found, tuple(unreadable))", "tests/scrub/test_sums.py"),
    Mutation("seal: no unreadable line is that of a file that is here", "archiver/archive/sums.py", "    return Unexplained(tuple(left), max(room, 0))", "    return Unexplained(tuple(left), 0)", "tests/scrub/test_sums.py"),
    Mutation("seal: a stump beside the whole line stays for ever", "archiver/archive/sums.py", "        elif not _is_a_stump(rest, named or {}):", "        else:", "tests/scrub/test_sums.py"),
    Mutation("a SHA256SUMS that lost its end is read", "archiver/archive/sums.py", "    if lines.pop() != \"\":\n        return None\n", "    if lines[-1] == \"\":\n        lines.pop()\n", "tests/scrub/test_sums.py"),
    Mutation("seal: a name that no backup can have is kept", "archiver/archive/archive.py", "            await check_names(self.store, folder, sums, hint=hint)\n", "", "tests/scrub/test_sums.py"),
    Mutation("SHA256SUMS may name what no backup can be called", "archiver/archive/reading.py", "    await check_names(store, folder, sums, hint=_ANEW)\n", "", "tests/scrub/test_sums.py"),
    Mutation("SHA256SUMS may not name other files that are there", "archiver/archive/reading.py", "        if not is_there:", "        if True:", "tests/scrub/test_sums.py"),
    Mutation("seal: names of other files that are there are damage", "archiver/archive/archive.py", "            if not layout.is_object_name(name) and name not in there", "            if not layout.is_object_name(name)", "tests/scrub/test_sums.py"),
    Mutation("seal: damaged lines are compared by their number", "archiver/archive/sums.py", "        if wrong <= _FEW_BYTES:", "        if True:", "tests/scrub/test_sums.py"),
    Mutation("repair: what was not brought and leaves no trace is right", "archiver/scrub/repair.py", "    still += await _lost(", "    await _lost(", REPAIR),
    Mutation("copy --replace: the line of what was replaced stays", "archiver/copying.py", "self._target.seal(folder, confirmed=replaced)", "self._target.seal(folder)", REPLACING),
    Mutation("copy --replace: what a verify saw before stays", "archiver/copying.py", "        await forget(self._target.store, replaced)\n", "", REPLACING),
    Mutation("copy --replace: an interrupted one is never finished", "archiver/copying.py", "await self._is_outvoted(record, folder)", "False", REPLACING),
    Mutation("verify says to move out what hides a folder", "archiver/scrub/findings.py", "    fault = Fault.UNREADABLE if is_unread else Fault.HIDDEN", "    fault = Fault.UNREADABLE if is_unread else Fault.STRAY", HIDDEN),
    Mutation("verify misses what is behind a link", "archiver/scrub/verify.py", "self._options.wants(f) and not self._is_hidden(f)", "self._options.wants(f)", HIDDEN),
    Mutation("repair does not say that a link is there", "archiver/scrub/repair.py", "        not_repaired=hidden\n", "        not_repaired=[]\n", HIDDEN),
    Mutation("what keeps many backups away is told for each", WATCHING, "            if more >= 0:\n                return\n", "", KEPT_HIDDEN),
    Mutation("nobody is told what an object had to make way for", STAGING, "        return replace(stored, cleared=tuple(self._cleared))", "        return stored", REPLACING),
    Mutation("what is in an object's place is called missing", "archiver/archive/inventory.py", "    named_already = finding.damage is not None and finding.in_the_way\n", "    named_already = finding.damage is not None\n", REPLACING),
    Mutation("nobody says how to be rid of a bogus line", "archiver/scrub/survey.py", "            cure = NAMED_ALONE\n", "            cure = None\n", "tests/scrub/test_sums.py"),
    Mutation("misplaced: what is at its own place is not read", "archiver/scrub/misplaced.py", "        return measured.sha256 == record.sha256", "        return True", "tests/scrub/test_misplaced.py"),
    Mutation("a name beside a standard set's record is a node", "archiver/archive/neighbours.py", "        nodes = frozenset({instance})", "        pass", "tests/archive/test_sets.py"),
    Mutation("a double that may not be moved ends the repair", "archiver/scrub/misplaced.py", "        except StoreForbidden as error:  # it stays, and keeps nothing else from being mended\n", "        except ZeroDivisionError as error:\n", "tests/scrub/test_misplaced.py"),
    Mutation("a set lies in a folder of another time", "archiver/archive/consistency.py", "    return difference if difference <= _MOST_APART else None", "    return difference", "tests/archive/test_archive.py"),
    Mutation("a set lies in the wrong month's folder", "archiver/archive/consistency.py", "    if start is None or folder.split(\"/\")[1:3] != f\"{start:%Y/%m}\".split(\"/\"):", "    if start is None:", "tests/archive/test_archive.py"),
    Mutation("a set of another night is called its own", "archiver/archive/consistency.py", "_MOST_APART = timedelta(hours=12)", "_MOST_APART = timedelta(days=1)", "tests/scrub/test_misplaced.py"),
    Mutation("a set across the end of a month is looked for in one", "archiver/archive/inventory.py", "            near += [(other, folder) for folder in other.folders[job]]", "            pass", "tests/scrub/test_misplaced.py"),
    Mutation("misplaced: the right object is moved away with a stray record", "archiver/scrub/misplaced.py", "            return await read_record(self._store, layout.record_key(stem)) is None", "            return True", "tests/scrub/test_misplaced.py"),
    Mutation("misplaced: a damaged double stays", "archiver/scrub/misplaced.py", "        if await self._is_its_own(record, right):", "        if await self._is_its_own(record, right) and await self._is_whole(record):", "tests/scrub/test_misplaced.py"),
    Mutation("misplaced: what was seen of an object that stays is forgotten", "archiver/scrub/misplaced.py", "{stem for stem in stems if not await self._has_object(stem)}", "stems", "tests/scrub/test_misplaced.py"),
    Mutation("misplaced: SHA256SUMS of a moved set stays", "archiver/scrub/misplaced.py", "                        await self._move(there[0])", "                        pass", "tests/scrub/test_misplaced.py"),
    Mutation("misplaced: nobody says where the only copy belongs", "archiver/scrub/repair.py", "        one.belongs = misplaced.belongs", "        one.belongs = {}", "tests/scrub/test_misplaced.py"),
    Mutation("seal: a name is dropped", "archiver/archive/archive.py", "        named = kept | recorded", "        named = recorded", f"{REPAIR} tests/scrub/test_sums.py"),
    Mutation("repair: what reads right by now is fetched again", "archiver/scrub/from_source.py", "            again=stems - await _right_by_now(archive, wrong, listing.stems, observer),", "            again=stems,", REPAIR),
    Mutation("repair: what is repaired is not verified again", "archiver/scrub/repair.py", "findings=[f for f in summary.findings if f.folder not in wrong] + still,", "findings=[],", REPAIR),
    Mutation("seal: a record changes a line of SHA256SUMS", "archiver/archive/archive.py", "            if record.sha256 not in said and", "            if False and", "tests/scrub/test_sums.py"),
    Mutation("repair: a held backup is not fetched again", "archiver/line.py", " and finding.transfer.stem not in self.options.again:", ":", REPAIR),
    Mutation("a slow connection is endured", "archiver/transfer/pace.py", "        return self._enabled and self._hedged + size <= _SPARE + self._finished // _SHARE", "        return False", "tests/transfer/test_hedge.py"),
    Mutation("bucket: no checksum is sent", f"{S3}/dialect.py", "        if self.check is Check.CRC64NVME:\n            return", "        if False:\n            return", "tests/bucket/test_pull.py"),
    Mutation("bucket: what is read back is not compared", f"{S3}/sending.py", "        if self.sha256(key) != sha256:", "        if False:", "tests/bucket/test_pull.py"),
    Mutation("bucket: a damaged object is mended in place", f"{S3}/staging.py", "    def mends_in_place(self) -> bool:\n        return False", "    def mends_in_place(self) -> bool:\n        return True", S3_STAGING),
    Mutation("bucket: a journal is believed without the store", f"{S3}/upload.py", "there.issuperset(ours)", "True", "tests/bucket/test_uploads.py"),
    Mutation("a cancelled task leaves its thread", THREADS, "        if not ended.cancel():\n            abandoned.set()\n            await _ended(asyncio.wrap_future(ended))\n        raise", "        raise", "tests/test_threads.py"),
    Mutation("a second cancellation leaves the thread", THREADS, "                cancelled = cancelled or error\n", "                raise\n", "tests/test_threads.py"),
    Mutation("what was entered while it was cancelled stays open", THREADS, "        if entering.exception() is None:\n            await _left(context, error)\n", "", "tests/test_threads.py"),
    Mutation("a failure swallows a cancellation", "archiver/crew.py", "            raise asyncio.CancelledError from failures\n", "            pass\n", "tests/test_threads.py"),
    Mutation("two signals at once are two wishes", "archiver/cli/run.py", "        elif now - self._first >= _ECHO_SECONDS:", "        else:", "tests/cli/test_signals.py"),
    Mutation("a process in another PID namespace is judged in ours", HOLDER, '_NAMESPACES = {"pid_namespace": "pid", "time_namespace": "time"}', "_NAMESPACES: dict[str, str] = {}", HOLDERS),
    Mutation("a machine without an id knows who is dead", HOLDER, "    if not all(ours.values()) or any(", "    if any(", HOLDERS),
    Mutation("a lock file that was removed before flock is the lock", "archiver/stores/lock.py", "            if _is_named(descriptor, path):\n                return", "            if True:\n                return", "tests/stores/test_lock.py"),
    Mutation("a lock file that is removed while held goes unnoticed", "archiver/stores/lock.py", "        if self._lost is None and not _is_named(self._descriptor, self._path):", "        if False:", "tests/stores/test_lock.py"),
    Mutation("bucket: a lease whose answer was lost is not looked for", f"{S3}/lease.py", "            failure = self._put(data, seen)\n", "            failure = self._put(data, seen)\n            if failure is not None:\n                raise failure\n", "tests/bucket/test_lease.py"),
    Mutation("an archive is begun where one is required", "archiver/archive/archive.py", "        if self._beginning is Beginning.NEVER:", "        if False:", "tests/archive/test_writing.py"),
    Mutation("an archive is begun beside something else", "archiver/archive/archive.py", "            if obstacle is not None:", "            if False:", "tests/archive/test_writing.py"),
    Mutation("a missing disk is not seen", "archiver/stores/local.py", "        if missing is not None:", "        if False:", "tests/archive/test_writing.py"),
    Mutation("an archive without a backup is well", "archiver/scrub/model.py", "        if self.verified_nothing:\n", "        if False:\n", "tests/cli/test_busy.py"),
    Mutation("bucket: orphans stay", f"{S3}/uploads.py", "        elif upload.known or (upload.ours and upload.is_older_than(_FORGOTTEN)):", "        elif False:", S3_STAGING),
    Mutation("bucket: the uploads of others are ended", f"{S3}/uploads.py", "        elif upload.known or (upload.ours and upload.is_older_than(_FORGOTTEN)):", "        else:", S3_STAGING),
    Mutation("bucket: an upload is created before it is known for ours", f"{S3}/upload.py", "                self.key = key\n                self._note()\n", "                self.key = key\n", S3_STAGING),
    Mutation("bucket: whatever came is an answer", f"{S3}/bucket.py", "        client.meta.events.register_first(\"before-parse.*\", answers.check)\n", "", S3_LISTING),
    Mutation("bucket: a listing that goes in a circle", f"{S3}/listing.py", "        if first in first_keys or repeats or empty > _MOST_EMPTY:", "        if repeats or empty > _MOST_EMPTY:", S3_LISTING),
    Mutation("bucket: a listing of another bucket is believed", f"{S3}/listing.py", "    answers.check_echo(answer, {\"Name\": bucket, \"Prefix\": prefix})\n", "", S3_LISTING),
    Mutation("bucket: an object is not compared", f"{S3}/sending.py", "        self.compare(key, _expected(data, checksum), given)\n", "", S3_STAGING),
    Mutation("bucket: a document is not compared", f"{S3}/sending.py", "            if found is None or found[0] != data:", "            if False:", S3_STAGING),
    Mutation("bucket: any ETag is proof", f"{S3}/sending.py", "bare(head.etag).lower() == self.etag", "True", S3_STAGING),
    Mutation("bucket: what is replaced is not put back", f"{S3}/replaced.py", "            if head is None or _tag(sender, copy.key, head) != copy.tag:", "            if False:", S3_STAGING),
    Mutation("bucket: what is put back has no lock", f"{S3}/replaced.py", "bucket.copy_as_object(copy.kept, copy.key, copy.size, copy.kept_as, copy.metadata)", "bucket.copy(copy.kept, copy.key, copy.size, copy.metadata)", S3_STAGING),
    Mutation("bucket: what is put back is kept as this run keeps objects", f"{S3}/replaced.py", "    kept_as = sender.bucket.options.for_objects() if said is None else said\n", "    kept_as = sender.bucket.options.for_objects()\n", S3_STAGING),
    Mutation("bucket: refused bytes are kept without the lease", f"{S3}/staging.py", "whole; None, and they are gone, where that has an object already.\"\"\"\n        self._check()\n", "whole; None, and they are gone, where that has an object already.\"\"\"\n", S3_STAGING),
    Mutation("bucket: refused bytes take the place of an object", f"{S3}/staging.py", "        elif self._bucket.head(self._upload.key) is None:", "        elif True:", S3_STAGING),
    Mutation("bucket: what another brought is put back over", f"{S3}/replaced.py", "    except ArchiverError as error:\n        check()\n", "    except ArchiverError as error:\n", S3_STAGING),
    Mutation("bucket: a copy is not compared before the first one goes", f"{S3}/replaced.py", "            copy_within(sender, copy.kept, kept)\n", "            sender.bucket.copy(copy.kept, kept, copy.size)\n", S3_STAGING),
    Mutation("bucket: the quarantine is listed once for all runs", f"{S3}/store.py", "            self._sender().forget_quarantine()  # others wrote meanwhile\n", "", S3_STAGING),
    Mutation("bucket: a wrong record moves the right object away", f"{S3}/replaced.py", "        if sender.sha256(copy.key) == _recorded(sender.bucket, copy.key):", "        if sender.sha256(copy.kept) != _recorded(sender.bucket, copy.key):", S3_STAGING),
    Mutation("what another staged is brought home", STAGING, "        self._check_staged()\n", "", ORDER),
    Mutation("a lock that no kernel vouches for is not looked into", "archiver/stores/lock.py", "        if self._lost is None and not self.is_certain and not self.is_ours():", "        if False:", ORDER),
    Mutation("bucket: a bad copy is taken for a good one", f"{S3}/replaced.py", "    if sender.bucket.head(kept) is None or not _is_copy(sender, key, kept):", "    if sender.bucket.head(kept) is None:", S3_STAGING),
    Mutation("bucket: what could not be moved away is said to be", f"{S3}/replaced.py", "    except StoreForbidden:\n        raise StoreForbidden(", "    except StoreForbidden:\n        return\n        raise StoreForbidden(", S3_STAGING),
    Mutation("bucket: a writer that leaves ends another's upload", f"{S3}/staging.py", "        except ArchiveBusy:\n            return  # it is another's by now\n", "        except ArchiveBusy:\n            pass\n", S3_STAGING),
    Mutation("a file that a sleeping writer has open is written to", STAGING, "(self._shared or not self._lock_it())", "self._shared", ORDER),
    Mutation("where no lock can tell, what was left is written to", STAGING, "(self._shared or not self._lock_it())", "not self._lock_it()", ORDER),
    Mutation("a sleeping writer empties what it staged", STAGING, "            return\n        self._check()\n", "            return\n", ORDER),
    Mutation("a sleeping writer moves what another staged", STAGING, "        self._check()\n        kept = f", "        kept = f", ORDER),
    Mutation("a ready record gives way to one that is garbage", "archiver/stores/local.py", "path.suffix != RECORD_SUFFIX or there == _said_by(document)", "True", ORDER),
    Mutation("a ready record takes the place of a right one", "archiver/stores/local.py", "            and home.lstat().st_size == said.size\n", "", ORDER),
    Mutation("bucket: a sweep goes on without the lease", f"{S3}/replaced.py", "            continue\n        check()\n", "            continue\n", S3_STAGING),
    Mutation("bucket: quarantine is listed again and again", f"{S3}/sending.py", "            self._quarantine = dict(self.bucket.listing(QUARANTINE))\n        return self._quarantine", "            return dict(self.bucket.listing(QUARANTINE))\n        return self._quarantine", S3_STAGING),
    Mutation("bucket: a lease is kept while the machine sleeps", f"{S3}/lease.py", 'getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)', "time.CLOCK_MONOTONIC", "tests/bucket/test_lease.py"),
    Mutation("bucket: a lease that was given back cannot be taken", f"{S3}/lease.py", "                seen = None  # who had it", "                return {}  # who had it", "tests/bucket/test_lease.py"),
    Mutation("a lock that cannot be read is nobody's", "archiver/stores/lock.py", "    is_free = not _text(descriptor, path) if not certain else not before\n", "    is_free = not before\n", "tests/stores/test_lock.py"),
    Mutation("last words cannot be interrupted", "archiver/cli/run.py", "        sys.stdout.flush()  # it may wait for a reader, and be interrupted\n", "", "tests/cli/test_signals.py"),
    Mutation("bucket: a run that died leaves its copy", f"{S3}/uploads.py", "    yield from settle(sender, check)\n", "", S3_STAGING),
    Mutation("bucket: no right condition is tried", f"{S3}/dialect.py", "        if _takes_right_etag(bucket, form) and _refuses(", "        if _refuses(", f"{ODD}::test_conditions"),
    Mutation("bucket: a condition is judged while another host puts", f"{S3}/dialect.py", "        if _etag(bucket) == etag:\n", "        if True:\n", f"{ODD}::test_conditions_while_another_run_asks"),
    Mutation("bucket: the wrong part is sent before the right one", f"{S3}/dialect.py", "            return _takes(lambda: part(right)) and _refuses(lambda: part(wrong))", "            return _refuses(lambda: part(wrong)) and _takes(lambda: part(right))", f"{ODD}::test_what_a_probe_finds"),
    Mutation("bucket: any time of an upload is believed", f"{S3}/dialect.py", "Uploads.DATED if age < _MOST_SKEW else Uploads.UNDATED", "Uploads.DATED", f"{ODD}::test_what_a_probe_finds"),
    Mutation("bucket: what is put need not be listed", f"{S3}/dialect.py", "    if not _is_listed(bucket):", "    if False:", f"{ODD}::test_a_listing_that_lags"),
    Mutation("bucket: a put waits for 100 Continue", f"{S3}/bucket.py", "        body = data if isinstance(data, bytearray) else bytearray(data)\n", "        body = data\n", f"{ODD}::test_no_put_waits_for_a_continue"),
    Mutation("bucket: an error does not name its operation", f"{S3}/errors.py", "{what}: {error.operation_name}: {answer}", "{what}: {answer}", f"{ODD}::test_errors_name_the_operation"),
    Mutation("bucket: a prefix may be as long as it likes", f"{S3}/options.py", "> MOST_PREFIX_BYTES:", "> 10**6:", f"{ODD}::test_prefixes_that_no_archive_can_have"),
    Mutation("bucket: a refused renewal is another writer", f"{S3}/lease.py", "                if unmoved > 1:", "                if False:", f"{ODD_RUNS}::test_a_refused_renewal_that_shows_our_name_is_nobody_else"),
    Mutation("bucket: an upload that is not listed is gone", f"{S3}/uploads.py", "        if upload_id and bucket.parts(own.key, upload_id) is not None:", "        if False:", f"{ODD_RUNS}::test_an_upload_is_gone_on_with_whatever_is_listed"),
    Mutation("bucket: an upload without a time is old", f"{S3}/uploads.py", "        initiated = upload.initiated if listing is Uploads.DATED else None\n", "        initiated = upload.initiated\n", f"{ODD_RUNS}::test_the_time_of_an_upload_is_believed_only_where_it_is_one"),
    Mutation("bucket: objects without ETags are all alike", f"{S3}/replaced.py", "    content = head.etag or sender.sha256(key)\n", "    content = head.etag\n", f"{ODD_RUNS}::test_bytes_are_told_apart_without_etags"),
    Mutation("bucket: how an object is kept is not looked at", f"{S3}/asked.py", "    if (wrong := difference(asked, kept)) is not None:", "    if (wrong := None) is not None:", f"{ODD_RUNS}::test_what_is_not_kept_as_asked_is_not_recorded"),
    Mutation("bucket: an upload is gone on with that is kept otherwise", f"{S3}/staging.py", " or asked != self._bucket.options.said:", ":", f"{ODD_RUNS}::test_an_upload_that_was_begun_otherwise_begins_again"),
    Mutation("a directory is asked for encryption", "archiver/cli/places.py", "            if given[name] is not None:", "            if False:", f"{ODD_RUNS}::test_a_directory_keeps_nothing_so"),
    Mutation("a cold object is asked for again and again", "archiver/transfer/stored.py", "    return error if isinstance(error, UnreadableObject) else SourceUnavailable(str(error))", "    return SourceUnavailable(str(error))", f"{ODD_RUNS}::test_a_cold_object_fails_alone"),
    Mutation("keys of a foreign bucket are believed", f"{S3}/store.py", "                if is_key(key) and all(", "                if all(", f"{ODD_RUNS}::test_keys_of_a_foreign_bucket_stay_there"),
    Mutation("a key leaves the directory of its archive", "archiver/stores/local.py", "        if not is_within(key):", "        if False:", f"{ORDER}::test_a_key_that_leaves_the_archive_is_none"),
    Mutation("a question mark in a prefix is taken for a query", "archiver/cli/run.py", "(\\b(?!s3://)", "(\\b", f"{ODD_RUNS}::test_a_question_mark_in_a_prefix_is_no_query"),
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
    Mutation("the file system is not synced for many", "archiver/stores/filesystem.py", "            _sync_whole(self._descriptor, self._root)\n", "            pass\n", SYNCS),
    Mutation("what is committed has not the size that was checked", STAGING, "        if size != expected:", "        if False:", ORDER),
    Mutation("a set's own folder is taken for durable", STAGING, "        self._durable.update(_above(folder))", "        self._durable.update((folder, *_above(folder)))", ORDER),
    Mutation("small: a kept connection that was interrupted is dialled over", "archiver/transfer/wire.py", "        self._check()  # its socket may be open still\n", "", "tests/transfer/test_burst.py"),
    Mutation("small: a slow line is asked for everything at once", BURST, "ahead = 1 if self.is_slow else self._most", "ahead = self._most", "tests/transfer/test_burst.py"),
    Mutation("small: connections are dialled ahead without an end", BURST, "                        if time.monotonic() >= until:\n                            break", "                        if False:\n                            break", "tests/transfer/test_burst.py"),
    Mutation("a slow disk gets more connections", FILE, "fetcher.came - came < ENOUGH * (fetcher.waits.seconds - waited)", "fetcher.came - came < ENOUGH * LOOK_SECONDS", LANES),
    Mutation("small: silence is waited for again and again", BURST, "            self.was_silent = True\n", "", "tests/transfer/test_burst.py"),
    Mutation("small: a slow head makes a slow line", BURST, "            began = time.monotonic()\n", "            began = self._sent_at\n", "tests/transfer/test_burst.py"),
    Mutation("the journal's name is not synced", STAGING, "            self._append(journal.head(pin, provenance, part_size))\n            disk.sync_directory(self._folder)", "            self._append(journal.head(pin, provenance, part_size))", f"{POWER}::test_cut[pulled]"),
    Mutation("a document's name is not synced", DISK, "    rename(temporary, path)\n    sync_directory(folder)", "    rename(temporary, path)", f"{POWER}::test_cut[pulled]"),
    Mutation("a document is written in its place", DISK, "    with written(temporary, data) as file:\n        file.sync()\n    rename(temporary, path)\n", "    with written(path, data) as file:\n        file.sync()\n", f"{POWER}::test_cut[verified]"),
    Mutation("no folder is ever synced", DISK, "            sync_folder(descriptor, self.path)\n", "            pass\n", f"{POWER}::test_cut[pulled]"),
    Mutation("a repair forgets the damaged bytes before the right ones are durable", STAGING, "        self._check_size(self._staged, self._descriptor, receipt.size)\n", "        self._check_size(self._staged, self._descriptor, receipt.size)\n        self._forget_others(final=\"\")\n", f"{POWER}::test_cut[repaired_from_archive]"),
    Mutation("noted parts are forgotten", STAGING, "        if noted is not None and noted.pin.total == self._size:", "        if noted is not None and self._size < 0:", f"{POWER}::test_cut[resumed]"),
    Mutation("small: what was asked for is not read when time is up", BURST, "                if not self._asked:\n", "                if not self._asked or (self._reading and time.monotonic() >= until):\n", "tests/transfer/test_burst.py"),
    Mutation("copy: what is read is not held against its record", "archiver/copying.py", "            if receipt.sha256 != record.sha256:", "            if False:", REPLACING),
    Mutation("pull: the size of a held object is not compared", "archiver/archive/inventory.py", "    if size == record.size:\n", "    if size is not None:\n", STATEFUL),
    Mutation("files go past a proxy", "archiver/transfer/wires.py", "proxy = self._proxies.between(place.scheme, place.host, place.port)", "proxy = None", PROXIED),
    Mutation("the API goes past a proxy", "archiver/sources/rpc.py", "proxies.between(self._url.scheme, host, self._url.port)", "None", PROXIED),
    Mutation("credentials by URI go past a proxy", "archiver/sources/credentials/metadata.py", 'proxy = context.proxies.between(target.scheme, target.raw_host or "", target.port)', "proxy = None", PROXIED),
    Mutation("a proxy of http is not told the password", WIRE, "headers = {**headers, **self.proxy.headers}", "headers = {**headers}", PROXIED),
    Mutation("a proxy of https is not told the password", WIRE, '{"Host": where, **self.proxy.headers}', '{"Host": where}', PROXIED),
    Mutation("what a proxy refuses is taken for a tunnel", WIRE, "        if not 200 <= head.status < 300:", "        if False:", PROXIED),
    Mutation("a refusal of a burst's proxy ends the run", BURST, "        except (*FAULTS, ArchiverError) as error:\n            asked.failure = error", "        except FAULTS as error:\n            asked.failure = error", PROXIED),
    Mutation("an intranet host behind a proxy is knocked at", "archiver/transfer/route.py", "                if proxy is not None:", "                if False:", PROXIED),
    Mutation("metadata is asked for through a proxy", PROXIES, "or self.exempt_all or is_metadata(bare)", "or self.exempt_all", "tests/network/test_proxies.py"),
    Mutation("what only ends alike is exempt", PROXIES, 'host.endswith(f".{self.name}")', "host.endswith(self.name)", "tests/network/test_proxies.py"),
    Mutation("the port of an exemption is not looked at", PROXIES, "if self.port is not None and self.port != port:", "if False:", "tests/network/test_proxies.py"),
    Mutation("an empty variable does not count", PROXIES, "        if candidate in environ:\n", "        if environ.get(candidate):\n", "tests/network/test_proxies.py"),
    Mutation("any host is fetched from", "archiver/sources/hosts.py", "        if host in self._hosts or ", "        if True or ", HOSTS),
    Mutation("a metadata service is fetched from when it is the endpoint", "archiver/sources/hosts.py", "        if is_metadata(host):\n", "        if False:\n", HOSTS),
    Mutation("a name stands for a metadata service", WIRE, "        if self.proxy is None and any(", "        if False and any(", HOSTS),
    Mutation("networks that do not count fail a backup", "archiver/transfer/route.py", "        if self._choice not in (NetworkChoice.AUTO, network.value):\n            return None\n", "", HOSTS),
    Mutation("a dead address is waited for", NETWORK, "_NEXT_SECONDS: Final = 0.25", "_NEXT_SECONDS: Final = 60.0", DIALLING),
    Mutation("the end of the process waits for a resolver", NETWORK, 'name="lookup", daemon=True', 'name="lookup"', DIALLING),
    Mutation("each lookup of a dead resolver takes a thread", NETWORK, "        if found is None:\n", "        if True:\n", DIALLING),
    Mutation("the API asks asyncio's resolver", "archiver/sources/session.py", "resolver=_Resolver(), ", "", DIALLING),
    Mutation("authorities that cannot be read are passed over", NETWORK, "    if named:\n", "    if False:\n", DIALLING),
    Mutation("a certificate of the API is waited for", "archiver/sources/session.py", "    if isinstance(error, aiohttp.ClientConnectorCertificateError):", "    if False:", DIALLING),
    Mutation("a bucket trusts others than the rest", f"{S3}/bucket.py", '                or os.environ.get("SSL_CERT_FILE")\n', "", DIALLING),
    Mutation("what is the same for all is said of each", LINE_CODE, "                if error.concerns_all:\n", "                if False:\n", OUTAGES),
    Mutation("ls asks each for what is the same for all", "archiver/cli/ls.py", "                if error.concerns_all:\n", "                if False:\n", OUTAGES),
    Mutation("ls is content though an instance is gone", "archiver/cli/ls.py", "                listed.failed(error, error.exit_code)\n", "", OUTAGES),
    Mutation("an endpoint that never answered is waited for", TAIR, "lasting = math.inf if self._was_reached else FIRST_SECONDS", "lasting = math.inf", OUTAGES),
    Mutation("one that answered is not waited for", TAIR, "                self._was_reached = True\n", "", OUTAGES),
    Mutation("a busy API counts as nobody", TAIR, "self._was_reached = self._was_reached or not nobody", "pass", OUTAGES),
    Mutation("an outage is waited for once for each", "archiver/retry.py", "max(self._own.goes_on(), self._of_all.goes_on())", "self._own.goes_on()", f"tests/test_retry.py {OUTAGES}"),
    Mutation("what always fails is tried for ever", "archiver/retry.py", "max(self._own.goes_on(), self._of_all.goes_on())", "self._of_all.goes_on()", "tests/test_retry.py"),
    Mutation("ids of a listing are not looked at", "archiver/sources/listing.py", "check_ids(read_backup(instance_id, item))", "read_backup(instance_id, item)", GARBAGE),
    Mutation("a job is named as a file is", "archiver/fields.py", "backup.job_id.endswith(_FILES)", "False", GARBAGE),
    Mutation("what keeps several backups away is told for each", WATCHING, "            if more >= 0:\n", "            if False:\n", NO_SILENCE),
    Mutation("how many more were kept away is not told", WATCHING, "            if more:\n", "            if False:\n", NO_SILENCE),
    Mutation("a failure is told in the summary, too", "archiver/cli/words.py", '        lines.append(f"failed: {len(result.failures):,}")\n', "        lines += map(failure, result.failures)\n", NO_SILENCE),
    Mutation("verify tells what it found again", "archiver/cli/verify_words.py", '        lines.append(f"wrong: {_counted(result.findings)}")\n', "        lines += map(str, result.findings)\n", NO_SILENCE),
    Mutation("verify says nothing of having verified nothing", "archiver/cli/verify.py", "(summary.verified_nothing or not given[\"quiet\"])", "not given[\"quiet\"]", NO_SILENCE),
    Mutation("differences are on stdout alone", "archiver/cli/copy.py", "    told = say(f\"{times(found", "    told = str(f\"{times(found", NO_SILENCE),
    Mutation("a drill that failed is silent", "archiver/cli/drill.py", "            level = NORMAL if one.verdict is Verdict.PASS else QUIET\n", "            level = VERBOSE\n", NO_SILENCE),
    Mutation("the end at once is silent", "archiver/cli/run.py", 'os.write(2, b"archiver: stopped at once\\n")', "pass", "tests/cli/test_signals.py -k once"),
    Mutation("an instance without backups is passed over when it is quiet", "archiver/cli/words.py", 'return QUIET, f"nothing listed', 'return NORMAL, f"nothing listed', AGE),
    Mutation("an entry of a listing that is refused is no failure of ls", "archiver/cli/ls.py", "            listed.failed(error, BackupFailed.exit_code)\n", "            str(error)\n", NO_SILENCE),
    Mutation("ls --check is content", "archiver/cli/ls.py", '    if given["check"]:\n', "    if False:\n", AGE),
    Mutation("ls --check fails for what is being made", "archiver/cli/ls.py", "not in (unfinished | told)", "not in told", AGE),
    Mutation("ls of an archive knows no range", "archiver/archive/catalogue.py", "one.key if isinstance(one, Unrecorded) else one.folder, range_", "one.key if isinstance(one, Unrecorded) else one.folder, None", AGE),
    Mutation("an incomplete set is young enough", AGE_CODE, "if is_complete and began", "if began", AGE),
    Mutation("a log is young enough", AGE_CODE, " and not all(row.is_log for row in files)", "", AGE),
    Mutation("what began in the future is young enough", AGE_CODE, " <= one.now + _CLOCKS_DIFFER", "", AGE),
    Mutation("pull says of no instance that it is overdue", "archiver/cli/pull.py", "                watch.overdue(str(one))", "                str(one)", AGE),
    Mutation("a pull asks for a week", "archiver/timerange.py", "        return cls(_FIRST, now)", "        return cls(now - timedelta(days=7), now)", AGE),
    Mutation("an API that refuses to be asked for everything ends the pull", TAIR, "            if self._earliest != EVERYTHING_FROM:\n", "            if True:\n", AGE),
    Mutation("a narrow range is not said", "archiver/cli/words.py", "    return [] if range_ is None else", "    return [] if True else", AGE),
    Mutation("what is kept of a file is not said", FILE, "            if not is_done and (kept", "            if False and (kept", "tests/cli/test_pull.py -k signal"),
    Mutation("what has come home counts as kept", "archiver/summary.py", "                self.bytes_archived += event.size\n                self.kept.pop(event.backup.identity, None)\n", "                self.bytes_archived += event.size\n", "tests/cli/test_pull.py -k kept"),
    Mutation("a variable that nobody knows is ignored", "archiver/cli/environment.py", "    if wrong:\n", "    if False:\n", ENVIRONMENT),
    Mutation("all commands have the same variables", "archiver/cli/environment.py", 'f"{PREFIX}{command}_{option', 'f"{PREFIX}{option', ENVIRONMENT),
    Mutation("a service's variables are taken for typos", "archiver/cli/environment.py", "if not _is_of_a_service(name, environ[name])", "if True", ENVIRONMENT),
    Mutation("a spoilt value of the environment is taken", "archiver/cli/options.py", "            if wrong is not None:\n", "            if False:\n", ENVIRONMENT),
    Mutation("a spoilt place is taken", "archiver/cli/places.py", "    if (wrong := flaw(place)) is not None:", "    if (wrong := flaw(place)) is not None and False:", ENVIRONMENT),
    Mutation("a spoilt path is taken", "archiver/cli/params.py", "        if (wrong := flaw(os.fspath(value))) is not None:", "        if (wrong := flaw(os.fspath(value))) is not None and False:", ENVIRONMENT),
    Mutation("a bucket that does not answer ends the run", f"{S3}/bucket.py", '        client.meta.events.register("needs-retry.s3", self._needs_retry)\n', "", f"{BUCKET_OUTAGES}::test_nothing_ends_by_it"),
    Mutation("a document that breaks off is believed", f"{S3}/bucket.py", "                if len(data) >= size:\n", "                if True:\n", BUCKET_OUTAGES),
    Mutation("an outage of a bucket is said again and again", f"{S3}/patience.py", "        if not self._was_told:", "        if True:", BUCKET_OUTAGES),
    Mutation("a bucket that never answered is waited for", f"{S3}/patience.py", "math.inf if self._was_reached else FIRST_SECONDS", "math.inf", BUCKET_OUTAGES),
    Mutation("a bucket that answered is not waited for", f"{S3}/patience.py", "math.inf if self._was_reached else FIRST_SECONDS", "FIRST_SECONDS", BUCKET_OUTAGES),
    Mutation("a cancellation waits for a bucket", THREADS, "            abandoned.set()\n            await _ended", "            await _ended", f"{BUCKET_OUTAGES}::test_a_cancellation_ends_the_wait"),
    Mutation("cleaning up waits for a bucket", THREADS, "    if _is_cancelled() or (inherited is not None and inherited.is_set()):\n", "    if False:\n", f"{BUCKET_OUTAGES}::test_cleaning_up_after_a_cancellation_waits_no_more"),
    Mutation("a lease is believed after an outage", f"{S3}/lease.py", "while self._lost is None and (silent", "while False and (silent", BUCKET_OUTAGES),
    Mutation("a lease ends with an outage", f"{S3}/lease.py", "        until = _now() + self._patience.policy.lasting\n", "        until = 0.0\n", BUCKET_OUTAGES),
    Mutation("who watches a lease counts an outage", f"{S3}/lease.py", "if took > min(_OUTAGE_SECONDS, beat / 2):", "if False:", BUCKET_OUTAGES),
    Mutation("a folder that cannot be synced ends the run", DISK, "if error.errno not in _HAVE_NO_SYNC:", "if True:", UNSYNCED),
    Mutation("a folder whose disk fails is passed over", DISK, "if error.errno not in _HAVE_NO_SYNC:", "if False:", UNSYNCED),
    Mutation("what is not synced is not said", "archiver/cli/run.py", "    _tell_what_is_not_synced()\n    #", "    #", UNSYNCED),
    Mutation("a code is asked for by each connection", f"{S3}/access.py", "@lru_cache(maxsize=1)\ndef _session", "def _session", ACCESS),
    Mutation("a code is asked for where nobody is", f"{S3}/access.py", '.get_provider("assume-role")._prompter = ask', '.get_provider("assume-role")', ACCESS),
    Mutation("credentials are the bucket's fault", f"{S3}/access.py", "    hint = _hint(error)\n    if hint is None:\n", "    hint = _hint(error)\n    if True:\n", ACCESS),
    Mutation("a user without a home is none", "archiver/cli/options.py", "    except RuntimeError:\n        return None\n", "    except ZeroDivisionError:\n        return None\n", ODD_USERS),
    Mutation("a home of nobody is an unexpected error", DISK, "    except RuntimeError:\n", "    except ZeroDivisionError:\n", ODD_USERS),
    Mutation("a command has a name in it that no shell reads", "archiver/archive/instructions.py", "if word.isprintable() else", "if True else", ODD_USERS),
    Mutation("cold evidence is damage", "archiver/report/chain.py", "Finding(key, Fault.UNREADABLE, why, data.exit_code)", "Finding(key, Fault.UNREADABLE, why)", f"{ODD_RUNS}::test_cold_evidence_is_no_damage"),
    Mutation("what a key may not delete is named for ever", f"{S3}/staging.py", '                self._sender.put_note(key, b"")\n', "                pass\n", f"{ODD_RUNS}::test_a_repair_with_a_key_that_may_only_add"),
    Mutation("sets: a repair goes to any folder of the job", "archiver/archive/inventory.py", "                one[1] + name not in self._preferred,\n                one[1] not in self._preferred,\n", "", "tests/scrub/test_misplaced.py"),
    Mutation("misplaced: what lies where it may is a double", "archiver/scrub/misplaced.py", " or _may_lie_at(backup, stem):", ":", "tests/scrub/test_misplaced.py"),
    Mutation("repair: what the other archive hides ends it", "archiver/scrub/from_archive.py", "            if error.ends_run:\n                raise\n            for key in", "            if True:\n                raise\n            for key in", HIDDEN),
    Mutation("repair: a folder beside theirs is not looked into", "archiver/scrub/from_archive.py", "        return self.records.get(name, f\"{self.folder}/{name}\")", "        return f\"{self.folder}/{name}\"", "tests/scrub/test_misplaced.py"),
    Mutation("bucket: what may not be copied aside is replaced", f"{S3}/store.py", "        copy_aside(self._sender(), key, kept)\n        self.bucket", "        with suppress(Exception):\n            copy_aside(self._sender(), key, kept)\n        self.bucket", S3_STAGING),
    Mutation("staging: a full disk costs what is staged", STAGING, "        except (DoesNotFit, NoSpace):\n            raise\n", "", ORDER),
    Mutation("staging: what is begun anew is not locked", STAGING, "        self._lock_it()\n        return self._file\n\n    def _reopen", "        return self._file\n\n    def _reopen", ORDER),
    Mutation("sweep: a waiting record replaces a true one", "archiver/stores/local.py", "            if there is not None and _is_true(", "            if False and _is_true(", ORDER),
    Mutation("seal: the end of a line is no line", "archiver/archive/sums.py", " or line.endswith(_SUFFIXES):", ":", "tests/scrub/test_sums.py"),
    Mutation("ls --remote: an object without a record is missing", "archiver/archive/catalogue.py", "state=State.UNRECORDED if is_there else", "state=State.UNRECORDED if False else", COMING),
    Mutation("verify: a file may be where results were", "archiver/stores/local.py", "not (key == _EVIDENCE or", "not (key in (_EVIDENCE, \"verified\") or", HIDDEN),
    Mutation("sets: the first folder of a job is as good as any", "archiver/archive/inventory.py", "    return -whole, -len(records), folder", "    return 0, 0, folder", "tests/archive/test_archive.py"),
    Mutation("sets: records without their objects count", "archiver/archive/inventory.py", "    return -whole, -len(records), folder", "    return 0, -len(records), folder", "tests/scrub/test_misplaced.py"),
    Mutation("sets: the other archive's own folder is one of many", "archiver/archive/inventory.py", "key=lambda one: (one[1] != folder, *_likelihood", "key=lambda one: (*_likelihood", "tests/scrub/test_misplaced.py"),
    Mutation("misplaced: a set of another instance lies where it may", "archiver/scrub/misplaced.py", "        and folder.partition(\"/\")[0] == backup.instance_id\n", "", "tests/scrub/test_misplaced.py"),
    Mutation("sweep: what a record says of its object is opened", "archiver/stores/local.py", "    if home.stem != record.stem or not _is_file(home) or home.lstat", "    if home.lstat", ORDER),
    Mutation("sweep: what the disk does not give ends it", "archiver/stores/local.py", "            except (UnreadableObject, NoDocument):\n                return", "            except NoDocument:\n                return", ORDER),
    Mutation("seal: next to nothing is a line's end", "archiver/archive/sums.py", "_LEAST_END: Final = 9", "_LEAST_END: Final = 4", "tests/scrub/test_sums.py"),
    Mutation("seal: an empty SHA256SUMS named nothing", "archiver/archive/archive.py", "        if salvage.is_empty and", "        if False and", "tests/scrub/test_sums.py"),
    Mutation("drill: a value is told", "archiver/drill/judgement.py", "    if not show_values:\n", "    if False:\n", SAYS),
    Mutation("drill: a value is told by what is demanded of it", "archiver/drill/judgement.py", "text = assertion.text if show_values else without_value(assertion)", "text = assertion.text", SAYS),
    Mutation("drill: what was restored is called lost", "archiver/report/words.py", "        there = [one for one in sets if _is_restored(one)]\n", "        there = [one for one in sets if one.verdict is Verdict.PASS]\n", SAYS),
    Mutation("drill: no keys are a pass", "archiver/drill/judgement.py", "        if allow_empty:\n", "        if True:\n", SAYS),
    Mutation("drill: keys that expired were never there", "archiver/drill/judgement.py", "file.parsed if file.parsed is not None else file.loaded", "file.loaded", SAYS),
    Mutation("drill: a set from the future has age 0", "archiver/drill/procedure.py", "if whole and whole[-1].key not in ahead:", "if whole:", SAYS),
    Mutation("drill: it ended before it began", "archiver/drill/procedure.py", "finished = self._began + timedelta(seconds=max(0.0, self._clock() - self._ticks))", "finished = datetime.now(UTC)", SAYS),
    Mutation("drill: keys expire by the clock before it was set", "archiver/drill/stage.py", "    if back <= _NO_JUMP:\n", "    if True:\n", SAYS),
    Mutation("drill: evidence in the chain is called lost", "archiver/drill/ledger.py", "        if not await _is_there(store, key, data):\n", "        if True:\n", SAYS),
    Mutation("drill: the last one is looked for among the newest alone", "archiver/drill/ledger.py", "        if len(keys) > _LOOK_BACK:\n", "        if False:\n", SAYS),
    Mutation("drill: nobody is told that nothing was compared", "archiver/drill/procedure.py", "                self._watcher(happened.NotCompared(instance, why))\n", "                pass\n", SAYS),
    Mutation("drill: a wrong note of a last drill is not found", "archiver/scrub/evidence.py", "if (wrong_note := await _check_note(store, key, keys)) is not None:", "if (wrong_note := await _check_note(store, key, keys)) is not None and False:", SAYS),
    Mutation("drill: how far a server has loaded is not told", "archiver/drill/stage.py", "            counted=lambda seen, of: self._at(record, \"counting\", seen, of, \"keys\"),\n", "", SAYS),
    Mutation("drill: the server is root", "archiver/drill/launch.py", "    if user != SAME_USER:\n", "    if False:\n", CONFINED),
    Mutation("drill: the server keeps root's groups", "archiver/drill/launch.py", "        os.setgroups([])\n", "        pass\n", CONFINED),
    Mutation("drill: nobody is asked to run what he cannot", "archiver/drill/server.py", "return somebody if _RUNS[known] else None", "return somebody", CONFINED),
    Mutation("drill: a server can be reconfigured", "archiver/drill/workplace.py", '    "CONFIG": (2, 0),\n', "", CONFINED),
    Mutation("drill: a server can be made a replica", "archiver/drill/workplace.py", '    "REPLICAOF": (5, 0),\n', "", CONFINED),
    Mutation("drill: a server may fill the disk", "archiver/drill/launch.py", "        (resource.RLIMIT_FSIZE, largest_file),\n", "", CONFINED),
    Mutation("signal: an answer of a bucket is waited for", f"{S3}/connections.py", "                socket.socket.shutdown(one, socket.SHUT_RDWR)\n", "                pass\n", GIVEN_UP),
    Mutation("signal: a handshake of a bucket is waited for", f"{S3}/connections.py", "                known.connect(super().connect)\n                known.add(self.sock)\n\n        class PlainPool", "                super().connect()\n                known.add(self.sock)\n\n        class PlainPool", GIVEN_UP),
    Mutation("signal: a next try of a bucket follows", f"{S3}/bucket.py", "        if self._connections.is_given_up:", "        if False:", GIVEN_UP),
    Mutation("signal: before anything is begun it is a failure", "archiver/cli/main.py", "            raise SystemExit(EXIT_INTERRUPTED) from None\n", "            raise\n", "tests/cli/test_signals.py::test_before_anything_is_begun"),
    Mutation("signal: no bucket is told of it", f"{S3}/bucket.py", "        on_hurry(self._connections.give_up)\n", "", GIVEN_UP),
    Mutation("signal: what was given up for it is a failure", "archiver/cli/run.py", "if interruption.was_asked and isinstance(error, StoreError | ArchiveBusy):", "if False:", SIGNALLED),
    Mutation("signal: what does not end is waited for", "archiver/cli/run.py", "        if not self.is_over:\n", "        if False:\n", SIGNALLED),
    Mutation("litter is shown", "archiver/litter.py", "    return name.lower() in _NAMES or _FORMS.fullmatch(name) is not None", "    return False", VERDICTS),
    Mutation("litter is shown in a bucket", f"{S3}/store.py", "all(map(is_shown, key.split(\"/\")))", "True", VERDICTS),
    Mutation("an id may have the name of litter", "archiver/fields.py", " or is_litter(text):", ":", VERDICTS),
    Mutation("a new disk is not empty", "archiver/stores/local.py", "        others = [name for name in names if not is_litter(name)]", "        others = list(names)", "tests/archive/test_writing.py"),
    Mutation("verify: all that is found is wrong bytes", "archiver/scrub/findings.py", "        return _EXIT_CODES.get(self.fault, IntegrityError.exit_code)", "        return IntegrityError.exit_code", VERDICTS),
    Mutation("verify: what a pull is to finish is wrong bytes", "archiver/scrub/findings.py", "        if self.is_unfinished:\n", "        if False:\n", VERDICTS),
    Mutation("verify: a record that is gone is a pull's to finish", "archiver/scrub/survey.py", "            is_new = key not in found.named and key not in known", "            is_new = True", VERDICTS),
    Mutation("verify: an outage hides wrong bytes", "archiver/scrub/model.py", "            codes.discard(StoreError.exit_code)", "            pass", VERDICTS),
    Mutation("copy: what nothing says was recorded is wrong bytes", "archiver/archive/contents.py", "                kind = IntegrityError if was_recorded else BackupFailed", "                kind = IntegrityError", VERDICTS),
    Mutation("mirror-check: a difference is 1", "archiver/copying.py", "        return StoreError.exit_code if is_unseen else IntegrityError.exit_code", "        return 1 if self.error is None else self.error.exit_code", "tests/test_copying.py"),
    Mutation("results of a newer format are written over", "archiver/scrub/results.py", "        except NewerDocument:\n            raise\n", "", VERDICTS),
    Mutation("results of a newer format are called damaged", "archiver/scrub/verify.py", "            fault = Fault.NEWER if isinstance(error, NewerDocument) else Fault.BAD_RESULTS", "            fault = Fault.BAD_RESULTS", VERDICTS),
    Mutation("results under another name are strays", "archiver/scrub/evidence.py", "        if entry.is_file and await _holds_results(store, entry.key):", "        if False:", VERDICTS),
    Mutation("pages that are not compared are not told of", "archiver/scrub/evidence.py", "            elif version is not None and there:\n", "            elif False:\n", "tests/scrub/test_verify.py"),
    Mutation("pages that are gone are not told of", "archiver/scrub/evidence.py", "            if version is not None and 0 < len(there) < len(_PAGES):\n", "            if False:\n", "tests/scrub/test_verify.py"),
    Mutation("ack: it stands whatever the set becomes", KNOWN, "        return now.files == one.files and now.missing <= set(one.missing)", "        return True", ACK),
    Mutation("ack: nodes that came to be missing do not count", KNOWN, "        return now.files == one.files and now.missing <= set(one.missing)", "        return now.files == one.files", ACK),
    Mutation("ack: what was withdrawn stands", KNOWN, "        if one is None or one.withdrawn is not None or one.subject != subject:", "        if one is None or one.subject != subject:", ACK),
    Mutation("ack: damage is acknowledged", KNOWN, "    if found.damage:\n", "    if False:\n", ACK),
    Mutation("ack: what is complete is acknowledged", KNOWN, "    if found.is_complete:\n", "    if False:\n", ACK),
    Mutation("ack: an earlier word replaces a later one", KNOWN, "known.last_word < one.last_word", "known.last_word != one.last_word", ACK),
    Mutation("ack: two words within a second", KNOWN, "max(now, before.last_word + timedelta(seconds=1))", "now", ACK),
    Mutation("ack: a document of another set is believed", KNOWN, "        if not is_subject(found.subject) or found.key != key:\n", "        if False:\n", ACK),
    Mutation("ack: a name leads out of its folder", KNOWN, "    return is_key(text) and layout.is_of_a_set(", "    return layout.is_of_a_set(", ACK),
    Mutation("ack: a pull goes on failing", LINE_CODE, "            if await self._is_acknowledged(subject, f\"{transfer.backup}: {why}\"):\n", "            if False:\n", ACK),
    Mutation("ack: a pull calls the set incomplete", LINE_CODE, "one.why is not None and not await self._is_acknowledged(one.key, one.why)", "one.why is not None", ACK),
    Mutation("ack: verify calls the set incomplete", "archiver/scrub/verify.py", "        if finding.fault is Fault.INCOMPLETE:\n", "        if False:\n", ACK),
    Mutation("ack: ls lets damage pass", "archiver/archive/catalogue.py", "if by and row.error is None else row)", "if by else row)", ACK),
    Mutation("ack: a pull is silent about a bad one", LINE_CODE, "                self._failed(key, bad)\n", "                pass\n", ACK),
    Mutation("ack: a copy leaves it behind", "archiver/copying.py", "        await self._bring_acknowledgements()\n", "", ACK),
    Mutation("ack: the evidence of a drill leaves it out", "archiver/drill/procedure.py", "    run.acknowledged = await _acknowledged(archive, run.options)\n", "", ACK),
    Mutation("ack: the evidence names who is withheld", "archiver/drill/procedure.py", "None if options.withhold_identity else one.by", "one.by", ACK),
    Mutation("evidence: all of it is of the newest format", "archiver/report/document.py", "    return 2 if evidence.acknowledged else 1", "    return 2", "tests/report/test_schema.py"),
    Mutation("each set is compared with all others again", "archiver/archive/backupsets.py", "        if own == self._by_key.get(folder.key):\n", "        if False:\n", "tests/archive/test_backupsets.py"),
    Mutation("a stranger's name leads out of the staging folder", "archiver/stores/local_staging.py", "fullmatch(name) is not None and not leads_out", "fullmatch(name) is not None", "tests/stores/test_local.py"),
    Mutation("a stranger's link leads out of the staging folder", "archiver/stores/local.py", "        if self._is_led_away(path):\n", "        if False:\n", "tests/stores/test_local.py"),
    Mutation("a waiting record names what is no name", "archiver/stores/local.py", " or not documents.is_name(name) or not isinstance(size, int):", " or not isinstance(size, int):", "tests/stores/test_local.py"),
    Mutation("an example: a % ends the line of cron", "examples/cron/archiver-verify", "--sample 5\\%", "--sample 5%", "tests/examples/test_cron.py"),
    Mutation("an example: cron does not find the command", "examples/cron/archiver-pull", "PATH=/opt/archiver/bin:", "PATH=", "tests/examples/test_cron.py::test_pull"),
    Mutation("an example: systemd takes a % for itself", "examples/systemd/archiver-verify.service", "5%%", "5%", "tests/examples/test_systemd.py"),
    Mutation("an example: a service may not write to its archive", "examples/systemd/archiver-pull.service", "ReadWritePaths=-/srv/redis-backups\n", "", "tests/examples/test_systemd.py"),
    Mutation("an example: a service wants a directory for its bucket", "examples/systemd/archiver-copy.service", "ProtectSystem=strict\n", "ProtectSystem=strict\nReadWritePaths=/srv/redis-backups\n", "tests/examples/test_systemd.py"),
    Mutation("an example: a key that systemd does not know", "examples/systemd/archiver-pull.timer", "Persistent=", "Persistant=", "tests/examples/test_systemd.py"),
    Mutation("an example: quotes in a file of variables", "examples/offsite.env", "AWS_DEFAULT_REGION=eu-central-1", "AWS_DEFAULT_REGION=\"eu-central-1\"", "tests/examples/test_cron.py::test_files_of_variables_are_the_same_to_all_who_read_them"),
    Mutation("an example: a field that no CronJob has", "examples/kubernetes/pull.yaml", "backoffLimit:", "backofLimit:", "tests/examples/test_kubernetes.py::test_shape"),
    Mutation("an example: a pull cannot write to its volume", "examples/kubernetes/pull.yaml", "mountPath: /archive}", "mountPath: /archive, readOnly: true}", "tests/examples/test_kubernetes.py::test_pull"),
    Mutation("an example: an option that is not there", "examples/container/pull.sh", "--lock-wait", "--lock-waits", "tests/examples/test_commands.py"),
    Mutation("the readme has an option that is not there", "README.md", "archiver verify ./backups --since-verified 30d ", "archiver verify ./backups --since-verify 30d ", "tests/examples/test_commands.py"),
    Mutation("names are shown as they are", "archiver/cli/run.py", "Told(streams.plain(_QUERY.sub(r\"\\1?***\", text)))", "Told(_QUERY.sub(r\"\\1?***\", text))", "tests/cli/test_terminals.py"),
    Mutation("names are shown on stdout as they are", "archiver/cli/streams.py", "    click.echo(plain(text))", "    click.echo(text)", "tests/cli/test_terminals.py"),
    Mutation("bucket: who was cut off goes on as the writer", f"{S3}/bucket.py", "        if request.method not in _READ_WITH:", "        if False:", f"{BUCKET_OUTAGES}::test_who_was_cut_off_writes_nothing_over_the_next_writer"),
    Mutation("bucket: a document that came meanwhile is replaced", f"{S3}/sending.py", '                    if replaced not in ("", found[1]):', "                    if False:", f"{BUCKET_OUTAGES}::test_a_document_takes_the_place_of_the_first_that_was_seen_alone"),
    Mutation("bucket: a lease that went away is taken again by a beat", f"{S3}/lease.py", "                if self._beats > 1:\n", "                if False:\n", f"{BUCKET_OUTAGES}::test_a_lease_that_went_away_is_not_taken_again_by_a_beat"),
    Mutation("bucket: who watches a lease waits for a slow bucket for ever", f"{S3}/lease.py", "    if before + took > bucket.patience.policy.lasting:", "    if False:", f"{BUCKET_OUTAGES}::test_who_watches_a_lease_in_a_slow_bucket_comes_to_an_end"),
    Mutation("bucket: who watches a lease begins anew with each slow look", f"{S3}/lease.py", "            uncounted = _uncounted(bucket, now[0], uncounted, took)\n", "            uncounted = _uncounted(bucket, now[0], uncounted, took)\n            began = time.monotonic() - uncounted\n", f"{BUCKET_OUTAGES}::test_who_watches_a_lease_in_a_slow_bucket_comes_to_an_end"),
    Mutation("bucket: who waits for a lease does not say so", f"{S3}/lease.py", '            self._patience.tell(f"the lease could', '            str(f"the lease could', f"{BUCKET_OUTAGES}::test_who_waits_for_a_lease_says_so"),
    Mutation("bucket: who lost the lease while he wrote is told that he wrote", f"{S3}/bucket.py", '        if waited is None and given["request_dict"]["method"] not in _READ_WITH:', "        if False:", f"{BUCKET_OUTAGES}::test_a_lease_that_was_lost_before_the_answer_came"),
)  # fmt: skip


# Breaches of the durable order that a power cut finds, too, with the scenario that it does in;
# also those that real file systems forgive.
_BY_A_POWER_CUT = {
    "data is not synced before the journal": "pulled",
    "the journal is not synced": "pulled",
    "data is not synced before the rename": "pulled",
    "the directory is not synced after the rename": "pulled",
    "a record is not synced": "pulled",
    "new parents are not synced": "pulled",
    "the record gets its name before the object": "pulled",
    "the record's folder is not synced": "pulled",
    "a document is not synced": "pulled",
    "new parents of a document are not synced": "verified",
    "a batch: bytes are not synced": "batch",
    "a batch: objects are not synced": "batch",
    "a batch: documents are not synced": "batch",
    "the file system is not synced for many": "batch",
}
_NAMED = {mutation.name: mutation for mutation in MUTATIONS}
MUTATIONS += tuple(
    replace(_NAMED[name], name=f"power cut: {name}", tests=f"{POWER}::test_cut[{scenario}]")
    for name, scenario in _BY_A_POWER_CUT.items()
)


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
            raise ValueError(f"{mutation.name}: not one line to break, in {mutation.path}")
        path.write_text(text.replace(mutation.old, mutation.new))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-x", *mutation.tests.split()],
                cwd=copy, env={**os.environ, "PYTHONPATH": copy}, capture_output=True, text=True,
                check=False, timeout=MOST_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"hangs: {mutation.tests}"
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode and not failed:
            print(
                f"{mutation.name}: no test ran: {done.stdout[-2000:]}{done.stderr}", file=sys.stderr
            )
        return failed[0] if failed else None


def main() -> None:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [mutation for mutation in MUTATIONS if word in mutation.name]
    lived = 0
    print("| what was broken | what found it |\n|---|---|")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for mutation, found in zip(chosen, threads.map(survives, chosen), strict=True):
            lived += found is None
            print(f"| {mutation.name} | {f'`{found}`' if found else '**nothing**'} |", flush=True)
    sys.exit(1 if lived else 0)


if __name__ == "__main__":
    main()
