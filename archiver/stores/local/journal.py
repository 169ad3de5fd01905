"""The journal of a staged file: which parts are durable. It survives being torn at any byte.

One line per entry: the CRC-32 of the rest in hex, a space, JSON. The first says what the file will
be, each later one that a part is durable, or how much of it. Reading stops at the first line that
is invalid or does not match its checksum: what follows was never synced.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archiver import documents
from archiver.documents import Fields
from archiver.errors import BadDocument, NoDocument
from archiver.model import Network, Pin, Provenance
from archiver.stores.local.reading import read_document

FORMAT = 1
# A file has at most so many parts (transfer/parts.py).
_MAX_PARTS = 10_000
_MAX_CRC = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Journal:
    """``crcs`` is the CRC-64/XZ of each complete part by index, ``partial`` (bytes, CRC-64/XZ) of
    each incomplete one. ``length`` is how many bytes of the journal are valid."""

    pin: Pin
    provenance: Provenance
    part_size: int
    crcs: Mapping[int, int]
    partial: Mapping[int, tuple[int, int]]
    length: int


def head(pin: Pin, provenance: Provenance, part_size: int) -> bytes:
    """The first line."""
    return _line(
        {
            "journal": FORMAT,
            "size": pin.total,
            "etag": pin.etag,
            "crc64": pin.crc64,
            "part_size": part_size,
            "origin": provenance.origin,
            "network": provenance.network,
        }
    )


def entry(index: int, crc: int, size: int | None = None) -> bytes:
    """The line that says that a part is durable, or its first ``size`` bytes.

    A later line about the same part replaces it, but a complete part never becomes partial.
    """
    value = {"part": index, "crc64": crc}
    return _line(value if size is None else {**value, "bytes": size})


def read(path: str) -> Journal | None:
    """The valid part of the journal at ``path``; None when there is none. Raises UnreadableObject,
    StoreError."""
    try:
        data = read_document(path)
    except NoDocument:
        return None
    return None if data is None else parse(data)


def parse(data: bytes) -> Journal | None:
    """The valid part of a journal; None when not even its first line is valid."""
    lines = data.splitlines(keepends=True)
    first = _fields(lines[0]) if lines else None
    if first is None:
        return None
    try:
        first.format("journal", FORMAT)
        etag = None if first.is_null("etag") else first.text("etag")
        declared = None if first.is_null("crc64") else first.number("crc64", most=_MAX_CRC)
        pin = Pin(first.number("size"), etag, declared)
        network = None if first.is_null("network") else first.word("network", Network)
        provenance = Provenance(first.text("origin"), network)
        part_size = first.number("part_size", least=1)
    except BadDocument:
        return None
    crcs: dict[int, int] = {}
    partial: dict[int, tuple[int, int]] = {}
    if pin.total > _MAX_PARTS * part_size:
        return None
    length = len(lines[0])
    for line in lines[1:]:
        fields = _fields(line)
        if fields is None or not _add_part(fields, crcs, partial, pin.total, part_size):
            break
        length += len(line)
    partial = {part: so_far for part, so_far in partial.items() if part not in crcs}
    return Journal(pin, provenance, part_size, crcs, partial, length)


def _add_part(
    fields: Fields,
    crcs: dict[int, int],
    partial: dict[int, tuple[int, int]],
    total: int,
    part_size: int,
) -> bool:
    """Add what a line says about a part of a file of ``total`` bytes; False when it is invalid."""
    try:
        part = fields.number("part", most=max(0, total - 1) // part_size)
        crc = fields.number("crc64", most=_MAX_CRC)
        if "bytes" in fields.values:
            most = min(part_size, total - part * part_size)
            partial[part] = fields.number("bytes", most=most), crc
        else:
            crcs[part] = crc
    except BadDocument:
        return False
    return True


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _fields(line: bytes) -> Fields | None:
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    try:
        return documents.parse("journal", text)
    except BadDocument:
        return None
