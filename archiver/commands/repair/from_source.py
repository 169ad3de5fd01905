"""Repairing from the source, while the vendor still has the backups: a pull of the wrong sets.

The vendor's list is read first. Only what it lists, and what still reads wrong, is downloaded
again. A damaged object keeps its name until the right bytes are here.
"""

from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from archiver import events as pull_events
from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.archive.contents import SetFiles, view_month
from archiver.archive.measure import measure, new_block
from archiver.archive.sealing import SumsRepair, plan_seal
from archiver.archive.verified import results_if_any
from archiver.commands.pull.plan import PullOptions
from archiver.commands.pull.run import pull
from archiver.commands.repair.run import BESIDE, Supplied, WrongSet, not_written, place_of
from archiver.commands.verify import events
from archiver.commands.verify.judge import judge
from archiver.commands.verify.survey import look_at, survey
from archiver.concurrency import in_thread
from archiver.errors import (
    ArchiveBusy,
    ArchiverError,
    BackupGone,
    ObjectMissing,
    SourceError,
    StoreError,
    UnreadableObject,
)
from archiver.logs import relayed
from archiver.model import Backup, Page, Query, Status
from archiver.sources.base import Source
from archiver.stores.base import Store
from archiver.stores.scope import scope_of
from archiver.times import TimeRange
from archiver.transfer.engine import TransferOptions

# The nodes of a set begin seconds apart, before or after the one that names the folder.
_AROUND = timedelta(minutes=30)


class SourceSupplier:
    """Lists the time of each wrong set, and pulls what is wrong or missing there."""

    def __init__(self, source: Source, transfer: TransferOptions | None = None) -> None:
        self._source: Final = source
        self._transfer: Final = transfer or TransferOptions()

    async def supply(
        self, archive: Archive, wrong: Mapping[str, WrongSet], observer: events.Observer
    ) -> Supplied:
        """See Supplier. Raises what :func:`archiver.commands.pull.run.pull` does."""
        listing = await self._list(wrong)
        confirmed = set[str]()

        def observe(event: pull_events.Event) -> None:
            observer(event)
            if isinstance(event, pull_events.Archived):
                confirmed.add(layout.stem_of(event.key))
                observer(events.Repaired(event.key, "the source"))

        stems = frozenset(stem for one in wrong.values() for stem in one.stems)
        options = PullOptions(
            again=stems - await _right_by_now(archive, wrong, listing.stems, observer),
            repaired=frozenset(wrong),
            transfer=self._transfer,
        )
        only = _Only(self._source, wrong)
        summary = await pull(only, archive, listing.queries, options, relayed(observe))
        busy = await self._write_sums(archive, listing, observer)
        reported = {place_of(event.key) for event in listing.not_repaired}
        instances = {scope_of(f"{key}/") for key in wrong}
        busy |= {
            one.subject: one.error
            for one in summary.failures
            if one.subject in instances and isinstance(one.error, ArchiveBusy | StoreError)
        }
        failed = [
            *listing.not_repaired,
            # A set that gets no lines in SHA256SUMS follows from its backups that failed.
            *(
                events.NotRepaired(one.subject, one.error)
                for one in summary.failures
                if one.subject not in reported and one.subject not in busy
            ),
        ]
        for event in failed:
            observer(event)
        failed += not_written(wrong, busy, observer)
        return Supplied(frozenset(confirmed), tuple(failed))

    async def _list(self, wrong: Mapping[str, WrongSet]) -> "_Listing":
        """List these sets at the source. An instance that it does not know, or refuses to list,
        fails without the others."""
        found = _Listing()
        refused: dict[str, ArchiverError] = {}
        for one in wrong.values():
            instance_id = one.key.partition("/")[0]
            query, listed = _query(one), frozenset[str]()
            try:
                if query is not None:
                    if (error := refused.get(instance_id) or refused.get(_ALL)) is not None:
                        raise error
                    listed = await self._ask(one, query)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                refused[instance_id] = error
                if _is_of_all(refused):
                    refused[_ALL] = error
                found.not_repaired += [events.NotRepaired(key, error) for key in one.subjects]
                continue
            if listed and query is not None:
                found.queries.append(query)
            found.stems |= listed
            if one.is_month and not listed:
                found.forgotten.append(one.key)
            gone = BackupGone("the vendor does not have it", hint="repair from another archive")
            found.not_repaired += [
                events.NotRepaired(one.key_of(subject), one.absent(subject, gone))
                for subject in one.subjects
                if subject not in listed and (one.stems or not listed)
            ]
        return found

    async def _write_sums(
        self, archive: Archive, listing: "_Listing", observer: events.Observer
    ) -> dict[str, ArchiverError]:
        """Write SHA256SUMS in months that the vendor has forgotten, where the archive itself knows
        what it said. Returns the instances that cannot be written to. Raises StoreError."""

        async def write(instance_id: str) -> None:
            for month in listing.forgotten:
                if scope_of(month) != instance_id:
                    continue
                view, key = await view_month(archive.store, month), layout.sums_key(month)
                plan = await plan_seal(archive.store, view, repair=SumsRepair())
                failed = dict(plan.failed)
                try:
                    await plan.write(archive.store, view)
                except UnreadableObject as error:
                    failed[key] = error
                if plan.data is not None and not failed:
                    observer(events.Repaired(key, "the archive itself"))
                if plan.is_due or failed:
                    listing.tell(month, failed)

        return await archive.for_each(set(map(scope_of, listing.forgotten)), write, observer)

    async def _ask(self, wrong: WrongSet, query: Query) -> frozenset[str]:
        """The stems of the set's backups that the source lists and that are wrong here; all that it
        lists, if files may be missing that nothing here names."""
        found = set[str]()
        async for page in self._source.pages(query):
            found |= {
                layout.stem_of_node(wrong.key, backup.node_id, backup.backup_id)
                for backup in page.backups
                if backup.status is Status.SUCCESS
                and (wrong.is_month or _set_name(backup) == layout.name_of_set(wrong.key))
            }
        return frozenset(stem for stem in found if stem in wrong.stems or wrong.whole)


