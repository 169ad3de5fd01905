"""Adding the lines of complete sets to the SHA256SUMS of their month, once a run.

A line is a witness. SHA256SUMS keeps each name with its SHA-256: a record that says otherwise may
have been changed. Only where a repair has just fetched or compared the bytes, the record replaces
the line. Nor does a record give a line if an earlier verify saw other bytes: with two witnesses it
would outvote that verify.

Only a repair replaces a SHA256SUMS that is gone or cannot be read. It keeps every name of a
backup's file. It refuses where a damaged line may be that of a file that gets no other: the next
pull would give a standard instance's file the line that its record says, whoever wrote that.

The catalogue stands in for a SHA256SUMS that is gone or damaged: each file that it says was named
there must be named again, or be acknowledged as gone. A catalogue that was forged, and a set that
was lost with its SHA256SUMS, look the same: so somebody has to say which it is.

A cluster's set gets its lines when all of its files are here, which the caller knows. A standard
instance's set is one file, whose record proves the bytes: each of the month that has no line gets
one, so that a run completes what an interrupted one left.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from archiver.archive import layout
from archiver.archive.acknowledged import acknowledged_backups
from archiver.archive.catalogue import Catalogue, CatalogueEntry
from archiver.archive.contents import MonthView, SetFiles, described, with_records
from archiver.archive.reading import at_odds, check_object, decode_sums
from archiver.archive.sums import (
    LINE_BYTES,
    Salvage,
    as_one,
    format_sums,
    recognized,
    salvage_sums,
    unexplained,
)
from archiver.archive.verified import Result, results_if_any
from archiver.errors import ArchiverError, BadDocument, IntegrityError, UnreadableObject
from archiver.model import Kind
from archiver.stores.base import Entry, Store

# Sets whose records are read at once, and held until their lines are made.
_SETS_AT_ONCE: Final = 200
_STAYS: Final = "it stays as it is: run verify, then repair"
_BRING: Final = "repair from an archive that has it"
_ACKNOWLEDGE: Final = (
    f"{_BRING}; if it is gone for good, or never was, acknowledge {{}} (archiver ack), and repair "
    "again"
)
_REMOVED: Final = f"{_BRING}; removed on purpose? then remove the month's {layout.INDEX_NAME}, too"


@dataclass(frozen=True, slots=True)
class SumsRepair:
    """What a repair knows of a month. ``theirs`` is the SHA-256 by key in the SHA256SUMS of another
    archive; ``absent`` are those of files that are not here, which get a line all the same.
    ``knows_all``: the other archive, or the vendor, knows all files that are here. Sets that were
    ``not_repaired`` get no line for having had one before."""

    theirs: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    knows_all: bool = False
    not_repaired: Collection[str] = ()

    def choose(self, key: str, hashes: frozenset[str]) -> frozenset[str]:
        """The one of several SHA-256 for a file that the other archive has, too, if it has one."""
        return hashes & {self.theirs.get(key, "")} or hashes


@dataclass(frozen=True, slots=True)
class SealPlan:
    """The SHA256SUMS of a month that is to be written; ``data`` is None where it is as it should
    be. ``lines`` are the SHA-256 in it by key; ``files`` says how many files it names of each set
    that gets a line; ``failed`` says why a set gets none, by its key, or why nothing can be
    written, by the key of SHA256SUMS. ``clears``: what is there may be something that was not
    read. ``forgets``: nothing is left of what the catalogue says that SHA256SUMS named."""

    data: bytes | None = None
    lines: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, ArchiverError] = field(default_factory=dict)
    clears: bool = False
    forgets: bool = False

    @property
    def is_due(self) -> bool:
        """Whether something is to be written."""
        return self.data is not None or self.forgets

    async def write(self, store: Store, view: MonthView) -> None:
        """Write it, as the one writer of the instance, and note that in the ``view``. Raises
        UnreadableObject where the store keeps something else, StoreError."""
        if self.forgets:
            await store.put(layout.index_key(view.key), b"")
        if self.data is not None:
            key = layout.sums_key(view.key)
            if self.clears:
                await store.clear(key)
            version = await store.put(key, self.data)
            if await store.read(key) != self.data:
                raise UnreadableObject(
                    f"{key}: the store does not have it as it was sent",
                    hint="it accepts what it does not keep, or something else changed it",
                )
            view.wrote_sums(Entry(key, len(self.data), version=version), self.lines)


@dataclass(frozen=True, slots=True)
class _Month:
    """What was read of a month. ``lines`` are those of SHA256SUMS by key, with several SHA-256
    where it names a file twice. ``recorded`` is the SHA-256 by key that the records give; ``wrong``
    says by set why a record does not count. The records of ``complete`` sets give lines, and those
    of ``confirmed`` stems are believed whatever the lines say. ``remembered`` are files that get
    back the line that they had."""

    view: MonthView
    salvage: Salvage
    lines: Mapping[str, frozenset[str]]
    recorded: Mapping[str, str]
    wrong: Mapping[str, ArchiverError]
    complete: frozenset[str]
    confirmed: frozenset[str]
    remembered: frozenset[str]

    def names(self, sums: Mapping[str, str]) -> dict[str, str]:
        """The same by the names that SHA256SUMS has."""
        return {key.removeprefix(f"{self.view.key}/"): sha256 for key, sha256 in sums.items()}

    @property
    def damaged(self) -> list[str]:
        """The lines that cannot be read, and those that name what is not there and is no backup's
        file."""
        odd = [
            f"{sha256}  {key.removeprefix(f'{self.view.key}/')}"
            for key, hashes in self.lines.items()
            for sha256 in sorted(hashes)
            if not layout.is_object(key) and key not in self.view.there
        ]
        return [*self.salvage.unreadable, *odd]


async def plan_seal(
    store: Store,
    view: MonthView,
    sets: Collection[str] = (),
    *,
    confirmed: Collection[str] = (),
    repair: SumsRepair | None = None,
    written: Collection[str] = (),
    known: Mapping[str, CatalogueEntry] | None = None,
) -> SealPlan:
    """The SHA256SUMS that a month should have: with lines for ``sets``, which are complete, and
    unless this is a ``repair`` for all sets of a standard instance.

    The records of ``confirmed`` stems are believed. ``written`` are sets that this run has written
    to, complete or not; ``known`` is what records of it say, by key, which need not be read back.
    A set fails alone: with IntegrityError where an object is not there, or a record contradicts a
    line or an earlier verify, with BadDocument or UnreadableObject where a record cannot be used.
    Raises StoreError.
    """
    sums_key = layout.sums_key(view.key)
    try:
        data = await _present(store, view, is_repair=repair is not None)
    except (BadDocument, UnreadableObject) as error:
        return SealPlan(failed={sums_key: error})
    concerned = {*written, *sets, *(layout.set_of(layout.record_key(stem)) for stem in confirmed)}
    month = await _read_month(
        store, view, salvage_sums(data or b""), sets, concerned, confirmed, repair, known or {}
    )
    failed = {one: error for one, error in month.wrong.items() if one in concerned}
    added = _added(month)
    kept = _kept(month, added, is_repair=repair is not None)
    before = {key: min(hashes) for key, hashes in kept.items()}
    named = before | added
    if repair is not None:
        if lost := await _lost(store, month, {**repair.absent, **named}):
            return SealPlan(failed={**failed, **lost})
        try:
            _check_repair(month, added, kept, repair)
        except BadDocument as error:
            return SealPlan(failed={**failed, sums_key: error})
        named = {**repair.absent, **named}
        if view.overview.catalogue.lacks_sums and not named:
            return SealPlan(failed=failed, forgets=True)
    text = format_sums(month.names(named))
    if not (month.recorded and named) or data == text:
        return SealPlan(failed=failed)
    counts = Counter(map(layout.set_of, named))
    changed = {layout.set_of(key) for key, sha256 in added.items() if before.get(key) != sha256}
    files = {one: counts[one] for one in changed}
    return SealPlan(text, named, files, failed, clears=repair is not None)


async def _present(store: Store, view: MonthView, *, is_repair: bool) -> bytes | None:
    """The SHA256SUMS of a month; None where there is none, or where a repair replaces one that the
    store does not give. Raises BadDocument, UnreadableObject, StoreError."""
    if view.overview.is_unread and view.overview.sums_fault is not None:
        raise view.overview.sums_fault  # nobody knows what it named
    try:  # whatever the listing shows: what it left out would be overwritten
        data = await store.read(layout.sums_key(view.key))
    except (BadDocument, UnreadableObject):
        if is_repair:
            return None
        raise
    if is_repair:
        return data
    if data is not None:
        await decode_sums(store, view.key, data, hint=_STAYS)
    elif view.overview.sums_fault is not None:
        raise view.overview.sums_fault  # it was here: a new one would lack what it named
    return data


async def _read_month(
    store: Store,
    view: MonthView,
    salvage: Salvage,
    sets: Collection[str],
    concerned: Collection[str],
    confirmed: Collection[str],
    repair: SumsRepair | None,
    known: Mapping[str, CatalogueEntry],
) -> _Month:
    """Read the records that may give lines: in a repair all of the month, and else those of the
    sets ``concerned`` and of standard instances' sets without a line. Raises StoreError."""
    lines = {f"{view.key}/{name}": hashes for name, hashes in salvage.sums.items()}
    complete = set(sets)
    if repair is None:
        named = set(map(layout.stem_of, lines))
        complete |= {one.key for one in view.sets if one.is_standard and one.key not in named}
    some = [
        # Nothing is taken from a catalogue but what a line confirms.
        _known_by(replace(one, written=known), lines if repair is None else ())
        for one in view.sets
        if repair is not None or one.key in complete or one.key in concerned
    ]
    chosen = lines if repair is None else {k: repair.choose(k, v) for k, v in lines.items()}
    said = {key: as_one(hashes) for key, hashes in chosen.items()}
    # The view of a repair may be without them: what they miss is what it writes.
    seen = view.overview.results if repair is None else await results_if_any(store, view.key)
    recorded, wrong = await _recorded(store, some, said, seen, confirmed)
    remembered = frozenset[str]()
    if repair is not None:
        complete |= _named_before(recorded, seen)
        remembered = _remembered(view.overview.catalogue, recorded, repair)
    return _Month(
        view, salvage, lines, recorded, wrong, frozenset(complete), frozenset(confirmed), remembered
    )


