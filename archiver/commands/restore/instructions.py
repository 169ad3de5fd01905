"""What somebody needs who finds a restored file: the command, which server, what it holds. Pure."""

import os
import shlex
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from archiver.archive.record import Record
from archiver.commands.restore.files import Copied
from archiver.model import Kind
from archiver.rdb import Inspection, Verdict, releases
from archiver.rdb.magic import rdb_version
from archiver.times import format_iso

LOGS: Final = "appendonlydir"
LOG: Final = "appendonly.aof"
# Of these printf and the shell think nothing.
_PLAIN: Final = string.ascii_letters + string.digits + "/._-+=:,@ "
# What a server does not get past when it reads a log.
_REFUSED: Final = frozenset({Verdict.CORRUPT, Verdict.PADDED})


def is_place_of_log(path: Path) -> bool:
    """Whether a file lies where a server looks for a log of commands."""
    return path.parent.name == LOGS


def node_folder(path: Path) -> Path:
    """The directory of the node whose file this is: what a server takes as --dir."""
    return path.parent.parent if is_place_of_log(path) else path.parent


def command(copied: Copied, log: Inspection | None, port: int) -> str | None:
    """What starts a server on the file: for a shell, from any directory.

    ``log`` is what was read of a log. None for what no server loads as it is.
    """
    if copied.kind is Kind.UNKNOWN or (log is not None and _is_refused(log)):
        return None
    # Without --save "" the server writes over the copy when it is stopped.
    words = ["redis-server", "--port", str(port), "--databases", str(releases.DATABASES)]
    words += ["--save", ""]
    words += ["--dir", str(node_folder(copied.path))]
    if is_place_of_log(copied.path):
        words += ["--appendonly", "yes"]
        words += ["--appenddirname", LOGS, "--appendfilename", LOG]
        # A log may end anywhere.
        words += ["--aof-load-truncated", "yes"]
    else:
        words += ["--dbfilename", copied.path.name]
    return shell_line(words)


def shell_line(words: Iterable[str]) -> str:
    """A command for any POSIX shell, on a line of plain text: what is none in a name, as bytes of
    another encoding, is spelled out."""
    return " ".join(shlex.quote(word) if word.isprintable() else _spelled(word) for word in words)


def _spelled(word: str) -> str:
    kept = b"".join(
        bytes((byte,)) if chr(byte) in _PLAIN else b"\\%03o" % byte for byte in os.fsencode(word)
    )
    return f"\"$(printf '{kept.decode('ascii')}')\""


def needs(record: Record, copied: Copied, log: Inspection | None) -> str:
    """Which servers load it, in words."""
    magic = copied.rdb.version
    if log is not None and _is_refused(log):
        return f"repair first: no server loads it as it is: {log.reason}"
    if record.is_log and record.size == 0:
        return "no server: it is an empty log, without a command"
    if copied.kind is Kind.UNKNOWN:
        return (
            "to be decrypted or converted first: by its first bytes it is no dump, and no server "
            "that we know of loads it"
        )
    return releases.needed(magic, None if magic is None else rdb_version(magic.encode()))


def how_much_is_whole(log: Inspection | None) -> str | None:
    """Of a log that ends within a command, what a server takes of it; None for any other."""
    if log is None or not log.is_log_cut_short or log.log is None:
        return None
    return (
        f"the log ends within a command: {log.log.good_until:,} of {log.size:,} bytes and "
        f"{log.log.commands:,} commands are whole, and a server cuts the rest off"
    )


def text(record: Record, line: str | None, needed: str, log: Inspection | None) -> str:
    """RESTORE.txt; ``line`` is the command."""
    how = (
        f"No command starts a server on it. It needs {needed}.\n"
        if line is None
        else f"    {line}\n\n"
        f'It needs {needed}. If the server\'s log says "no matching module type", the dump\n'
        "has types of Tair, and only Tair, or a server with those modules, loads it. Stop the\n"
        "server with SHUTDOWN NOSAVE to leave the file as it is: a save replaces it.\n"
    )
    cut = how_much_is_whole(log)
    return (
        f"{record.object_key}\n"
        f"node {record.node_id}, backup {record.backup_id}, "
        f"begun {format_iso(record.started_at)}\n"
        f"{record.size} bytes, SHA-256 {record.sha256}\n\n{how}"
        + (f"\n{cut[0].upper()}{cut[1:]}.\n" if cut is not None else "")
    )


def _is_refused(log: Inspection) -> bool:
    within_preamble = log.verdict is Verdict.TRUNCATED and log.log is None
    return log.verdict in _REFUSED or within_preamble
