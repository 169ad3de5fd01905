"""Trouble at the n-th call of the tool that changes an archive's file system."""

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.stateful.disk import LOCK, LOCKS

CHANGING = ("open", "pwrite", "ftruncate", "fsync", "fdatasync", "replace", "rename", "link",
            "unlink", "mkdir", "rmdir")  # fmt: skip
ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}
MODES = ("kill", "cancel", *ERRORS)
_WRITES = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR
# Turns of the loop after which a cancellation has been passed on to everything that it concerns.
_TURNS = 200


class KilledHere(BaseException):
    """The process is dead from here on: no call that changes anything happens any more."""


@dataclass(frozen=True)
class Plan:
    """``kill``, ``cancel``, or an error, at the ``at``-th call (from 1)."""

    mode: str
    at: int


class Saboteur:
    """Stands in front of the calls; ``struck`` says at which one it struck."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self.struck: str | None = None
        self.killed = False
        self.returned_too_soon = False
        self._plan = plan
        self._root = f"{root}/"
        self._left = plan.at
        self._lock = threading.Lock()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._go_on = threading.Event()
        self._is_waiting = False

    @contextmanager
    def around(self, task: "asyncio.Task[None]") -> Iterator[None]:
        """While the tool works in ``task``."""
        self._task, self._loop = task, asyncio.get_running_loop()
        task.add_done_callback(self._ended)
        with contextlib.ExitStack() as stack:
            for name in CHANGING:
                stack.enter_context(mock.patch.object(os, name, self._before(name)))
            yield

    def _before(self, name: str) -> Callable[..., Any]:
        call = getattr(os, name)

        def sabotaged(*args: Any, **kwargs: Any) -> Any:
            if self._concerns(name, args):
                self._look_at(name, args)
            return call(*args, **kwargs)

        return sabotaged

    def _concerns(self, name: str, args: tuple[Any, ...]) -> bool:
        """Not the lock: it beats in its own time, and the n-th call would be another each time."""
        if name == "open" and not args[1] & _WRITES:
            return False
        path = str(args[0])
        if isinstance(args[0], int):
            path = str(Path(f"/proc/self/fd/{args[0]}").readlink())
        is_lock = path.removeprefix(self._root).startswith((LOCK, f"{LOCKS}/"))
        return path.startswith(self._root) and not is_lock

    def _look_at(self, name: str, args: tuple[Any, ...]) -> None:
        with self._lock:
            if self.killed:
                raise KilledHere
            self._left -= 1
            if self._left != 0:
                return
            self.struck = f"{name} {args[0]}".replace(self._root, "")
            self.killed = self._plan.mode == "kill"
        if self.killed:
            raise KilledHere
        if self._plan.mode in ERRORS:
            code = ERRORS[self._plan.mode]
            raise OSError(code, os.strerror(code))
        self._cancel()

    def _cancel(self) -> None:
        """As ``Task.cancel`` does it; a thread goes on with its call when that has come to all:
        a tool that returns while we wait here has left this thread alone."""
        assert self._loop is not None
        assert self._task is not None
        task, loop, left = self._task, self._loop, _TURNS

        def turn() -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(turn)
            else:
                self._go_on.set()

        loop.call_soon_threadsafe(task.cancel)
        if threading.current_thread() is threading.main_thread():
            return
        self._is_waiting = True
        loop.call_soon_threadsafe(turn)
        self._go_on.wait()
        self._is_waiting = False

    def _ended(self, _: object) -> None:
        self.returned_too_soon = self._is_waiting
        self._go_on.set()
