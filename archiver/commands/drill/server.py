"""A throwaway server on one file: started alone, judged by its answers, gone afterwards.

It has a directory of its own, a Unix socket and no port, no configuration file, no way to persist,
and no command that reaches beyond its data (:mod:`.workplace`). It runs as nobody where this
process is root (:mod:`.identity`), dies with this process and sees no network (:mod:`.launch`).
"""

import errno
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import Any

import anyio
from anyio.abc import Process

from archiver.commands.drill import identity, launch, teardown
from archiver.commands.drill.client import Client, Refusal, Silence
from archiver.commands.drill.dump import Subject
from archiver.commands.drill.guard import MemoryGuard
from archiver.commands.drill.identity import Identity
from archiver.commands.drill.outcome import Cause, Outcome, Verdict, facts_of, read_log
from archiver.commands.drill.procfs import Pid
from archiver.commands.drill.reachable import Listening
from archiver.commands.drill.servers import (
    CLEAN_ENVIRONMENT,
    Ability,
    ServerProgram,
    able_to_load,
    says_version,
)
from archiver.commands.drill.teardown import FileState, TearDown
from archiver.commands.drill.workplace import LOG, RUN, Workplace, lay_out, open_workplace
from archiver.concurrency import in_thread, shielded
from archiver.errors import NoSpace, StoreError

# "DB loaded from disk: 0.001 seconds", "DB loaded from append only file: …": all servers say so.
_LOADED = "DB loaded from "
# Beyond the size of its file: for its log, and what a log of commands gets appended.
_FILE_ROOM = 64 * 2**20
# Whether a program runs as nobody, by its path: its own folder may be closed to him.
_RUNS: dict[tuple[Path, Identity], bool] = {}
_FIRST_POLL, _LAST_POLL = 0.005, 0.5  # seconds between questions; doubled in between


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server may take. Times in seconds, memory in bytes.

    ``start``: until it first answers. ``load``: from its start until it has loaded. ``answer``: to
    one question. ``stop``: for each way of ending it. ``memory``: resident and swapped; None stands
    for four fifths of what was available. A server grows by up to a gigabyte a second and is looked
    at every 50 ms, so leave it some room.
    """

    start: float = 30.0
    load: float = 3600.0
    answer: float = 60.0
    stop: float = 10.0
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Loading:
    """How far a server has come. ``percent`` is of the file's bytes, by its own count."""

    percent: float
    loaded_bytes: int
    total_bytes: int


