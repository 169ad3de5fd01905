"""SHA256SUMS, as ``sha256sum`` writes and reads it. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from archiver.documents import is_name
from archiver.model import Kind

# A name with a backslash or a line's end in it has another form, and no file of an archive has one.
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\n]+)")


def parse_sums(data: bytes) -> dict[str, str] | None:
    """The SHA-256 by file name of a SHA256SUMS; None when it is none, or names a file twice."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return None
    if lines[-1] == "":
        lines.pop()
    found: dict[str, str] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or not is_name(match[2]) or match[2] in found:
            return None
        found[match[2]] = match[1]
    return found or None


@dataclass(frozen=True, slots=True)
class Salvage:
    """What can be read of a SHA256SUMS: by file name the SHA-256 it gives, several where it names
    a file twice; and how many lines seem to name one and cannot be."""

    sums: Mapping[str, frozenset[str]]
    unreadable: int


def salvage_sums(data: bytes) -> Salvage:
    """All of one that nobody damaged, what can be read of another."""
    found: dict[str, frozenset[str]] = {}
    unreadable = 0
    for line in data.decode("ascii", "replace").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            unreadable += any(f".{kind}" in line for kind in Kind)
        else:
            found[match[2]] = found.get(match[2], frozenset()) | {match[1]}
    return Salvage(found, unreadable)


def format_sums(sums: Mapping[str, str]) -> bytes:
    """What ``sha256sum -c`` reads."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