def _known_by(one: SetFiles, keys: Collection[str]) -> SetFiles:
    """The same set, with what its catalogue says of the objects with these ``keys`` alone."""
    known = {entry.key: entry for entry in one.catalogued if entry.object_key in keys}
    return one.by(Catalogue(known))


async def _recorded(
    store: Store,
    sets: Sequence[SetFiles],
    said: Mapping[str, str],
    seen: Mapping[str, Result],
    confirmed: Collection[str],
) -> tuple[dict[str, str], dict[str, ArchiverError]]:
    """The SHA-256 by key that records give; and by set, why one of its records does not count.
    ``said`` is what SHA256SUMS says, by key, and ``seen`` what verifies saw. Raises StoreError."""
    found, wrong = dict[str, str](), dict[str, ArchiverError]()
    for first in range(0, len(sets), _SETS_AT_ONCE):
        for one in await with_records(store, sets[first : first + _SETS_AT_ONCE]):
            for record_key in one.records:
                try:
                    record = await described(store, one, record_key)
                    if record is None:
                        continue
                    await check_object(store, record, one.entries)
                    odds = at_odds(record, said, seen)
                    if odds is not None and layout.stem_of(record.object_key) not in confirmed:
                        raise odds
                    found[record.object_key] = record.sha256
                except (IntegrityError, UnreadableObject) as error:
                    wrong.setdefault(one.key, error)
    return found, wrong


