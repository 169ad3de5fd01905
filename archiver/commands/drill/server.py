"""A throwaway server that loads one file: started, asked for its state, and removed afterwards.

It has its own directory, a Unix socket and no port, no configuration file, no persistence, and no
command that reaches beyond its data (:mod:`.starting`). It runs as nobody if this process is root,
dies with this process and has no network (:mod:`.launch`).
"""

import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from archiver.commands.drill import teardown
from archiver.commands.drill.client import Client, ErrorReply, NoReply
from archiver.commands.drill.outcome import Cause, Outcome, Verdict, facts_of, read_log
from archiver.commands.drill.process import Listening, MemoryGuard, ServerProcess
from archiver.commands.drill.programs import Ability, DumpFile, ServerProgram, able_to_load
from archiver.commands.drill.starting import identity_for, start_server
from archiver.commands.drill.teardown import FileState, TearDown
from archiver.commands.drill.workdir import Workdir
from archiver.concurrency import in_thread, shielded
from archiver.errors import StoreError

# "DB loaded from disk: 0.001 seconds", "DB loaded from append only file: …": in all servers' logs.
_LOADED = "DB loaded from "
_FIRST_POLL, _LAST_POLL = 0.005, 0.5  # seconds between two INFO; doubled each time


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for a server. Times in seconds, memory in bytes.

    ``start``: until its first answer. ``load``: from its start until it has loaded the file.
    ``answer``: for one command. ``stop``: for each step of ending it. ``memory``: resident and
    swapped (None: 80 % of the available memory, or of the ``share``-th part of it, where so many
    servers run). A server can grow by a gigabyte a second and is checked every 50 ms, so leave some
    room.
    """

    start: float = 30.0
    load: float = 3600.0
    answer: float = 60.0
    stop: float = 10.0
    memory: int | None = None
    share: int = 1


@dataclass(frozen=True, slots=True)
class Loading:
    """The progress of loading, as the server reports it."""

    loaded_bytes: int
    total_bytes: int


class Server:
    """A started server; :func:`running` starts and ends it.

    Await ``answer``, ``load`` and ``judge`` in this order. ``log`` is the end of its log;
    ``teardown`` is set when it has ended. ``is_root``: it runs as root, like this process.
    """

    def __init__(
        self,
        dump: DumpFile,
        ability: Ability,
        workdir: Workdir,
        child: Process,
        process: ServerProcess,
        limits: Limits,
        clock: Callable[[], float],
        *,
        is_root: bool = False,
    ) -> None:
        self.process = process
        self.is_root = is_root
        self.teardown: TearDown | None = None
        self.log = ""
        self._dump = dump
        self._ability = ability
        self._workdir = workdir
        self._child = child
        self._limits = limits
        self._clock = clock
        self._began = clock()
        self._clients: dict[int, Client] = {}
        self._answered = False
        self._late = ""
        self._guard = MemoryGuard(self.process, limits.memory, limits.share)

    def client(self, database: int = 0) -> Client:
        """Return the connection to a database; it is closed when the server ends."""
        if database not in self._clients:
            self._clients[database] = Client(
                self._workdir.socket, database, timeout=self._limits.answer
            )
        return self._clients[database]

    async def answer(self) -> bool:
        """Wait for the first answer, which may be that it is loading; False if none came."""
        await self._until(lambda _: True, self._limits.start, "answered")
        return self._answered

    async def load(self, progress: Callable[[Loading], None] | None = None) -> bool:
        """Wait until the server has loaded the file; False if it did not."""

        def loaded(info: dict[str, Any]) -> bool:
            if progress is not None and info.get("loading"):
                progress(_loading(info))
            return info.get("loading") == 0

        if self._over:
            return False
        return await self._until(loaded, self._limits.load, "loaded")

    async def judge(self) -> Verdict:
        """Return the verdict by the server's answers and log, never by its exit code."""
        if not self._over:
            try:
                if await self.client().ask("PING") in (b"PONG", True):
                    info = await self.client().ask("INFO")
                    await in_thread(self._read_log)
                    return self._alive(info)
            except (NoReply, ErrorReply) as error:
                with anyio.move_on_after(self._limits.stop):  # it may be about to end
                    await self._child.wait()
                self._late = f"stopped answering: {error}"
        await in_thread(self._read_log)
        return self._dead()

    async def listening(self) -> Listening:
        """Return the TCP sockets on which the server listens, according to the kernel."""
        return await in_thread(self.process.listening)

    @property
    def _over(self) -> bool:
        return bool(self._late) or self._child.returncode is not None

    async def _until(self, done: Callable[[dict[str, Any]], bool], limit: float, what: str) -> bool:
        """Poll INFO until it is ``done``; False if the server ends or ``limit`` has passed."""
        pause = _FIRST_POLL
        with anyio.move_on_after(max(0.0, self._began + limit - self._clock())):
            while self._child.returncode is None:
                try:
                    info = await self.client().ask("INFO")
                    self._answered = True
                    if done(info):
                        return True
                except (NoReply, ErrorReply):
                    pass  # not listening yet, or too busy to answer
                await anyio.sleep(pause)
                pause = min(2 * pause, _LAST_POLL)
            return False
        self._late = f"not {what} within {limit:g} s"
        return False

    def _alive(self, info: dict[str, Any]) -> Verdict:
        facts = facts_of(info)
        if info.get("loading") != 0:
            return Verdict(Outcome.TIMED_OUT, Cause.DEADLINE, "still loading", facts=facts)
        if facts.process_id != self.process.pid:
            return Verdict(
                Outcome.COULD_NOT_START,
                Cause.CONFIGURATION,
                f"process {facts.process_id} answers instead of {self.process.pid}",
                facts=facts,
            )
        if _LOADED not in self.log:
            # A server that does not find its file starts empty, which is not a restore.
            reason = "the server answers, but its log does not say that it loaded the file"
            return Verdict(Outcome.COULD_NOT_START, Cause.ACCESS, reason, facts=facts)
        reason = f"{facts.version} loaded {facts.keys} keys"
        return Verdict(Outcome.LOADED, Cause.NONE, reason, facts=facts)

    def _dead(self) -> Verdict:
        code = self._child.returncode
        if self._guard.exceeded is not None:
            used, limit = self._guard.exceeded, self._guard.limit
            reason = f"killed for using {used:,} bytes of memory; the limit is {limit:,}"
            return Verdict(Outcome.OUT_OF_MEMORY, Cause.MEMORY, reason, exit_code=code)
        if code == -signal.SIGKILL:
            reason = "killed by SIGKILL, not by this drill: most likely out of memory"
            return Verdict(Outcome.OUT_OF_MEMORY, Cause.MEMORY, reason, exit_code=code)
        if code is None:
            return Verdict(Outcome.TIMED_OUT, Cause.DEADLINE, self._late)
        verdict = read_log(self.log, code)
        if verdict.cause is Cause.EXITED and self._answered:
            # It had already started.
            return replace(verdict, outcome=Outcome.REFUSED)
        # That a server gives up on a version newer than its own says little about the file.
        is_newer = self._ability is not Ability.YES and self._dump.magic != ""
        if is_newer and verdict.outcome is Outcome.REFUSED and verdict.cause is not Cause.CHECKSUM:
            return replace(verdict, outcome=Outcome.UNLOADABLE)
        return verdict

    def _read_log(self) -> None:
        self.log = self._workdir.log_tail()

    async def _stop(self, before: FileState | None) -> None:
        """End the server, whatever its state, and remove its directory."""
        began = self._clock()
        await in_thread(self._guard.stop)
        client = self.client() if self._answered and not self._late else None
        manner = await teardown.end(self._child, self.process, client, self._limits.stop)
        for one in self._clients.values():
            await one.aclose()
        await in_thread(self._read_log)
        self.teardown = await teardown.prove(
            manner,
            self._child,
            self.process,
            self._workdir,
            given=self._dump.path,
            before=before,
            began=began,
            clock=self._clock,
        )


