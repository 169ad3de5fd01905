"""Taking a server away, and the proof that nothing of it is left."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process

from archiver.commands.drill.client import Client, Refusal, Silence
from archiver.commands.drill.procfs import Pid
from archiver.commands.drill.workplace import RUN, SOCKET, Workplace
from archiver.concurrency import in_thread


@dataclass(frozen=True, slots=True)
class FileState:
    """What would show that a file was touched."""

    size: int
    modified_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> "FileState | None":
        """None when there is no such file. Blocks."""
        try:
            status = os.stat(path)  # noqa: PTH116 - its fields
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


@dataclass(frozen=True, slots=True)
class TearDown:
    """How a server ended, and what is left of it.

    ``manner``: ``had ended``, or what it took: ``SHUTDOWN``, ``SIGTERM``, ``SIGKILL``.
    ``exit_code`` is negative for a signal.
    """

    manner: str
    exit_code: int | None
    seconds: float
    process_gone: bool
    socket_gone: bool
    directory_removed: bool
    file_unchanged: bool

    @property
    def clean(self) -> bool:
        """Nothing is left, and the given file is as it was."""
        return (
            self.process_gone
            and self.socket_gone
            and self.directory_removed
            and self.file_unchanged
        )


async def end(process: Process, pid: Pid, client: Client | None, patience: float) -> str:
    """End the server, by its own command first; return what it took.

    ``patience`` is the seconds each step may take; ``client`` is None when it never answered.
    """
    if process.returncode is not None:
        return "had ended"
    if client is not None:
        with anyio.move_on_after(patience):
            with contextlib.suppress(Silence, Refusal):  # a server that obeys does not answer
                await client.ask("SHUTDOWN", "NOSAVE")
            await process.wait()
            return "SHUTDOWN"
    for number in (signal.SIGTERM, signal.SIGKILL):
        await in_thread(pid.signal, number)
        with anyio.move_on_after(patience):
            await process.wait()
            return number.name
    return signal.SIGKILL.name  # it does not die: stuck in the kernel, which the proof will show


async def prove(
    manner: str,
    process: Process,
    pid: Pid,
    workplace: Workplace,
    *,
    given: Path,
    before: FileState | None,
    began: float,
    clock: Callable[[], float] = time.monotonic,
) -> TearDown:
    """Remove the workplace and look whether anything is left."""

    def look() -> tuple[bool, bool, bool, bool]:
        removed = workplace.remove()
        socket_gone = not (workplace.directory / RUN / SOCKET).exists()
        return pid.gone(), socket_gone, removed, FileState.of(given) == before

    process_gone, socket_gone, removed, unchanged = await in_thread(look)
    pid.close()
    return TearDown(
        manner=manner,
        exit_code=process.returncode,
        seconds=max(0.0, clock() - began),
        process_gone=process_gone,
        socket_gone=socket_gone,
        directory_removed=removed,
        file_unchanged=unchanged,
    )
