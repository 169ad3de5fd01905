"""What should be mounted, by /etc/fstab and the mount units of systemd, and is not.

An archive that is begun in the mount point of a disk that is missing fills the disk below it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from archiver.stores.local.filesystem import unescaped

_FSTAB = Path("/etc/fstab")
# The administrator's own, and what was made from fstab; a distribution's may never be mounted.
_UNITS = (
    Path("/etc/systemd/system"),
    Path("/run/systemd/system"),
    Path("/run/systemd/generator"),
)
_MOUNTED = Path("/proc/self/mountinfo")
_WHERE = re.compile(r"^\s*Where\s*=\s*(/.*?)\s*$", re.MULTILINE)


def missing_above(path: Path) -> Path | None:
    """The mount point at or above ``path`` where nothing is mounted, though it should be; None if
    all is well, or cannot be known. The nearest counts. Blocks."""
    there = _mounted()
    if not there:
        return None
    wanted = {os.path.normpath(name) for name in (*_in_fstab(), *_in_units())} - there
    ways = (Path(os.path.normpath(path.absolute())), path.resolve())
    return next((at for way in ways for at in (way, *way.parents) if str(at) in wanted), None)


def _mounted() -> set[str]:
    lines = [line.split(b" ") for line in _bytes(_MOUNTED).split(b"\n")]
    return {unescaped(fields[4]) for fields in lines if len(fields) > 4}


def _in_fstab() -> Iterator[str]:
    for line in _bytes(_FSTAB).splitlines():
        fields = line.split()
        if len(fields) > 1 and not fields[0].startswith(b"#") and fields[1].startswith(b"/"):
            yield unescaped(fields[1])


def _in_units() -> Iterator[str]:
    for folder in _UNITS:
        for unit in sorted(folder.glob("*.mount")):
            yield from _WHERE.findall(os.fsdecode(_bytes(unit)))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
