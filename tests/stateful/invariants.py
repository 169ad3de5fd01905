"""What must hold after each operation, whatever happened before. Each gives what is broken."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from archiver import Archive, LocalStore, events, verify
from archiver.archive import layout
from archiver.archive.backupsets import read_set
from archiver.archive.folders import list_folders
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.selection import Selection
from archiver.commands.ls.listing import State, archived_rows
from archiver.commands.verify import events as verify_events
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.model import VerifySummary
from archiver.errors import ArchiverError, StoreError
from tests.stateful.disk import Look, Seen
from tests.stateful.operations import Outcome, described, leaves
from tests.stateful.truth import Backup
from tests.stateful.vendor import Vendor

# What a verify finds by names and sizes alone, which every command sees.
BY_SIZE = frozenset({Fault.TRUNCATED, Fault.PADDED, Fault.BAD_RECORD, Fault.MISPLACED})


@dataclass(frozen=True)
class Violation:
    """``rule`` is the sort of it, ``text`` the case."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


HUNG = Violation("it hung", "a pipe was read as a file, or it had no end")


class ReadOnlyStore(LocalStore):
    """To look at an archive without leaving a trace."""

    async def put(self, key: str, data: bytes) -> str:
        raise StoreError("this look writes nothing")


def loses_nothing(before: Look, after: Look) -> Iterator[Violation]:
    """What is right in an archive stays so, and the only bytes of a backup stay somewhere."""
    kept = set(after.files.values())
    for backup, was in before.backups.items():
        now = after.backups[backup]
        if was.is_there and not now.is_there:
            where = "they are in quarantine" if now.set_aside else "they are nowhere"
            yield Violation("right bytes lost their name", f"{backup}: {where}")
        elif was.set_aside and not (now.set_aside or now.is_there):
            yield Violation("right bytes are gone from quarantine", f"{backup}")
        if was.is_there and was.record == "" and now.record != "":
            yield Violation("a right record was spoiled", f"{backup}: {now.record or 'gone'}")
        if now.record == "" and not (now.is_there or now.other or was.record == ""):
            yield Violation("a record came before its object", f"{backup}")
        if was.line and not now.line:
            yield Violation("a right line of SHA256SUMS was spoiled", f"{backup}")
        if not was.is_there and not now.is_there and was.other - kept:
            yield Violation("the only bytes are gone", f"{backup}, damaged as they were")
        if len(now.sets) > max(1, len(was.sets)):
            yield Violation("a backup is there twice", f"{backup}: {', '.join(now.sets)}")
    for key in sorted(after.hollow - before.named):
        yield Violation("SHA256SUMS was given a name that is not there", key)


def keeps_foreign(planted: Mapping[Path, str], now: Mapping[Path, str]) -> Iterator[Violation]:
    """Files of others stay as they are."""
    for path, sha256 in planted.items():
        if now.get(path) != sha256:
            yield Violation("a foreign file was touched", f"{path.parent.name}/{path.name}")


def only_read(
    name: str, before: Look, after: Look, but: tuple[str, ...] = ()
) -> Iterator[Violation]:
    """An archive that was to be read is as it was, but for what is below ``but``; and where a
    verify may write, for catalogues that it makes anew."""
    keys = before.files.keys() | after.files.keys()
    changed = sorted(k for k in keys if before.files.get(k) != after.files.get(k))
    may_index = bool(but)
    for key in changed:
        if key.startswith(but) or (may_index and key.endswith(f"/{layout.INDEX_NAME}")):
            continue
        yield Violation("what was only to be read was changed", f"{key} of {name}")
        return


def fails_well(outcome: Outcome) -> Iterator[Violation]:
    for error in outcome.escaped:
        yield Violation("an exception escaped", described(error))
    if outcome.hung:
        yield HUNG
    if outcome.returned_too_soon:
        yield Violation("it returned while its thread was at work", f"at {outcome.struck}")


def tells_the_truth(outcome: Outcome, after: Look) -> Iterator[Violation]:
    """Of a file that is said to be archived, repaired or verified. What was said last counts: a
    verify that came after a repair says it anew."""
    said: dict[str, object] = {}
    for event in outcome.said:
        if isinstance(event, events.Archived | verify_events.Repaired | verify_events.Verified):
            said[event.key] = event
    names = {backup.stem: backup for backup in after.backups}
    found = {finding.stem for finding in getattr(outcome.summary, "findings", ())}
    for key, event in said.items():
        stem = key.rpartition(".")[0]
        backup = names.get(stem.rpartition("/")[2])
        if backup is None or stem in found:
            continue
        what, now = type(event).__name__.lower(), after.backups[backup]
        if not now.is_there:
            yield Violation(f"said to be {what}, with other bytes", f"{backup}")
        elif not isinstance(event, verify_events.Verified) and now.record:
            yield Violation(f"said to be {what}, with a wrong record", f"{backup}: {now.record}")


