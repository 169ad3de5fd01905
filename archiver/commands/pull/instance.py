"""One instance of a pull, from its listing to its sets.

1. Its backups are listed, a page at a time, and each is looked for in the archive.
2. At the first that is to be fetched the instance's lock is taken, and the archive is looked at
   again: another writer may have written it meanwhile. While the lock is waited for, other
   instances are listed.
3. What is to be fetched goes to the workers.
4. When all of it has ended, complete sets get their lines in the SHA256SUMS of their months, the
   months that were written to their catalogues, and the lock is released.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final, assert_never

from archiver import events
from archiver.archive import layout
from archiver.archive.acknowledged import Acknowledged, Acknowledgement
from archiver.archive.archive import Archive
from archiver.archive.indexing import Indexing, not_written
from archiver.archive.inventory import Finding, Inventory
from archiver.archive.sealing import SealPlan
from archiver.commands.pull.plan import Action, PullOptions, decide
from archiver.commands.pull.sets import ListedSets
from archiver.commands.summary import Summary
from archiver.commands.writer import InstanceWriter, Locks
from archiver.concurrency import Turns
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    NoSpace,
    PlaceTaken,
    StoreError,
    others_not_asked,
)
from archiver.ids import check_backup
from archiver.model import Backup, Page, Query, Stored, Transfer
from archiver.sources.base import Source
from archiver.transfer.receipt import empty_dump

AGAIN = "downloading it again"
# For a backup that failed at the vendor: there will never be a file.
NEVER_MADE_HINT = (
    "acknowledge it with archiver ack, by this name or by its set, and it no longer counts as a "
    "failure"
)
# For one in an acknowledged set: nobody knew then that this node would be missing.
NOT_MEANT_HINT = (
    "the acknowledgement of its set does not name this node: acknowledge it by this name, too"
)


@dataclass(slots=True)
class Shared:
    """What the instances of a run have in common.

    ``index`` are the months whose catalogues are to be made anew. ``listing`` is for the one that
    is being listed. ``full``: the disk is; what is under way may
    still fit, and nothing new is begun. ``not_listed`` counts the queries that are left, by region;
    none of those in a region that is ``over`` will be answered.
    """

    source: Source
    archive: Archive
    options: PullOptions
    notify: events.Observer
    acknowledged: Acknowledged
    index: Indexing
    not_listed: Counter[str]
    summary: Summary = field(default_factory=Summary)
    listing: Turns = field(default_factory=Turns)
    locks: Locks = field(default_factory=Locks)
    full: NoSpace | None = None
    over: set[str] = field(default_factory=set)
    _is_begun: bool = False

    async def begin(self) -> None:
        """Begin the archive, if there is none: the source has answered."""
        if not self._is_begun and not self.options.dry_run:
            await self.archive.begin(self.observer)
            self._is_begun = True

    def observer(self, event: events.Event) -> None:
        self.summary(event)
        self.notify(event)

    def failed(self, subject: str, error: ArchiverError, backup: Backup | None = None) -> None:
        self.observer(events.Failed(subject, error, backup))

    @contextmanager
    def naming(self, subject: str, backup: Backup | None = None) -> Iterator[None]:
        """What fails here fails for ``subject`` alone, unless it ends the run."""
        try:
            yield
        except ArchiverError as error:
            if error.ends_run:
                raise
            self.failed(subject, error, backup)

    @contextmanager
    def draining(self) -> Iterator[None]:
        """A full disk begins nothing more, and ends the run once what is under way has ended."""
        try:
            yield
        except NoSpace as error:
            self.full = self.full or error


@dataclass(frozen=True, slots=True)
class Planned:
    """A backup that is to be fetched. Who does that calls :meth:`ended`, whatever comes of it."""

    instance: "InstancePull"
    sets: ListedSets
    transfer: Transfer

    def ended(self) -> None:
        self.instance.writer.ended_one()

    def archived(self, stored: Stored) -> None:
        self.instance.archived(self.sets, self.transfer, stored)


class InstancePull:
    """The part of a run that is about one instance."""

    def __init__(
        self,
        shared: Shared,
        instance_id: str,
        queries: Sequence[Query],
        enqueue: Callable[[Planned], Awaitable[None]],
    ) -> None:
        options = shared.options
        self._id: Final = instance_id
        self._shared: Final = shared
        self._queries: Final = queries
        self._enqueue: Final = enqueue
        self._inventory: Final = Inventory(shared.archive.store, options.again | options.repaired)
        self._listed: Final[list[ListedSets]] = []
        self._unfinished: Final[set[str]] = set()
        # By their stems, the backups that this run planned, and whether they are archived: of an
        # instance that several queries list.
        self._home: Final[dict[str, bool]] = {}
        self._twice: Final[list[tuple[ListedSets, Transfer]]] = []
        self.writer: Final = InstanceWriter(
            shared.archive, instance_id, shared.listing, shared.locks, shared.observer
        )

    async def run(self) -> None:
        """All of it. Raises what ends the run. Where its lock or its documents find the disk full,
        what is under way for others may still fit."""
        with self._shared.draining():
            await self._run()

    async def _run(self) -> None:
        writer = self.writer
        with writer.while_held():
            async with writer.turn():
                await self._list()
        await writer.nothing_under_way()
        is_whole = self._shared.full is None and not writer.is_busy
        if is_whole and not self._shared.options.dry_run:
            with writer.while_held():
                await self._close()
        self._shared.index.forget(self._id)
        await writer.release()

    # Its listing, and the plan

    async def _list(self) -> None:
        """The pages of its queries; what cannot be listed fails. What the source would say of all
        other instances, too, is said once, and ends the listing of all."""
        shared = self._shared
        for query in self._queries:
            if query.region in shared.over or self.writer.is_busy:
                return
            shared.not_listed[query.region] -= 1
            sets = ListedSets(shared.archive, self._inventory, shared.options.repaired)
            count = 0
            try:
                async with aclosing(shared.source.pages(query)) as pages:
                    async for page in pages:
                        await shared.begin()
                        count += len(page.backups) + len(page.refused)
                        if not await self._plan(sets, page):
                            return
                if count == 0:
                    nothing = events.NothingListed(query.instance_id, query.start, query.end)
                    shared.observer(nothing)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                sets.is_whole = False
                if error.concerns_all:
                    shared.over.add(query.region)
                    if left := shared.not_listed[query.region]:
                        error.message += f"; {others_not_asked(left)}"
                shared.failed(self._id, error)
            self._listed.append(sets)

    async def _plan(self, sets: ListedSets, page: Page) -> bool:
        """Send what is to be fetched of a page to the workers. False when nothing more can be."""
        for one in page.refused:
            sets.refused(one.set_id, one.started_at)
            self._shared.failed("a listed entry", one.error)
        for backup in filter(self._shared.options.wants, page.backups):
            with self._shared.naming(str(backup), backup), sets.reading(backup):
                finding = await self._inventory.find(check_backup(backup))
                if self._needs_lock(finding):
                    if not await self.writer.begin_out_of_turn():
                        return False
                    self._inventory.look_again()  # another writer may have written it meanwhile
                    finding = await self._inventory.find(backup)
                await self._follow(sets, finding)
            if self._shared.full is not None or self.writer.is_busy:
                return False
        return True

    def _decide(self, finding: Finding) -> Action:
        return decide(finding, self._shared.options, self._home)

    def _needs_lock(self, finding: Finding) -> bool:
        may_write = self.writer.is_writer or self._shared.options.dry_run
        return not may_write and self._decide(finding) is Action.FETCH

    async def _follow(self, sets: ListedSets, finding: Finding) -> None:
        """Do what the plan says about a backup, and report it."""
        shared, transfer = self._shared, finding.transfer
        backup = transfer.backup
        await self._report_damage(finding)
        sets.listed(transfer)
        match action := self._decide(finding):
            case Action.UNREADABLE | Action.EMPTY:
                is_hidden = action is Action.UNREADABLE
                why = finding.unreadable if is_hidden else empty_dump(backup, backup.size)
                if why is not None:
                    shared.failed(str(backup), why, backup)
            case Action.HELD:
                shared.observer(events.Held(backup))
                if not shared.options.dry_run:
                    self._held(sets, transfer, fresh=False)
            case Action.UNFINISHED:
                shared.observer(events.Unfinished(backup))
            case Action.FAILED:
                await self._never_made(transfer)
            case Action.DUPLICATE:
                # Two at work on one file would pull it from each other.
                self._twice.append((sets, transfer))
            case Action.FETCH:
                await self._fetch(sets, finding)
            case never:
                assert_never(never)

    async def _report_damage(self, finding: Finding) -> None:
        transfer = finding.transfer
        backup, set_key = transfer.backup, transfer.set_key
        if finding.damage is not None:
            is_here = finding.is_record_bad and await self._inventory.present(transfer.stem)
            cure = "checking its file and writing the record again" if is_here else AGAIN
            self._shared.observer(events.Damaged(backup, finding.damage, cure))
        elif finding.found_wrong is not None and set_key not in self._shared.options.repaired:
            self._shared.observer(events.FoundWrong(backup, finding.found_wrong))

    async def _fetch(self, sets: ListedSets, finding: Finding) -> None:
        transfer = finding.transfer
        if len(self._queries) > 1:
            self._home[transfer.stem] = False
        if not self._shared.options.dry_run:
            # What has an object's name stays until the right bytes are there.
            await self._clear(filter(layout.is_record, finding.in_the_way))
        self._shared.observer(events.Planned(transfer.backup))
        if not self._shared.options.dry_run:
            self.writer.under_way += 1
            await self._enqueue(Planned(self, sets, transfer))

    async def _never_made(self, transfer: Transfer) -> None:
        """There is nothing to fetch of a backup that failed at the vendor, which somebody may have
        taken note of, or of its set without this node."""
        backup, folder = transfer.backup, transfer.set_key
        acknowledged = self._shared.acknowledged
        why = f"{backup}: this backup failed at the vendor: there is no file"
        one = await acknowledged.of_failed(str(backup), folder, backup.node_id)
        if one is not None:
            self._take_note(one, why, backup)
            return
        is_set_known = await acknowledged.of(folder) is not None
        error = BackupFailed(why, hint=NOT_MEANT_HINT if is_set_known else NEVER_MADE_HINT)
        self._shared.failed(str(backup), error, backup)

    async def _is_acknowledged(self, folder: str, why: str) -> bool:
        """Whether a set was acknowledged, which is reported then."""
        one = await self._shared.acknowledged.of(folder)
        if one is not None:
            self._take_note(one, why)
        return one is not None

    def _take_note(self, one: Acknowledgement, why: str, backup: Backup | None = None) -> None:
        self._shared.observer(
            events.Acknowledged(one.subject, why, one.at, one.by, one.reason, backup)
        )

    async def _clear(self, keys: Iterable[str]) -> None:
        """Make room for files of this archive where something else has their names."""
        for key in keys:
            kept = await self._shared.archive.store.clear(key)
            if kept is not None:
                self._shared.observer(events.Cleared(key, kept))

    # What the workers report

    def archived(self, sets: ListedSets, transfer: Transfer, stored: Stored) -> None:
        """A backup that was enqueued is in the archive."""
        if transfer.stem in self._home:
            self._home[transfer.stem] = True
        self._shared.index.wrote(stored)
        for key, kept in stored.cleared:
            self._shared.observer(events.Cleared(key, kept))
        self._shared.observer(events.Archived.of(transfer.backup, stored))
        self._held(sets, transfer, fresh=True)

    def _held(self, sets: ListedSets, transfer: Transfer, *, fresh: bool) -> None:
        files = sets.held(transfer, fresh=fresh)
        if files:
            self._shared.observer(events.SetCompleted(transfer.set_key, files))

    # Its sets

    async def _close(self) -> None:
        for sets, transfer in self._twice:
            if self._home[transfer.stem]:
                self._shared.observer(events.Held(transfer.backup))
                self._held(sets, transfer, fresh=False)
        to_seal: defaultdict[str, list[tuple[ListedSets, set[str]]]] = defaultdict(list)
        # Several queries may each list a part of a set.
        lacking = {set_key for listed in self._listed for set_key in listed.lacking()}
        for listed in self._listed:
            with self._shared.naming(f"the sets of {self._id}"):
                for one in await listed.incomplete():
                    self._unfinished.add(one.key)
                    if not await self._is_acknowledged(one.key, one.why):
                        self._shared.observer(one)
                for month, of_it in (await listed.unsealed(lacking)).items():
                    to_seal[month].append((listed, of_it))
        index = self._shared.index
        # A month after the other: what is known of one is let go of then.
        months = {*to_seal, *index.months_of(self._id), *self._inventory.unknown_months}
        for month in sorted(months):
            with self._shared.naming(layout.sums_key(month)):
                dropped = await index.check(month)
                for set_key, error in dropped.items():
                    self._shared.failed(set_key, error)
                for listed, of_it in to_seal[month]:
                    whole = of_it - dropped.keys()
                    self._tell_sealed(await self._seal(listed, month, whole), whole)
            with self._shared.naming(self._id):
                await self._keep_index(month)

    def _tell_sealed(self, plan: SealPlan, sets: set[str]) -> None:
        for set_key, error in plan.failed.items():
            self._shared.failed(set_key, error)
        for set_key in sorted(plan.files.keys() & sets - self._unfinished):
            self._shared.observer(events.SetCompleted(set_key, plan.files[set_key]))

    async def _seal(self, listed: ListedSets, month: str, sets: set[str]) -> SealPlan:
        """Write a month's SHA256SUMS where it is not as it should be; the lock is taken for that
        alone."""
        index, store = self._shared.index, self._shared.archive.store
        view = await index.view(month)
        plan = await listed.plan(view, sets, index)
        if plan.is_due and not self.writer.is_writer:
            if not await self.writer.begin():
                return SealPlan()
            self._inventory.look_again()
            index.look_again(month)
            view = await index.view(month)
            plan = await listed.plan(view, sets, index)
        await plan.write(store, view)
        return plan

    async def _keep_index(self, month: str) -> None:
        """Make the catalogue of a month anew that was written to, or that did not know all that was
        asked for: for that alone no other writer is waited for, who makes it anew."""
        index = self._shared.index
        if not self.writer.is_writer:
            index.look_again(month)  # others may write to it
            is_unknown = month in self._inventory.unknown_months
            try:
                if not is_unknown or not await self.writer.begin_if_free():
                    return
            except PlaceTaken:
                raise  # something is wrong in the archive, and not with the disk
            except StoreError as error:  # it is mounted read-only, for example
                not_written(month, error)
                return
        await index.keep(month)


def instances_of(queries: Iterable[Query]) -> dict[str, list[Query]]:
    """The queries of each instance, in the order in which they were given (pure)."""
    found: dict[str, list[Query]] = {query.instance_id: [] for query in queries}
    for query in queries:
        found[query.instance_id].append(query)
    return found
