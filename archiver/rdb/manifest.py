"""The manifest of a multi-part AOF (Redis 7 on, aof.c): which files, in which order.

Lines like ``file appendonly.aof.1.base.rdb seq 1 type b``; ``#`` begins a comment.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from archiver.errors import CorruptFile


class Role(StrEnum):
    """What a file is to the log."""

    BASE = "b"
    HISTORY = "h"  # replaced by a rewrite, waits to be deleted
    INCREMENT = "i"


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file beside the manifest: a plain name, never a path."""

    name: str
    sequence: int
    role: Role


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files that a server loads, in order (the base first), and those it would delete."""

    files: tuple[LogFile, ...]
    history: tuple[LogFile, ...]


def read_manifest(text: str) -> Manifest:
    """Read and check a manifest's ``text``.

    Raises:
        CorruptFile: a server would refuse it, or a name leads out of its directory.
    """
    entries = [
        _entry(line, number)
        for number, line in enumerate(text.splitlines(), 1)
        if not line.startswith("#")
    ]
    bases = [entry for entry in entries if entry.role is Role.BASE]
    increments = [entry for entry in entries if entry.role is Role.INCREMENT]
    if not entries:
        raise CorruptFile("the manifest names no file")
    if len(bases) > 1:
        raise CorruptFile("the manifest names two base files")
    if len({entry.name for entry in entries}) < len(entries):
        raise CorruptFile("the manifest names a file twice")
    for before, after in pairwise(increments):
        if after.sequence <= before.sequence:
            raise CorruptFile(f"the manifest has {after.name!r} out of order")
    history = tuple(entry for entry in entries if entry.role is Role.HISTORY)
    return Manifest((*bases, *increments), history)


def _entry(line: str, number: int) -> LogFile:
    try:
        words = shlex.split(line)
    except ValueError:
        words = []
    if len(words) < 6 or len(words) % 2:
        raise CorruptFile(f"line {number} of the manifest is no list of a file's properties")
    # Later servers may add properties: those are left alone, as a server does.
    given = dict(zip(words[::2], words[1::2], strict=True))
    name, sequence, role = given.get("file", ""), given.get("seq", ""), given.get("type", "")
    if not _is_plain(name):
        raise CorruptFile(f"line {number} of the manifest names no plain file: {name!r}")
    if not (sequence.isascii() and sequence.isdigit() and len(sequence) < 20 and int(sequence)):
        raise CorruptFile(f"line {number} of the manifest has no sequence number: {sequence!r}")
    if role not in set(Role):
        raise CorruptFile(f"line {number} of the manifest has no type of a file: {role!r}")
    return LogFile(name, int(sequence), Role(role))


def _is_plain(name: str) -> bool:
    unsafe: Sequence[str] = ("/", "\\", "\x00")
    return name not in {"", ".", ".."} and name.isprintable() and not any(c in name for c in unsafe)
