"""Who may write what in an archive, at the same time as others.

An archive has one writer per instance, so that several hosts can fill it together, and one for
what concerns all of it. Each has a lock (in a bucket: a lease) of its own, called a scope here:
the instance's ID, or ``WHOLE``.

    written                                            by the holder of
    <instance>/...                                     that instance's lock
    .staging/<instance>/..., .quarantine/<instance>/...  that instance's lock
    archive.json, drills/..., acknowledged/...         the archive's lock
    verified/...                                       no lock: see commands/verify/results.py
    instances/...                                      no lock: the later description counts

A verify writes the catalogue of a month, too, without a lock: it is derived, and each of its
entries counts only while the listing confirms it. A store refuses to write anything else for who
holds no lock for it: that is a fault in the program (``NotHeld``).

An instance's lock is taken when there is something to write for that instance, and released when
that is written. The archive's lock is held for the few documents that are written under it; whoever
holds it waits for no other lock, so that no two writers can wait for each other. A sweep touches
only what belongs to the lock that its caller holds.
"""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from archiver.errors import UnusableCluster

# The scope of what belongs to no instance.
WHOLE: Final = ""
# Folders beside those of the instances; what begins with a dot is none of theirs, either.
SHARED: Final = frozenset(("acknowledged", "drills", "instances", "verified"))

L = TypeVar("L", bound="Lock")


def scope_of(key: str) -> str:
    """The scope whose lock guards what has this key."""
    instance, slash, _ = key.partition("/")
    is_whole = not slash or instance in SHARED or instance.startswith(".")
    return WHOLE if is_whole else instance


def is_of_instance(key: str) -> bool:
    """Whether a key is that of one instance's file, folder (it ends in ``/``) or lock, or of what
    is kept for one beside the instances' folders."""
    folder, _, rest = key.partition("/")
    if folder == ".locks":
        return bool(rest)
    is_beside = folder in (".staging", ".quarantine", "verified")
    return scope_of(rest if is_beside else key) != WHOLE


def needs_lock(key: str) -> bool:
    """Whether only the holder of its scope's lock may write what has this key."""
    return not key.startswith(("verified/", "instances/")) and not key.endswith("/index.jsonl")


class Lock(Protocol):
    """The lock of a scope, as a store holds it."""

    def check(self) -> None:
        """Raises LockLost when this process may no longer be the only writer. Blocks."""
        ...


class HeldLocks(dict[str, L]):
    """The locks that a store holds, by scope."""

    def check_of(self, scope: str) -> Callable[[], None]:
        """What raises as the check of the scope's lock does, and NotHeld once that lock is released
        that is held now. It may block."""
        lock = self.get(scope)

        def check() -> None:
            if lock is None or self.get(scope) is not lock:
                raise NotHeld(scope)
            lock.check()

        return check

    def check_for(self, key: str) -> Callable[[], None]:
        """The same for what is written under a key; of what needs no lock, where none is held,
        nothing is checked."""
        scope = scope_of(key)
        return self.check_of(scope) if needs_lock(key) or scope in self else lambda: None


class NotHeld(RuntimeError):
    """Something is written in a scope whose lock this store does not hold."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"written without the lock of {scope or 'the whole archive'}")


def other_archive(store: object) -> UnusableCluster:
    """The error for a worker whose store does not have the lock that its coordinator holds."""
    return UnusableCluster(
        f"{store}: a worker finds another archive under this name than the coordinator",
        hint="mount the same directory there, or give it the same endpoint and bucket",
    )


def below(folder: str, scope: str) -> str:
    """The part of ``folder`` (``.staging/``, ``.quarantine/``) that belongs to a scope: a prefix of
    keys, which ends in ``/``."""
    return f"{folder}{scope}/" if scope else folder
