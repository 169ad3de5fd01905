"""Finds what is wrong in a month and its backup sets without reading an object: in the listing, the
records, SHA256SUMS, and what they name."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from archiver.archive import contents, layout
from archiver.archive.catalogue import CatalogueEntry
from archiver.archive.contents import SetFiles
from archiver.archive.reading import salvaged_sums, unsealed
from archiver.archive.record import Record
from archiver.archive.verified import Result
from archiver.commands.verify.findings import (
    NAMED_ALONE,
    WITNESS,
    Fault,
    Finding,
    out_of_place,
    stray,
)
from archiver.commands.verify.statements import Statements, check_record
from archiver.errors import BadDocument, StoreError, UnreadableObject
from archiver.stores.base import Entry, Store
from archiver.times import format_day

# Faults that a running pull causes for a moment: they are checked again at the end of a verify.
TRANSIENT = frozenset(
    {Fault.MISSING, Fault.UNRECORDED, Fault.SUMS, Fault.INCOMPLETE, Fault.CATALOGUE}
)


@dataclass(frozen=True, slots=True)
class MonthSurvey:
    """A month of an instance: its prefix (``<instance>/<yyyy>/<mm>``) and all entries below it; or
    a folder above the months, with those of its entries that are no folders."""

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
        """The entries that belong to no set and are no document of the month."""
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
    """What is known of a set before its objects are read: the ``files`` to read, and the keys of
    all objects that a record or SHA256SUMS names."""

    findings: list[Finding] = field(default_factory=list)
    files: list[Statements] = field(default_factory=list)
    named: set[str] = field(default_factory=set)


async def months(store: Store, prefix: str) -> AsyncGenerator[MonthSurvey, None]:
    """List what is below ``prefix``, a month at a time, without the archive's own documents."""
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
    """Read a month's catalogue and its SHA256SUMS, even if the catalogue has the lines of that.
    Raises StoreError, except for a document that cannot be read."""
    [overview] = await look_at_all(store, [listed])
    return overview


async def look_at_all(store: Store, months: Sequence[contents.Month]) -> list[contents.Overview]:
    """The same for several months, whose documents are read many at once."""
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
    """What is wrong with a month's SHA256SUMS as a whole; :func:`survey` finds what is wrong in its
    lines of one set (pure)."""
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
    catalogued = catalogue.sums(catalogue.entries) or {}
    if catalogued == {k: v for one in sums.by_set.values() for k, v in one.items()}:
        return []
    text = "it does not have the lines of SHA256SUMS"
    return [Finding(layout.index_key(listed.key), Fault.CATALOGUE, text)]


def _contradicted(one: SetFiles, records: Iterable[Record]) -> Iterable[Finding]:
    """Records of which the catalogue says something else."""
    for record in records:
        entry = one.known.get(record.key)
        if entry is not None and entry != CatalogueEntry.of(record):
            text = f"its entry for {record.key} differs from that record"
            cure = WITNESS if one.month.is_witness else None
            key = layout.index_key(layout.month_of(one.key))
            yield Finding(key, Fault.CATALOGUE, text, cure=cure)


async def survey(store: Store, one: SetFiles) -> SetSurvey:
    """Survey one set: read its records, even if a catalogue has them. Raises StoreError, except for
    a document that cannot be read."""
    found = SetSurvey()
    records = [record async for record in _records(store, one, found)]
    sums = one.sums or {}
    found.named |= sums.keys()
    found.findings += [*_unnamed(one, records), *_contradicted(one, records)]
    others = {record.sha256: record.object_key for record in records}
    for record in records:
        key = record.object_key
        if not layout.is_object(key):
            continue  # the record names a document, or nothing that a backup's file can be called
        is_its_own = layout.stem_of(key) == layout.stem_of(record.key)
        if is_its_own:  # another file's record does not prove that there was such an object
            found.named.add(key)
        if key not in one.entries and await _is_gone(store, key):
            if is_its_own:
                text = "its record is here, but the file is not"
                found.findings.append(Finding(key, Fault.MISSING, text, f"{record.size:,} bytes"))
            continue
        verified = one.results[key].sha256 if key in one.results else None
        found.files.append(Statements(record, sums.get(key), verified, others))
    await _find_unrecorded(store, one, found)
    _find_extra(one, found)
    return found


async def _records(store: Store, one: SetFiles, found: SetSurvey) -> AsyncGenerator[Record, None]:
    for key in one.records:
        try:
            data = await one.document(store, key)
            record = Record.decode(key, data) if data is not None else None
        except BadDocument as error:
            found.findings.append(Finding(key, Fault.BAD_RECORD, error.fault))
        except StoreError as error:
            found.findings.append(Finding(key, Fault.UNREADABLE, error.message))
        else:
            if record is not None:
                found.findings += check_record(record)
                yield record


def _unnamed(one: SetFiles, records: Sequence[Record]) -> Iterable[Finding]:
    """The finding about files that SHA256SUMS does not name: it lost a line if an earlier verify
    saw that; otherwise a pull may have been interrupted, or files of the set may be missing."""
    own = [one for one in records if layout.stem_of(one.object_key) == layout.stem_of(one.key)]
    unnamed = [record for record in own if record.object_key not in (one.sums or {})]
    seen = {key for key, result in one.results.items() if result.named}
    lost = [record for record in unnamed if record.object_key in seen]
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


async def _find_unrecorded(store: Store, one: SetFiles, found: SetSurvey) -> None:
    """Find objects that SHA256SUMS or an earlier verify names, and that are gone with their
    records."""
    recorded = {statements.key for statements in found.files}
    reported = {layout.stem_of(finding.key) for finding in found.findings}
    for key in sorted((found.named | one.results.keys()) - recorded - one.entries.keys()):
        if layout.stem_of(key) in reported or not await _is_gone(store, key):
            continue
        cure = None
        if key in (one.sums or {}):
            text = "SHA256SUMS names it, and it is gone with its record"
            cure = NAMED_ALONE
        elif (at := one.results[key].at) is not None:
            text = f"it was verified on {format_day(at)}, and is gone with its record"
        else:
            text = "an earlier verify saw it, and it is gone with its record"
        found.findings.append(Finding(key, Fault.MISSING, text, cure=cure))


async def _is_gone(store: Store, key: str) -> bool:
    """Whether there is no such object; False if the store cannot tell."""
    try:
        return await store.size(key) is None
    except UnreadableObject:
        return False


def _find_extra(one: SetFiles, found: SetSurvey) -> None:
    """Find objects without records, and what does not belong in a set."""
    recorded = {statements.key for statements in found.files}
    for key, entry in one.entries.items():
        if key in recorded or layout.is_record(key):
            continue
        if layout.record_key(layout.stem_of(key)) in one.entries:
            # An empty object was meant to be deleted, with a key that may not delete.
            if entry.size and not any(
                finding.stem == layout.stem_of(key) for finding in found.findings
            ):
                text = "the record of that name names another object"
                found.findings.append(Finding(key, Fault.STRAY, text))
        elif layout.is_object(key):
            is_new = key not in found.named and key not in one.results
            text = "an object without its record"
            found.findings.append(Finding(key, Fault.UNRECORDED, text, is_unfinished=is_new))
        else:
            found.findings.append(stray(key))
