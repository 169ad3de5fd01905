"""What came of loading a file, by the server's own words.

The exit code says nothing: Redis 8.2 and Valkey 9.1 exit with 0 after refusing a module type
[measured]. Only a server that answers PING and says ``loading:0`` has loaded a file; for the others
the log says why. The sentences are those of rdb.c, aof.c and server.c, Redis 5.0 to 8.2 and Valkey
7.2 to 9.1.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# "27805:M 24 Nov 2026 12:17:00.000 # Wrong RDB checksum …": pid, role, time, level, message.
_LINE = re.compile(r"\d+:[A-Z] \d+ \w{3} \d{4} [\d:.]+ [#*.-] (.*)")
_REASON_SIZE = 300  # characters
# Valkey's own module for scripts, which misses CONFIG when it starts, and goes on.
_SCRIPTS = "<lua> "


class Outcome(StrEnum):
    """Only LOADED is a pass.

    REFUSED is the server's word alone. It may say so of a type that it does not know, as Redis 8.2
    does of opcodes of Redis Enterprise ("short read") [measured]: when the file's own checksum is
    right and the cause is not CHECKSUM, the file is intact and this server cannot read it.
    """

    LOADED = "loaded"
    UNLOADABLE = "unloadable"  # not said to be damaged: needs a module, or another server
    REFUSED = "refused"  # damaged, by the server's word
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    COULD_NOT_START = "could not start"


class Cause(StrEnum):
    """Why, where the server or this drill can tell."""

    NONE = "none"
    CHECKSUM = "checksum"
    TRUNCATED = "truncated"
    SIGNATURE = "signature"  # no RDB, or an AOF with broken framing
    CONTENT = "content"  # a value that does not hold together, or a type nobody knows
    CRASH = "crash"
    VERSION = "version"  # an RDB version that the server does not know
    FOREIGN = "foreign"  # Valkey: a type that only Redis has
    MODULE = "module"
    COMMAND = "command"  # an AOF with a command that the server does not have
    MEMORY = "memory"
    DEADLINE = "deadline"
    ACCESS = "access"  # the file, the directory or the socket cannot be used
    CONFIGURATION = "configuration"
    EXITED = "exited"  # without saying why


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself once it has loaded (INFO).

    ``keys_loaded`` and ``keys_expired`` (dropped at load, because their time was over) are None for
    servers before 7.0; for an AOF they count its preamble alone. ``keys`` is what there is now.
    """

    version: str
    run_id: str
    process_id: int
    keys: int
    keys_loaded: int | None
    keys_expired: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one server with one file.

    ``reason`` is the server's sentence or our own, one line; ``names`` are the module types or
    commands that are missing. ``exit_code`` is None while it runs, negative for a signal.
    """

    outcome: Outcome
    cause: Cause
    reason: str
    names: tuple[str, ...] = ()
    facts: Facts | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class _Sign:
    sentence: re.Pattern[str]  # its group, where there is one, is a name
    outcome: Outcome
    cause: Cause


def _sign(sentence: str, outcome: Outcome, cause: Cause) -> _Sign:
    return _Sign(re.compile(sentence), outcome, cause)


_MODULE = r"no matching module(?: type)? '([^']*)'|AUX data for the module type '([^']*)'"
_MODULE += r"|module data for the module type '([^']*)'"
_COMMAND = r"(?i:unknown command) '([^']*)'.*"

# The first line of the log that has one of these decides.
_SIGNS = (
    _sign(_MODULE, Outcome.UNLOADABLE, Cause.MODULE),
    _sign(_COMMAND, Outcome.UNLOADABLE, Cause.COMMAND),
    _sign(r"Can't handle RDB format version", Outcome.UNLOADABLE, Cause.VERSION),
    _sign(r"Can't handle foreign type or opcode", Outcome.UNLOADABLE, Cause.FOREIGN),
    _sign(r"configured to handle more than \d+ databases", Outcome.UNLOADABLE, Cause.CONFIGURATION),
    _sign(r"Wrong RDB checksum|RDB CRC error", Outcome.REFUSED, Cause.CHECKSUM),
    _sign(r"Short read or OOM loading DB|Unexpected EOF", Outcome.REFUSED, Cause.TRUNCATED),
    _sign(r"Unexpected end of file reading the append only", Outcome.REFUSED, Cause.TRUNCATED),
    _sign(r"Wrong signature trying to load DB", Outcome.REFUSED, Cause.SIGNATURE),
    _sign(r"Bad file format reading the append only", Outcome.REFUSED, Cause.SIGNATURE),
    _sign(r"Internal error in RDB reading", Outcome.REFUSED, Cause.CONTENT),
    _sign(r"Out Of Memory allocating", Outcome.OUT_OF_MEMORY, Cause.MEMORY),
    _sign(r"crashed by signal|ASSERTION FAILED|Guru Meditation", Outcome.REFUSED, Cause.CRASH),
    _sign(r"Permission denied", Outcome.COULD_NOT_START, Cause.ACCESS),
    _sign(r"Failed opening Unix socket|Failed listening", Outcome.COULD_NOT_START, Cause.ACCESS),
)
# What follows a reason that none of those knew.
_LAST_WORDS = (
    _sign(r"Fatal error loading the DB", Outcome.REFUSED, Cause.CONTENT),
    _sign(r"Terminating server after rdb file reading", Outcome.REFUSED, Cause.CONTENT),
    _sign(r"rror reading the append only file|AOF loading aborted", Outcome.REFUSED, Cause.CONTENT),
)
# Before a server has a log it writes plain lines; nothing has been loaded by then.
_PLAIN = (
    _sign(r"FATAL CONFIG FILE ERROR", Outcome.COULD_NOT_START, Cause.CONFIGURATION),
    _sign(r"^archiver: cannot execute", Outcome.COULD_NOT_START, Cause.ACCESS),
)


def facts_of(info: dict[str, Any]) -> Facts:
    """Read them from an INFO (pure)."""
    keyspace = [value for name, value in info.items() if name[:2] == "db" and name[2:].isdigit()]
    loaded, expired = (info.get(f"rdb_last_load_keys_{what}") for what in ("loaded", "expired"))
    own = info.get("valkey_version")  # beside it, redis_version says what it is compatible with
    return Facts(
        version=f"valkey {own}" if own else f"redis {info.get('redis_version')}",
        run_id=str(info.get("run_id", "")),
        process_id=int(info.get("process_id", 0)),
        keys=sum(int(database["keys"]) for database in keyspace),
        keys_loaded=None if loaded is None else int(loaded),
        keys_expired=None if expired is None else int(expired),
    )


def read_log(log: str, exit_code: int | None) -> Verdict:
    """Why a server ended before it had loaded, from what it wrote (pure)."""
    # Only the server's own lines: a report after a failure quotes names of keys, which may say
    # anything.
    lines = [
        found.group(1)
        for line in log.splitlines()
        if (found := _LINE.match(line)) and not found.group(1).startswith(_SCRIPTS)
    ]
    for signs, among in ((_SIGNS, lines), (_LAST_WORDS, lines), (_PLAIN, log.splitlines())):
        for number, line in enumerate(among):
            for sign in signs:
                if sign.sentence.search(line):
                    return _verdict(sign, among[number:], exit_code)
    killed = exit_code is not None and exit_code < 0
    ended = f"was killed by signal {abs(exit_code or 0)}" if killed else f"exited with {exit_code}"
    return Verdict(
        Outcome.COULD_NOT_START,
        Cause.EXITED,
        f"the server {ended} before it had loaded, and its log does not say why",
        exit_code=exit_code,
    )


def _verdict(sign: _Sign, lines: list[str], exit_code: int | None) -> Verdict:
    reason = lines[0].strip()
    if sign.cause is Cause.CONFIGURATION and sign.outcome is Outcome.COULD_NOT_START:
        reason = " ".join(line.strip() for line in lines[:4])
    names: list[str] = []
    for line in lines:
        for found in sign.sentence.finditer(line):
            names += [name for name in found.groups() if name is not None and name not in names]
    return Verdict(sign.outcome, sign.cause, reason[:_REASON_SIZE], tuple(names), None, exit_code)
