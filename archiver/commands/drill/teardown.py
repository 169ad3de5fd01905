"""Ends a server and verifies that nothing of it is left."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process

from archiver.commands.drill.client import Client, ErrorReply, NoReply
from archiver.commands.drill.process import ServerProcess
from archiver.commands.drill.workdir import RUN, SOCKET, Workdir
from archiver.concurrency import in_thread


@dataclass(frozen=True, slots=True)
class FileState:
    """Attributes that change when a file is modified."""

    size: int
    modified_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> "FileState | None":
        """Return the state of a file; None if it does not exist. Blocks."""
        try:
            status = os.stat(path)  # noqa: PTH116 - its fields
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


@dataclass(frozen=True, slots=True)
class TearDown:
    """How a server ended, and whether anything of it is left.

    ``manner`` is ``had ended``, ``SHUTDOWN``, ``SIGTERM`` or ``SIGKILL``. ``exit_code`` is negative
    for a signal.
    """

    manner: str
    exit_code: int | None
    seconds: float
    process_gone: bool
    socket_gone: bool
    directory_removed: bool
    file_unchanged: bool


async def end(
    child: Process, process: ServerProcess, client: Client | None, step_seconds: float
) -> str:
    """End the server, first by its own command; return what ended it.

    Each step may take ``step_seconds``. ``client`` is None if the server never answered.
    """
    if child.returncode is not None:
        return "had ended"
    if client is not None:
        with anyio.move_on_after(step_seconds):
            with contextlib.suppress(NoReply, ErrorReply):  # a server that obeys does not answer
                await client.ask("SHUTDOWN", "NOSAVE")
            await child.wait()
            return "SHUTDOWN"
    for number in (signal.SIGTERM, signal.SIGKILL):
        await in_thread(process.signal, number)
        with anyio.move_on_after(step_seconds):
            await child.wait()
            return number.name
    return signal.SIGKILL.name  # still alive, stuck in the kernel: ``prove`` reports it


async def prove(
    manner: str,
    child: Process,
    process: ServerProcess,
    workdir: Workdir,
    *,
    given: Path,
    before: FileState | None,
    began: float,
    clock: Callable[[], float] = time.monotonic,
) -> TearDown:
    """Remove the server's directory, and check whether anything is left."""

    def remove_and_check() -> tuple[bool, bool, bool, bool]:
        removed = workdir.remove()
        socket_gone = not (workdir.directory / RUN / SOCKET).exists()
        return process.gone(), socket_gone, removed, FileState.of(given) == before

    process_gone, socket_gone, removed, unchanged = await in_thread(remove_and_check)
    process.close()
    return TearDown(
        manner=manner,
        exit_code=child.returncode,
        seconds=max(0.0, clock() - began),
        process_gone=process_gone,
        socket_gone=socket_gone,
        directory_removed=removed,
        file_unchanged=unchanged,
    )
