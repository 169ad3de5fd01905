"""Adding the lines of complete sets to the SHA256SUMS of their month, once a run.

A line is a witness. What SHA256SUMS names it goes on naming, with the SHA-256 that it gives: a
record that says otherwise may have been changed. Only of backups whose bytes a repair has just
fetched or compared is the record believed. One that cannot be read may name what nothing else does:
it is replaced by a repair alone, which keeps every name of a backup's file, and refuses where a
damaged line may be another one than of a file that has its line then: the next pull would give a
standard instance's file the line that its record says, whoever wrote that.

A set of a cluster gets its lines when all of its files are here, which the caller knows. A standard
instance's set is one file, whose record proves it: those of the month that have no line yet get
theirs, too, so that a run closes what an interrupted one left.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from archiver.archive import layout
from archiver.archive.catalogue import NOTHING_KNOWN, CatalogueSet, Described
from archiver.archive.contents import MonthView, SetFiles, described, with_records
from archiver.archive.reading import decode_sums
from archiver.archive.sums import Salvage, format_sums, recognized, salvage_sums, unexplained
from archiver.archive.verified import Result, results_if_any
from archiver.errors import ArchiverError, BadDocument, IntegrityError, UnreadableObject
from archiver.model import Kind
from archiver.stores.base import Entry, Store

# Sets whose records are read at once, and held until their lines are made.
_SETS_AT_ONCE: Final = 200
_STAYS: Final = "it stays as it is: run verify, then repair"


@dataclass(frozen=True, slots=True)
class Mending:
    """What a repair knows of a month whose SHA256SUMS is damaged. ``lines`` are what another
    archive's says (the SHA-256 by key), ``others`` those of it for files that are not here;
    ``knows_all``: who repairs, another archive or the vendor, knows all files that are here."""

    lines: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    knows_all: bool = False

    def decide(self, said: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        """What SHA256SUMS says by key, and where that are several, which of them the other archive
        says, too."""
        return {
            key: hashes & {self.lines[key]} or hashes
            if len(hashes) > 1 and key in self.lines
            else hashes
            for key, hashes in said.items()
        }

    def check(
        self,
        key: str,
        salvage: Salvage,
        damaged: Sequence[str],
        recorded: Mapping[str, str],
        new: Collection[str],
        *,
        is_whole: bool,
    ) -> None:
        """Raises BadDocument where what cannot be read may be the line of a file that gets none.
        ``damaged`` are the lines that name no file; ``recorded`` is what the records say, by key,
        that get their lines, ``new`` those of which the bytes came now; ``is_whole``: all do."""
        if salvage.is_empty and not (self.knows_all and is_whole):
            raise BadDocument(
                key,
                "it is empty, and nothing else tells which files it named",
                hint="repair from the source, or from an archive that has it whole",
            )
        month = layout.month_of(key)
        known = _names(month, {**self.others, **recorded})
        unnamed = {name: sha for name, sha in known.items() if name not in salvage.sums}
        found = unexplained(damaged, unnamed, known, {k.removeprefix(f"{month}/") for k in new})
        left = found.with_noise(salvage.zeros)
        if self.knows_all:
            left = found.without_noise(salvage.zeros, known)
        if left:
            raise BadDocument(
                key,
                "a line that cannot be read may be that of a missing or damaged file: "
                f"{left[0][:120]!a}",
                hint="it stays as it is; remove the line if you know that nothing is missing",
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
    fresh: Collection[str] = (),
    documents: Mapping[str, bytes] | None = None,
) -> SealPlan:
    """What the SHA256SUMS of a month is to be: with lines for these sets, which are complete, and
    unless a repair is at it for all sets of a standard instance.

    ``confirmed`` are stems whose records are believed; ``fresh`` are sets that this run has written
    to, which may not be complete; ``documents`` records of it, by key, so that they need not be
    read back. What is wrong with any of them is told, each alone: with IntegrityError at a record
    whose object is not there or that contradicts its line, with BadDocument or UnreadableObject at
    one that must not be used. Raises StoreError.
    """
    sums_key = layout.sums_key(view.key)
    try:
        data = await _present(store, view, mending=mending is not None)
    except (BadDocument, UnreadableObject) as error:
        return SealPlan(failed={sums_key: error})
    salvage = salvage_sums(data or b"")
    said = {f"{view.key}/{name}": hashes for name, hashes in salvage.sums.items()}
    told = {*fresh, *sets, *(layout.set_of(layout.record_key(stem)) for stem in confirmed)}
    meant = set(sets)
    if mending is None:
        begun = set(map(layout.stem_of, said))
        meant |= {one.key for one in view.sets if one.is_standard and one.key not in begun}
    looked_at = [one for one in view.sets if one.key in meant | told or mending is not None]
    recorded, wrong = await _recorded(
        store,
        [one.with_documents(documents or {}) for one in looked_at],
        said if mending is None else mending.decide(said),
        confirmed,
        catalogued=mending is None,
    )
    if mending is not None:
        meant |= _named_before(recorded, await results_if_any(store, view.key))
    failed = {one: error for one, error in wrong.items() if one in told}
    damaged = _damaged(salvage, view)
    unnamed = {key: sha256 for key, sha256 in recorded.items() if key not in said}
    recognised = recognized(damaged, _names(view.key, unnamed))
    added = {
        key: sha256
        for key, sha256 in recorded.items()
        if layout.set_of(key) in meant - wrong.keys()
        or _is_believed(key, said, confirmed)
        or key.removeprefix(f"{view.key}/") in recognised
    }
    # A confirmed file may have had another suffix.
    anew = {layout.stem_of(key) for key in added} & set(confirmed)
    kept = {
        key: hashes
        for key, hashes in said.items()
        if layout.stem_of(key) not in anew
        and (mending is None or layout.is_object(key) or key in view.there)
    }
    before = {key: min(hashes) for key, hashes in kept.items()}
    named = before | added
    if mending is not None:
        try:
            _check_kept(sums_key, {key: kept[key] for key in kept.keys() - added.keys()})
            if view.listed.sums is not None:
                known = {key: recorded[key] for key in recorded.keys() & named.keys()}
                new = {key for key in added if layout.stem_of(key) in confirmed}
                is_whole = not wrong and recorded.keys() == known.keys()
                mending.check(sums_key, salvage, damaged, known, new, is_whole=is_whole)
        except BadDocument as error:
            return SealPlan(failed={**failed, sums_key: error})
        named = {**mending.others, **named}
    text = format_sums(_names(view.key, named))
    if not (recorded and named) or data == text:
        return SealPlan(failed=failed)
    counts = Counter(map(layout.set_of, named))
    changed = {layout.set_of(key) for key, sha256 in added.items() if before.get(key) != sha256}
    return SealPlan(text, named, {one: counts[one] for one in changed}, failed)


def _named_before(recorded: Mapping[str, str], seen: Mapping[str, Result]) -> set[str]:
    """The sets that SHA256SUMS named when a verify last saw them, and that are as they were then:
    each file that it named is recorded with the SHA-256 that was read, and no other is."""
    named = {key: one.sha256 for key, one in seen.items() if one.named}
    sets = {layout.set_of(key) for key in named}
    changed = {key for key in named if recorded.get(key) != named[key]}
    changed |= {key for key in recorded.keys() - named.keys() if layout.is_object(key)}
    changed |= {key for key, one in seen.items() if one.wrong_at is not None}
    return sets - set(map(layout.set_of, changed))


def _is_believed(key: str, said: Mapping[str, object], confirmed: Collection[str]) -> bool:
    """Whether a file gets the line that its record gives though its set need not be complete: it is
    ``confirmed``, and had a line before, or is its whole set."""
    stem = layout.stem_of(key)
    had_one = any(f"{stem}.{kind}" in said for kind in Kind)
    return stem in confirmed and (had_one or not layout.is_in_folder(key))


def _damaged(salvage: Salvage, view: MonthView) -> list[str]:
    """The lines that cannot be read, and those that name what is not there and is no backup's
    file."""
    odd = [
        f"{sha256}  {name}"
        for name, said in salvage.sums.items()
        for sha256 in sorted(said)
        if not layout.is_object(f"{view.key}/{name}") and f"{view.key}/{name}" not in view.there
    ]
    return [*salvage.unreadable, *odd]


def _check_kept(sums_key: str, kept: Mapping[str, frozenset[str]]) -> None:
    """Raises BadDocument where a file has several lines, and nothing tells which is right."""
    for key, hashes in kept.items():
        if len(hashes) > 1:
            raise BadDocument(
                sums_key,
                f"it has {len(hashes)} lines for {key.rpartition('/')[2]}, with different SHA-256",
                hint="it stays as it is: repair from an archive whose SHA256SUMS names that file, "
                "or remove the wrong line by hand",
            )


async def _recorded(
    store: Store,
    sets: Sequence[SetFiles],
    said: Mapping[str, frozenset[str]],
    confirmed: Collection[str],
    *,
    catalogued: bool,
) -> tuple[dict[str, str], dict[str, ArchiverError]]:
    """The lines that records give, the SHA-256 by key; and by set, why one of its does not. What
    has its line may be ``catalogued``: nothing else is taken from a catalogue. Raises
    StoreError."""
    lines, wrong = dict[str, str](), dict[str, ArchiverError]()
    for first in range(0, len(sets), _SETS_AT_ONCE):
        some = sets[first : first + _SETS_AT_ONCE]
        if catalogued:
            some = [replace(one, known=_of_named(one.known, said)) for one in some]
        else:
            some = [replace(one, known=NOTHING_KNOWN) for one in some]
        for one in await with_records(store, some):
            for record_key in one.records:
                try:
                    record = await described(store, one, record_key)
                    if record is not None:
                        _check_record(one, record, said, confirmed)
                        lines[record.object_key] = record.sha256
                except (IntegrityError, UnreadableObject) as error:
                    wrong.setdefault(one.key, error)
    return lines, wrong


def _of_named(known: CatalogueSet, said: Mapping[str, object]) -> CatalogueSet:
    """What a catalogue says of the files that have a line."""
    entries = {key: one for key, one in known.entries.items() if one.object_key in said}
    return replace(known, entries=entries)


async def _present(store: Store, view: MonthView, *, mending: bool) -> bytes | None:
    """The SHA256SUMS of a month; None where there is none, or where a repair is to write anew what
    the store does not give. Raises BadDocument, UnreadableObject, StoreError."""
    try:  # whatever the listing shows: what it left out would be overwritten
        data = await store.read(layout.sums_key(view.key))
    except (BadDocument, UnreadableObject):
        if mending:
            return None
        raise
    if data is not None and not mending:
        await decode_sums(store, view.key, data, hint=_STAYS)
    return data


def _check_record(
    one: SetFiles,
    record: Described,
    said: Mapping[str, frozenset[str]],
    confirmed: Collection[str],
) -> None:
    """Raises IntegrityError where its object is not there, or SHA256SUMS says otherwise of it."""
    key = record.object_key
    entry = one.entries.get(key)
    if entry is None or not entry.is_file or entry.size != record.size:
        raise IntegrityError(
            f"{key}: it is not there as its record says",
            hint="SHA256SUMS stays: run verify, then repair",
        )
    stem = layout.stem_of(key)
    for kind in Kind:  # a line under another suffix speaks of the same backup
        line = said.get(f"{stem}.{kind}", frozenset({record.sha256}))
        wrong = line != {record.sha256} or (f"{stem}.{kind}" != key and f"{stem}.{kind}" in said)
        if wrong and stem not in confirmed:
            raise IntegrityError(
                f"{key}: SHA256SUMS says {' and '.join(sorted(line))} of {stem}.{kind}, and its "
                f"record {record.sha256}",
                hint="one of them was changed; SHA256SUMS stays: run verify, then repair",
            )


def _names(month: str, sums: Mapping[str, str]) -> dict[str, str]:
    """The same by the names that SHA256SUMS has."""
    return {key.removeprefix(f"{month}/"): sha256 for key, sha256 in sums.items()}
