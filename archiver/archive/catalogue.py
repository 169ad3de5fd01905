"""The catalogue of a month: what its records and SHA256SUMS say, so that nobody has to read each.

    <instance>/<yyyy>/<mm>/index.jsonl

It is derived, and never the truth. An entry counts only while the listing shows the very file that
it was made from: the same name, size and version (the time of its last change and its inode in a
directory, its ETag in a bucket). Whatever a catalogue does not know is read. One that is deleted,
cut, damaged or of another version is as good as none, and is made anew from the records; one that
was edited is found by a verify, which reads the records themselves.

The first line is an object: ``format``, ``tool``, ``sha256`` of all the lines that follow, and
``verified``: size and version of the month's results (:mod:`.verified`) if all the files that they
name are in here, else null. Each line after that is one backup set:

    [set, sums, records]

``set`` is the name of its folder; ``sums`` are size and version of a SHA256SUMS that names these
files with their SHA-256 and nothing else, or null; and ``records`` has an array for each:

    [name without suffix, size of the record, its version, suffix of the object, node, backup, set
     id, start (microseconds since 1970), type, size, SHA-256, nodes expected, known from]
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from archiver.archive import layout
from archiver.archive.record import Record
from archiver.model import BackupType, Kind, NodesExpected
from archiver.stores.base import Entry
from archiver.version import __version__

FORMAT: Final = 1
_TOOL: Final = f"archiver {__version__}"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_KINDS: Final = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """What a record says of a backup, as far as commands need it to list, compare and choose. The
    names are those of a :class:`~archiver.archive.record.Record`."""

    key: str
    object_key: str
    instance_id: str
    node_id: str
    backup_id: str
    set_id: str | None
    started_at: datetime
    type: BackupType | None
    size: int
    sha256: str
    nodes_expected: NodesExpected | None = None

    @classmethod
    def of(cls, record: Record) -> "CatalogueEntry":
        """The entry of a record."""
        return cls(
            record.key,
            record.object_key,
            record.instance_id,
            record.node_id,
            record.backup_id,
            record.set_id,
            record.started_at,
            record.type,
            record.size,
            record.sha256,
            record.nodes_expected,
        )

    @property
    def folder(self) -> str:
        """The backup set it belongs to."""
        return self.key.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The object's name in its folder, and in SHA256SUMS."""
        return self.object_key.rpartition("/")[2]

    @property
    def is_standard(self) -> bool:
        """Of an instance without nodes: its backup set is this one file."""
        return self.node_id == self.instance_id

    @property
    def is_log(self) -> bool:
        """A log of commands by the source's word, whatever its bytes look like."""
        return self.type is BackupType.INCREMENTAL


Described = Record | CatalogueEntry


@dataclass(frozen=True, slots=True)
class CatalogueSet:
    """What a catalogue knows of one set: entries by the key of their record; and whether there is a
    SHA256SUMS that says the same of them all and names nothing else (``is_sealed``)."""

    entries: Mapping[str, CatalogueEntry] = field(default_factory=dict)
    is_sealed: bool = False

    @property
    def sums(self) -> dict[str, str] | None:
        """The SHA-256 by file name that SHA256SUMS gives; None where nobody knows."""
        if not self.is_sealed:
            return None
        return {entry.name: entry.sha256 for entry in self.entries.values()}


