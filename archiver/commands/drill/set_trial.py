"""Tries the files of a set one by one: in this process, or in others."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from archiver.archive.archive import Archive
from archiver.archive.backupsets import BackupSet
from archiver.commands.drill import workdir
from archiver.commands.drill.events import (
    FileTried,
    Observer,
    ScratchNotRemoved,
    ScratchRemoved,
    Trying,
)
from archiver.commands.drill.files import DrilledFile, FileDrill
from archiver.commands.drill.options import DrillOptions
from archiver.commands.drill.programs import ServerProgram, check_programs
from archiver.commands.drill.server import Limits
from archiver.commands.drill.workdir import Workdir, open_scratch
from archiver.concurrency import in_thread, in_thread_shielded
from archiver.events import SetBegun
from archiver.jobs import Workplace


@dataclass(frozen=True, slots=True)
class SetJob:
    """A set to try, the ``number``-th of ``count``."""

    backup_set: BackupSet
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class TriedSet:
    """The results of its files by the keys of their records; ``is_removed``: of what was restored
    nothing is left. ``is_proven``: who tried it lived to see that."""

    files: Mapping[str, DrilledFile] = field(default_factory=dict)
    is_removed: bool = True
    is_proven: bool = True


@dataclass(frozen=True, slots=True)
class OpenSetTrial:
    """An OpenWork that tries sets, one at a time in a process."""

    archive: Archive
    programs: tuple[ServerProgram, ...]
    options: DrillOptions
    clock: Callable[[], float] = time.monotonic

    @asynccontextmanager
    async def __call__(self, place: Workplace) -> AsyncGenerator["SetTrial", None]:
        options = self.options
        if place.is_elsewhere:
            await self.archive.check_same()
            await check_programs(self.programs)
            await sweep(options.scratch, place.observer)
        limits = Limits(
            memory=options.server_memory, load=options.load_seconds, share=place.processes
        )
        files = FileDrill(
            self.archive, self.programs, limits, options.tolerance, options.sample_above,
            self.clock, place.observer,
        )  # fmt: skip
        yield SetTrial(files, options, place.observer)


@dataclass(frozen=True, slots=True)
class SetTrial:
    """Tries sets."""

    files: FileDrill
    options: DrillOptions
    observer: Observer

    async def __call__(self, job: SetJob) -> TriedSet:
        """Try the files of a set, and leave nothing of them. Raises StoreError if the scratch
        directory cannot be used."""
        records = job.backup_set.records
        size = sum(record.size for record in records)
        self.observer(SetBegun(job.backup_set.key, job.number, job.count, len(records), size))
        chosen = job.backup_set.chosen()
        files: dict[str, DrilledFile] = {}
        opened: list[Workdir] = []
        is_removed = True
        try:
            # Appended in the thread, so that a cancellation cannot lose the directory.
            await in_thread(lambda: opened.append(open_scratch(self.options.scratch)))
            for record in records:
                self.observer(Trying(record.object_key, record.size))
                assertions = self.options.assertions if record in chosen else ()
                file = await self.files.try_file(record, opened[0].directory, assertions)
                files[record.key] = file
                self.observer(FileTried(file.evidence))
        finally:
            for directory in opened:
                is_removed = await in_thread_shielded(directory.remove)
        return TriedSet(files, is_removed)


async def sweep(scratch: Path | None, observer: Observer) -> None:
    """Remove what killed drills left there."""
    swept = await in_thread(workdir.sweep, scratch)
    for directory in swept.removed:
        observer(ScratchRemoved(directory))
    for directory, why in swept.left:
        observer(ScratchNotRemoved(directory, why))