def pull_kept_its_word(outcome: Outcome, vendor: Vendor, after: Look) -> Iterator[Violation]:
    if outcome.exit_code == 0:
        for backup, now in after.backups.items():
            if vendor.lists_as_done(backup) and not _is_held(now):
                yield Violation("pull ended with 0, and a listed backup is not here", f"{backup}")


def copy_kept_its_word(outcome: Outcome, source: Look, after: Look) -> Iterator[Violation]:
    if outcome.exit_code == 0:
        for backup, there in source.backups.items():
            now = after.backups[backup]
            if there.record is not None and not _is_held(now):
                yield Violation("copy ended with 0, and a backup is not here", f"{backup}")
            elif there.record is not None and there.is_sealed and not now.line:
                yield Violation("copy ended with 0, and SHA256SUMS is not whole", f"{backup}")


def _is_held(seen: Seen) -> bool:
    """A pull and a copy do not read again what they held before: its size was right."""
    return seen.record is not None and seen.is_named


def others_came_home(coming: Collection[Backup], before: Look, after: Look) -> Iterator[Violation]:
    """Whatever is wrong with one backup, those that nothing is wrong with come."""
    spoiled = {b.job for b, was in before.backups.items() if was.left_a_trace and not was.is_whole}
    for backup in coming:
        if not after.backups[backup].is_home and backup.job not in spoiled:
            yield Violation("one thing kept another backup from coming home", f"{backup}")


def repair_did_its_work(
    supplied: Collection[Backup], outcome: Outcome, before: Look, after: Look
) -> Iterator[Violation]:
    """What a supplier has all of is whole after a repair, whatever was wrong with it. A SHA256SUMS
    that lost lines may have named what it lacks."""
    lacking = {backup.job for backup in before.backups if backup not in supplied}
    doubted = {
        b.instance for b, was in before.backups.items() if b.job in lacking and was.left_a_trace
    }
    lacking |= {
        backup.job
        for backup, was in before.backups.items()
        if backup.instance in doubted and was.line is not True
    }
    known = {backup.job for backup, was in before.backups.items() if was.left_a_trace}
    wrong = [
        f"{backup}: {now}"
        for backup, now in after.backups.items()
        if backup.job in known - lacking and not now.is_whole
    ]
    for one in wrong:
        yield Violation("a repair from what is right left something wrong", one)
    # Of an archive that is empty, a verify says that; and it makes its own results anew.
    is_told = not known or _tells_only_of_results(outcome)
    if before.is_archive and outcome.exit_code != 0 and not (is_told or wrong or known & lacking):
        yield Violation("a repair put all right, and did not end with 0", str(outcome))


def _tells_only_of_results(outcome: Outcome) -> bool:
    summary = outcome.summary
    return (
        isinstance(summary, VerifySummary)
        and bool(summary.findings)
        and not summary.not_repaired
        and all(finding.fault is Fault.BAD_RESULTS for finding in summary.findings)
    )


def verify_kept_its_word(outcome: Outcome, before: Look, after: Look) -> Iterator[Violation]:
    """Of a verify, and of a repair, which ends with one."""
    if outcome.exit_code != 0:
        return
    for backup, now in after.backups.items():
        if not (now.left_a_trace or before.backups[backup].left_a_trace):
            continue
        if not now.is_there:
            yield Violation("it ended with 0, and bytes are wrong or missing", f"{backup}")
        elif now.record != "":
            why = "no record" if now.record is None else now.record
            yield Violation("it ended with 0, and a record is wrong", f"{backup}: {why}")
        elif now.line is False:
            yield Violation("it ended with 0, and SHA256SUMS is wrong", f"{backup}")


def restored_the_truth(outcome: Outcome, here: Look) -> Iterator[Violation]:
    names = {backup.stem: backup for backup in here.backups}
    dumps = {
        backup.instance
        for backup, seen in here.backups.items()
        if seen.is_whole and backup.content.is_full
    }
    for file in getattr(outcome.summary, "files", ()):
        backup = names.get(file.record.key.rpartition("/")[2].removesuffix(".json"))
        if backup is not None and file.copied.path.read_bytes() != backup.data:
            yield Violation("other bytes were restored", f"{backup}")
        if outcome.exit_code == 0 and file.command is None:
            yield Violation("restore ended with 0, and no server starts on it", f"{backup}")
        if backup is not None and not backup.content.is_full and backup.instance in dumps:
            yield Violation("a log was restored though there are dumps", f"{backup}")