class Server:
    """A server that was started; :func:`running` makes and ends it.

    ``answer``, ``load`` and ``judge`` are awaited in this order. ``log`` is the end of what it
    wrote; ``teardown`` is there once it ended. ``is_root``: it could be made nobody else.
    """

    def __init__(
        self,
        subject: Subject,
        ability: Ability,
        workplace: Workplace,
        process: Process,
        pid: Pid,
        limits: Limits,
        clock: Callable[[], float],
        *,
        is_root: bool = False,
    ) -> None:
        self.pid = pid
        self.is_root = is_root
        self.teardown: TearDown | None = None
        self.log = ""
        self._subject = subject
        self._ability = ability
        self._workplace = workplace
        self._process = process
        self._limits = limits
        self._clock = clock
        self._began = clock()
        self._clients: dict[int, Client] = {}
        self._answered = False
        self._late = ""
        self._guard = MemoryGuard(self.pid, limits.memory)

    def client(self, database: int = 0) -> Client:
        """A connection to one database, closed when the server ends."""
        if database not in self._clients:
            self._clients[database] = Client(
                self._workplace.socket, database, timeout=self._limits.answer
            )
        return self._clients[database]

    async def answer(self) -> bool:
        """Wait for the first answer, which may be that it is still loading."""
        await self._until(lambda _: True, self._limits.start, "answered")
        return self._answered

    async def load(self, progress: Callable[[Loading], None] | None = None) -> bool:
        """Wait until the server says that nothing is left to load."""

        def loaded(info: dict[str, Any]) -> bool:
            if progress is not None and info.get("loading"):
                progress(_loading(info))
            return info.get("loading") == 0

        if self._over:
            return False
        return await self._until(loaded, self._limits.load, "loaded")

    async def judge(self) -> Verdict:
        """The verdict: by what it answers, or why it does not. Never by the exit code."""
        if not self._over:
            try:
                if await self.client().ask("PING") in (b"PONG", True):
                    info = await self.client().ask("INFO")
                    await in_thread(self._read_log)
                    return self._alive(info)
            except (Silence, Refusal) as error:
                with anyio.move_on_after(self._limits.stop):  # it may be about to end
                    await self._process.wait()
                self._late = f"stopped answering: {error}"
        await in_thread(self._read_log)
        return self._dead()

    async def listening(self) -> Listening:
        """Where the server can be reached over TCP, by the kernel's word."""
        return await in_thread(self.pid.listening)

    @property
    def _over(self) -> bool:
        return bool(self._late) or self._process.returncode is not None

    async def _until(self, done: Callable[[dict[str, Any]], bool], limit: float, what: str) -> bool:
        """Ask INFO again and again; False when it ends, or is not ``done`` within ``limit``."""
        pause = _FIRST_POLL
        with anyio.move_on_after(max(0.0, self._began + limit - self._clock())):
            while self._process.returncode is None:
                try:
                    info = await self.client().ask("INFO")
                    self._answered = True
                    if done(info):
                        return True
                except (Silence, Refusal):
                    pass  # not listening yet; or so busy that it is late
                await anyio.sleep(pause)
                pause = min(2 * pause, _LAST_POLL)
            return False
        self._late = f"not {what} within {limit:g} s"
        return False

    def _alive(self, info: dict[str, Any]) -> Verdict:
        facts = facts_of(info)
        if info.get("loading") != 0:
            return Verdict(Outcome.TIMED_OUT, Cause.DEADLINE, "still loading", facts=facts)
        if facts.process_id != self.pid.number:
            return Verdict(
                Outcome.COULD_NOT_START,
                Cause.CONFIGURATION,
                f"process {facts.process_id} answers, not {self.pid.number} which was started",
                facts=facts,
            )
        if _LOADED not in self.log:
            # Without a file a server starts empty: that must not pass for a restore.
            reason = "the server answers, and its log does not say that it loaded the file"
            return Verdict(Outcome.COULD_NOT_START, Cause.ACCESS, reason, facts=facts)
        reason = f"{facts.version} loaded it, {facts.keys} keys"
        return Verdict(Outcome.LOADED, Cause.NONE, reason, facts=facts)

    def _dead(self) -> Verdict:
        code = self._process.returncode
        if self._guard.tripped is not None:
            used, limit = self._guard.tripped, self._guard.limit
            reason = f"used {used:,} bytes of memory, where {limit:,} are allowed, and was killed"
            return Verdict(Outcome.OUT_OF_MEMORY, Cause.MEMORY, reason, exit_code=code)
        if code == -signal.SIGKILL:
            reason = "killed by SIGKILL, and not by this drill: most likely for want of memory"
            return Verdict(Outcome.OUT_OF_MEMORY, Cause.MEMORY, reason, exit_code=code)
        if code is None:
            return Verdict(Outcome.TIMED_OUT, Cause.DEADLINE, self._late)
        verdict = read_log(self.log, code)
        if verdict.cause is Cause.EXITED and self._answered:
            # It had begun to load, or to serve: whatever ended it, it is no trouble of starting.
            return replace(verdict, outcome=Outcome.REFUSED)
        # A server that reads a version not its own says little of the file when it gives up.
        stranger = self._ability is not Ability.YES and self._subject.magic != ""
        if stranger and verdict.outcome is Outcome.REFUSED and verdict.cause is not Cause.CHECKSUM:
            return replace(verdict, outcome=Outcome.UNLOADABLE)
        return verdict

    def _read_log(self) -> None:
        self.log = self._workplace.log_tail()

    async def _stop(self, before: FileState | None) -> None:
        """End and remove it, whatever state it is in."""
        began = self._clock()
        await in_thread(self._guard.stop)
        client = self.client() if self._answered and not self._late else None
        manner = await teardown.end(self._process, self.pid, client, self._limits.stop)
        for one in self._clients.values():
            await one.aclose()
        await in_thread(self._read_log)
        self.teardown = await teardown.prove(
            manner,
            self._process,
            self.pid,
            self._workplace,
            given=self._subject.path,
            before=before,
            began=began,
            clock=self._clock,
        )


