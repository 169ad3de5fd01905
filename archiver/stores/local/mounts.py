"""File systems: which kind a path is on, and which should be mounted but are not.

An archive that is created in the mount point of a missing disk fills the disk below it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_FSTAB = Path("/etc/fstab")
# The administrator's units, and those made from fstab. Those of a distribution may be optional.
_UNITS = (
    Path("/etc/systemd/system"),
    Path("/run/systemd/system"),
    Path("/run/systemd/generator"),
)
_WHERE = re.compile(r"^\s*Where\s*=\s*(/.*?)\s*$", re.MULTILINE)


def file_system_kind(path: Path) -> str | None:
    """The kind of the file system that ``path`` is on, such as ``ext4`` or ``nfs4``; None when it
    is unknown.

    It is found by its device, or by its mount point where the device is not listed (btrfs).
    """
    real = path.resolve()
    ancestors = (real, *real.parents)
    try:
        mounts = _MOUNTINFO.read_bytes().split(b"\n")
        device = next(at for at in ancestors if at.exists()).stat().st_dev
    except OSError:
        return None
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    kinds: dict[str, str] = {}
    for fields in (line.split(b" ") for line in mounts if line):
        kind = fields[fields.index(b"-") + 1].decode()
        if fields[2] == wanted:
            return kind
        # Every mount counts: a path on one that is missing here would get the kind of its parent.
        kinds[_unescape(fields[4])] = kind
    return next((kinds[str(at)] for at in ancestors if str(at) in kinds), None)


def missing_mount(path: Path) -> Path | None:
    """The nearest mount point at or above ``path`` where nothing is mounted, though /etc/fstab or a
    mount unit of systemd says so; None when there is none, or that is unknown. Blocks."""
    mounted = _mounted()
    if not mounted:
        return None
    missing = {os.path.normpath(name) for name in (*_in_fstab(), *_in_units())} - mounted
    paths = (Path(os.path.normpath(path.absolute())), path.resolve())
    return next((at for one in paths for at in (one, *one.parents) if str(at) in missing), None)


def _unescape(name: bytes) -> str:
    """A path in mountinfo or fstab, where blanks and other characters are octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), name))


def _mounted() -> set[str]:
    lines = [line.split(b" ") for line in _bytes(_MOUNTINFO).split(b"\n")]
    return {_unescape(fields[4]) for fields in lines if len(fields) > 4}


def _in_fstab() -> Iterator[str]:
    for line in _bytes(_FSTAB).splitlines():
        fields = line.split()
        if len(fields) > 1 and not fields[0].startswith(b"#") and fields[1].startswith(b"/"):
            yield _unescape(fields[1])


def _in_units() -> Iterator[str]:
    for folder in _UNITS:
        for unit in sorted(folder.glob("*.mount")):
            yield from _WHERE.findall(os.fsdecode(_bytes(unit)))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
