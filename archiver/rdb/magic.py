"""What a file's first bytes say: its kind, its RDB version, and which servers load that version.

An RDB begins with ``REDIS`` + 4 digits or ``VALKEY`` + 3 (rdb.c of Redis and Valkey); an AOF begins
with a multi-bulk command, or with an annotation of Redis 7 (aof.c).
"""

from typing import Final

from archiver.model import Kind

MAGIC_BYTES: Final = 9
# Auxiliary fields in the first KiB of an RDB that is the preamble of an AOF: since Redis 4.0, and
# since 7.0.
_PREAMBLE_FIELDS: Final = (b"\xfa\x0caof-preamble\xc0\x01", b"\xfa\x08aof-base\xc0\x01")
_MAGICS: Final = (b"REDIS", b"VALKEY")
_PAGE_STARTS: Final = (b"<?xml", b"<!doctype", b"<html", b"<error")
_CONTAINERS: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
)

# The highest RDB version that each Redis release loads: RDB_VERSION in its rdb.h, and what DUMP
# writes (8.2: 12 [measured]; 8.6 still writes 12, valkey-doc #419).
REDIS_LOADS: Final = (
    ((7, 4), 12),
    ((7, 2), 11),
    ((7, 0), 10),
    ((5, 0), 9),
    ((4, 0), 8),
    ((3, 2), 7),
    ((0, 0), 6),
)
# The highest of Redis's RDB versions that every Valkey loads, and the first version of Valkey's own
# numbering, which Valkey 9.0 introduced.
VALKEY_LOADS: Final = 11
VALKEY_OWN: Final = 80
# Versions that Valkey tries to load with `rdb-version-check relaxed` (valkey #2543, in 9.0).
RELAXED_LOADS: Final = range(12, 80)
# The number of databases to start a server with. Tair allows 256 and Redis any number (16 by
# default); a server exits when a dump has a database beyond its own number.
DATABASES: Final = 1024


def rdb_version(head: bytes) -> int | None:
    """Return the version in an RDB's magic, or None for anything else. Valkey's begin at 80."""
    for magic in _MAGICS:
        digits = head[len(magic) : MAGIC_BYTES]
        if head.startswith(magic) and len(head) >= MAGIC_BYTES and digits.isdigit():
            return int(digits)
    return None


def magic_text(head: bytes) -> str:
    """Return the magic as written (``REDIS0011``). ``head`` must begin with an RDB's magic."""
    return head[:MAGIC_BYTES].decode("ascii")


def kind_of(head: bytes) -> Kind:
    """Return the kind of a file, judged by its first KiB."""
    if rdb_version(head) is not None:
        return Kind.AOF if has_preamble_field(head) else Kind.RDB
    return Kind.AOF if starts_like_aof(head) else Kind.UNKNOWN


def has_preamble_field(head: bytes) -> bool:
    """Whether the first KiB of an RDB says that it is the preamble of an AOF."""
    return any(field in head for field in _PREAMBLE_FIELDS)


def starts_like_aof(head: bytes) -> bool:
    """Whether it begins with a multi-bulk command (``*<count>\\r\\n$``) or with ``#TS:``."""
    if head.startswith(b"#TS:"):
        return True
    line, end, rest = head.partition(b"\r\n")
    return line[:1] == b"*" and line[1:].isdigit() and bool(end) and rest[:1] == b"$"


def looks_like_a_page(head: bytes) -> bool:
    """Whether this is an XML or HTML error page instead of the file."""
    start = head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(_PAGE_STARTS)


def is_cut_short(whole: bytes) -> bool:
    """Whether a complete file is only the beginning of a magic or of a first command."""
    for magic in _MAGICS:
        name, digits = whole[: len(magic)], whole[len(magic) :]
        if len(whole) < MAGIC_BYTES and magic.startswith(name) and (not digits or digits.isdigit()):
            return True
    if whole[:1] == b"*":
        digits = whole[1:].removesuffix(b"\n").removesuffix(b"\r")
        return len(whole) < 16 and (not digits or digits.isdigit())
    return b"#TS:".startswith(whole)


def describe_foreign(head: bytes) -> str:
    """Describe in one phrase a file that is neither RDB nor AOF."""
    if looks_like_a_page(head):
        return "an XML or HTML page"
    for start, name in _CONTAINERS:
        if head.startswith(start):
            return f"{name} data"
    if not head.strip(b"\x00"):
        return "zeros"
    return "encrypted (TDE) or unknown data"


def servers_that_load(magic: str | None, version: int | None) -> str:
    """Describe the servers that load a file, such as ``Redis 7.0 or newer, or Valkey``.

    ``magic`` is the magic as written (``REDIS0011``) and ``version`` its number; both are None for
    an AOF without a preamble.
    """
    if magic is None or version is None:
        return "Redis 7.0 or newer, or Valkey, with all commands that the log uses"
    if not magic.startswith("REDIS"):
        return "Valkey 9.0 or newer" if version <= VALKEY_OWN else "a Valkey newer than 9"
    releases = [since for since, loads in REDIS_LOADS if loads >= version]
    if not releases:
        return f"a server newer than Redis 8 that supports RDB version {version}"
    since = min(releases)
    redis = f"Redis {since[0]}.{since[1]} or newer" if since > (0, 0) else "Redis of any version"
    if version <= VALKEY_LOADS:
        return f"{redis}, or Valkey"
    return (
        f"{redis}; or Valkey 9.0 with --rdb-version-check relaxed, if the dump has no new data "
        "types"
    )