@asynccontextmanager
async def running(
    program: ServerProgram,
    subject: Subject,
    *,
    limits: Limits | None = None,
    directory: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Server, None]:
    """Start ``program`` on ``subject``, and end it with the block, whatever happens in there.

    ``directory`` is where its own directory is made. The file is not modified, nor written to; as
    root, one that only its owner may read, or on another file system than ``directory``, is copied.

    Raises:
        StoreError: The file is gone, or the directory, or the copy of an old server's AOF, cannot
            be made; NoSpace when the disk is full.
    """
    before = await in_thread(FileState.of, subject.path)
    ability = able_to_load(program, subject.magic, subject.version)
    if before is None:
        raise StoreError(f"{subject.path}: no such file")
    started: list[Server] = []

    async def start() -> None:
        somebody = await _somebody_else(program)
        workplace, process = await _start(program, subject, ability, directory, somebody)
        pid = await in_thread(Pid, process.pid, somebody)
        is_root = somebody is None and os.geteuid() == 0
        started.append(
            Server(
                subject, ability, workplace, process, pid, limits or Limits(), clock,
                is_root=is_root,
            )
        )  # fmt: skip

    try:
        await shielded(start())  # until there is something that is ended in any case
        yield started[0]
    finally:
        for server in started:
            await shielded(server._stop(before))  # noqa: SLF001 - the other half of this


async def _somebody_else(program: ServerProgram) -> Identity | None:
    """Whom to run it as, where it can be somebody else than we are."""
    somebody = await in_thread(identity.nobody)
    if somebody is None:
        return None
    known = (program.path, somebody)
    if known not in _RUNS:
        _RUNS[known] = await says_version(_command(somebody, 0, [str(program.path), "--version"]))
    return somebody if _RUNS[known] else None


def _command(somebody: Identity | None, size: int, command: Sequence[str]) -> list[str]:
    """A command, confined; of a file of ``size`` bytes."""
    how = [str(os.getpid()), identity.named(somebody), str(size + _FILE_ROOM)]
    return [sys.executable, "-I", "-S", launch.__file__, *how, *command]


async def _start(
    program: ServerProgram,
    subject: Subject,
    ability: Ability,
    directory: Path | None,
    somebody: Identity | None,
) -> tuple[Workplace, Process]:
    def prepare() -> tuple[Workplace, list[str], int, int]:
        workplace = open_workplace(directory)
        try:
            command = lay_out(workplace, program, subject, ability, somebody)
            workplace = workplace.laid_out()
            size = subject.path.stat().st_size
            log = os.open(workplace.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except BaseException:
            workplace.remove()
            raise
        return workplace, command, size, log

    try:
        workplace, command, size, log = await in_thread(prepare)
    except OSError as error:
        what = f"{error.filename or directory}: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(what, hint="free some space, or work elsewhere") from error
        raise StoreError(what) from error
    try:
        process = await anyio.open_process(
            _command(somebody, size, command),
            stdin=DEVNULL,
            stdout=log,
            stderr=STDOUT,
            cwd=workplace.directory / RUN,
            env=CLEAN_ENVIRONMENT,
            start_new_session=True,  # Ctrl-C is for this process, which then ends the server
        )
    except OSError as error:
        await in_thread(workplace.remove)
        raise StoreError(f"cannot start a process: {error.strerror}") from error
    finally:
        os.close(log)
    return workplace, process


def _loading(info: dict[str, Any]) -> Loading:
    percent, loaded, total = (
        info.get(f"loading_{what}", 0) for what in ("loaded_perc", "loaded_bytes", "total_bytes")
    )
    return Loading(float(percent), int(loaded), int(total))
