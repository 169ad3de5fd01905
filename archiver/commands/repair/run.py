"""Repairs what a verify found wrong, and verifies it again.

1. Group the findings by backup set. Move misplaced files away that are duplicates of right ones.
2. Get the right bytes from a supplier: another archive, or the source. Then move misplaced files
   away again, because some are duplicates only now.
3. Verify all files of these sets again. What is still wrong stays a finding.

A damaged object is the only copy of its bytes until the right ones are durable, so it keeps its
name until then. A repair removes no name: what could not be supplied stays wrong.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.verified import forget
from archiver.commands.repair.misplaced import move_duplicates
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.model import VerifyOptions, VerifySummary
from archiver.commands.verify.run import verify
from archiver.commands.verify.words import OF_VERIFY
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    InstanceForbidden,
    IntegrityError,
    UnreadableObject,
)
from archiver.logs import logged, relayed
from archiver.model import Kind
from archiver.stores.scope import scope_of

# Faults of what is written about an object, which may be right itself.
BESIDE = frozenset({Fault.BAD_RECORD, Fault.MISPLACED, Fault.CONTRADICTION, Fault.UNRECORDED})


@dataclass(slots=True)
class WrongSet:
    """What is wrong in one backup set, or with a month's SHA256SUMS (then ``key`` is the month's).

    ``stems`` are the faults by stem. ``whole``: files may be missing that nothing here names.
    ``may_be_aof``: not all files are known to be dumps. ``belongs`` is the right set of misplaced
    backups, by stem; ``missing`` are the findings about objects that are gone, by stem.
    """

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
        """The keys and stems to report when nothing of it can be repaired."""
        return sorted(self.stems) or [layout.sums_key(self.key) if self.is_month else self.key]

    def key_of(self, stem: str) -> str:
        """The key to report for a stem: that of the object, if it is known."""
        return self.missing[stem].key if stem in self.missing else stem

    def absent(self, stem: str, why: BackupFailed) -> BackupFailed:
        """The error for a backup that the supplier does not have: ``why``, unless its record says
        that it belongs in another set."""
        folder, missing = self.belongs.get(stem), self.missing.get(stem)
        if folder is not None:
            return BackupFailed(
                f"by its record, it belongs in {folder}",
                hint="move record and object there by hand, or pull that time, and repair again",
            )
        if missing is not None and missing.cure is not None:
            return type(why)(why.message, hint=missing.cure)
        return why

    def is_damaged(self, stem: str) -> bool:
        """Whether it is the object itself that is wrong."""
        return bool(self.stems.get(stem, set()) - BESIDE)


@dataclass(frozen=True, slots=True)
class Supplied:
    """The result of a supplier: the stems whose bytes it supplied or compared with its own, and
    what it could not repair."""

    confirmed: frozenset[str]
    not_repaired: tuple[events.NotRepaired, ...]


class Supplier(Protocol):
    """A source of the right bytes."""

    async def supply(
        self, archive: Archive, wrong: Mapping[str, WrongSet], observer: events.Observer
    ) -> Supplied:
        """Repair what can be repaired, except in instances that another process writes to.

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
    """Repair what ``summary`` found, and verify it again; return the summary of both. What is not
    repaired is reported at the end: what one step refuses, a later one may put right.

    An instance that another process writes to is not repaired, as ArchiveBusy. No archive is
    created. Raises UsageError where there is no archive, StoreError, and the errors of the supplier
    that end its run.
    """
    await archive.expect()
    observer = logged(observer, OF_VERIFY)
    hidden = [
        events.NotRepaired(f.key, IntegrityError(f.text, hint=f.advice))
        for f in summary.findings
        if f.fault is Fault.HIDDEN
    ]
    wrong = wrong_sets(summary.findings)
    if not wrong:
        for event in hidden:
            observer(event)
        return replace(summary, not_repaired=hidden) if hidden else summary
    held = [*hidden]

    def observe(event: events.ScrubEvent) -> None:
        if isinstance(event, events.NotRepaired):
            held.append(event)
        else:
            observer(event)

    workers = (options or VerifyOptions()).workers
    try:
        done = await _Repair(archive, summary, wrong, supplier, workers, relayed(observe)).run()
        held = [*hidden, *done.not_repaired]
    finally:
        for event in held:
            observer(event)
    return replace(done, not_repaired=held)


