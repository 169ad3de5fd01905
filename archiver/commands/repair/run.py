"""Putting right what a verify found wrong, and verifying that again.

1. What is wrong, by backup set. Misplaced doubles of what is right elsewhere are moved away.
2. A supplier brings the right bytes: another archive, or the source. What was misplaced, and came
   to its own place now, is moved away.
3. The sets concerned are verified again, whole; what is still wrong stays a finding.

A damaged object is the only copy of its bytes until the right ones are durable: it stays in its
place until these take its name. A repair removes no name: what could not be brought stays wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.verified import forget
from archiver.commands.repair.misplaced import move_doubles
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.model import VerifyOptions, VerifySummary
from archiver.commands.verify.run import verify
from archiver.commands.verify.words import OF_VERIFY
from archiver.errors import ArchiveBusy, BackupFailed, IntegrityError, UnreadableObject
from archiver.logs import logged, relayed
from archiver.model import Kind
from archiver.stores.scope import scope_of

# Findings about what is written beside an object that may well be right.
BESIDE = frozenset({Fault.BAD_RECORD, Fault.MISPLACED, Fault.CONTRADICTION, Fault.UNRECORDED})


@dataclass(slots=True)
class WrongSet:
    """What is wrong in one backup set, or with all of a month's SHA256SUMS (then ``key`` is the
    month's): faults by the stem they concern; ``whole`` when files may be missing that nothing here
    names; ``may_be_aof`` unless all are known to be dumps. By stem, ``belongs`` are the sets that
    misplaced backups belong in, and ``missing`` what was found of objects that are gone."""

    key: str
    stems: dict[str, set[Fault]] = field(default_factory=dict)
    whole: bool = False
    may_be_aof: bool = False
    belongs: Mapping[str, str] = field(default_factory=dict)
    missing: dict[str, Finding] = field(default_factory=dict)

    @property
    def is_month(self) -> bool:
        return layout.month_of(self.key) == self.key

    @property
    def subjects(self) -> list[str]:
        """What is told of where nothing of it can be repaired."""
        return sorted(self.stems) or [layout.sums_key(self.key) if self.is_month else self.key]

    def key_of(self, stem: str) -> str:
        """What is said to be wrong under this stem: the object's key, where that is known."""
        return self.missing[stem].key if stem in self.missing else stem

    def absent(self, stem: str, why: BackupFailed) -> BackupFailed:
        """Why a backup cannot be had: ``why``, unless it is of another place by its record."""
        folder, missing = self.belongs.get(stem), self.missing.get(stem)
        if folder is None and missing is not None and missing.cure is not None:
            return type(why)(why.message, hint=missing.cure)
        if folder is None:
            return why
        return BackupFailed(
            f"its record is of another place: it belongs in {folder}",
            hint="move record and object there by hand, or pull that time, and repair again",
        )

    def is_damaged(self, stem: str) -> bool:
        """Whether it is the object itself that is wrong."""
        return bool(self.stems.get(stem, set()) - BESIDE)


@dataclass(frozen=True, slots=True)
class Supplied:
    """What a supplier came to: the stems whose bytes it brought or compared with its own, and what
    it could not put right."""

    confirmed: frozenset[str]
    not_repaired: tuple[events.NotRepaired, ...]


class Supplier(Protocol):
    """Where the right bytes come from."""

    async def supply(
        self, archive: Archive, wrong: Mapping[str, WrongSet], observer: events.Observer
    ) -> Supplied:
        """Put right what can be; what another process writes to is not repaired.

        Raises StoreError of the archive that is repaired, and what ends a run.
        """
        ...


async def repair(
    archive: Archive,
    summary: VerifySummary,
    supplier: Supplier,
    options: VerifyOptions | None = None,
    observer: events.Observer = events.ignore,
) -> VerifySummary:
    """Repair what ``summary`` found, verify it again; the summary of both. An instance that another
    process writes to is not repaired, as ArchiveBusy. No archive is begun.

    Raises UsageError where there is no archive, StoreError, and what the supplier raises that ends
    its run.
    """
    await archive.expect()
    observer = logged(observer, OF_VERIFY)
    wrong = wrong_sets(summary.findings)
    hidden = [
        events.NotRepaired(f.key, IntegrityError(f.text, hint=f.advice))
        for f in summary.findings
        if f.fault is Fault.HIDDEN
    ]
    for event in hidden:
        observer(event)
    if not wrong:
        return replace(summary, not_repaired=hidden) if hidden else summary
    workers = (options or VerifyOptions()).workers
    supplied = await _supplied(archive, summary, wrong, supplier, workers, observer)
    # What was the only copy may be right at its own place by now.
    moved = await move_doubles(archive, summary.findings, observer)
    failed = [one for one in supplied.not_repaired if layout.stem_of(one.key) not in moved.stems]
    supplied = replace(supplied, not_repaired=tuple(failed))
    # What an earlier verify saw of these may be what is wrong.
    await forget(archive.store, supplied.confirmed)
    again = await verify(
        archive, VerifyOptions(sets=frozenset(wrong), workers=workers), _silent_findings(observer)
    )
    concerned = [finding for finding in summary.findings if _concerns(finding, wrong)]
    still = [finding for finding in again.findings if _concerns(finding, wrong)]
    still += await _lost(archive, concerned, still, supplied)
    left = {finding.identity for finding in still}
    right = wrong.keys() - {finding.place for finding in still}
    return replace(
        summary,
        findings=[f for f in summary.findings if not _concerns(f, wrong)] + still,
        repaired=[f for f in concerned if f.identity not in left],
        not_repaired=hidden
        + [event for event in supplied.not_repaired if place_of(event.key) not in right],
        results_not_kept=summary.results_not_kept or again.results_not_kept,
    )


