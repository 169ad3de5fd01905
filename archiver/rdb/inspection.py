"""Reads a stream and returns the verdict on it.

The checksum outweighs the parser: a dump whose CRC-64 at the end of the file is right is intact,
even if we cannot parse it. Conversely, a dump that parses to its end is complete even if more bytes
follow it; those are reported as padding.
"""

from dataclasses import replace
from typing import Final

from archiver.model import Footer, Kind
from archiver.rdb.commands import ANNOTATION, COMMAND, CommandReader
from archiver.rdb.contents import Inspection, Verdict
from archiver.rdb.dump import DumpReader
from archiver.rdb.magic import (
    MAGIC_BYTES,
    describe_foreign,
    is_cut_short,
    magic_text,
    rdb_version,
    starts_like_aof,
)
from archiver.rdb.window import (
    BLOCK_SIZE,
    FOOTER_BYTES,
    Ending,
    ParseError,
    Readable,
    UnexpectedEnd,
    UnsupportedType,
    Window,
)

_FIRST_WITH_CHECKSUM = 5
_VALKEY = "VALKEY"
_KNOWN: Final = frozenset([f"REDIS{version:04}" for version in range(1, 13)] + ["VALKEY080"])


def inspect(stream: Readable, *, is_log: bool = False, block_size: int = BLOCK_SIZE) -> Inspection:
    """Read ``stream`` once, to its end, and say whether it is intact and what it holds. Blocks.

    It uses ``block_size`` bytes of memory and some counters. A damaged file is a verdict, not an
    error. ``is_log``: the source says that this is an AOF, so commands may follow an RDB that does
    not announce them itself.

    Raises:
        OSError: The stream cannot be read.
    """
    window = Window(stream, block_size)
    window.fill()
    head = bytes(window.buffer[: min(window.end, 64)])
    version = rdb_version(head)
    if version is not None:
        return _dump(window, magic_text(head), version, is_log=is_log)
    if starts_like_aof(head):
        return _commands(window, Inspection(Verdict.INTACT, "", 0, 0, Kind.AOF))
    size = window.drain().size
    if size == 0:
        return Inspection(Verdict.EMPTY, "the file is empty", 0, 0, Kind.UNKNOWN)
    if size == len(head) and is_cut_short(head):
        reason = f"the file ends at byte {size}, within its header"
        return Inspection(Verdict.TRUNCATED, reason, size, size, Kind.UNKNOWN)
    reason = f"neither RDB nor AOF at byte 0: {describe_foreign(head)}"
    return Inspection(Verdict.FOREIGN, reason, 0, size, Kind.UNKNOWN)


def _dump(window: Window, magic: str, version: int, *, is_log: bool) -> Inspection:
    window.skip(MAGIC_BYTES)
    reader = DumpReader(window, valkey=magic.startswith(_VALKEY))
    so_far = Inspection(Verdict.CORRUPT, "", 0, 0, Kind.RDB, magic, version)
    try:
        reader.read()
        footer = _footer(window, version)
    except ParseError as error:
        is_cut = isinstance(error, UnexpectedEnd) or window.is_overrun
        found = _stopped(so_far, error, is_cut=is_cut)
        ending = window.drain()
        if (is_log or reader.may_have_commands) and not ending.has_valid_checksum:
            found = _within_preamble(found, error, ending)
        else:
            found = _with_ending(found, error, ending)
        return replace(found, contents=reader.contents(is_complete=False))
    stop = window.offset
    so_far = replace(
        so_far,
        footer=footer,
        offset=stop,
        contents=reader.contents(is_complete=magic in _KNOWN and footer is not Footer.MISMATCH),
    )
    is_whole = footer is not Footer.MISMATCH
    has_commands = (is_log and not window.at_end()) or (
        reader.may_have_commands and window.next_is({COMMAND, ANNOTATION})
    )
    if is_whole and has_commands:
        return _commands(window, replace(so_far, kind=Kind.AOF))
    return _parsed(so_far, stop, window.drain())


def _footer(window: Window, version: int) -> Footer:
    """Compare the eight bytes after the EOF opcode with the CRC-64 of everything before them.

    Raises:
        UnexpectedEnd: There are fewer than eight.
    """
    if version < _FIRST_WITH_CHECKSUM:
        return Footer.NONE
    window.fill(FOOTER_BYTES)
    computed = window.checksum()
    written = int.from_bytes(window.take(FOOTER_BYTES), "little")
    if written == 0:
        return Footer.DISABLED
    return Footer.OK if written == computed else Footer.MISMATCH


