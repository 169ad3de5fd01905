"""Reads Redis files without a server: once, front to back, in bounded memory.

``inspect`` takes a dump (RDB versions 1 to 12, ``VALKEY080``) or a command log (AOF, with or
without an RDB preamble) and returns whether the file is intact and what it holds. It blocks: call
it in a thread.
"""

from archiver.rdb.contents import (
    CommandLog,
    Contents,
    Database,
    Expiries,
    Inspection,
    Module,
    Verdict,
)
from archiver.rdb.inspection import inspect
from archiver.rdb.window import Readable

__all__ = [
    "CommandLog",
    "Contents",
    "Database",
    "Expiries",
    "Inspection",
    "Module",
    "Readable",
    "Verdict",
    "inspect",
]
