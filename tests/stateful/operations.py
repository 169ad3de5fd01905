"""The tool's operations, through its library, as the command line calls them."""

import asyncio
import contextlib
import os
import stat
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from archiver import (
    Archive,
    ArchiverError,
    LocalStore,
    PullOptions,
    TransferOptions,
    pull,
    restore,
    verify,
)
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import Supplier, repair
from archiver.commands.verify import events as verify_events
from tests.conftest import PACKAGE, QUICK, everything, source_of
from tests.stateful.sabotage import KilledHere, Plan, Saboteur
from tests.stateful.truth import INSTANCES
from tests.stateful.vendor import Vendor

OPTIONS = TransferOptions(part_size=64 * 1024, connections=2, retry=QUICK)
WORKERS = 2
# Nothing here takes a second; what takes so long will never end.
HUNG_SECONDS = 60.0
# Whoever reads a pipe after this time waits for a writer that will never come.
PIPE_SECONDS = 1.0
_POLL_SECONDS = 0.05


@dataclass
class Outcome:
    """What an operation came to. ``exit_code`` is None for one that was killed, cancelled or hung.

    ``said`` are its events; ``escaped`` what it should not have raised; ``summary`` and
    ``error`` what the tool itself gave.
    """

    exit_code: int | None = None
    said: list[object] = field(default_factory=list)
    summary: object = None
    error: ArchiverError | None = None
    escaped: list[BaseException] = field(default_factory=list)
    hung: bool = False
    struck: str | None = None
    returned_too_soon: bool = False

    def __str__(self) -> str:
        words = [f"exit code {self.exit_code}"]
        words += [f"struck at {self.struck}"] if self.struck else []
        words += [str(self.error)] if self.error else []
        for name in ("failures", "findings", "not_repaired"):
            words += [f"{name}: {one}"[:200] for one in getattr(self.summary, name, [])[:4]]
        return "; ".join(words)


Operation = Callable[[Outcome], Awaitable[int]]


async def pull_into(root: Path, vendor: Vendor, outcome: Outcome) -> int:
    options = PullOptions(workers=WORKERS, transfer=OPTIONS)
    queries = [everything(instance, need_aof=True) for instance in INSTANCES]
    async with source_of(vendor.emulator) as source:
        done = await pull(source, _archive(root), queries, options, outcome.said.append)
    outcome.summary = done
    return done.exit_code


async def copy_into(root: Path, other: Path, outcome: Outcome) -> int:
    options = CopyOptions(workers=WORKERS, transfer=OPTIONS)
    done = await copy(_archive(other), _archive(root), options, outcome.said.append)
    outcome.summary = done
    return done.exit_code


async def verify_in(root: Path, outcome: Outcome) -> int:
    done = await verify(_archive(root), None, outcome.said.append)
    outcome.summary = done
    return done.exit_code


async def repair_from_vendor(root: Path, vendor: Vendor, outcome: Outcome) -> int:
    async with source_of(vendor.emulator) as source:
        return await _repair(root, SourceSupplier(source, OPTIONS), outcome)


async def repair_from_archive(root: Path, other: Path, outcome: Outcome) -> int:
    return await _repair(root, ArchiveSupplier(_archive(other), OPTIONS), outcome)


async def _repair(root: Path, supplier: Supplier, outcome: Outcome) -> int:
    archive = _archive(root)
    found = await verify(archive, None, outcome.said.append)
    outcome.summary = found
    if not found.findings:
        return found.exit_code
    try:
        done = await repair(archive, found, supplier, None, outcome.said.append)
    except ArchiverError as error:
        outcome.error = error
        found.not_repaired.append(verify_events.NotRepaired("the supplier", error))
        return found.exit_code
    outcome.summary = done
    return done.exit_code


async def restore_from(root: Path, target: Path, instance: str, outcome: Outcome) -> int:
    done = await restore(_archive(root), target, instance_id=instance)
    outcome.summary = done
    return done.exit_code


def _archive(root: Path) -> Archive:
    return Archive(LocalStore(root))


async def carried_out(operation: Operation, root: Path, plan: Plan | None) -> Outcome:
    """Run an operation to its end, sabotaged by ``plan``, and never hang with it."""
    outcome = Outcome()

    async def run() -> None:
        outcome.exit_code = await operation(outcome)

    task = asyncio.create_task(run())
    saboteur = Saboteur(plan, root) if plan else None
    sabotage = saboteur.around(task) if saboteur else contextlib.nullcontext()
    with _watching_threads(outcome), sabotage:
        outcome.hung = await hangs(task, root)
    if saboteur is not None:
        outcome.struck, outcome.returned_too_soon = saboteur.struck, saboteur.returned_too_soon
    try:
        await task
    except ArchiverError as error:
        outcome.error, outcome.exit_code = error, error.exit_code
    except BaseException as error:  # noqa: BLE001 - looked at by the invariants
        stopped = outcome.struck and plan and plan.mode in ("kill", "cancel")
        expected = (KilledHere, asyncio.CancelledError) if stopped or outcome.hung else ()
        outcome.escaped += [
            one for one in leaves(error) if not isinstance(one, (ArchiverError, *expected))
        ]
    if saboteur is not None and saboteur.killed:
        outcome.exit_code = None
    if outcome.hung:
        outcome.exit_code = None
    return outcome


@contextlib.contextmanager
def _watching_threads(outcome: Outcome) -> Iterator[None]:
    """What escapes in a thread of the tool's own has nobody to tell."""

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, KilledHere):
            outcome.escaped.append(args.exc_value)

    with mock.patch.object(threading, "excepthook", hook):
        yield


async def hangs(task: "asyncio.Task[Any]", root: Path) -> bool:
    """Wait for the end of what works below ``root``; whether that had to be helped on."""
    loop = asyncio.get_running_loop()
    began, hung = loop.time(), False
    while True:
        done, _ = await asyncio.wait({task}, timeout=_POLL_SECONDS if hung else PIPE_SECONDS)
        if done:
            return hung
        hung |= _read_pipes(root)
        if loop.time() - began > HUNG_SECONDS:
            task.cancel()
            hung = True


def _read_pipes(root: Path) -> bool:
    """End the wait of whoever waits for a writer of a FIFO; whether somebody did."""
    found = False
    for folder, _, names in os.walk(root):
        for path in (Path(folder, name) for name in names):
            if stat.S_ISFIFO(path.lstat().st_mode):
                with contextlib.suppress(OSError):  # nobody reads it
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    found = True
    return found


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def described(error: BaseException) -> str:
    """Its kind, and the innermost function of the tool that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    where = f"{Path(inner[-1].filename).stem}.{inner[-1].name}" if inner else "?"
    return f"{type(error).__name__} in {where}: {error!s:.120}"