def _named_before(recorded: Mapping[str, str], seen: Mapping[str, Result]) -> set[str]:
    """The sets that SHA256SUMS named when a verify last saw them, and that are as they were then:
    each file that it named is recorded with the SHA-256 that was read, and no other is."""
    named = {key: one.sha256 for key, one in seen.items() if one.named}
    sets = {layout.set_of(key) for key in named}
    changed = {key for key in named if recorded.get(key) != named[key]}
    changed |= {key for key in recorded.keys() - named.keys() if layout.is_object(key)}
    changed |= {key for key, one in seen.items() if one.wrong_at is not None}
    return sets - set(map(layout.set_of, changed))


def _remembered(
    catalogue: Catalogue, recorded: Mapping[str, str], repair: SumsRepair
) -> frozenset[str]:
    """The files that a SHA256SUMS which is gone named, by the catalogue, and that are recorded as
    they were then."""
    entries = (catalogue.entries[key] for key in catalogue.were_named)
    return frozenset(
        one.object_key
        for one in entries
        if recorded.get(one.object_key) == one.sha256 and one.set_key not in repair.not_repaired
    )


async def _lost(store: Store, month: _Month, named: Mapping[str, str]) -> dict[str, ArchiverError]:
    """Why a SHA256SUMS that is gone or damaged cannot be written anew: by the key of its record,
    each file that it may have named, by the catalogue, that is not ``named`` now, and that nobody
    has acknowledged as gone; and why, by its own key. Of a damaged one those that are here are for
    :func:`_check_repair`. Raises StoreError."""
    catalogue = month.view.overview.catalogue
    if not month.view.overview.is_witness:
        return {}
    may_be_named = catalogue.named - (catalogue.entries.keys() - catalogue.were_named)
    right = set(map(layout.backup_name, named))  # in whichever folder, with whichever time
    lost = {key: layout.backup_name(key) for key in sorted(may_be_named)}
    lost = {key: name for key, name in lost.items() if name not in right}
    here = set(map(layout.stem_of, month.view.listed.entries))
    gone = {key: name for key, name in lost.items() if layout.stem_of(key) not in here}
    lost = lost if catalogue.lacks_sums else gone
    acknowledged = await acknowledged_backups(store, gone.values())
    found: dict[str, ArchiverError] = {}
    for key, name in lost.items():
        if key not in gone:
            found[key] = IntegrityError(f"{key}: it is not as the catalogue says", hint=_BRING)
        elif name not in acknowledged:
            text = f"{key}: the catalogue names it, and it is gone"
            found[key] = IntegrityError(text, hint=_ACKNOWLEDGE.format(name))
    known = {key for key, name in gone.items() if name in acknowledged}
    known.update(map(layout.record_key, map(layout.stem_of, named)))
    if found or _is_short(month, known):
        which = "the catalogue names" if found else "it may have named"
        was = "was here, and is gone" if catalogue.lacks_sums else "cannot be read"
        fault = f"it {was}: {which} files that would get no line"
        sums_key = layout.sums_key(month.view.key)
        found[sums_key] = BadDocument(sums_key, fault, hint=_REMOVED)
    return found


