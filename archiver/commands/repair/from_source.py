"""Repairing from the source, while the vendor still has it: a pull of the sets concerned.

The vendor is asked first. Only what it lists, and what reads wrong once more, is fetched again; a
damaged object stays in its place until the right bytes have come.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from archiver import events as pull_events
from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.commands.pull.plan import PullOptions
from archiver.commands.pull.run import pull
from archiver.commands.repair.run import BESIDE, Supplied, WrongSet, not_written, place_of
from archiver.commands.verify import events
from archiver.commands.verify.rereading import reading_right
from archiver.commands.verify.statements import set_start
from archiver.errors import (
    ArchiveBusy,
    ArchiverError,
    BackupGone,
    SourceError,
)
from archiver.logs import relayed
from archiver.model import Backup, Page, Query, Status
from archiver.sources.base import Source
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
        told = {place_of(event.key) for event in listing.not_repaired}
        busy = {
            one.subject: one.error for one in summary.failures if isinstance(one.error, ArchiveBusy)
        }
        failed = [
            *listing.not_repaired,
            # That a set cannot be sealed follows from what of it was not repaired.
            *(
                _not_repaired(one)
                for one in summary.failures
                if one.subject not in told and one.subject not in busy
            ),
        ]
        for event in failed:
            observer(event)
        failed += not_written(wrong, busy, observer)
        return Supplied(frozenset(confirmed), tuple(failed))

    async def _list(self, wrong: Mapping[str, WrongSet]) -> "_Listing":
        """What the vendor has of these sets. An instance that it does not know, or does not let us
        see, fails alone."""
        found = _Listing()
        refused: dict[str, ArchiverError] = {}
        for one in wrong.values():
            instance_id = one.key.partition("/")[0]
            query = _query(one)
            try:
                if query is None:
                    there = frozenset[str]()
                elif (error := refused.get(instance_id) or refused.get(_ALL)) is not None:
                    raise error
                else:
                    there = await self._ask(one, query)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                refused[instance_id] = error
                if _is_of_all(refused):
                    refused[_ALL] = error
                found.not_repaired += [events.NotRepaired(key, error) for key in one.subjects]
                continue
            if there and query is not None:
                found.queries.append(query)
            found.stems |= there
            gone = BackupGone("the vendor does not have it", hint="repair from another archive")
            found.not_repaired += [
                events.NotRepaired(one.key_of(subject), one.absent(subject, gone))
                for subject in one.subjects
                if subject not in there and (one.stems or not there)
            ]
        return found

    async def _ask(self, wrong: WrongSet, query: Query) -> frozenset[str]:
        """The stems of those backups of the set that the vendor has and something is wrong with;
        for a whole set, of any that it has."""
        found = set[str]()
        async for page in self._source.pages(query):
            found |= {
                layout.stem_of_node(wrong.key, backup.node_id, backup.backup_id)
                for backup in page.backups
                if backup.status is Status.SUCCESS
                and (wrong.is_month or _set_name(backup) == layout.name_of_set(wrong.key))
            }
        return frozenset(stem for stem in found if stem in wrong.stems or wrong.whole)


# In place of an instance: the source answers for none.
_ALL: Final = ""


def _is_of_all(refused: Mapping[str, ArchiverError]) -> bool:
    """Whether no other instance need be asked: the source lets nobody in, or has failed for two of
    them, one after the other."""
    errors = list(refused.values())
    nobody = any(one.concerns_all for one in errors)
    return nobody or sum(isinstance(one, SourceError) for one in errors) > 1


@dataclass(slots=True)
class _Listing:
    """What the source has of the sets that something is wrong with, and how to list it again."""

    queries: list[Query] = field(default_factory=list)
    stems: frozenset[str] = frozenset()
    not_repaired: list[events.NotRepaired] = field(default_factory=list)


async def _right_by_now(
    archive: Archive,
    wrong: Mapping[str, WrongSet],
    listed: frozenset[str],
    observer: events.Observer,
) -> frozenset[str]:
    """Damaged objects that read right by now, and are to stay as they are."""
    right = set[str]()
    for folder, one in wrong.items():
        damaged = {stem for stem in one.stems if stem in listed and one.is_damaged(stem)}
        if damaged:
            read = await reading_right(archive.store, folder, damaged, observer)
            right |= {stem for stem in read if not one.stems[stem] & BESIDE}
    return frozenset(right)


class _Only:
    """A source as if it had those sets and months alone."""

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
    """The time around the start of a set, or a month; None when its key gives none."""
    if wrong.is_month:
        start, last = layout.span(wrong.key)
    elif (began := set_start(wrong.key)) is not None:
        start = last = began
    else:
        return None
    end = min(last + _AROUND, datetime.now(UTC) + timedelta(minutes=1))
    bounds = TimeRange(start - _AROUND, max(end, start)).query_bounds()
    return Query(wrong.key.partition("/")[0], *bounds, need_aof=wrong.may_be_aof)


def _set_name(backup: Backup) -> str:
    """What the set of a backup is called, unchecked: it is only compared, so it may be anything."""
    if backup.is_standard:
        return backup.backup_id
    return backup.set_id if backup.set_id is not None else f"b{backup.backup_id}"


def _not_repaired(failure: pull_events.Failed) -> events.NotRepaired:
    error: ArchiverError = failure.error
    return events.NotRepaired(failure.subject, error)