NOTHING_KNOWN: Final = CatalogueSet()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A month's catalogue as far as the listing confirms it, by the keys of sets. ``has_all_of``
    are size and version of the results of verifies that name no file but those in here; ``named``
    has the keys of all records that were in it when it was written."""

    sets: Mapping[str, CatalogueSet]
    named: frozenset[str] = frozenset()
    has_all_of: tuple[int, str] | None = None

    def of(self, folder: str) -> CatalogueSet:
        """What it knows of one set."""
        return self.sets.get(folder, NOTHING_KNOWN)


EMPTY: Final = Catalogue({})


def index_key(month: str) -> str:
    """Where the catalogue of ``<instance>/<yyyy>/<mm>`` is."""
    return f"{month}/{layout.INDEX_NAME}"


def read_catalogue(month: str, data: bytes | None, entries: Mapping[str, Entry]) -> Catalogue:
    """What a month's catalogue knows of the files that its listing shows (by key). Nothing, where
    it cannot be used."""
    if not data:
        return EMPTY
    first, _, rest = data.partition(b"\n")
    try:
        head = orjson.loads(first)
        if head["format"] != FORMAT or head["sha256"] != hashlib.sha256(rest).hexdigest():
            return EMPTY
        verified = None if head["verified"] is None else (head["verified"][0], head["verified"][1])
        sets: dict[str, CatalogueSet] = {}
        named = set[str]()
        for line in rest.splitlines():
            name, sums, records = orjson.loads(line)
            folder = f"{month}/{name}"
            known, is_whole = _read_set(folder, records, entries, named)
            is_sealed = is_whole and sums is not None
            if is_sealed:
                is_sealed = _is_same(entries.get(layout.sums_key(folder)), sums[0], sums[1])
            sets[folder] = CatalogueSet(known, is_sealed)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
        return EMPTY
    return Catalogue(sets, frozenset(named), verified)


def _read_set(
    folder: str, records: Iterable[list[Any]], entries: Mapping[str, Entry], named: set[str]
) -> tuple[dict[str, CatalogueEntry], bool]:
    """The entries of a set that the listing confirms, and whether it does so with all of them."""
    known: dict[str, CatalogueEntry] = {}
    instance_id = folder.partition("/")[0]
    is_whole = True
    for (
        stem, record_size, version, suffix, node, backup, set_id, start, type_, size, sha256,
        expected, known_from,
    ) in records:  # fmt: skip
        key = f"{folder}/{stem}.json"
        named.add(key)
        if not _is_same(entries.get(key), record_size, version) or suffix not in _KINDS:
            is_whole = False
            continue
        known[key] = CatalogueEntry(
            key,
            f"{folder}/{stem}.{suffix}",
            instance_id,
            node,
            backup,
            set_id,
            _EPOCH + timedelta(microseconds=start),
            None if type_ is None else BackupType(type_),
            size,
            sha256,
            None if expected is None else NodesExpected(expected, known_from),
        )
    return known, is_whole


def _is_same(entry: Entry | None, size: object, version: object) -> bool:
    """Whether a listing shows the very file that was read once."""
    if entry is None or not entry.is_file or not entry.version:
        return False
    return entry.size == size and entry.version == version


def write_catalogue(
    month: str,
    sets: Mapping[str, CatalogueSet],
    entries: Mapping[str, Entry],
    verified: Entry | None = None,
) -> bytes:
    """The catalogue of a month with these sets, of files that the listing shows. ``verified`` are
    the month's results, where all files that they name are among the entries of the sets."""
    lines = []
    for folder in sorted(sets):
        known = sets[folder]
        records = [
            _line(entry, entries[key])
            for key, entry in sorted(known.entries.items())
            if key in entries and entries[key].version
        ]
        sums = entries.get(layout.sums_key(folder)) if known.is_sealed else None
        stamp = None if sums is None or not sums.version else [sums.size, sums.version]
        if records:
            lines.append(orjson.dumps([folder.rpartition("/")[2], stamp, records]))
    rest = b"".join(line + b"\n" for line in lines)
    head = {
        "format": FORMAT,
        "tool": _TOOL,
        "sha256": hashlib.sha256(rest).hexdigest(),
        "verified": None if verified is None else [verified.size, verified.version],
    }
    return orjson.dumps(head) + b"\n" + rest


def _line(entry: CatalogueEntry, record: Entry) -> list[Any]:
    expected = entry.nodes_expected
    return [
        layout.stem_of(entry.key).rpartition("/")[2],
        record.size,
        record.version,
        entry.object_key.rpartition(".")[2],
        entry.node_id,
        entry.backup_id,
        entry.set_id,
        (entry.started_at - _EPOCH) // _MICROSECOND,
        entry.type,
        entry.size,
        entry.sha256,
        None if expected is None else expected.count,
        None if expected is None else expected.known_from,
    ]
