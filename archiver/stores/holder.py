"""The holder of a lock or a lease: what it writes about itself, and whether it has ended."""

import socket
from dataclasses import asdict
from typing import Any, TypeAlias

from archiver import documents
from archiver.errors import ArchiveBusy, BadDocument, LockLost
from archiver.processes import ProcessIdentity, boot_id

# The fields as they were written, maybe by another version: any of them may be missing or wrong.
Holder: TypeAlias = dict[str, Any]

_MAX_BYTES = 4096  # a lock has a few fields, and is read often


def ourselves(name: str, beat: int, *, briefly: bool = False, lent: bool = False) -> Holder:
    """Return what this process writes; ``name`` is unique, and a new ``beat`` is a sign of life.
    ``briefly``: it holds the lock for a moment only, so others had better wait. ``lent``: other
    processes may write under it (:mod:`archiver.stores.loans`)."""
    return {
        "host": socket.gethostname(),
        **asdict(ProcessIdentity.current()),
        "name": name,
        "beat": beat,
        **({"brief": True} if briefly else {}),
        **({"lent": True} if lent else {}),
    }


def parse(data: bytes) -> Holder:
    """Read what a holder wrote: strings of one line, integers and booleans.

    Returns no fields if the data is empty or invalid.
    """
    try:
        values = documents.parse("the lock", data, _MAX_BYTES).values
    except BadDocument:
        return {}
    plain = all(
        isinstance(value, int | None) or (isinstance(value, str) and documents.is_clean(value))
        for value in values.values()
    )
    return dict(values) if plain else {}


def is_dead(holder: Holder) -> bool:
    """Whether the holder has certainly ended. False if it lives, or if that is unknown."""
    return ProcessIdentity.from_fields(holder).has_ended()


def is_lent(holder: Holder) -> bool:
    """Whether workers of the holder may write, even for some seconds after its death."""
    return holder.get("lent") is True


def ran_under_this_kernel(holder: Holder) -> bool:
    """Whether it ran on this machine since the last boot, so that its kernel locks count here."""
    boot = boot_id()
    return bool(boot) and holder.get("boot") == boot


def busy(archive: object, scope: str, holder: Holder) -> ArchiveBusy:
    """The error that names the holder of a scope's lock. One that has no name yet has just taken
    the lock, or released it."""
    error = ArchiveBusy(
        f"{archive}: {words(holder)} is writing to {_what(scope)}",
        hint="wait until it is done, or use --lock-wait 30m",
    )
    error.ends_soon = not holder or holder.get("brief") is True
    return error


def lost(archive: object, scope: str, holder: Holder) -> LockLost:
    """The error that names who took a scope's lock from this process, or removed it."""
    return LockLost(
        f"{archive}: this run lost the lock of {_what(scope)} to {words(holder)}",
        hint="when that is done, run the command again to resume",
    )


def _what(scope: str) -> str:
    return f"{scope} in this archive" if scope else "this archive"


def words(holder: Holder) -> str:
    """Describe the holder, such as ``process 12 on db-host``."""
    pid, host = holder.get("pid"), holder.get("host")
    if not isinstance(pid, int) or not isinstance(host, str):
        return "another process"
    return f"process {pid} on {''.join(filter(str.isprintable, host))[:100]}"
