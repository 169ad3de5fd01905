"""How to start a server on a restored file: the command, and RESTORE.txt. Pure."""

import os
import shlex
import string
from collections.abc import Iterable
from typing import Final

from archiver.archive.record import Record
from archiver.commands.restore.files import CopiedFile
from archiver.commands.restore.target import (
    LOG_DIRECTORY,
    LOG_NAME,
    is_log_path,
    node_directory,
)
from archiver.model import Kind
from archiver.rdb import Inspection, Verdict
from archiver.rdb.magic import DATABASES, rdb_version, servers_that_load
from archiver.times import format_iso

# Characters that are special neither to printf nor to the shell.
_PLAIN: Final = string.ascii_letters + string.digits + "/._-+=:,@ "
# Verdicts on a log that every server refuses to load.
_REFUSED: Final = frozenset({Verdict.CORRUPT, Verdict.PADDED})


def start_command(copied: CopiedFile, log: Inspection | None, port: int) -> str | None:
    """Return the shell command that starts a server on the file, from any working directory.

    ``log`` is the inspection of a log. None if no server loads the file as it is.
    """
    if copied.kind is Kind.UNKNOWN or (log is not None and _is_refused(log)):
        return None
    # Without --save "" the server would overwrite the dump when it is stopped.
    words = ["redis-server", "--port", str(port), "--databases", str(DATABASES)]
    words += ["--save", ""]
    words += ["--dir", str(node_directory(copied.path))]
    if is_log_path(copied.path):
        words += ["--appendonly", "yes"]
        words += ["--appenddirname", LOG_DIRECTORY, "--appendfilename", LOG_NAME]
        # A log may end anywhere.
        words += ["--aof-load-truncated", "yes"]
    else:
        words += ["--dbfilename", copied.path.name]
    return shell_line(words)


def shell_line(words: Iterable[str]) -> str:
    """Quote a command for any POSIX shell, as one line of plain text.

    Characters that cannot be printed, such as those of a file name in another encoding, are
    written with printf.
    """
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in words)


def _escaped(word: str) -> str:
    kept = b"".join(
        bytes((byte,)) if chr(byte) in _PLAIN else b"\\%03o" % byte for byte in os.fsencode(word)
    )
    return f"\"$(printf '{kept.decode('ascii')}')\""


def needs(record: Record, copied: CopiedFile, log: Inspection | None) -> str:
    """Describe what is needed to load the file: which servers, or a repair."""
    magic = copied.rdb.version
    if log is not None and _is_refused(log):
        return f"a repair first, because no server loads it as it is: {log.reason}"
    if record.is_log and record.size == 0:
        return "no server: it is an empty log, without a command"
    if copied.kind is Kind.UNKNOWN:
        return (
            "to be decrypted or converted first: it does not begin like a dump or a log, and no "
            "known server loads it"
        )
    return servers_that_load(magic, None if magic is None else rdb_version(magic.encode()))


def describe_cut(log: Inspection | None) -> str | None:
    """Say how much of a log that ends within a command a server loads; None for other files."""
    if log is None or not log.is_log_cut_short or log.log is None:
        return None
    return (
        f"the log ends within a command: a server loads {log.log.commands:,} complete commands "
        f"({log.log.good_until:,} of {log.size:,} bytes) and cuts off the rest"
    )


def restore_text(record: Record, line: str | None, needed: str, log: Inspection | None) -> str:
    """Return the content of RESTORE.txt; ``line`` is the command."""
    how = (
        f"No command starts a server on this file. It needs {needed}.\n"
        if line is None
        else f"    {line}\n\n"
        f'It needs {needed}. If the server\'s log says "no matching module type", the dump has\n'
        "data types of Tair, and only Tair, or a server with those modules, loads it. Stop the\n"
        "server with SHUTDOWN NOSAVE to keep the file as it is: a save would replace it.\n"
    )
    cut = describe_cut(log)
    return (
        f"{record.object_key}\n"
        f"node {record.node_id}, backup {record.backup_id}, "
        f"started {format_iso(record.started_at)}\n"
        f"{record.size} bytes, SHA-256 {record.sha256}\n\n{how}"
        + (f"\n{cut[0].upper()}{cut[1:]}.\n" if cut is not None else "")
    )


def _is_refused(log: Inspection) -> bool:
    within_preamble = log.verdict is Verdict.TRUNCATED and log.log is None
    return log.verdict in _REFUSED or within_preamble
