"""What a file is, by its first bytes alone.

An RDB begins with ``REDIS`` + 4 digits or ``VALKEY`` + 3 (Redis and Valkey, rdb.c); an AOF with a
multi-bulk command, or with an annotation of Redis 7 (aof.c).
"""

from typing import Final

from archiver.model import Kind

MAGIC_BYTES: Final = 9
# The auxiliary fields in the first KiB of an RDB that may be the beginning of an AOF: Redis 4.0
# on, and 7.0 on.
_PREAMBLE_FIELDS: Final = (b"\xfa\x0caof-preamble\xc0\x01", b"\xfa\x08aof-base\xc0\x01")
_MAGICS = (b"REDIS", b"VALKEY")
_PAGE_STARTS = (b"<?xml", b"<!doctype", b"<html", b"<error")
_CONTAINERS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


def rdb_version(head: bytes) -> int | None:
    """The version in an RDB's magic, or None for anything else. Valkey's numbers start at 80."""
    for magic in _MAGICS:
        digits = head[len(magic) : MAGIC_BYTES]
        if head.startswith(magic) and len(head) >= MAGIC_BYTES and digits.isdigit():
            return int(digits)
    return None


def magic_text(head: bytes) -> str:
    """The magic as written (``REDIS0011``) of a head that has an RDB's version."""
    return head[:MAGIC_BYTES].decode("ascii")


def kind_of(head: bytes) -> Kind:
    """What a file looks like by its first KiB; an AOF may begin as an RDB and say so there."""
    if rdb_version(head) is not None:
        return Kind.AOF if has_preamble_field(head) else Kind.RDB
    return Kind.AOF if starts_like_aof(head) else Kind.UNKNOWN


def has_preamble_field(head: bytes) -> bool:
    """Whether the first KiB of an RDB says that commands may follow it."""
    return any(field in head for field in _PREAMBLE_FIELDS)


def starts_like_aof(head: bytes) -> bool:
    """A multi-bulk command, ``*<count>\\r\\n$``, or a Redis 7 annotation, ``#TS:``."""
    if head.startswith(b"#TS:"):
        return True
    line, end, rest = head.partition(b"\r\n")
    return line[:1] == b"*" and line[1:].isdigit() and bool(end) and rest[:1] == b"$"


def looks_like_a_page(head: bytes) -> bool:
    """An XML or HTML error page instead of a file."""
    start = head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(_PAGE_STARTS)


def is_cut_short(whole: bytes) -> bool:
    """Whether the ``whole`` of a file is only the beginning of a magic or of a first command."""
    for magic in _MAGICS:
        name, digits = whole[: len(magic)], whole[len(magic) :]
        if len(whole) < MAGIC_BYTES and magic.startswith(name) and (not digits or digits.isdigit()):
            return True
    if whole[:1] == b"*":
        digits = whole[1:].removesuffix(b"\n").removesuffix(b"\r")
        return len(whole) < 16 and (not digits or digits.isdigit())
    return b"#TS:".startswith(whole)


def describe_foreign(head: bytes) -> str:
    """One phrase for what is neither RDB nor AOF."""
    if looks_like_a_page(head):
        return "an XML or HTML page"
    for start, name in _CONTAINERS:
        if head.startswith(start):
            return f"{name} data"
    if not head.strip(b"\x00"):
        return "zeros"
    return "encrypted (TDE), or something else"
