"""The bytes that a repair is to replace: out of its way, and back when it comes to nothing.

An object of the right size would be mended where it is, over the only copy of its bytes.
"""

from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import asynccontextmanager, suppress

import anyio

from archiver.archive import layout
from archiver.errors import ArchiverError, ObjectMissing, StoreError, StoreForbidden
from archiver.model import Kind
from archiver.scrub import events
from archiver.scrub.judge import judge
from archiver.scrub.measure import measure, new_block
from archiver.scrub.results import results_if_any
from archiver.scrub.survey import survey
from archiver.stores.base import Store
from archiver.threads import in_thread


async def put_aside(store: Store, stem: str, size: int) -> None:
    """Make room for the right bytes of ``stem``, which are so many.

    Raises IntegrityError when something is aside already, StoreError.
    """
    for kind in Kind:
        if await store.size(f"{stem}.{kind}") == size:
            await store.put_aside(f"{stem}.{kind}")


async def bring_back(store: Store, stems: Iterable[str]) -> None:
    """What was put aside and not replaced, by whatever repair, is in its place again."""
    for stem in stems:
        for kind in Kind:
            await store.bring_back(f"{stem}.{kind}")


@asynccontextmanager
async def replacing(store: Store, stem: str) -> AsyncGenerator[None, None]:
    """What is put aside of ``stem`` in here is replaced at the end, or back."""
    try:
        yield
    except BaseException:
        with anyio.CancelScope(shield=True), suppress(ArchiverError):
            await bring_back(store, [stem])
        raise


async def reading_right(
    store: Store, folder: str, stems: Collection[str], observer: events.Observer
) -> frozenset[str]:
    """Which of these read as everything written about them says, by now: a disk or a mount may
    have failed for a moment only."""
    sizes = {entry.key: entry.size async for entry in store.entries(f"{folder}/")}
    known = await results_if_any(store, "/".join(folder.split("/")[:3]))
    found = await survey(store, folder, sizes, known)
    doubted = {finding.stem for finding in found.findings}
    block, right = await in_thread(new_block), set[str]()
    for claims in found.files:
        stem = layout.stem_of(claims.key)
        if stem not in stems or stem in doubted:
            continue
        with suppress(ObjectMissing, StoreError, StoreForbidden):
            observer(events.ToRead(1, claims.record.size))
            measured = await measure(
                store, claims.key, claims.record.size, block, lambda n: observer(events.Advanced(n))
            )
            if not judge(claims, measured):
                right.add(stem)
    return frozenset(right)