def _is_short(month: _Month, records: Collection[str]) -> bool:
    """Whether a SHA256SUMS that is gone said more than its catalogue, and was so long that it may
    have had a line beside those of these records' objects. What came after the catalogue was
    written had none."""
    catalogue = month.view.overview.catalogue
    newest = max(catalogue.named, default="")
    objects = [f"{layout.stem_of(key)}.{Kind.RDB}" for key in records if key <= newest]
    size = sum(LINE_BYTES + len(key) - len(f"{month.view.key}/") for key in objects)
    return catalogue.lost_size >= size + LINE_BYTES


def _added(month: _Month) -> dict[str, str]:
    """The lines that records give: of complete sets, of confirmed files, of those that had one, and
    of those whose own line has but a few wrong bytes."""
    unnamed = {key: sha256 for key, sha256 in month.recorded.items() if key not in month.lines}
    recognised = recognized(month.damaged, month.names(unnamed))
    return {
        key: sha256
        for key, sha256 in month.recorded.items()
        if layout.set_of(key) in month.complete - month.wrong.keys()
        or _is_believed(month, key)
        or key in month.remembered
        or key.removeprefix(f"{month.view.key}/") in recognised
    }


def _is_believed(month: _Month, key: str) -> bool:
    """Whether a file gets the line that its record gives though its set need not be complete: it is
    confirmed, and had a line before, or is its whole set."""
    stem = layout.stem_of(key)
    had_line = any(f"{stem}.{kind}" in month.lines for kind in Kind)
    return stem in month.confirmed and (had_line or not layout.is_in_folder(key))


def _kept(month: _Month, added: Collection[str], *, is_repair: bool) -> dict[str, frozenset[str]]:
    """The lines that stay, beside those that are ``added``. A confirmed file's line is replaced: it
    may have had another suffix. A repair drops what names neither a backup's file nor one that is
    there."""
    replaced = {layout.stem_of(key) for key in added} & month.confirmed
    return {
        key: hashes
        for key, hashes in month.lines.items()
        if layout.stem_of(key) not in replaced
        and (not is_repair or layout.is_object(key) or key in month.view.there)
    }


def _check_repair(
    month: _Month,
    added: Mapping[str, str],
    kept: Mapping[str, frozenset[str]],
    repair: SumsRepair,
) -> None:
    """Raises BadDocument where a repair cannot tell which line of a file is right, or would drop
    the line of a file that gets no other."""
    sums_key = layout.sums_key(month.view.key)
    for key in kept.keys() - added.keys():
        if len(kept[key]) > 1:
            raise BadDocument(
                sums_key,
                f"it has {len(kept[key])} lines for {key.rpartition('/')[2]}, with different "
                "SHA-256",
                hint="it stays as it is: repair from an archive whose SHA256SUMS names that file, "
                "or remove the wrong line by hand",
            )
    if month.view.listed.sums is None:
        return
    known = {key: month.recorded[key] for key in month.recorded if key in kept or key in added}
    knows_all = repair.knows_all and not month.wrong and len(known) == len(month.recorded)
    if month.salvage.is_empty and not knows_all:
        raise BadDocument(
            sums_key,
            "it is empty, and nothing else tells which files it named",
            hint="repair from the source, or from an archive that has it whole",
        )
    names = month.names({**repair.absent, **known})
    unnamed = {name: sha256 for name, sha256 in names.items() if name not in month.salvage.sums}
    new = {key: sha256 for key, sha256 in added.items() if layout.stem_of(key) in month.confirmed}
    found = unexplained(month.damaged, unnamed, names, month.names(new))
    if left := found.without_noise(names) if repair.knows_all else found.lines:
        raise BadDocument(
            sums_key,
            "a line that cannot be read may be that of a missing or damaged file: "
            f"{left[0][:120]!a}",
            hint="it stays as it is; remove the line if you know that nothing is missing",
        )
