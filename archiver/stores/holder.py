"""Who holds a lock or a lease: what a holder writes about itself, and whether it has ended.

A holder can be known to be dead only by somebody who sees the same processes: on the same machine,
since the same boot, in the same PID namespace. Containers and cloned machines share names, so the
host's name is for people alone. Where anything of this is missing, on either side, nobody can know.
"""

import os
import socket
from pathlib import Path
from typing import Any, TypeAlias

from archiver import documents
from archiver.errors import BadDocument

# As it was written: by another version, or by something else; nothing in it can be relied on.
Holder: TypeAlias = dict[str, Any]

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Of these, one that a kernel does not have is the same for all.
_NAMESPACES = {"pid_namespace": "pid", "time_namespace": "time"}
_PLACE = ("machine", "boot", *_NAMESPACES)
_MOST_PID = 2**22
# Locks are read again and again, and hold a few fields.
_MOST_BYTES = 4096


def ourselves(name: str, beat: int) -> Holder:
    """What this process writes: ``name`` is like no other's, a new ``beat`` is a sign of life."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started("self"),
        **_place(),
        "name": name,
        "beat": beat,
    }


def parse(data: bytes) -> Holder:
    """What a holder wrote, each a line of text, a whole number or a truth value; empty when that
    was nothing, or nothing that can be relied on."""
    try:
        values = documents.parse("the lock", data, _MOST_BYTES).values
    except BadDocument:
        return {}
    plain = all(
        isinstance(value, int | None) or (isinstance(value, str) and documents.is_clean(value))
        for value in values.values()
    )
    return dict(values) if plain else {}


def is_dead(holder: Holder) -> bool:
    """Whether it has certainly ended. False for what lives, and whenever that cannot be known."""
    ours, pid, started = _place(), holder.get("pid"), holder.get("started")
    if not all(ours.values()) or any(holder.get(key) != ours[key] for key in _PLACE):
        return False
    if not isinstance(pid, int) or not 0 < pid <= _MOST_PID or not isinstance(started, str):
        return False
    if not started or not _sees_own_processes():
        return False
    found = _started(str(pid))
    return found != started and (bool(found) or _is_gone(pid))


def ran_under_this_kernel(holder: Holder) -> bool:
    """Whether it ran here since the last boot: then what the kernel says of its locks is so."""
    boot = _boot()
    return bool(boot) and holder.get("boot") == boot


def words(holder: Holder) -> str:
    """``process 12 on db-host``, as far as that is known."""
    pid, host = holder.get("pid"), holder.get("host")
    if not isinstance(pid, int) or not isinstance(host, str):
        return "another process"
    return f"process {pid} on {''.join(filter(str.isprintable, host))[:100]}"


def _place() -> dict[str, str]:
    """Where a process is seen; a part that cannot be found out is empty."""
    place = {"machine": _text(_MACHINE_ID), "boot": _boot()}
    for key, kind in _NAMESPACES.items():
        try:
            place[key] = str(Path(f"/proc/self/ns/{kind}").readlink())
        except OSError:
            missing = kind == "time" and Path("/proc/self/ns/pid").is_symlink()
            place[key] = "none" if missing else ""
    return place


def _boot() -> str:
    return _text(_BOOT_ID)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _sees_own_processes() -> bool:
    """Whether /proc is of our own PID namespace: it may have been mounted in another one."""
    try:
        return str(Path("/proc/self").readlink()) == str(os.getpid())
    except OSError:
        return False


def _started(pid: str) -> str:
    """When a process started, as the kernel counts it; empty when there is none, or not to be seen;
    ``ended`` for one that nobody has waited for yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "ended" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


def _is_gone(pid: int) -> bool:
    """Whether there is no such process; one that /proc hides from us is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
