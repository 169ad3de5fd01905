"""Adding the lines of complete sets to the SHA256SUMS of their month, once a run.

A line is a witness. What SHA256SUMS names it goes on naming, with the SHA-256 that it gives: a
record that says otherwise may have been changed. Only of backups whose bytes a repair has just
fetched or compared is the record believed. One that cannot be read may name what nothing else does:
it is replaced by a repair alone, which keeps every name of a backup's file, and refuses where a
damaged line may be that of one that is not here.

A set of a cluster gets its lines when all of its files are here, which the caller knows. A standard
instance's set is one file, whose record proves it: those of the month that have no line yet get
theirs, too, so that a run closes what an interrupted one left.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from archiver.archive import layout
from archiver.archive.contents import MonthView, SetFiles, described, with_records
from archiver.archive.reading import decode_sums
from archiver.archive.sums import Salvage, format_sums, salvage_sums, unexplained
from archiver.errors import ArchiverError, BadDocument, IntegrityError, StoreError, UnreadableObject
from archiver.stores.base import Entry, Store

_STAYS = "it stays as it is: run verify, then repair"


@dataclass(frozen=True, slots=True)
class Mending:
    """What a repair knows of a month whose SHA256SUMS is damaged. ``others`` are files (the SHA-256
    by key) that are not here, and that another archive's SHA256SUMS names; ``is_whole``: all that
    is known of there, by another archive or the vendor, is here."""

    others: Mapping[str, str] = field(default_factory=dict)
    is_whole: bool = False

    def check(
        self,
        key: str,
        salvage: Salvage,
        recorded: Mapping[str, str],
        there: Collection[str],
    ) -> None:
        """Raises BadDocument where what cannot be read may name a file that nothing else does.
        ``recorded`` is what the records say, by name. Names of what is ``there`` need no
        explanation."""
        if salvage.is_empty and not (self.is_whole or self.others):
            raise BadDocument(
                key,
                "it is empty, and nothing else tells which files it named",
                hint="repair from the source, or from an archive that has it whole",
            )
        month = layout.month_of(key)
        lines = [
            f"{sha256}  {name}"
            for name, said in salvage.sums.items()
            for sha256 in sorted(said)
            if not layout.is_object(f"{month}/{name}") and name not in there
        ]
        known = {**_names(month, self.others), **recorded}
        unnamed = {name: sha for name, sha in known.items() if name not in salvage.sums}
        found = unexplained([*salvage.unreadable, *lines], unnamed, known)
        left = found.with_noise(salvage.zeros)
        if self.is_whole or self.others:
            left = found.without_noise(salvage.zeros, known)
        if left:
            raise BadDocument(
                key,
                f"a line that cannot be read may name a file that is not here: {left[0][:120]!a}",
                hint="it stays as it is; take the line out if you know that nothing is missing",
            )


@dataclass(frozen=True, slots=True)
class SealPlan:
    """The SHA256SUMS of a month that is to be written; ``data`` is None where it is as it should
    be; ``lines`` are those of it, by key. ``files`` says of each set that gets lines how many files
    it has in SHA256SUMS then; ``failed`` why a set gets none, by its key, or why nothing can be
    written, by the key of SHA256SUMS."""

    data: bytes | None = None
    lines: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, ArchiverError] = field(default_factory=dict)

    async def write(self, store: Store, view: MonthView) -> None:
        """Write it, as the one writer of the instance, and note that in the ``view``. Raises
        StoreError."""
        if self.data is not None:
            key = layout.sums_key(view.key)
            await store.clear(key)
            version = await store.put(key, self.data)
            view.wrote_sums(Entry(key, len(self.data), version=version), self.lines)


async def plan_seal(
    store: Store,
    view: MonthView,
    sets: Collection[str] = (),
    *,
    confirmed: Collection[str] = (),
    mending: Mending | None = None,
    documents: Mapping[str, bytes] | None = None,
) -> SealPlan:
    """What the SHA256SUMS of a month is to be: with lines for these sets, which are complete, and
    unless a repair is at it for all sets of a standard instance.

    ``confirmed`` are stems whose records are believed; ``documents`` are records that this run has
    just written, by key, so that they need not be read back; what is not there of them fails, too.
    A set fails alone: with IntegrityError at a record whose object is not there or that contradicts
    its line, with BadDocument or UnreadableObject at one that must not be used. Raises StoreError.
    """
    documents = documents or {}
    month, sums_key = view.key, layout.sums_key(view.key)
    try:
        data = await _present(store, view, mending=mending is not None)
    except (BadDocument, UnreadableObject) as error:
        return SealPlan(failed={sums_key: error})
    salvage = salvage_sums(data or b"")
    said = {f"{month}/{name}": hashes for name, hashes in salvage.sums.items()}
    named = {
        key: min(hashes) for key, hashes in said.items() if mending is None or layout.is_object(key)
    }
    begun = set(map(layout.stem_of, said))
    fresh, meant = {layout.set_of(key) for key in documents}, set(sets)
    fresh |= {layout.set_of(layout.record_key(stem)) for stem in confirmed}
    if mending is None:
        meant |= {one.key for one in view.sets if one.is_standard and one.key not in begun}
    looked_at = [one for one in view.sets if one.key in meant | fresh or mending is not None]
    recorded, wrong = await _recorded(
        store, [one.with_documents(documents) for one in looked_at], said, confirmed
    )
    failed = {one: error for one, error in wrong.items() if one in fresh.union(sets)}
    failed |= await _dropped(store, view, documents)
    added = {
        key: sha256
        for one, lines in recorded.items()
        for key, sha256 in lines.items()
        if one in meant or _is_believed(layout.stem_of(key), begun, confirmed)
    }
    changed = {layout.set_of(key) for key, sha256 in added.items() if named.get(key) != sha256}
    # Bytes that a repair brought may have given a file another suffix.
    brought = {stem for key in added if (stem := layout.stem_of(key)) in confirmed}
    named = {key: sha for key, sha in named.items() if layout.stem_of(key) not in brought} | added
    if mending is not None:
        there = {key.removeprefix(f"{month}/") for key in view.there}
        lines = {k: sha for of_set in recorded.values() for k, sha in of_set.items()}
        if lines and data != format_sums(_names(month, named)):
            try:
                mending.check(sums_key, salvage, _names(month, lines), there)
            except BadDocument as error:
                return SealPlan(failed={**failed, sums_key: error})
            named = {**mending.others, **named}
    text = format_sums(_names(month, named))
    counts = Counter(map(layout.set_of, named))
    files = {one: counts[one] for one in changed}
    is_new = bool(recorded) and data != text
    return SealPlan(text if is_new else None, named, files if is_new else {}, failed)


async def _recorded(
    store: Store,
    sets: Sequence[SetFiles],
    said: Mapping[str, frozenset[str]],
    confirmed: Collection[str],
) -> tuple[dict[str, dict[str, str]], dict[str, ArchiverError]]:
    """By set, the lines that its records give; or why it gets none. Raises StoreError."""
    lines, wrong = dict[str, dict[str, str]](), dict[str, ArchiverError]()
    for one in await with_records(store, sets):
        try:
            lines[one.key] = await _lines(store, one, said, confirmed)
        except (IntegrityError, UnreadableObject) as error:
            wrong[one.key] = error
    return {key: one for key, one in lines.items() if one}, wrong


async def _dropped(
    store: Store, view: MonthView, documents: Mapping[str, bytes]
) -> dict[str, ArchiverError]:
    """Of the records that were just written, those that the store did not keep, by their sets."""
    return {
        layout.set_of(key): StoreError(
            f"{key}: it was just written, and is not there",
            hint="the store accepts what it does not keep, or something else removed it",
        )
        for key in documents.keys() - view.there
        if await store.size(key) is None
    }


async def _present(store: Store, view: MonthView, *, mending: bool) -> bytes | None:
    """The SHA256SUMS of a month; None where there is none, or where a repair is to write anew what
    the store does not give. Raises BadDocument, UnreadableObject, StoreError."""
    if view.listed.sums is None:
        return None
    try:
        data = await store.read(layout.sums_key(view.key))
    except (BadDocument, UnreadableObject):
        if mending:
            return None
        raise
    if data is not None and not mending:
        await decode_sums(store, view.key, data, hint=_STAYS)
    return data


def _is_believed(stem: str, begun: Collection[str], confirmed: Collection[str]) -> bool:
    """Whether a backup gets the line that its record gives though its set need not be complete: it
    is ``confirmed``, and had one before (``begun``), or its record proves it."""
    is_standard = not layout.is_in_folder(layout.record_key(stem))
    return stem in confirmed and (is_standard or stem in begun)


async def _lines(
    store: Store,
    one: SetFiles,
    said: Mapping[str, frozenset[str]],
    confirmed: Collection[str],
) -> dict[str, str]:
    """The lines that the records of a set give, the SHA-256 by key. Raises as :func:`seal` says."""
    found = dict[str, str]()
    for record_key in one.records:
        record = await described(store, one, record_key)
        if record is None:
            continue
        key = record.object_key
        entry = one.entries.get(key)
        if entry is None or not entry.is_file or entry.size != record.size:
            raise IntegrityError(
                f"{key}: it is not there as its record says",
                hint="SHA256SUMS stays: run verify, then repair",
            )
        line = said.get(key, frozenset({record.sha256}))
        if record.sha256 not in line and layout.stem_of(key) not in confirmed:
            raise IntegrityError(
                f"{key}: SHA256SUMS says {min(line)}, and its record {record.sha256}",
                hint="one of them was changed; SHA256SUMS stays: run verify, then repair",
            )
        found[key] = record.sha256
    return found


def _names(month: str, sums: Mapping[str, str]) -> dict[str, str]:
    """The same by the names that SHA256SUMS has."""
    return {key.removeprefix(f"{month}/"): sha256 for key, sha256 in sums.items()}