async def commands_agree(root: Path) -> list[Violation]:
    """ls, verify and the listing of restore, of one archive."""
    archive = Archive(ReadOnlyStore(root))
    try:
        findings = (await verify(archive)).findings
        rows = await archived_rows(archive)
        folders = await list_folders(archive)
        sets = [(folders.parts(one), await read_set(archive, one, folders)) for one in folders]
    except ArchiverError as error:
        return [Violation("one thing keeps a command from all others", f"{error}")]
    except Exception as error:  # noqa: BLE001 - that is the finding
        return _escaped(error)
    faults: dict[str | None, set[Fault]] = {}
    for finding in findings:
        faults.setdefault(finding.place, set()).add(finding.fault)
    wrong_in_ls = {r.set_key for r in rows if r.state is not State.ARCHIVED or r.set_note}
    broken = []
    for parts, one in sets:
        keys = {part.key for part in parts}
        found = set[Fault]().union(*(faults.get(key, set()) for key in keys))
        why = one.why_not if not one.is_complete else "complete"
        is_wrong_in_ls = bool(keys & wrong_in_ls)
        ls = "not whole" if is_wrong_in_ls else "whole"
        told = f"{one.key}: verify {sorted(found)}, restore {why}, ls {ls}"
        of_month = faults.get(layout.month_of(one.key), set())
        if not (found | of_month) and not (one.is_complete and not is_wrong_in_ls):
            broken.append(Violation("verify finds nothing where others do", told))
        elif found & BY_SIZE and (one.is_complete or not is_wrong_in_ls):
            broken.append(Violation("verify finds what others overlook", told))
        elif one.is_complete and is_wrong_in_ls:
            broken.append(Violation("restore offers what ls calls damaged", told))
    return broken


def _escaped(error: BaseException) -> list[Violation]:
    return [Violation("an exception escaped", described(one)) for one in leaves(error)]


def _records(look: Look) -> set[str]:
    return {key for key in look.files if key.endswith(".json") and key.count("/") in (3, 4)}


async def mirrors_agree(root: Path, other: Path, here: Look, there: Look) -> list[Violation]:
    """Whether a mirror check of two archives sees what their records and objects are."""
    try:
        source, target = Archive(ReadOnlyStore(root)), Archive(ReadOnlyStore(other))
        found = [one async for one in mismatches(source, target, Selection())]
    except ArchiverError as error:
        return [Violation("one thing keeps a command from all others", f"{error}")]
    except Exception as error:  # noqa: BLE001 - that is the finding
        return _escaped(error)
    alike = all(_is_held(one) == _is_held(there.backups[b]) for b, one in here.backups.items())
    if not found and not alike:
        return [Violation("a mirror check overlooks a difference", f"{root.name}, {other.name}")]
    right = (
        not (here.hollow or there.hollow or here.torn or there.torn)
        and _records(here) == _records(there)
        and all(
            one.is_whole or not one.left_a_trace
            for look in (here, there)
            for one in look.backups.values()
        )
    )
    if found and alike and right:
        return [Violation("a mirror check sees what is not so", str(found[0]))]
    return []


async def is_settled(root: Path, now: Look, codes: Sequence[int | None]) -> list[Violation]:
    """After everything was healed, and two rounds, the last of which ended with ``codes``."""
    broken = [
        Violation("two rounds were not enough", f"{backup}: {seen}")
        for backup, seen in now.backups.items()
        if not seen.is_whole
    ]
    if any(codes) and now.backups:  # an archive of nothing is not well, whatever was done
        broken.append(Violation("two rounds did not end with 0", f"but with {codes}"))
    try:
        findings = (await verify(Archive(ReadOnlyStore(root)))).findings
        broken += [Violation("two rounds left a finding", str(one)) for one in findings]
    except ArchiverError as error:
        broken.append(Violation("two rounds left a finding", str(error)))
    left = [key for key in now.files if key.startswith(".staging/")]
    broken += [Violation("two rounds left debris", key) for key in left]
    return broken


async def is_mirrored(source: Path, target: Path) -> list[Violation]:
    """After a copy that ended with 0, a mirror check has nothing to say of the target, but for
    what the source has no record of."""
    here, there = Archive(ReadOnlyStore(source)), Archive(ReadOnlyStore(target))
    try:
        found = [one async for one in mismatches(here, there, Selection())]
    except ArchiverError as error:
        return [Violation("copy ended with 0, and a mirror check does not", str(error))]
    except Exception as error:  # noqa: BLE001 - that is the finding
        return _escaped(error)
    return [
        Violation("copy ended with 0, and a mirror check finds the target wanting", str(one))
        for one in found
        if f" in {target}" in one.what and (source / one.key).with_suffix(".json").exists()
    ]
