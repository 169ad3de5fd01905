"""The outcome of loading a file, read from the server's INFO or log.

The exit code proves nothing: Redis 8.2 and Valkey 9.1 exit with 0 after refusing a module type
[measured]. Only a server that answers PING and reports ``loading:0`` has loaded a file. For the
others, the log says why. The messages are those of rdb.c, aof.c and server.c in Redis 5.0 to 8.2
and Valkey 7.2 to 9.1.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# "27805:M 24 Nov 2026 12:17:00.000 # Wrong RDB checksum …": pid, role, time, level, message.
_LINE = re.compile(r"\d+:[A-Z] \d+ \w{3} \d{4} [\d:.]+ [#*.-] (.*)")
_REASON_SIZE = 300  # characters
# Valkey's Lua module complains that CONFIG is missing when it starts, and continues.
_SCRIPTS = "<lua> "


class Outcome(StrEnum):
    """The outcome of loading. Only LOADED is a pass.

    REFUSED means that the server says the file is damaged. It may say so because it does not know a
    type, as Redis 8.2 does for opcodes of Redis Enterprise ("short read") [measured]: if the file's
    own checksum is right and the cause is not CHECKSUM, the file is intact and only this server
    cannot read it.
    """

    LOADED = "loaded"
    UNLOADABLE = "unloadable"  # it needs a module or another server
    REFUSED = "refused"  # damaged, according to the server
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    COULD_NOT_START = "could not start"


class Cause(StrEnum):
    """The cause of the outcome, if it is known."""

    NONE = "none"
    CHECKSUM = "checksum"
    TRUNCATED = "truncated"
    SIGNATURE = "signature"  # not an RDB, or an AOF with a syntax error
    CONTENT = "content"  # an invalid value or an unknown type
    CRASH = "crash"
    VERSION = "version"  # an RDB version that the server does not know
    FOREIGN = "foreign"  # to Valkey: a type that only Redis has
    MODULE = "module"
    COMMAND = "command"  # an AOF with a command that the server does not have
    MEMORY = "memory"
    DEADLINE = "deadline"
    ACCESS = "access"  # to the file, the directory or the socket
    CONFIGURATION = "configuration"
    EXITED = "exited"  # for an unknown reason


@dataclass(frozen=True, slots=True)
class Facts:
    """What the INFO of a server says after loading.

    ``keys`` is the current number. ``keys_loaded`` and ``keys_expired`` (dropped during loading)
    are None for servers before 7.0; for an AOF they count only its preamble.
    """

    version: str
    process_id: int
    keys: int
    keys_loaded: int | None
    keys_expired: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of loading one file with one server.

    ``reason`` is one line, of the server's log or our own. ``names`` are the module types or
    commands that the server lacks. ``exit_code`` is None while it runs, negative for a signal.
    """

    outcome: Outcome
    cause: Cause
    reason: str
    names: tuple[str, ...] = ()
    facts: Facts | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class _Pattern:
    message: re.Pattern[str]  # its groups are names
    outcome: Outcome
    cause: Cause


def _pattern(message: str, outcome: Outcome, cause: Cause) -> _Pattern:
    return _Pattern(re.compile(message), outcome, cause)


_MODULE = r"no matching module(?: type)? '([^']*)'|AUX data for the module type '([^']*)'"
_MODULE += r"|module data for the module type '([^']*)'"
_COMMAND = r"(?i:unknown command) '([^']*)'.*"