def _concerns(finding: Finding, wrong: Mapping[str, WrongSet]) -> bool:
    """Whether it is of these sets, or in one of these months."""
    place = finding.place
    return place is not None and not wrong.keys().isdisjoint((place, layout.month_of(place)))


def place_of(key: str) -> str:
    """The set or month that a repair told of under this key."""
    if layout.is_of_a_month(key):
        return layout.month_of(key)
    return layout.set_of(key) if layout.is_of_a_set(key) else layout.set_of(f"{key}.rdb")


async def _supplied(
    archive: Archive,
    summary: VerifySummary,
    wrong: Mapping[str, WrongSet],
    supplier: Supplier,
    workers: int,
    observer: events.Observer,
) -> Supplied:
    """Move misplaced doubles away, and have the supplier bring what is wrong then."""
    misplaced = await move_doubles(archive, summary.findings, observer)
    if misplaced.sets:
        moved = VerifyOptions(sets=frozenset(misplaced.sets), workers=workers)
        there = await verify(archive, moved, _silent_findings(observer))
        others = [f for f in summary.findings if f.place not in misplaced.sets]
        wrong = wrong_sets([*others, *there.findings])
    for one in wrong.values():
        one.belongs = misplaced.belongs
    failed = not_written(wrong, misplaced.busy, observer)
    wrong = {f: one for f, one in wrong.items() if scope_of(f"{f}/") not in misplaced.busy}
    if not wrong:
        return Supplied(frozenset(), tuple(failed))
    supplied = await supplier.supply(archive, wrong, observer)
    return replace(supplied, not_repaired=(*failed, *supplied.not_repaired))


def not_written(
    wrong: Mapping[str, WrongSet], busy: Mapping[str, ArchiveBusy], observer: events.Observer
) -> list[events.NotRepaired]:
    """What is wrong in instances that another process writes to: it stays, and is told."""
    failed = [
        events.NotRepaired(one.key_of(stem), busy[scope_of(f"{folder}/")])
        for folder, one in wrong.items()
        if scope_of(f"{folder}/") in busy
        for stem in sorted(one.stems) or [folder]
    ]
    for event in failed:
        observer(event)
    return failed


async def _lost(
    archive: Archive, concerned: Sequence[Finding], still: Iterable[Finding], supplied: Supplied
) -> list[Finding]:
    """Of the findings ``concerned``, those of backups that did not come and are not here, and that
    are not ``still`` found: whether or not a name is left that a verify finds, they are missing."""
    stems = {f.key: f.stem for f in concerned if f.stem is not None}
    told = {stems.get(event.key, event.key) for event in supplied.not_repaired}
    lost = {stem for stem in told if await _is_lost(archive, stem)}
    left = {finding.identity for finding in still}
    return [f for f in concerned if f.stem in lost and f.identity not in left]


async def _is_lost(archive: Archive, stem: str) -> bool:
    """Whether a backup, by its key without suffix, has neither an object nor a record."""
    if not layout.is_object(f"{stem}.{Kind.RDB}"):
        return False
    try:
        keys = [layout.record_key(stem), *(f"{stem}.{kind}" for kind in Kind)]
        return not any([await archive.store.size(key) is not None for key in keys])
    except UnreadableObject:
        return False  # a verify says so


def wrong_sets(findings: Iterable[Finding]) -> dict[str, WrongSet]:
    """The sets and months that findings concern, by key; findings that concern none are left
    out."""
    found: dict[str, WrongSet] = {}
    for finding in findings:
        if finding.place is None:
            continue
        wrong = found.setdefault(finding.place, WrongSet(finding.place))
        wrong.may_be_aof |= not finding.key.endswith(f".{Kind.RDB}")
        if finding.stem is None:
            wrong.whole = True
        else:
            wrong.stems.setdefault(finding.stem, set()).add(finding.fault)
            if finding.fault is Fault.MISSING:
                wrong.missing[finding.stem] = finding
    return found


def _silent_findings(observer: events.Observer) -> events.Observer:
    """What is still wrong was told of before."""

    def observe(event: events.ScrubEvent) -> None:
        if not isinstance(event, events.Found | events.ResultsNotKept):
            observer(event)

    return relayed(observe)
