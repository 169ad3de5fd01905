"""What of a file is durable so far, in a form that survives being torn at any byte.

One line an entry: the CRC-32 of the rest in hex, a space, JSON. The first says what the file
will be, each later one that a part is on stable storage, or how much of it. Reading stops at the
first line that does not match its checksum, or says nothing: whatever follows was not synced.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archiver import documents
from archiver.documents import Fields
from archiver.errors import BadDocument
from archiver.model import Network, Pin, Provenance

FORMAT = 1
# As many as a file is ever cut into (transfer/parts.py).
_MOST_PARTS = 10_000
_MOST_CRC = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Journal:
    """``crcs`` by part index, and of parts that are not whole (bytes, CRC-64/XZ) in ``begun``;
    ``length`` is how many bytes of the journal were readable."""

    pin: Pin
    provenance: Provenance
    part_size: int
    crcs: Mapping[int, int]
    begun: Mapping[int, tuple[int, int]]
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
    """The line that says that a part is durable, or its first ``size`` bytes; a later one for the
    same part replaces it, but a part that was whole once is not begun again."""
    value = {"part": index, "crc64": crc}
    return _line(value if size is None else {**value, "bytes": size})


def parse(data: bytes) -> Journal | None:
    """The journal as far as it is whole; None when not even its first line is."""
    lines = data.splitlines(keepends=True)
    first = _value(lines[0]) if lines else None
    if first is None:
        return None
    try:
        first.format("journal", FORMAT)
        etag = None if first.is_null("etag") else first.text("etag")
        declared = None if first.is_null("crc64") else first.number("crc64", most=_MOST_CRC)
        pin = Pin(first.number("size"), etag, declared)
        provenance = Provenance(first.text("origin"), first.word("network", Network))
        part_size = first.number("part_size", least=1)
    except BadDocument:
        return None
    crcs: dict[int, int] = {}
    begun: dict[int, tuple[int, int]] = {}
    if pin.total > _MOST_PARTS * part_size:
        return None
    length = len(lines[0])
    for line in lines[1:]:
        value = _value(line)
        if value is None or not _noted(value, crcs, begun, pin.total, part_size):
            break
        length += len(line)
    begun = {part: so_far for part, so_far in begun.items() if part not in crcs}
    return Journal(pin, provenance, part_size, crcs, begun, length)


def _noted(
    value: Fields,
    crcs: dict[int, int],
    begun: dict[int, tuple[int, int]],
    total: int,
    part_size: int,
) -> bool:
    """Take what a line says of a part of a file of ``total`` bytes; whether it says anything."""
    try:
        part = value.number("part", most=max(0, total - 1) // part_size)
        crc = value.number("crc64", most=_MOST_CRC)
        if "bytes" in value.values:
            begun[part] = value.number("bytes", most=min(part_size, total - part * part_size)), crc
        else:
            crcs[part] = crc
    except BadDocument:
        return False
    return True


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> Fields | None:
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    try:
        return documents.parse("journal", text)
    except BadDocument:
        return None
