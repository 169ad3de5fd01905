"""What the first and last bytes of a file say: when it was made, and whether all of it is there.
Pure."""

import io
from datetime import UTC, datetime, timedelta
from typing import Final

from archiver import rdb
from archiver.model import Kind
from archiver.rdb.magic import kind_of, rdb_version
from archiver.times import document_time
from archiver.words import age

HEAD_BYTES: Final = 1024
# The EOF opcode, and the checksum that follows it.
TAIL_BYTES: Final = 9
_EOF_OPCODE: Final = 0xFF
_FIRST_WITH_CHECKSUM: Final = 5
# A log ends anywhere, so that one counts as whole once nobody has written to it for that long.
QUIET: Final = timedelta(minutes=1)
# Who has not written to a file for that long is not about to write its end.
STALLED: Final = timedelta(hours=1)


def created_at(head: bytes) -> datetime | None:
    """When the server made a dump, by its ``ctime`` field; None for a log, and where it has none
    that is a time."""
    if kind_of(head) is not Kind.RDB:
        return None
    contents = rdb.inspect(io.BytesIO(head), block_size=len(head)).contents
    ctime = "" if contents is None else contents.aux.get("ctime", "")
    if not (ctime.isdecimal() and int(ctime) > 0):
        return None
    try:
        return document_time(datetime.fromtimestamp(int(ctime), UTC))
    except (ValueError, OverflowError, OSError):
        return None


def why_unfinished(head: bytes, tail: bytes, unchanged: timedelta) -> str | None:
    """Why somebody may still be writing a file that was ``unchanged`` for so long; None if not."""
    if unchanged >= STALLED:
        return None
    kind, version = kind_of(head), rdb_version(head)
    if kind is Kind.AOF:
        since = f"it was written to {age(unchanged)} ago"
        return f"{since}, and a log has no end of its own" if unchanged < QUIET else None
    has_end = len(tail) == TAIL_BYTES and tail[0] == _EOF_OPCODE
    if kind is Kind.RDB and (has_end or (version or 0) < _FIRST_WITH_CHECKSUM):
        return None
    if kind is Kind.RDB:
        return "its end is not there yet"
    if len(head) < TAIL_BYTES:
        return f"it has only {len(head)} bytes so far" if head else "it is empty so far"
    return None