@dataclass(frozen=True, slots=True)
class _Repair:
    """The repair of what is ``wrong`` by the findings of ``summary``."""

    archive: Archive
    summary: VerifySummary
    wrong: Mapping[str, WrongSet]
    supplier: Supplier
    workers: int
    observer: events.Observer

    async def run(self) -> VerifySummary:
        """Repair it, and return the summary after it was verified again."""
        archive, summary, wrong = self.archive, self.summary, self.wrong
        supplied = await self._supplied()
        # A misplaced file that was the only copy may be a duplicate by now.
        moved = await move_duplicates(archive, summary.findings, self.observer)
        failed = [
            one for one in supplied.not_repaired if layout.stem_of(one.key) not in moved.stems
        ]
        # The results of an earlier verify may be what is wrong. Where they may not be written,
        # those of the verify below are not stored either, which it says.
        for instance_id in set(map(scope_of, supplied.confirmed)):
            with suppress(InstanceForbidden):
                own = {stem for stem in supplied.confirmed if scope_of(stem) == instance_id}
                await forget(archive.store, own)
        again = await self._verify(wrong)
        concerned = [finding for finding in summary.findings if _concerns(finding, wrong)]
        still = [finding for finding in again.findings if _concerns(finding, wrong)]
        still += await _lost(archive, concerned, still, failed)
        return _combined(summary, again, wrong, still, failed)

    async def _supplied(self) -> Supplied:
        """Move misplaced duplicates away, and have the supplier repair what is wrong then."""
        wrong, found = self.wrong, self.summary.findings
        misplaced = await move_duplicates(self.archive, found, self.observer)
        if misplaced.sets:
            there = await self._verify(misplaced.sets)
            others = [f for f in found if f.place not in misplaced.sets]
            wrong = wrong_sets([*others, *there.findings])
        for one in wrong.values():
            one.belongs = misplaced.belongs
        failed = not_written(wrong, misplaced.busy, self.observer)
        wrong = {f: one for f, one in wrong.items() if scope_of(f"{f}/") not in misplaced.busy}
        if not wrong:
            return Supplied(frozenset(), tuple(failed))
        supplied = await self.supplier.supply(self.archive, wrong, self.observer)
        return replace(supplied, not_repaired=(*failed, *supplied.not_repaired))

    async def _verify(self, sets: Collection[str]) -> VerifySummary:
        options = VerifyOptions(sets=frozenset(sets), workers=self.workers)
        return await verify(self.archive, options, _silent_findings(self.observer))


def _combined(
    summary: VerifySummary,
    again: VerifySummary,
    wrong: Mapping[str, WrongSet],
    still: Sequence[Finding],
    failed: Sequence[events.NotRepaired],
) -> VerifySummary:
    """The summary of a repair, after which the findings ``still`` remain in what was ``wrong``."""
    left = {finding.identity for finding in still}
    right = wrong.keys() - {finding.place for finding in still}
    concerned = [finding for finding in summary.findings if _concerns(finding, wrong)]
    others = [finding for finding in summary.findings if not _concerns(finding, wrong)]
    return replace(
        summary,
        findings=[*others, *still],
        repaired=[finding for finding in concerned if finding.identity not in left],
        not_repaired=[one for one in failed if place_of(one.key) not in right],
        results_not_kept=summary.results_not_kept or again.results_not_kept,
    )


def _concerns(finding: Finding, wrong: Mapping[str, WrongSet]) -> bool:
    """Whether a finding is about one of these sets, or in one of these months."""
    place = finding.place
    return place is not None and not wrong.keys().isdisjoint((place, layout.month_of(place)))


def place_of(key: str) -> str:
    """The set or month of a key that a repair reported."""
    if layout.is_of_a_month(key):
        return layout.month_of(key)
    return layout.set_of(key) if layout.is_of_a_set(key) else layout.set_of(f"{key}.rdb")


def not_written(
    wrong: Mapping[str, WrongSet], busy: Mapping[str, ArchiverError], observer: events.Observer
) -> list[events.NotRepaired]:
    """Report what is wrong in instances that another process writes to, or that this user may not
    write to: it is not repaired."""
    failed = [
        events.NotRepaired(one.key_of(subject), busy[scope_of(f"{key}/")])
        for key, one in wrong.items()
        if scope_of(f"{key}/") in busy
        for subject in one.subjects
    ]
    for event in failed:
        observer(event)
    return failed


async def _lost(
    archive: Archive,
    concerned: Sequence[Finding],
    still: Iterable[Finding],
    failed: Collection[events.NotRepaired],
) -> list[Finding]:
    """Return those of the findings ``concerned`` that are not ``still`` found, although neither
    object nor record of the backup is here: they stay findings, whether or not anything names it
    for a verify to miss it."""
    stems = {f.key: f.stem for f in concerned if f.stem is not None}
    reported = {stems.get(event.key, event.key) for event in failed}
    lost = {stem for stem in reported if await _is_lost(archive, stem)}
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
        return False  # a verify reports it


def wrong_sets(findings: Iterable[Finding]) -> dict[str, WrongSet]:
    """Group findings by the set or month that they concern, without those that concern none."""
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
    """Pass events on, except findings, which were reported before the repair."""

    def observe(event: events.ScrubEvent) -> None:
        if not isinstance(event, events.Found | events.ResultsNotKept):
            observer(event)

    return relayed(observe)
