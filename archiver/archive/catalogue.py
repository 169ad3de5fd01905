"""The catalogue of a month: what its records and SHA256SUMS say, so that nobody has to read each.

    <instance>/<yyyy>/<mm>/index.jsonl

It is derived, and never the truth. An entry counts only while the listing shows the very file that
it was made from: the same name, size and version (the time of its last change and its inode in a
directory, its ETag in a bucket). Whatever a catalogue does not know is read. One that is deleted,
cut, damaged or of another version is as good as none, and is made anew from the records; one that
was edited is found by a verify, which reads the records themselves.

The first line is an object: ``format``, ``tool``, ``month``, ``sha256`` of all that follows;
``sums``: size and version of the month's SHA256SUMS, if it says nothing but what follows from the
records in here, else null; and ``verified``: the same of the month's results (:mod:`.verified`) if
all the files that they name are in here. Each line after that is one backup set:

    [set, records]

``set`` is its name; and ``records`` has an array for each:

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
from typing import Any, Final

import orjson

from archiver.archive import layout
from archiver.archive.record import Record
from archiver.archive.sums import LINE_BYTES
from archiver.documents import MAX_NUMBER, is_clean
from archiver.model import BackupType, Kind, Named, NodesExpected
from archiver.stores.base import Entry
from archiver.version import __version__

FORMAT: Final = 1
_TOOL: Final = f"archiver {__version__}"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_KINDS: Final = frozenset(Kind)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CatalogueEntry(Named):
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
    def set_key(self) -> str:
        """The backup set it belongs to."""
        return layout.set_of(self.key)


Described = Record | CatalogueEntry


@dataclass(frozen=True, slots=True)
class CatalogueSet:
    """What a catalogue knows of one set: entries by the key of their record. ``has_sums``: it knows
    what SHA256SUMS says of the set, too: that names all these objects, with their SHA-256, but
    those of the records in ``unnamed``."""

    entries: Mapping[str, CatalogueEntry] = field(default_factory=dict)
    unnamed: frozenset[str] = frozenset()
    has_sums: bool = False

    @property
    def sums(self) -> dict[str, str] | None:
        """What SHA256SUMS says of the set: the SHA-256 by key. None where it says nothing."""
        named = {
            one.object_key: one.sha256
            for key, one in self.entries.items()
            if key not in self.unnamed
        }
        return named or None

    @property
    def is_sealed(self) -> bool:
        """Whether SHA256SUMS names all of it."""
        return self.has_sums and bool(self.entries) and not self.unnamed


NOTHING_KNOWN: Final = CatalogueSet()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A month's catalogue as far as the listing confirms it, by the keys of sets. ``has_sums``: the
    SHA256SUMS that the listing shows says nothing else than ``sets``. ``has_all_of`` are size and
    version of the results of verifies that name no file but those in here; ``named`` has the keys
    of all records that were in it when it was written. ``lacks_sums``: there was a SHA256SUMS then,
    and the listing shows none."""

    sets: Mapping[str, CatalogueSet]
    named: frozenset[str] = frozenset()
    has_sums: bool = False
    has_all_of: tuple[int, str] | None = None
    lacks_sums: bool = False

    def of(self, set_key: str) -> CatalogueSet:
        """What it knows of one set."""
        return self.sets.get(set_key, NOTHING_KNOWN)


EMPTY: Final = Catalogue({})


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
        verified = None if head["verified"] is None else (head["verified"][0], head["verified"][1])
        has_sums = sums is None or (
            head["sums"] is not None and _is_same(sums, head["sums"][0], head["sums"][1])
        )
        found: dict[str, tuple[dict[str, CatalogueEntry], set[str]]] = {}
        named = set[str]()
        for line in rest.splitlines():
            name, records = orjson.loads(line)
            found[f"{month}/{name}"] = _read_set(f"{month}/{name}", records, entries, named)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
        return EMPTY
    # What it says of SHA256SUMS follows from its records, which must all be there for that.
    has_sums &= len(named) == sum(len(known) for known, _ in found.values())
    has_sums &= sums is None or sums.size == _size_of_sums(month, found.values())
    sets = {
        key: CatalogueSet(known, frozenset(known if sums is None else unnamed), has_sums)
        for key, (known, unnamed) in found.items()
    }
    lacks_sums = sums is None and head["sums"] is not None
    return Catalogue(sets, frozenset(named), has_sums, verified, lacks_sums)


