"""The catalogue of a month: what its records and SHA256SUMS say, so that nobody has to read each.

    <instance>/<yyyy>/<mm>/index.jsonl

It is derived, and never the truth. An entry counts only while the listing shows the very file that
it was made from: the same name, size and version (the time of its last change and its inode in a
directory, its ETag in a bucket). Whatever a catalogue does not know is read. One that is deleted,
cut, damaged or of another version is as good as none, and is made anew from the records; one that
was edited is found by a verify, which reads the records themselves.

The first line is an object: ``format``, ``tool``, ``month``, ``sha256`` of all that follows; and
``sums``: size and version of the month's SHA256SUMS, null if there is none. The version is empty
where that cannot be read, or says something that does not follow from what is in here. Each line
after that is one backup set:

    [set, records]

``set`` is its name; and ``records`` has an array for each, where a record that is gone or cannot be
used, and whose file SHA256SUMS names, has but its name:

    [name of the file in the set's folder without suffix, or "" where there is none, size of the
     record, its version, suffix of the object, 1 if SHA256SUMS names the object, else 0, node,
     backup, set id, start (microseconds since 1970), type, size, SHA-256, nodes expected, known
     from]
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from archiver.archive import layout
from archiver.archive.record import Record
from archiver.archive.sums import LINE_BYTES
from archiver.documents import MAX_NUMBER, is_clean
from archiver.model import BackupType, Kind, Named, NodesExpected
from archiver.stores.base import Entry
from archiver.times import document_time
from archiver.version import __version__

FORMAT: Final = 1
_TOOL: Final = f"archiver {__version__}"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_KINDS: Final = frozenset(Kind)
_TYPES: Final[dict[str | None, BackupType | None]] = {None: None, **{str(t): t for t in BackupType}}
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class _Said(NamedTuple):
    """The fields of a :class:`CatalogueEntry`."""

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


class CatalogueEntry(_Said, Named):
    """What a record says of a backup, as far as commands need it to list, compare and choose. The
    names are those of a :class:`~archiver.archive.record.Record`."""

    __slots__ = ()

    @classmethod
    def of(cls, record: Record) -> "CatalogueEntry":
        """The entry of a record."""
        return cls(*(getattr(record, name) for name in cls._fields))

    @property
    def set_key(self) -> str:
        """The backup set it belongs to."""
        return layout.set_of(self.key)


Described = Record | CatalogueEntry


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A month's catalogue as far as the listing confirms it: its ``entries`` by the keys of their
    records. ``has_sums``: it knows what the SHA256SUMS that the listing shows says, too: that names
    all these objects, with their SHA-256, but those of the records in ``unnamed``, and nothing
    else. ``named`` has the keys of all records that were in it when it was written.
    ``lacks_sums``: there was a SHA256SUMS then, and the listing shows none; it named the objects of
    the records ``were_named``, of those that are as they were. ``lost_size`` is how many bytes it
    had if it said more than what is in the catalogue, else 0."""

    entries: Mapping[str, CatalogueEntry] = field(default_factory=dict)
    unnamed: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    has_sums: bool = False
    lacks_sums: bool = False
    were_named: frozenset[str] = frozenset()
    lost_size: int = 0

    def sums(self, records: Iterable[str]) -> dict[str, str] | None:
        """What SHA256SUMS says of the objects of these records: the SHA-256 by key. None where it
        does not name them, or that is not known."""
        if not self.has_sums:
            return None
        found = (self.entries[key] for key in records if self.is_sealed(key))
        return {one.object_key: one.sha256 for one in found} or None

    def is_sealed(self, record: str) -> bool:
        """Whether SHA256SUMS is known to name the object of a record."""
        return self.has_sums and record in self.entries and record not in self.unnamed


EMPTY: Final = Catalogue()


def read_catalogue(
    month: str, data: bytes | None, entries: Mapping[str, Entry], sums: Entry | None
) -> Catalogue:
    """What a month's catalogue knows of the files that its listing shows (by key), and of its
    SHA256SUMS. Nothing, where it cannot be used."""
    if not data:
        return EMPTY
    first, _, rest = data.partition(b"\n")
    try:
        head = orjson.loads(first)
        digest = hashlib.sha256(rest).hexdigest()
        if (head["format"], head["month"], head["sha256"]) != (FORMAT, month, digest):
            return EMPTY
        has_sums = sums is None or (
            head["sums"] is not None and _is_same(sums, head["sums"][0], head["sums"][1])
        )
        lacks_sums = sums is None and head["sums"] is not None
        lost_size = 0 if not lacks_sums or head["sums"][1] else int(head["sums"][0])
        known, unnamed, named = _read_records(month, rest.splitlines(), entries)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
        return EMPTY
    # What it says of SHA256SUMS follows from its records, which must all be there for that.
    has_sums &= len(named) == len(known)
    has_sums &= sums is None or sums.size == _size_of_sums(month, known, unnamed)
    were_named = frozenset(known.keys() - set(unnamed)) if lacks_sums else frozenset[str]()
    if sums is None:
        unnamed = known.keys()
    return Catalogue(
        known, frozenset(unnamed), frozenset(named), has_sums, lacks_sums, were_named, lost_size
    )


