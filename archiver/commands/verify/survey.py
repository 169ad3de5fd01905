"""A month and each backup set in it, as it lies there: records, SHA256SUMS, and what they name.

Only small documents are read here; what is found can be found without reading an object.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from archiver.archive import contents, layout
from archiver.archive.catalogue import CatalogueEntry
from archiver.archive.contents import SetFiles
from archiver.archive.reading import salvaged_sums, unsealed
from archiver.archive.record import Record
from archiver.archive.verified import Result
from archiver.commands.verify.findings import NAMED_ALONE, Fault, Finding, out_of_place, stray
from archiver.commands.verify.statements import Statements, check_record
from archiver.errors import BadDocument, StoreError, StoreForbidden, UnreadableObject
from archiver.stores.base import Entry, Store
from archiver.times import format_day

# What a pull at work leaves for a moment, or changes between two reads: a second look may find it
# gone.
PASSING = frozenset(
    {Fault.MISSING, Fault.UNRECORDED, Fault.SUMS, Fault.INCOMPLETE, Fault.CATALOGUE}
)


@dataclass(frozen=True, slots=True)
class MonthSurvey:
    """A month of an instance: its prefix (``<instance>/<yyyy>/<mm>``) and all that lies below; or
    one of the folders above, with what lies in it and is none."""

    prefix: str
    entries: Sequence[Entry] = ()

    @property
    def instance_id(self) -> str:
        return self.prefix.partition("/")[0]

    @property
    def is_month(self) -> bool:
        return self.prefix.count("/") == 2

    @property
    def listed(self) -> contents.Month:
        """Its sets, its catalogue and its SHA256SUMS."""
        found = contents.Month(self.prefix)
        for entry in self.entries:
            if layout.is_of_a_set(entry.key) or layout.is_of_a_month(entry.key):
                found.take(entry)
        return found

    def strays(self) -> list[Finding]:
        """What lies where no set is."""
        return [
            out_of_place(entry)
            for entry in self.entries
            if not layout.is_of_a_set(entry.key)
            and not (
                layout.is_of_a_month(entry.key)
                and (entry.is_file or entry.key == layout.sums_key(self.prefix))
            )
        ]


@dataclass(slots=True)
class SetSurvey:
    """What there is to say of a set before its objects are read."""

    findings: list[Finding] = field(default_factory=list)
    files: list[Statements] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # keys of objects, by a record or SHA256SUMS


async def months(store: Store, prefix: str) -> AsyncGenerator[MonthSurvey, None]:
    """What lies below ``prefix``, a month at a time; the archive's own documents left out."""
    current, entries = "", list[Entry]()
    async with aclosing(store.entries(prefix)) as listing:
        async for entry in listing:
            if f"{entry.key}/".startswith(layout.OWN_PREFIXES):
                continue
            if "/" not in entry.key and entry.is_file:
                continue
            parts = entry.key.split("/")
            month = "/".join(parts[:-1][:3]) or entry.key
            if month != current and entries:
                yield MonthSurvey(current, entries)
                entries = []
            current = month
            entries.append(entry)
    if entries:
        yield MonthSurvey(current, entries)


async def look_at(store: Store, listed: contents.Month) -> contents.Overview:
    """What a month's catalogue says, and what its SHA256SUMS says, which is read whatever the
    catalogue says of it. Raises StoreError for what is no fault of a single document."""
    [overview] = await look_at_all(store, [listed])
    return overview


async def look_at_all(store: Store, months: Sequence[contents.Month]) -> list[contents.Overview]:
    """The same of several months, whose documents are read many at once."""
    seen = await contents.overviews(store, months, {})
    keys = {
        month.key: layout.sums_key(month.key)
        for month, overview in zip(months, seen, strict=True)
        if overview.sums is None and month.sums is not None
    }
    documents = await store.read_many(list(keys.values()))
    found: list[contents.Overview] = []
    for month, overview in zip(months, seen, strict=True):
        data = documents.get(keys.get(month.key, ""))
        sums = None if data is None else await salvaged_sums(store, month.key, data)
        found.append(overview if sums is None else replace(overview, sums=sums))
    return found


def check_sums(
    listed: contents.Month, overview: contents.Overview, known: Mapping[str, Result]
) -> list[Finding]:
    """What there is to say of a month's SHA256SUMS as a whole; of what it says of a set, that
    set's survey tells (pure)."""
    key, fault = layout.sums_key(listed.key), overview.sums_fault
    if listed.sums is None and listed.entries:
        if any(result.named for result in known.values()):
            return [Finding(key, Fault.SUMS, "it was here at an earlier verify, and is gone")]
        records = filter(layout.is_record, listed.entries)
        if fault is None and any(not layout.is_in_folder(one) for one in records):
            return [Finding(key, Fault.SUMS, "it is missing", is_unfinished=True)]
    if isinstance(fault, BadDocument):
        return [Finding(key, Fault.SUMS, fault.fault)]
    return [Finding(key, Fault.UNREADABLE, fault.message)] if fault is not None else []


def check_catalogue(listed: contents.Month, overview: contents.Overview) -> list[Finding]:
    """Whether a month's catalogue says the same of SHA256SUMS as SHA256SUMS itself (pure)."""
    sums, catalogue = overview.sums, overview.catalogue
    if sums is None or sums.fault is not None or not catalogue.has_sums:
        return []
    catalogued = {k: v for one in catalogue.sets.values() for k, v in (one.sums or {}).items()}
    if catalogued == {k: v for one in sums.by_set.values() for k, v in one.items()}:
        return []
    text = "what it says of SHA256SUMS is not what SHA256SUMS says"
    return [Finding(layout.index_key(listed.key), Fault.CATALOGUE, text)]


