"""From a stream to a verdict.

What the checksum proves stands above what the reader understood: a dump whose CRC-64 agrees at the
very end of the file is intact, even where we cannot follow it. The other way round, a dump that
reads cleanly to its end is whole even with bytes behind it, and those bytes are counted.
"""

from dataclasses import replace
from typing import Final

from archiver.model import Footer, Kind
from archiver.rdb.commands import ANNOTATION, COMMAND, CommandReader
from archiver.rdb.contents import Inspection, Verdict
from archiver.rdb.dump import DumpReader
from archiver.rdb.fault import Ended, Fault, Unknown
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
    Readable,
    Window,
)

_FIRST_WITH_CHECKSUM = 5
_VALKEY = "VALKEY"
_KNOWN: Final = frozenset([f"REDIS{version:04}" for version in range(1, 13)] + ["VALKEY080"])


def inspect(stream: Readable, *, is_log: bool = False, block_size: int = BLOCK_SIZE) -> Inspection:
    """Read ``stream`` once, to its end; blocks. Holds ``block_size`` bytes and some counters.

    A damaged file is an answer, not an error. ``is_log``: its source says that it is a log of
    commands, so they may follow an RDB that does not announce them itself.

    Raises:
        OSError: from the stream.
    """
    window = Window(stream, block_size)
    window.fill()
    head = bytes(window.buffer[: min(window.end, 64)])
    version = rdb_version(head)
    if version is not None:
        return _dump(window, magic_text(head), version, is_log=is_log)
    if starts_like_aof(head):
        nothing = Inspection(Verdict.INTACT, "", 0, 0, Kind.AOF)
        return _commands(window, nothing)
    size = window.drain().size
    if size == 0:
        return Inspection(Verdict.EMPTY, "no byte at all", 0, 0, Kind.UNKNOWN)
    if size == len(head) and is_cut_short(head):
        reason = f"the file ends at byte {size}, within its first words"
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
    except Fault as fault:
        found = _stopped(so_far, fault, is_cut=isinstance(fault, Ended) or window.is_overrun)
        ending = window.drain()
        if (is_log or reader.may_have_commands) and not ending.agrees:
            found = _within_preamble(found, fault, ending)
        else:
            found = _weigh_ending(found, fault, ending)
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
    return _read_to_the_end(so_far, stop, window.drain())


def _footer(window: Window, version: int) -> Footer:
    """What the eight bytes behind the EOF opcode say of everything before them.

    Raises:
        Ended: there are fewer.
    """
    if version < _FIRST_WITH_CHECKSUM:
        return Footer.NONE
    window.fill(FOOTER_BYTES)
    computed = window.checksum()
    written = int.from_bytes(window.take(FOOTER_BYTES), "little")
    if written == 0:
        return Footer.DISABLED
    return Footer.OK if written == computed else Footer.MISMATCH


def _read_to_the_end(found: Inspection, stop: int, ending: Ending) -> Inspection:
    """The verdict on a dump that reads cleanly up to ``stop``, behind its footer."""
    found = replace(found, size=ending.size)
    padding = ending.size - stop
    if found.footer is Footer.MISMATCH:
        if padding and ending.agrees:
            reason = f"the checksum at the end agrees, though an end was read at byte {stop}"
            return replace(found, verdict=Verdict.OPAQUE, reason=reason, footer=Footer.OK)
        reason = f"the CRC-64 at byte {stop - FOOTER_BYTES} is not that of the bytes before it"
        return replace(found, offset=stop - FOOTER_BYTES, reason=reason)
    if padding:
        reason = f"the dump ends at byte {stop}, {padding} bytes more follow"
        return replace(found, verdict=Verdict.PADDED, reason=reason, padding=padding)
    if found.magic not in _KNOWN:
        proven = found.footer is Footer.OK
        return replace(
            found,
            verdict=Verdict.OPAQUE if proven else Verdict.UNPROVEN,
            reason=f"version {found.magic} at byte 0 is not known"
            + (", its checksum agrees" if proven else ", and it carries no checksum"),
            offset=0,
        )
    how = {
        Footer.OK: "its checksum agrees",
        Footer.DISABLED: "it reads cleanly; the server wrote no checksum",
        Footer.NONE: "it reads cleanly; this version has no checksum",
    }[found.footer]
    return replace(found, verdict=Verdict.INTACT, reason=f"{stop} bytes: {how}")


def _stopped(found: Inspection, fault: Fault, *, is_cut: bool) -> Inspection:
    """What the reader alone can say of a dump that it did not reach the end of."""
    if is_cut:
        reason = f"the file ends at byte {fault.offset}, before the dump does"
        return replace(found, verdict=Verdict.TRUNCATED, reason=reason, offset=fault.offset)
    reason = f"at byte {fault.offset}: {fault.why}"
    return replace(found, verdict=Verdict.CORRUPT, reason=reason, offset=fault.offset)


def _weigh_ending(found: Inspection, fault: Fault, ending: Ending) -> Inspection:
    """The same, with what the very end of the file says."""
    found = replace(found, size=ending.size)
    if found.version is None or found.version < _FIRST_WITH_CHECKSUM:
        return found
    if ending.agrees:
        reason = f"its checksum agrees, but cannot be read from byte {fault.offset}: {fault.why}"
        return replace(found, verdict=Verdict.OPAQUE, reason=reason, footer=Footer.OK)
    if found.verdict is Verdict.CORRUPT and isinstance(fault, Unknown):
        if ending.has_no_checksum:
            reason = f"{found.reason}; and there is no checksum"
            return replace(found, verdict=Verdict.UNPROVEN, reason=reason, footer=Footer.DISABLED)
        reason = f"{found.reason}; and no right checksum at the end: damaged, or cut short"
        found = replace(found, reason=reason)
    return replace(found, footer=Footer.MISMATCH)


def _within_preamble(found: Inspection, fault: Fault, ending: Ending) -> Inspection:
    """What can be said of a log that was not read to the end of its preamble. Where the preamble
    ends, and so its checksum lies, is not known then."""
    found = replace(found, kind=Kind.AOF, size=ending.size)
    if found.verdict is Verdict.TRUNCATED:
        reason = f"the log ends at byte {ending.size}, within its RDB preamble: no server loads it"
        return replace(found, reason=reason)
    if isinstance(fault, Unknown):
        return replace(found, verdict=Verdict.UNPROVEN)
    return found


def _commands(window: Window, found: Inspection) -> Inspection:
    """The verdict on a log of commands from the window's position on."""
    reader = CommandReader(window)
    try:
        reader.read()
        log = reader.log()
        reason = f"{log.commands} commands up to byte {log.good_until}; a log has no checksum"
        found = replace(found, verdict=Verdict.INTACT, reason=reason, offset=log.good_until)
    except Fault as fault:
        log = reader.log()
        is_cut = isinstance(fault, Ended) or window.is_overrun
        reason = f"at byte {fault.offset}: {fault.why}; good up to byte {log.good_until}, "
        reason += f"{log.commands} commands"
        verdict = Verdict.TRUNCATED if is_cut else Verdict.CORRUPT
        found = replace(found, verdict=verdict, reason=reason, offset=fault.offset)
    return replace(found, size=window.drain().size, log=log)