def _parsed(found: Inspection, stop: int, ending: Ending) -> Inspection:
    """The verdict on a dump that was parsed to its end; ``stop`` is the offset after its footer."""
    found = replace(found, size=ending.size)
    padding = ending.size - stop
    if found.footer is Footer.MISMATCH:
        if padding and ending.has_valid_checksum:
            reason = (
                f"the checksum at the end is right, though the dump seems to end at byte {stop}"
            )
            return replace(found, verdict=Verdict.OPAQUE, reason=reason, footer=Footer.OK)
        reason = f"the CRC-64 at byte {stop - FOOTER_BYTES} does not match the bytes before it"
        return replace(found, offset=stop - FOOTER_BYTES, reason=reason)
    if padding:
        reason = f"the dump ends at byte {stop}, but {padding} more bytes follow"
        return replace(found, verdict=Verdict.PADDED, reason=reason, padding=padding)
    if found.magic not in _KNOWN:
        proven = found.footer is Footer.OK
        return replace(
            found,
            verdict=Verdict.OPAQUE if proven else Verdict.UNPROVEN,
            reason=f"unknown version {found.magic} at byte 0, "
            + ("but the checksum is right" if proven else "and there is no checksum"),
            offset=0,
        )
    how = {
        Footer.OK: "the checksum is right",
        Footer.DISABLED: "parsed without errors; the server wrote no checksum",
        Footer.NONE: "parsed without errors; this version has no checksum",
    }[found.footer]
    return replace(found, verdict=Verdict.INTACT, reason=f"{stop} bytes: {how}")


def _stopped(found: Inspection, error: ParseError, *, is_cut: bool) -> Inspection:
    """The verdict of the parser alone on a dump that it could not parse to its end."""
    if is_cut:
        reason = f"the file ends at byte {error.offset}, before the dump does"
        return replace(found, verdict=Verdict.TRUNCATED, reason=reason, offset=error.offset)
    reason = f"at byte {error.offset}: {error.why}"
    return replace(found, verdict=Verdict.CORRUPT, reason=reason, offset=error.offset)


def _with_ending(found: Inspection, error: ParseError, ending: Ending) -> Inspection:
    """The verdict of :func:`_stopped`, corrected by the checksum at the end of the file."""
    found = replace(found, size=ending.size)
    if found.version is None or found.version < _FIRST_WITH_CHECKSUM:
        return found
    if ending.has_valid_checksum:
        reason = f"the checksum is right, but parsing stopped at byte {error.offset}: {error.why}"
        return replace(found, verdict=Verdict.OPAQUE, reason=reason, footer=Footer.OK)
    if found.verdict is Verdict.CORRUPT and isinstance(error, UnsupportedType):
        if ending.has_no_checksum:
            reason = f"{found.reason}; and there is no checksum"
            return replace(found, verdict=Verdict.UNPROVEN, reason=reason, footer=Footer.DISABLED)
        reason = f"{found.reason}; and the checksum at the end is wrong: damaged or cut short"
        found = replace(found, reason=reason)
    return replace(found, footer=Footer.MISMATCH)


def _within_preamble(found: Inspection, error: ParseError, ending: Ending) -> Inspection:
    """The verdict on a log whose preamble could not be parsed to its end.

    Nobody knows then where the preamble ends and its checksum is.
    """
    found = replace(found, kind=Kind.AOF, size=ending.size)
    if found.verdict is Verdict.TRUNCATED:
        reason = f"the log ends at byte {ending.size}, within its RDB preamble: no server loads it"
        return replace(found, reason=reason)
    if isinstance(error, UnsupportedType):
        return replace(found, verdict=Verdict.UNPROVEN)
    return found


def _commands(window: Window, found: Inspection) -> Inspection:
    """The verdict on the commands of a log, from the window's position on."""
    reader = CommandReader(window)
    try:
        reader.read()
        log = reader.log()
        reason = f"{log.commands} commands in {log.good_until} bytes; a log has no checksum"
        found = replace(found, verdict=Verdict.INTACT, reason=reason, offset=log.good_until)
    except ParseError as error:
        log = reader.log()
        is_cut = isinstance(error, UnexpectedEnd) or window.is_overrun
        reason = f"at byte {error.offset}: {error.why}; the first {log.good_until} bytes are good "
        reason += f"({log.commands} commands)"
        verdict = Verdict.TRUNCATED if is_cut else Verdict.CORRUPT
        found = replace(found, verdict=verdict, reason=reason, offset=error.offset)
    return replace(found, size=window.drain().size, log=log)