def _read_set(
    set_key: str, records: Iterable[list[Any]], entries: Mapping[str, Entry], named: set[str]
) -> tuple[dict[str, CatalogueEntry], set[str]]:
    """The entries of a set that the listing confirms, and those of them that SHA256SUMS does not
    name, by the key of the record. Those of all its records are added to ``named``."""
    known: dict[str, CatalogueEntry] = {}
    unnamed = set[str]()
    instance_id = set_key.partition("/")[0]
    for (
        name, record_size, version, suffix, is_in_sums, node, backup, set_id, start, type_, size,
        sha256, expected, known_from,
    ) in records:  # fmt: skip
        stem = f"{set_key}/{name}" if name else set_key
        key = layout.record_key(stem)
        named.add(key)
        is_same = _is_same(entries.get(key), record_size, version) and suffix in _KINDS
        if not is_same or not _is_possible(
            node, backup, set_id, size, sha256, expected, known_from
        ):
            continue
        known[key] = CatalogueEntry(
            key,
            f"{stem}.{suffix}",
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
        if is_in_sums != 1:
            unnamed.add(key)
    return known, unnamed


def _size_of_sums(
    month: str, sets: Iterable[tuple[Mapping[str, CatalogueEntry], Collection[str]]]
) -> int:
    """How many bytes a SHA256SUMS has that names these objects, but those of unnamed records."""
    names = (
        len(one.object_key) - len(f"{month}/")
        for known, unnamed in sets
        for key, one in known.items()
        if key not in unnamed
    )
    return sum(LINE_BYTES + name for name in names)


def _is_possible(
    node: object, backup: object, set_id: object, size: object, sha256: object, expected: object,
    known_from: object,
) -> bool:  # fmt: skip
    """Whether a record can say all this: somebody may have edited the catalogue."""
    return (
        _is_line(node)
        and _is_line(backup)
        and (set_id is None or _is_line(set_id))
        and type(size) is int
        and 0 <= size <= MAX_NUMBER
        and isinstance(sha256, str)
        and _SHA256.fullmatch(sha256) is not None
        and (
            expected is None
            or (type(expected) is int and 0 < expected <= MAX_NUMBER and _is_line(known_from))
        )
    )


def _is_line(value: object) -> bool:
    return isinstance(value, str) and is_clean(value)


def _is_same(entry: Entry | None, size: object, version: object) -> bool:
    """Whether a listing shows the very file that was read once."""
    if entry is None or not entry.is_file or not entry.version:
        return False
    return entry.size == size and entry.version == version


def write_catalogue(
    month: str,
    known: Iterable[CatalogueEntry],
    entries: Mapping[str, Entry],
    sums: tuple[Entry, Mapping[str, str]] | None = None,
    verified: Entry | None = None,
) -> bytes:
    """The catalogue of a month with these records, of files that the listing shows (by key).
    ``sums`` are the entry of its SHA256SUMS, if that can be read, and what it says by key;
    ``verified`` are the month's results, where all files that they name are among the ``known``."""
    sets: dict[str, list[CatalogueEntry]] = {}
    for one in sorted(known, key=lambda one: one.key):
        if one.key in entries and entries[one.key].version:
            sets.setdefault(one.set_key, []).append(one)
    said = dict(sums[1]) if sums is not None else {}
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
    rest = b"".join(line + b"\n" for line in lines)
    head = {
        "format": FORMAT,
        "tool": _TOOL,
        "month": month,
        "sha256": hashlib.sha256(rest).hexdigest(),
        "sums": None if said or sums is None else _stamp(sums[0]),
        "verified": None if verified is None else _stamp(verified),
    }
    return orjson.dumps(head) + b"\n" + rest


def _stamp(entry: Entry) -> list[Any] | None:
    return [entry.size, entry.version] if entry.version else None


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