# The first line of the log that matches one of these decides.
_SPECIFIC = (
    _pattern(_MODULE, Outcome.UNLOADABLE, Cause.MODULE),
    _pattern(_COMMAND, Outcome.UNLOADABLE, Cause.COMMAND),
    _pattern(r"Can't handle RDB format version", Outcome.UNLOADABLE, Cause.VERSION),
    _pattern(r"Can't handle foreign type or opcode", Outcome.UNLOADABLE, Cause.FOREIGN),
    _pattern(
        r"configured to handle more than \d+ databases", Outcome.UNLOADABLE, Cause.CONFIGURATION
    ),
    _pattern(r"Wrong RDB checksum|RDB CRC error", Outcome.REFUSED, Cause.CHECKSUM),
    _pattern(r"Short read or OOM loading DB|Unexpected EOF", Outcome.REFUSED, Cause.TRUNCATED),
    _pattern(r"Unexpected end of file reading the append only", Outcome.REFUSED, Cause.TRUNCATED),
    _pattern(r"Wrong signature trying to load DB", Outcome.REFUSED, Cause.SIGNATURE),
    _pattern(r"Bad file format reading the append only", Outcome.REFUSED, Cause.SIGNATURE),
    _pattern(r"Internal error in RDB reading", Outcome.REFUSED, Cause.CONTENT),
    _pattern(r"Out Of Memory allocating", Outcome.OUT_OF_MEMORY, Cause.MEMORY),
    _pattern(r"crashed by signal|ASSERTION FAILED|Guru Meditation", Outcome.REFUSED, Cause.CRASH),
    _pattern(r"Permission denied", Outcome.COULD_NOT_START, Cause.ACCESS),
    _pattern(r"Failed opening Unix socket|Failed listening", Outcome.COULD_NOT_START, Cause.ACCESS),
)
# Otherwise one of these, which follow a reason that is none of the above.
_GENERAL = (
    _pattern(r"Fatal error loading the DB", Outcome.REFUSED, Cause.CONTENT),
    _pattern(r"Terminating server after rdb file reading", Outcome.REFUSED, Cause.CONTENT),
    _pattern(
        r"rror reading the append only file|AOF loading aborted", Outcome.REFUSED, Cause.CONTENT
    ),
)
# Lines without the log's prefix, which a server writes before it loads anything.
_UNPREFIXED = (
    _pattern(r"FATAL CONFIG FILE ERROR", Outcome.COULD_NOT_START, Cause.CONFIGURATION),
    _pattern(r"^archiver: cannot execute", Outcome.COULD_NOT_START, Cause.ACCESS),
)


def facts_of(info: dict[str, Any]) -> Facts:
    """Extract the facts from an INFO (pure)."""
    keyspace = [value for name, value in info.items() if name[:2] == "db" and name[2:].isdigit()]
    loaded, expired = (info.get(f"rdb_last_load_keys_{what}") for what in ("loaded", "expired"))
    # A Valkey's redis_version is that of the Redis it is compatible with.
    own = info.get("valkey_version")
    return Facts(
        version=f"valkey {own}" if own else f"redis {info.get('redis_version')}",
        process_id=int(info.get("process_id", 0)),
        keys=sum(int(database["keys"]) for database in keyspace),
        keys_loaded=None if loaded is None else int(loaded),
        keys_expired=None if expired is None else int(expired),
    )


def read_log(log: str, exit_code: int | None) -> Verdict:
    """Return why a server ended before it had loaded the file, from its log (pure)."""
    # Only lines with the log's prefix: a crash report contains key names, which may be anything.
    lines = [
        found.group(1)
        for line in log.splitlines()
        if (found := _LINE.match(line)) and not found.group(1).startswith(_SCRIPTS)
    ]
    for patterns, among in (
        (_SPECIFIC, lines),
        (_GENERAL, lines),
        (_UNPREFIXED, log.splitlines()),
    ):
        for number, line in enumerate(among):
            for pattern in patterns:
                if pattern.message.search(line):
                    return _verdict(pattern, among[number:], exit_code)
    killed = exit_code is not None and exit_code < 0
    ended = f"was killed by signal {abs(exit_code or 0)}" if killed else f"exited with {exit_code}"
    return Verdict(
        Outcome.COULD_NOT_START,
        Cause.EXITED,
        f"the server {ended} before it had loaded the file; its log does not say why",
        exit_code=exit_code,
    )


def _verdict(pattern: _Pattern, lines: list[str], exit_code: int | None) -> Verdict:
    reason = lines[0].strip()
    if pattern.cause is Cause.CONFIGURATION and pattern.outcome is Outcome.COULD_NOT_START:
        reason = " ".join(line.strip() for line in lines[:4])
    names: list[str] = []
    for line in lines:
        for found in pattern.message.finditer(line):
            names += [name for name in found.groups() if name is not None and name not in names]
    return Verdict(
        pattern.outcome, pattern.cause, reason[:_REASON_SIZE], tuple(names), None, exit_code
    )
