"""One backup set, as it lies there: its records, its SHA256SUMS, and what they name.

Only small documents are read here; what is found can be found without reading an object.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from archiver.archive import contents, layout
from archiver.archive.contents import SetFiles
from archiver.archive.reading import decode_sums
from archiver.archive.record import Record
from archiver.archive.verified import Result
from archiver.commands.verify.findings import NAMED_ALONE, Fault, Finding, out_of_place, stray
from archiver.commands.verify.statements import Claims, check_record
from archiver.errors import BadDocument, StoreError, StoreForbidden, UnreadableObject
from archiver.stores.base import Entry, Store
from archiver.times import format_day

# What a pull at work leaves for a moment: a second look may find it gone.
PASSING = frozenset({Fault.MISSING, Fault.UNRECORDED, Fault.SUMS, Fault.INCOMPLETE})


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
    def listed(self) -> contents.Month:
        """Its sets, and its catalogue."""
        found = contents.Month(self.prefix)
        for entry in self.entries:
            if entry.key.count("/") == layout.RECORD_DEPTH or layout.is_index(entry.key):
                found.take(entry)
        return found

    def strays(self) -> list[Finding]:
        """What lies where no set is."""
        return [
            out_of_place(entry)
            for entry in self.entries
            if entry.key.count("/") != layout.RECORD_DEPTH
            and not (layout.is_index(entry.key) and entry.is_file)
        ]


@dataclass(slots=True)
class SetSurvey:
    """What there is to say of a set before its objects are read."""

    findings: list[Finding] = field(default_factory=list)
    files: list[Claims] = field(default_factory=list)
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


async def survey(store: Store, one: SetFiles) -> SetSurvey:
    """Look at one set: read its documents, whatever a catalogue says of them. Raises StoreError for
    what is no fault of a single document."""
    found = SetSurvey()
    folder, known = one.folder, one.seen
    sizes = {key: entry.size for key, entry in one.entries.items()}
    records = [record async for record in _records(store, one, found)]
    sums = await _sums(store, one, records, known, found)
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
        claims = Claims(record, sums.get(key), _seen(known, key), others)
        found.files.append(claims)
    await _find_unnamed(store, folder, sizes, known, found)
    _find_extra(folder, sizes, known, found)
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


async def _sums(
    store: Store,
    one: SetFiles,
    records: Sequence[Record],
    known: Mapping[str, Result],
    found: SetSurvey,
) -> dict[str, str]:
    """The SHA-256 that SHA256SUMS gives, by key."""
    folder, sums = one.folder, None
    key = layout.sums_key(folder)
    try:
        data = await one.document(store, key) if key in one.entries else None
        sums = None if data is None else await decode_sums(store, folder, data)
    except BadDocument as error:
        found.findings.append(Finding(key, Fault.SUMS, error.fault))
        return {}
    except (StoreError, StoreForbidden) as error:
        found.findings.append(Finding(key, Fault.UNREADABLE, error.message))
        return {}
    if sums is None:
        found.findings += _without_sums(folder, records, known)
        return {}
    by_key = {f"{folder}/{name}": sha256 for name, sha256 in sums.items()}
    found.named |= by_key.keys()
    unnamed = [record.object_key for record in records if record.object_key not in by_key]
    if unnamed:
        lost = [other for other in unnamed if _was_named(known, other)]
        others = [_name(other) for other in lost or unnamed]
        text = f"it does not name {others[0]}"
        text += f", nor {len(others) - 1:,} more" if len(others) > 1 else ""
        text += ", and did at an earlier verify" if lost else ""
        found.findings.append(Finding(key, Fault.SUMS, text, is_unfinished=not lost))
    return by_key


def _without_sums(
    folder: str, records: Sequence[Record], known: Mapping[str, Result]
) -> Iterable[Finding]:
    """What there is to say of a set without SHA256SUMS: that it was lost, where an earlier verify
    saw it; else a pull may have been interrupted, or have seen that files lack."""
    key = layout.sums_key(folder)
    if any(_was_named(known, record.object_key) for record in records):
        yield Finding(key, Fault.SUMS, "it was here at an earlier verify, and is gone")
    elif records and all(record.node_id == record.instance_id for record in records):
        yield Finding(key, Fault.SUMS, "it is missing", is_unfinished=True)
    elif records:
        text = "it has no SHA256SUMS, which a pull writes when all of its files are here"
        yield Finding(folder, Fault.INCOMPLETE, text)


async def _find_unnamed(
    store: Store,
    folder: str,
    sizes: Mapping[str, int],
    known: Mapping[str, Result],
    found: SetSurvey,
) -> None:
    """Objects that are known of, though they and their records are gone."""
    recorded = {claims.key for claims in found.files}
    reported = {layout.stem_of(finding.key) for finding in found.findings}
    before = {key for key in known if key.rpartition("/")[0] == folder}
    for key in sorted((found.named | before) - recorded - sizes.keys()):
        if layout.stem_of(key) in reported or not await _is_gone(store, key):
            continue
        cure = None
        if key in found.named:
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


def _find_extra(
    folder: str, sizes: Mapping[str, int], known: Mapping[str, Result], found: SetSurvey
) -> None:
    """Objects without records, and what does not belong here."""
    recorded = {claims.key for claims in found.files}
    for key, size in sizes.items():
        if key in recorded or layout.is_record(key) or key == layout.sums_key(folder):
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


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _was_named(known: Mapping[str, Result], key: str) -> bool:
    """Whether an earlier verify saw a SHA256SUMS that named it."""
    result = known.get(key)
    return result is not None and result.named


def _seen(known: Mapping[str, Result], key: str) -> str | None:
    result = known.get(key)
    return result.sha256 if result is not None else None
