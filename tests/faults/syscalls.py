"""A program's own system calls on one folder, as strace saw them, played into the model of a file
system.

Names and bytes change when a call is entered, so that what follows from it comes after it. A call
that was entered before another thread had made the folder it needs happens as soon as that folder
is there. A sync makes durable what was complete when it was entered, and has done so when it is
left. What the program wrote to stdout was told when that call is left.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.posix import FileSystem, Tree

_NAMES = (
    "open", "openat", "creat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link",
    "linkat", "unlink", "unlinkat", "rmdir",
)  # fmt: skip
_BYTES = ("write", "pwrite64", "ftruncate", "lseek", "close")
_SYNCS = ("fsync", "fdatasync", "syncfs", "sync")
# None of these is used on an archive; if one is, the model does not know what it does.
_UNKNOWN = (
    "openat2", "truncate", "fallocate", "writev", "pwritev", "pwritev2", "copy_file_range",
    "sendfile", "splice", "symlink", "symlinkat", "mknod", "mknodat", "dup", "dup2", "dup3",
    "sync_file_range",
)  # fmt: skip
_BEGUN = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)$", re.DOTALL)
_RESUMED = re.compile(r"^(?P<thread>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)$", re.DOTALL)
_UNFINISHED = "<unfinished ...>"
_RESULT = re.compile(r"^(?P<arguments>.*)\) += (?P<result>-?\d+|\?)", re.DOTALL)


def under_strace(trace: Path) -> tuple[str, ...]:
    """What to put before a command, so that its calls are written to ``trace``."""
    calls = ",".join((*_NAMES, *_BYTES, *_SYNCS, *_UNKNOWN, "execve"))
    return (
        "strace", "-f", "--seccomp-bpf", "-qq", "-xx", "-s", str(2**28 - 1), "-o", str(trace),
        "-e", "signal=none", "-e", f"trace={calls}",
    )  # fmt: skip


@dataclass(slots=True, eq=False)
class Call:
    """One system call; ``result`` is None when it was never left."""

    name: str
    arguments: tuple[str, ...] = ()
    result: int | None = None

    def text(self, index: int) -> str:
        return os.fsdecode(self.data(index))

    def data(self, index: int) -> bytes:
        """A string, which -xx gives in hexadecimal."""
        argument = self.arguments[index]
        if not argument.startswith('"') or not argument.endswith('"'):
            raise ValueError(f"{self.name}: {argument[:80]} is not a whole string")
        return bytes.fromhex(argument[1:-1].replace("\\x", ""))

    def number(self, index: int) -> int:
        return int(self.arguments[index], 0)


@dataclass(frozen=True, slots=True)
class Moment:
    """The file system may be cut here; ``said`` is what was just told on stdout."""

    call: str
    said: bytes = b""


def read_calls(text: str) -> list[tuple[bool, Call]]:
    """Calls as they were entered (True) and left (False)."""
    steps: list[tuple[bool, Call]] = []
    under_way: dict[str, tuple[Call, str]] = {}
    for line in text.splitlines():
        if resumed := _RESUMED.match(line):
            if resumed["thread"] in under_way:
                call, begun = under_way.pop(resumed["thread"])
                _finish(call, begun + resumed["rest"])
                steps.append((False, call))
        elif entered := _BEGUN.match(line):
            call, rest = Call(entered["name"]), entered["rest"]
            steps.append((True, call))
            if rest.endswith(_UNFINISHED):
                rest = rest.removesuffix(_UNFINISHED).rstrip()
                call.arguments = _split(rest)
                under_way[entered["thread"]] = call, rest
            else:
                _finish(call, rest)
                steps.append((False, call))
    return steps


def _finish(call: Call, rest: str) -> None:
    match = _RESULT.match(rest)
    if match is None:
        raise ValueError(f"{call.name}({rest[:200]}")
    call.arguments = _split(match["arguments"])
    call.result = None if match["result"] == "?" else int(match["result"])


def _split(arguments: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in arguments.rstrip(",").split(", ")) if arguments else ()


@dataclass(slots=True)
class _Open:
    """What a descriptor leads to."""

    inode: int
    path: str
    offset: int = 0


class Replay:
    """Plays one process's calls into ``system``, which is the folder ``folder``; the process ran in
    ``cwd``.

    ``in_flight_happened``: whether a call that a kill cut short had its effect.
    """

    def __init__(
        self, system: FileSystem, folder: Path, *, cwd: Path, in_flight_happened: bool
    ) -> None:
        self._system: Final = system
        self._folder: Final = str(folder)
        self._cwd: Final = str(cwd)
        self._in_flight_happened: Final = in_flight_happened
        self._open: Final[dict[int, _Open]] = {}
        self._opening: Final[dict[Call, _Open]] = {}
        self._incomplete: Final[dict[Call, set[int]]] = {}
        self._syncing: Final[dict[Call, set[int]]] = {}
        self._programs = 0

    def moments(self, trace: Path) -> Iterator[Moment]:
        early: list[Call] = []
        for entered, call in read_calls(trace.read_text("ascii")):
            cut_short = call.result is None
            if cut_short and (call.name in _SYNCS or not self._in_flight_happened):
                continue
            if call.result is not None and call.result < 0:
                continue
            if entered:
                early.append(call)
                yield from self._enter_those_that_can(early)
            elif call in early:
                raise FileNotFoundError(f"{call.name}{call.arguments!r:.200}")
            elif (moment := self._leave(call)) is not None:
                yield moment

    def _enter_those_that_can(self, early: list[Call]) -> Iterator[Moment]:
        """The last of these calls, and what could not happen before it."""
        todo = [early[-1]]
        while todo:
            call = todo.pop()
            try:
                moment = self._enter(call)
            except FileNotFoundError:
                continue
            early.remove(call)
            todo = list(early)
            if moment is not None:
                yield moment

    def _enter(self, call: Call) -> Moment | None:
        if call.name == "execve":
            self._programs += 1
            if self._programs > 1:
                raise ValueError(f"another program was started: {call.text(0)}")
            return None
        if call.name in _SYNCS:
            in_flight = set().union(*self._incomplete.values())
            self._syncing[call] = self._system.pending().keys() - in_flight
            return None
        if call.name in _UNKNOWN:
            self._refuse(call)
            return None
        changed: set[int] = getattr(self, f"_on_{call.name}")(call)
        if not changed:
            return None
        self._incomplete[call] = changed
        return Moment(call.name)

    def _leave(self, call: Call) -> Moment | None:
        self._incomplete.pop(call, None)
        if call in self._opening and call.result is not None:
            self._open[call.result] = self._opening.pop(call)
        if call.name == "write" and call.number(0) == 1:
            return Moment("told", call.data(1)[: call.result])
        began = self._syncing.pop(call, None)
        if began is None:
            return None
        if call.name in ("sync", "syncfs"):
            if call.name == "sync" or call.number(0) in self._open:
                self._system.sync_all(began)
        elif (opened := self._open.get(call.number(0))) is not None:
            self._system.sync(opened.inode, began)
        else:
            return None
        return Moment(call.name)

    def _refuse(self, call: Call) -> None:
        """Raises ValueError when a call that the model does not know is about our folder."""
        descriptors = [int(one) for one in call.arguments if one.isdecimal()][:2]
        paths = [self._inside(call.text(i)) for i, a in enumerate(call.arguments) if a[:1] == '"']
        if self._open.keys() & descriptors or any(path is not None for path in paths):
            raise ValueError(f"{call.name}{call.arguments!r:.200}: the model does not know it")

    def _inside(self, path: str, directory: str = "AT_FDCWD") -> str | None:
        """A path of ours, relative to the folder; None for another."""
        base = self._cwd
        if not os.path.isabs(path) and directory != "AT_FDCWD":
            opened = self._open.get(int(directory))
            if opened is None:
                return None
            base = f"{self._folder}/{opened.path}"
        path = os.path.normpath(os.path.join(base, path))
        if path == self._folder:
            return ""
        return (
            path.removeprefix(f"{self._folder}/") if path.startswith(f"{self._folder}/") else None
        )

    # -- opening and closing

    def _on_openat(self, call: Call) -> set[int]:
        return self._opens(call, self._inside(call.text(1), call.arguments[0]), call.arguments[2])

    def _on_open(self, call: Call) -> set[int]:
        return self._opens(call, self._inside(call.text(0)), call.arguments[1])

    def _on_creat(self, call: Call) -> set[int]:
        return self._opens(call, self._inside(call.text(0)), "O_WRONLY|O_CREAT|O_TRUNC")

    def _opens(self, call: Call, path: str | None, options: str) -> set[int]:
        if path is None:
            return set()
        flags, changed = set(options.split("|")), set[int]()
        if flags & {"O_TMPFILE", "O_APPEND"}:
            raise ValueError(f"{path} is opened with {options}: the model does not know it")
        inode = self._system.lookup(path)
        if inode is None:
            if "O_CREAT" not in flags:
                raise FileNotFoundError(f"{path} was opened, and the model does not have it")
            before = self._system.pending().keys()
            inode = self._system.create(path)
            changed = self._system.pending().keys() - before
        elif "O_TRUNC" in flags:
            changed = self._system.resize(inode, 0)
        self._opening[call] = _Open(inode, path)
        return changed

    def _on_close(self, call: Call) -> set[int]:
        self._open.pop(call.number(0), None)
        return set()

    # -- names

    def _on_mkdir(self, call: Call) -> set[int]:
        path = self._inside(call.text(0))
        return set() if path is None else self._system.mkdir(path)

    def _on_mkdirat(self, call: Call) -> set[int]:
        path = self._inside(call.text(1), call.arguments[0])
        return set() if path is None else self._system.mkdir(path)

    def _on_unlink(self, call: Call) -> set[int]:
        path = self._inside(call.text(0))
        return set() if path is None else self._system.unlink(path)

    _on_rmdir = _on_unlink

    def _on_unlinkat(self, call: Call) -> set[int]:
        path = self._inside(call.text(1), call.arguments[0])
        return set() if path is None else self._system.unlink(path)

    def _on_rename(self, call: Call) -> set[int]:
        return self._renames(self._inside(call.text(0)), self._inside(call.text(1)))

    def _on_renameat(self, call: Call) -> set[int]:
        directory, path, onto, target = (
            call.arguments[0],
            call.text(1),
            call.arguments[2],
            call.text(3),
        )
        if call.name == "renameat2" and call.arguments[4] not in ("0", "RENAME_NOREPLACE"):
            raise ValueError(f"{call.arguments[4]}: the model does not know it")
        return self._renames(self._inside(path, directory), self._inside(target, onto))

    _on_renameat2 = _on_renameat

    def _renames(self, path: str | None, target: str | None) -> set[int]:
        if path is None and target is None:
            return set()
        if path is None or target is None:
            raise ValueError(f"renamed across the edge of what is watched: {path} {target}")
        return self._system.rename(path, target)

    def _on_link(self, call: Call) -> set[int]:
        return self._links(self._inside(call.text(0)), self._inside(call.text(1)))

    def _on_linkat(self, call: Call) -> set[int]:
        return self._links(
            self._inside(call.text(1), call.arguments[0]),
            self._inside(call.text(3), call.arguments[2]),
        )

    def _links(self, path: str | None, other: str | None) -> set[int]:
        if path is None and other is None:
            return set()
        if path is None or other is None:
            raise ValueError(f"linked across the edge of what is watched: {path} {other}")
        return self._system.link(path, other)

    # -- bytes

    def _on_pwrite64(self, call: Call) -> set[int]:
        opened = self._open.get(call.number(0))
        if opened is None:
            return set()
        data = call.data(1)
        written = len(data) if call.result is None else call.result
        return self._system.write(opened.inode, call.number(3), data[:written])

    def _on_write(self, call: Call) -> set[int]:
        opened = self._open.get(call.number(0))
        if opened is None:
            return set()
        data = call.data(1)[: call.result]
        offset, opened.offset = opened.offset, opened.offset + len(data)
        return self._system.write(opened.inode, offset, data)

    def _on_lseek(self, call: Call) -> set[int]:
        opened = self._open.get(call.number(0))
        if opened is not None and call.result is not None:
            opened.offset = call.result
        return set()

    def _on_ftruncate(self, call: Call) -> set[int]:
        opened = self._open.get(call.number(0))
        return set() if opened is None else self._system.resize(opened.inode, call.number(1))


def read_tree(folder: Path) -> dict[str, bytes | None]:
    """What is really there, as the model has it."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = None if path.is_dir() and not path.is_symlink() else path.read_bytes()
    return found


def lay_out(folder: Path, tree: Tree, twins: frozenset[frozenset[str]] = frozenset()) -> None:
    """Make a folder that holds this tree; the paths in each of ``twins`` are names of one file."""
    folder.mkdir(parents=True)
    for name in sorted(tree):
        data, path = tree[name], folder / name
        if data is None:
            path.mkdir(mode=0o700)
        else:
            path.write_bytes(data)
    for names in twins:
        first, *others = sorted(names)
        for other in others:
            (folder / other).unlink()
            (folder / other).hardlink_to(folder / first)
