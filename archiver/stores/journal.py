"""What of a file is durable so far, in a form that survives being torn at any byte.

One line an entry: the CRC-32 of the rest in hex, a space, JSON. The first says what the file
will be, each later one that a part is on stable storage, or how
much of it. Reading stops at the first line that
does not match its checksum: whatever follows was not synced.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archiver.model import Network, Pin, Provenance

FORMAT = 1


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
    first: dict[str, Any] | None = None
    crcs: dict[int, int] = {}
    begun: dict[int, tuple[int, int]] = {}
    length = 0
    for line in data.splitlines(keepends=True):
        value = _value(line)
        if value is None:
            break
        if first is None:
            first = value
        elif "bytes" in value:
            begun[value["part"]] = value["bytes"], value["crc64"]
        else:
            crcs[value["part"]] = value["crc64"]
        length += len(line)
    if first is None or first.get("journal") != FORMAT:
        return None
    pin = Pin(first["size"], first["etag"], first["crc64"])
    provenance = Provenance(first["origin"], Network(first["network"]))
    begun = {part: so_far for part, so_far in begun.items() if part not in crcs}
    return Journal(pin, provenance, first["part_size"], crcs, begun, length)


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    decoded = json.loads(text)
    return decoded if isinstance(decoded, dict) else None