@asynccontextmanager
async def running(
    program: ServerProgram,
    dump: DumpFile,
    *,
    limits: Limits | None = None,
    directory: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Server, None]:
    """Start ``program`` on ``dump``, and end it with the block in any case.

    Its working directory is made in ``directory``. The file is never modified. It is copied if the
    server runs as another user and cannot read it, or if it is on another file system.

    Raises:
        StoreError: The file does not exist, or the directory or a copy cannot be made (NoSpace if
            the disk is full).
    """
    before = await in_thread(FileState.of, dump.path)
    ability = able_to_load(program, dump.magic, dump.version)
    if before is None:
        raise StoreError(f"{dump.path}: no such file")
    started: list[Server] = []

    async def start() -> None:
        identity = await identity_for(program)
        workdir, child = await start_server(program, dump, ability, directory, identity)
        process = await in_thread(ServerProcess, child.pid, identity)
        is_root = identity is None and os.geteuid() == 0
        started.append(
            Server(
                dump, ability, workdir, child, process, limits or Limits(), clock, is_root=is_root
            )
        )

    try:
        await shielded(start())  # so that a cancellation leaves no server that nobody ends
        yield started[0]
    finally:
        for server in started:
            await shielded(server._stop(before))  # noqa: SLF001 - the counterpart of start


def _loading(info: dict[str, Any]) -> Loading:
    loaded, total = (info.get(f"loading_{what}", 0) for what in ("loaded_bytes", "total_bytes"))
    return Loading(int(loaded), int(total))
