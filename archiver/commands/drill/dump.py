"""What is tried: one file, and what its first bytes say of it."""

import re
from dataclasses import dataclass
from pathlib import Path

from archiver.concurrency import in_thread
from archiver.model import Kind

# "REDIS" and four digits; from version 80 on Valkey writes "VALKEY" and three.
_SIGNATURE = re.compile(rb"(REDIS)(\d{4})|(VALKEY)(\d{3})")
_SIGNATURE_SIZE = 9


@dataclass(frozen=True, slots=True)
class Subject:
    """A file to be loaded.

    ``magic`` is ``REDIS`` or ``VALKEY``, and ``version`` its RDB version; ``""`` and None without
    an RDB signature. An AOF has them when it begins with an RDB preamble.
    """

    path: Path
    kind: Kind
    magic: str
    version: int | None


async def look(path: Path, kind: Kind | None = None) -> Subject:
    """Read the first bytes of ``path``.

    An AOF with a preamble begins as an RDB does: ``kind``, or else a name that ends in ``.aof``,
    tells them apart. What is neither is UNKNOWN, and is tried as an RDB.

    Raises:
        OSError: The file cannot be read.
    """
    return await in_thread(read_subject, path, kind)


def read_subject(path: Path, kind: Kind | None = None) -> Subject:
    """As :func:`look`, for callers without an event loop: blocks on the disk."""
    with path.open("rb") as file:
        head = file.read(_SIGNATURE_SIZE)
    signature = _SIGNATURE.match(head)
    if kind is None:
        if path.suffix == ".aof" or head[:1] in (b"*", b"#"):  # a command, or a #TS: annotation
            kind = Kind.AOF
        else:
            kind = Kind.RDB if signature else Kind.UNKNOWN
    if signature is None:
        return Subject(path.absolute(), kind, "", None)
    magic, version = (part.decode() for part in signature.groups() if part is not None)
    return Subject(path.absolute(), kind, magic, int(version))
