"""Whether an archive can be kept in a store."""

import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Final

from archiver.archive.archive import Archive
from archiver.concurrency import in_thread
from archiver.errors import ArchiverError
from archiver.findings import Finding, Verdict
from archiver.secret import masked
from archiver.stores.base import Store
from archiver.stores.local import disk
from archiver.stores.local.lock import flock_is_reliable
from archiver.stores.local.mounts import file_system_kind
from archiver.stores.local.store import LocalStore
from archiver.stores.s3.capabilities import ConditionalPuts, probe
from archiver.stores.s3.credentials import owner
from archiver.stores.s3.layout import PROBE_KEY
from archiver.stores.s3.store import S3Store
from archiver.words import size

_PROBE_BYTES: Final = 2**20
_LITTLE: Final = 2**30
_FLEETING: Final = frozenset(("overlay", "ramfs", "tmpfs"))


async def check_place(store: Store) -> AsyncGenerator[Finding, None]:
    """Check the store, and then whether there is an archive, or one can be begun.

    A directory is left as it was: the file that is written has no name. In a bucket the probe
    object stays, which every pull writes, too.
    """
    for check in _checks(store):
        found = await in_thread(check)
        yield found
        if found.has_failed:
            return
    try:
        is_here = await Archive(store).check_place()
    except ArchiverError as error:
        yield Finding.of("archive", error)
        return
    text = "it is one" if is_here else "there is none yet; the first pull begins it"
    yield Finding("archive", Verdict.OK, f"{store}: {text}")


def _checks(store: Store) -> list[Callable[[], Finding]]:
    """What is checked of a store, one after the other. They block."""
    if isinstance(store, S3Store):
        return [partial(one, store) for one in (_bucket_key, _bucket, _protection)]
    return [partial(_directory, store)] if isinstance(store, LocalStore) else []


def _directory(store: LocalStore) -> Finding:
    """Whether a file can be written and made durable there, or where it will be created."""
    folder = next(at for at in (store.root, *store.root.parents) if os.path.lexists(at))
    try:
        seconds = _written(folder)
        space = os.statvfs(folder)
    except ArchiverError as error:
        return Finding.of("directory", error)
    kind, free = file_system_kind(folder), space.f_bavail * space.f_frsize
    text = f"{folder} is writable, {kind or 'file system unknown'}, {size(free)} free"
    text = f"{text}, fsync of {size(_PROBE_BYTES)} took {1000 * seconds:,.0f} ms"
    if kind in _FLEETING:
        hint = "use a disk: a container's own files and those in memory do not last"
        return Finding("directory", Verdict.WARN, text, hint)
    if unsynced := disk.what_is_not_synced():
        return Finding("directory", Verdict.WARN, f"{text}; {unsynced[0]}", "use another disk")
    if not flock_is_reliable(folder):
        hint = "locks of such file systems may not hold between hosts: let one host write at a time"
        return Finding("directory", Verdict.WARN, text, hint)
    if free < _LITTLE:
        return Finding("directory", Verdict.WARN, text, "free some space")
    return Finding("directory", Verdict.OK, text)


def _written(folder: Path) -> float:
    """The seconds that it took to write a file without a name and make it and its folder durable.
    Raises StoreError."""
    data, began = os.urandom(_PROBE_BYTES), time.monotonic()
    with disk.store_errors(folder), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        disk.write_all(file.fileno(), data, 0)
        disk.sync_file(file.fileno(), folder)
    disk.sync_directory(folder)
    return time.monotonic() - began


def _bucket_key(store: S3Store) -> Finding:
    check = "bucket key"
    try:
        found = owner(str(store))
    except ArchiverError as error:
        return Finding.of(check, error)
    if found is None:
        return Finding(check, Verdict.WARN, "no S3 credentials found", "set AWS_PROFILE or a key")
    method, key_id = found
    return Finding(check, Verdict.OK, f"access key {masked(key_id)}, found by {method}")


def _bucket(store: S3Store) -> Finding:
    try:
        found = probe(store.bucket)
    except ArchiverError as error:
        return Finding.of("bucket", error)
    text = f"{store.bucket.url(PROBE_KEY)} was written, as by every pull: the store {found}"
    if found.conditional_puts is ConditionalPuts.NONE:
        return Finding("bucket", Verdict.WARN, text, "let one host write at a time")
    return Finding("bucket", Verdict.OK, text)


def _protection(store: S3Store) -> Finding:
    return Finding("protection", Verdict.OK, str(store.bucket.protection(PROBE_KEY)))
