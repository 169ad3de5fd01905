"""Reading again what a verify found wrong: a disk or a mount may have failed for a moment only."""

from collections.abc import Collection
from contextlib import suppress

from archiver.archive import layout
from archiver.archive.contents import view_month
from archiver.archive.measure import measure, new_block
from archiver.archive.verified import results_if_any
from archiver.commands.verify import events
from archiver.commands.verify.judge import judge
from archiver.commands.verify.survey import look_at, survey
from archiver.concurrency import in_thread
from archiver.errors import ObjectMissing, StoreError, StoreForbidden
from archiver.stores.base import Store


async def reading_right(
    store: Store, set_key: str, stems: Collection[str], observer: events.Observer
) -> frozenset[str]:
    """Which of these stems read as everything written about them says, by now."""
    listed = (await view_month(store, layout.month_of(set_key), {})).listed
    overview = await look_at(store, listed)
    known = await results_if_any(store, listed.key)
    seen = {key: one for key, one in known.items() if layout.set_of(key) == set_key}
    found = await survey(store, overview.files(set_key, listed.sets.get(set_key, {}), seen))
    doubted = {finding.stem for finding in found.findings}
    block, right = await in_thread(new_block), set[str]()
    for claims in found.files:
        stem = layout.stem_of(claims.key)
        if stem not in stems or stem in doubted:
            continue
        with suppress(ObjectMissing, StoreError, StoreForbidden):
            observer(events.ToRead(1, claims.record.size))
            measured = await measure(
                store, claims.key, claims.record.size, block,
                lambda n: observer(events.Advanced(n)), is_log=claims.record.is_log,
            )  # fmt: skip
            if not judge(claims, measured):
                right.add(stem)
    return frozenset(right)