def _contradicted(one: SetFiles, records: Iterable[Record]) -> Iterable[Finding]:
    """Records of which the catalogue says something else."""
    for record in records:
        entry = one.known.entries.get(record.key)
        if entry is not None and entry != CatalogueEntry.of(record):
            text = f"what it says of {record.key} is not what that record says"
            yield Finding(layout.index_key(layout.month_of(one.key)), Fault.CATALOGUE, text)


async def survey(store: Store, one: SetFiles) -> SetSurvey:
    """Look at one set: read its records, whatever a catalogue says of them. Raises StoreError for
    what is no fault of a single document."""
    found = SetSurvey()
    known = one.seen
    sizes = {key: entry.size for key, entry in one.entries.items()}
    records = [record async for record in _records(store, one, found)]
    sums = one.sums or {}
    found.named |= sums.keys()
    found.findings += [*_unnamed(one, records), *_contradicted(one, records)]
    others = {record.sha256: record.object_key for record in records}
    for record in records:
        key = record.object_key
        is_its_own = layout.stem_of(key) == layout.stem_of(record.key)
        if is_its_own:  # another one says nothing of what there should be
            found.named.add(key)
        if key not in sizes and await _is_gone(store, key):
            if is_its_own:
                text = "its record is here, and it is not"
                found.findings.append(Finding(key, Fault.MISSING, text, f"{record.size:,} bytes"))
            continue
        statements = Statements(record, sums.get(key), _seen(known, key), others)
        found.files.append(statements)
    await _find_unnamed(store, sizes, known, sums, found)
    _find_extra(sizes, known, found)
    return found


async def _records(store: Store, one: SetFiles, found: SetSurvey) -> AsyncGenerator[Record, None]:
    for key in one.records:
        try:
            data = await one.document(store, key)
            record = Record.decode(key, data) if data is not None else None
        except BadDocument as error:
            found.findings.append(Finding(key, Fault.BAD_RECORD, error.fault))
        except (StoreError, StoreForbidden) as error:
            found.findings.append(Finding(key, Fault.UNREADABLE, error.message))
        else:
            if record is not None:
                found.findings += check_record(record)
                yield record


def _unnamed(one: SetFiles, records: Sequence[Record]) -> Iterable[Finding]:
    """What SHA256SUMS does not say of a set: that it lost a line, where an earlier verify saw it;
    else a pull may have been interrupted, or have seen that files lack."""
    own = [one for one in records if layout.stem_of(one.object_key) == layout.stem_of(one.key)]
    unnamed = [record for record in own if record.object_key not in (one.sums or {})]
    lost = [record for record in unnamed if _was_named(one.seen, record.object_key)]
    if not unnamed or (one.sums_fault is not None and not lost):
        return
    month = layout.month_of(one.key)
    if one.sums is None and not lost and not all(record.is_standard for record in records):
        yield Finding(one.key, Fault.INCOMPLETE, unsealed(is_of_cluster=True))
        return
    names = [record.object_key.removeprefix(f"{month}/") for record in lost or unnamed]
    text = f"it does not name {names[0]}"
    text += f", nor {len(names) - 1:,} more" if len(names) > 1 else ""
    text += ", and did at an earlier verify" if lost else ""
    yield Finding(layout.sums_key(month), Fault.SUMS, text, about=one.key, is_unfinished=not lost)


async def _find_unnamed(
    store: Store,
    sizes: Mapping[str, int],
    known: Mapping[str, Result],
    sums: Mapping[str, str],
    found: SetSurvey,
) -> None:
    """Objects that are known of, though they and their records are gone."""
    recorded = {statements.key for statements in found.files}
    reported = {layout.stem_of(finding.key) for finding in found.findings}
    for key in sorted((found.named | known.keys()) - recorded - sizes.keys()):
        if layout.stem_of(key) in reported or not await _is_gone(store, key):
            continue
        cure = None
        if key in sums:
            text = "SHA256SUMS names it, and it is gone with its record"
            cure = NAMED_ALONE
        elif (at := known[key].at) is not None:
            text = f"it was verified on {format_day(at)}, and is gone with its record"
        else:
            text = "an earlier verify saw it, and it is gone with its record"
        found.findings.append(Finding(key, Fault.MISSING, text, cure=cure))


async def _is_gone(store: Store, key: str) -> bool:
    """Whether nothing is there. Of what the store does not give, nobody knows."""
    try:
        return await store.size(key) is None
    except UnreadableObject:
        return False


def _find_extra(sizes: Mapping[str, int], known: Mapping[str, Result], found: SetSurvey) -> None:
    """Objects without records, and what does not belong here."""
    recorded = {statements.key for statements in found.files}
    for key, size in sizes.items():
        if key in recorded or layout.is_record(key):
            continue
        if layout.record_key(layout.stem_of(key)) in sizes:
            # What has no bytes was emptied by a key that may not delete.
            if size and not any(finding.stem == layout.stem_of(key) for finding in found.findings):
                text = "the record of that name names another object"
                found.findings.append(Finding(key, Fault.STRAY, text))
        elif layout.is_object(key):
            is_new = key not in found.named and key not in known
            text = "an object without its record"
            found.findings.append(Finding(key, Fault.UNRECORDED, text, is_unfinished=is_new))
        else:
            found.findings.append(stray(key))


def _was_named(known: Mapping[str, Result], key: str) -> bool:
    """Whether an earlier verify saw a SHA256SUMS that named it."""
    result = known.get(key)
    return result is not None and result.named


def _seen(known: Mapping[str, Result], key: str) -> str | None:
    result = known.get(key)
    return result.sha256 if result is not None else None