# Stands for all instances: the source lists none of them.
_ALL: Final = ""


def _is_of_all(refused: Mapping[str, ArchiverError]) -> bool:
    """Whether the source would refuse other instances, too: an error concerns all of them, or it
    failed for two of them."""
    errors = list(refused.values())
    concerns_all = any(one.concerns_all for one in errors)
    return concerns_all or sum(isinstance(one, SourceError) for one in errors) > 1


@dataclass(slots=True)
class _Listing:
    """What the source lists of the wrong sets (``stems``), and the queries that list it."""

    queries: list[Query] = field(default_factory=list)
    stems: frozenset[str] = frozenset()
    not_repaired: list[events.NotRepaired] = field(default_factory=list)
    # Months of which it lists nothing.
    forgotten: list[str] = field(default_factory=list)

    def tell(self, month: str, failed: Mapping[str, ArchiverError]) -> None:
        """Say of a month what the archive itself knows, in the place of what the vendor lacks."""
        self.not_repaired = [one for one in self.not_repaired if place_of(one.key) != month]
        self.not_repaired += [events.NotRepaired(key, error) for key, error in failed.items()]


async def _right_by_now(
    archive: Archive,
    wrong: Mapping[str, WrongSet],
    listed: frozenset[str],
    observer: events.Observer,
) -> frozenset[str]:
    """The stems of damaged objects that read right by now: a disk or a mount may have failed for a
    moment only. They are not downloaded again."""
    right = set[str]()
    for set_key, one in wrong.items():
        damaged = {stem for stem in one.stems if stem in listed and one.is_damaged(stem)}
        if damaged:
            read = await _read_again(archive.store, set_key, damaged, observer)
            right |= {stem for stem in read if not one.stems[stem] & BESIDE}
    return frozenset(right)


async def _read_again(
    store: Store, set_key: str, stems: Collection[str], observer: events.Observer
) -> set[str]:
    """Which of these stems agree with everything that is written about them."""
    listed = (await view_month(store, layout.month_of(set_key), {})).listed
    overview = await look_at(store, listed)
    known = await results_if_any(store, listed.key)
    seen = {key: one for key, one in known.items() if layout.set_of(key) == set_key}
    found = await survey(store, SetFiles(set_key, listed.sets.get(set_key, {}), seen, overview))
    wrong = {finding.stem for finding in found.findings}
    block, right = await in_thread(new_block), set[str]()
    for one in found.files:
        stem = layout.stem_of(one.key)
        if stem not in stems or stem in wrong:
            continue
        with suppress(ObjectMissing, StoreError):
            observer(events.ToRead(1, one.record.size))
            measured = await measure(
                store, one.key, one.record.size, block,
                lambda count: observer(events.Advanced(count)), is_log=one.record.is_log,
            )  # fmt: skip
            if not judge(one, measured):
                right.add(stem)
    return right


class _Only:
    """A source that lists only these sets and months."""

    def __init__(self, source: Source, wrong: Mapping[str, WrongSet]) -> None:
        self._source: Final = source
        self._instances: Final = {
            key.partition("/")[0] for key, one in wrong.items() if one.is_month
        }
        self._sets: Final = {(key.partition("/")[0], layout.name_of_set(key)) for key in wrong}

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """See Source."""
        async with aclosing(self._source.pages(query)) as pages:
            async for page in pages:
                yield replace(page, backups=tuple(filter(self._wants, page.backups)))

    def _wants(self, backup: Backup) -> bool:
        instance_id = backup.instance_id
        return instance_id in self._instances or (instance_id, _set_name(backup)) in self._sets

    async def again(self, backup: Backup) -> Backup:
        """See Source."""
        return await self._source.again(backup)


def _query(wrong: WrongSet) -> Query | None:
    """The query for the time around the start of a set, or for a month; None if the key gives no
    time."""
    if wrong.is_month:
        start, last = layout.span(wrong.key)
    elif (began := layout.set_start(wrong.key)) is not None:
        start = last = began
    else:
        return None
    end = min(last + _AROUND, datetime.now(UTC) + timedelta(minutes=1))
    bounds = TimeRange(start - _AROUND, max(end, start)).query_bounds()
    return Query(wrong.key.partition("/")[0], *bounds, need_aof=wrong.may_be_aof)


def _set_name(backup: Backup) -> str:
    """The name of a backup's set, unchecked: it is only compared, so it may be anything."""
    if backup.is_standard:
        return backup.backup_id
    return backup.set_id if backup.set_id is not None else f"b{backup.backup_id}"
