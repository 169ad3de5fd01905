"""Repairing from the source, while the vendor still has it: a pull of the sets concerned.

The vendor is asked first. Only what it lists, and what reads wrong once more, is put aside and
fetched again; a damaged object is back in its place when the right bytes do not come.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio

from archiver import events as pull_events
from archiver.archive.archive import Archive
from archiver.errors import ArchiverError, BackupGone, IntegrityError
from archiver.line import PullOptions, pull
from archiver.model import Backup, Page, Query, Status
from archiver.scrub import events
from archiver.scrub.aside import bring_back, put_aside, reading_right
from archiver.scrub.claims import folder_start
from archiver.scrub.repair import BESIDE, WrongSet
from archiver.sources.base import Source
from archiver.timerange import TimeRange
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
    ) -> list[events.NotRepaired]:
        """See Supplier. Raises what :func:`archiver.line.pull` does, and AccessError, UsageError
        and SourceError when nothing can be listed."""
        failed: list[events.NotRepaired] = []
        queries: list[Query] = []
        listed: dict[str, int] = {}
        for one in wrong.values():
            query = _query(one)
            there = await self._ask(one, query) if query is not None else {}
            if there and query is not None:
                queries.append(query)
            listed |= there
            gone = BackupGone("the vendor no longer has it", hint="repair from another archive")
            failed += [events.NotRepaired(s, gone) for s in sorted(one.stems) if s not in there]
        stems = frozenset(stem for one in wrong.values() for stem in one.stems)

        def observe(event: pull_events.Event) -> None:
            observer(event)
            if isinstance(event, pull_events.Archived):
                observer(events.Repaired(event.key, "the source"))

        only = _Only(self._source, frozenset(wrong))
        try:
            as_it_is = await self._put_aside(archive, wrong, listed, observer, failed)
            options = PullOptions(again=stems - as_it_is, repairing=True, transfer=self._transfer)
            summary = await pull(only, archive, queries, options, observe)
        finally:
            with anyio.CancelScope(shield=True):
                await _bring_back(archive, stems, failed)
        failed += [_not_repaired(failure) for failure in summary.failures]
        for event in failed:
            observer(event)
        return failed

    async def _put_aside(
        self,
        archive: Archive,
        wrong: Mapping[str, WrongSet],
        listed: Mapping[str, int],
        observer: events.Observer,
        failed: list[events.NotRepaired],
    ) -> frozenset[str]:
        """Put damaged objects out of the way of the right ones; those that are to stay as they
        are, since they read right by now or something is aside already."""
        stay = set[str]()
        damaged = {
            folder: {stem for stem in one.stems if stem in listed and one.is_damaged(stem)}
            for folder, one in wrong.items()
        }
        if not any(damaged.values()):
            return frozenset()
        async with archive.writing():
            for folder, stems in damaged.items():
                right = await reading_right(archive.store, folder, stems, observer)
                stay |= {stem for stem in right if not wrong[folder].stems[stem] & BESIDE}
                for stem in sorted(stems - right):
                    try:
                        await put_aside(archive.store, stem, listed[stem])
                    except IntegrityError as error:
                        stay.add(stem)
                        failed.append(events.NotRepaired(stem, error))
        return frozenset(stay)

    async def _ask(self, wrong: WrongSet, query: Query) -> dict[str, int]:
        """The sizes of those backups of the set that the vendor has and something is wrong with,
        by stem; for a whole set, of any that it has."""
        found: dict[str, int] = {}
        async for page in self._source.pages(query):
            for backup in page.backups:
                stem = f"{wrong.folder}/{backup}"
                if backup.status is Status.SUCCESS and _job_of(backup) == _job(wrong.folder):
                    found[stem] = backup.size
        return {s: n for s, n in found.items() if s in wrong.stems or wrong.whole}


class _Only:
    """A source as if it had those sets alone."""

    def __init__(self, source: Source, folders: frozenset[str]) -> None:
        self._source: Final = source
        self._jobs: Final = {(f.partition("/")[0], _job(f)) for f in folders}

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """See Source."""
        async with aclosing(self._source.pages(query)) as pages:
            async for page in pages:
                backups = tuple(
                    b for b in page.backups if (b.instance_id, _job_of(b)) in self._jobs
                )
                yield replace(page, backups=backups)

    async def again(self, backup: Backup) -> Backup:
        """See Source."""
        return await self._source.again(backup)


def _query(wrong: WrongSet) -> Query | None:
    """The time around the start of a set; None when its folder gives none."""
    start = folder_start(wrong.folder)
    if start is None:
        return None
    end = min(start + _AROUND, datetime.now(UTC) + timedelta(minutes=1))
    first, last = TimeRange(start - _AROUND, max(end, start)).on_the_wire()
    instance_id = wrong.folder.partition("/")[0]
    return Query(instance_id, first, last, need_aof=wrong.may_be_aof)


def _job(folder: str) -> str:
    return folder.rpartition("/")[2].partition("-")[2]


def _job_of(backup: Backup) -> str:
    """What ``layout.job_name`` gives, unchecked: it is only compared, so it may be anything."""
    return backup.job_id if backup.job_id is not None else f"b{backup.backup_id}"


async def _bring_back(
    archive: Archive, stems: frozenset[str], failed: list[events.NotRepaired]
) -> None:
    """Whatever was not replaced. It stays aside when somebody else writes by now."""
    try:
        async with archive.writing():
            await bring_back(archive.store, sorted(stems))
    except ArchiverError as error:
        failed.append(events.NotRepaired(str(archive.store), error))


def _not_repaired(failure: pull_events.Failed) -> events.NotRepaired:
    error: ArchiverError = failure.error
    return events.NotRepaired(failure.subject, error)