def _read_records(
    month: str, lines: Iterable[bytes], entries: Mapping[str, Entry]
) -> tuple[dict[str, CatalogueEntry], Collection[str], Collection[str]]:
    """Of the records in a catalogue: the entries of those that the listing confirms, those of them
    whose objects SHA256SUMS does not name, and all of them, by their keys. Raises any of what
    :func:`read_catalogue` takes for a catalogue that cannot be used."""
    known: dict[str, CatalogueEntry] = {}
    unnamed, named = set[str](), set[str]()
    instance_id = month.partition("/")[0]
    texts: list[str] = []
    for line in lines:
        set_name, records = orjson.loads(line)
        for (
            name, record_size, version, suffix, is_in_sums, node, backup, set_id, start, type_,
            size, sha256, expected, known_from,
        ) in records:  # fmt: skip
            stem = f"{month}/{set_name}/{name}" if name else f"{month}/{set_name}"
            key = stem + layout.RECORD_SUFFIX
            named.add(key)
            if not _is_same(entries.get(key), record_size, version) or suffix not in _KINDS:
                continue
            if not (type(size) is int and 0 <= size <= MAX_NUMBER and _SHA256.fullmatch(sha256)):
                raise ValueError(size, sha256)
            texts += (node, backup, "" if set_id is None else set_id)
            known[key] = CatalogueEntry(
                key,
                f"{stem}.{suffix}",
                instance_id,
                node,
                backup,
                set_id,
                document_time(_EPOCH + timedelta(microseconds=start)),
                _TYPES[type_],
                size,
                sha256,
                None if expected is None else _expected(expected, known_from),
            )
            if is_in_sums != 1:
                unnamed.add(key)
    if not is_clean("".join(texts)):  # raises for what is no text
        raise ValueError("an id is no line of text")
    return known, unnamed, named


def _expected(count: object, known_from: object) -> NodesExpected:
    """Raises ValueError for what no record can say."""
    if not isinstance(known_from, str) or not is_clean(known_from):
        raise ValueError(known_from)
    if type(count) is not int or not 0 < count <= MAX_NUMBER:
        raise ValueError(count)
    return NodesExpected(count, known_from)


def _size_of_sums(month: str, known: Mapping[str, CatalogueEntry], unnamed: Collection[str]) -> int:
    """How many bytes a SHA256SUMS has that names these objects, but those of unnamed records."""
    named = [one.object_key for key, one in known.items() if key not in unnamed]
    return sum(map(len, named)) + len(named) * (LINE_BYTES - len(f"{month}/"))


def _is_same(entry: Entry | None, size: object, version: object) -> bool:
    """Whether a listing shows the very file that was read once."""
    if entry is None or not entry.is_file or not entry.version:
        return False
    return entry.size == size and entry.version == version


def write_catalogue(
    month: str,
    known: Iterable[CatalogueEntry],
    entries: Mapping[str, Entry],
    sums: tuple[Entry, Mapping[str, str], bool] | None = None,
) -> bytes:
    """The catalogue of a month with these records, of files that the listing shows (by key).
    ``sums`` are the entry of its SHA256SUMS, if there is one, what can be read of it, by key, and
    whether that is all."""
    sets: dict[str, list[CatalogueEntry]] = {}
    for one in sorted(known, key=lambda one: one.key):
        if one.key in entries and entries[one.key].version:
            sets.setdefault(one.set_key, []).append(one)
    said = dict(sums[1]) if sums is not None else {}
    written = {one.key for of_set in sets.values() for one in of_set}
    lines = []
    for set_key, of_set in sorted(sets.items()):
        named = [said.get(one.object_key) == one.sha256 for one in of_set]
        for one, is_named in zip(of_set, named, strict=True):
            if is_named:
                del said[one.object_key]
        records = [
            _line(set_key, one, entries[one.key], is_named=is_named)
            for one, is_named in zip(of_set, named, strict=True)
        ]
        lines.append(orjson.dumps([set_key.rpartition("/")[2], records]))
    is_all = sums is not None and sums[2]
    for key in sorted(said):
        record = layout.record_key(layout.stem_of(key))
        if layout.is_object(key) and record not in written:
            lines.append(_gone(record))
        else:
            is_all = False
    rest = b"".join(line + b"\n" for line in lines)
    head = {
        "format": FORMAT,
        "tool": _TOOL,
        "month": month,
        "sha256": hashlib.sha256(rest).hexdigest(),
        "sums": None if sums is None else [sums[0].size, sums[0].version if is_all else ""],
    }
    return orjson.dumps(head) + b"\n" + rest


def _gone(record: str) -> bytes:
    """The line of a file that SHA256SUMS names, and of whose record nothing is known."""
    set_key = layout.set_of(record)
    name = layout.stem_of(record)[len(set_key) + 1 :]
    said = [name, 0, "", "", 1, "", "", None, 0, None, 0, "", None, None]
    return orjson.dumps([set_key.rpartition("/")[2], [said]])


def _line(set_key: str, entry: CatalogueEntry, record: Entry, *, is_named: bool) -> list[Any]:
    expected = entry.nodes_expected
    return [
        layout.stem_of(entry.key)[len(set_key) + 1 :],
        record.size,
        record.version,
        entry.object_key.rpartition(".")[2],
        int(is_named),
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
