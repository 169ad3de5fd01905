"""What a Redis file says of itself: read once, front to back, in bounded memory, without a server.

``inspect`` takes a dump (RDB versions 1 to 12, ``VALKEY080``) or a command log (AOF, with or
without an RDB preamble) and returns whether its bytes are whole and what they hold;
``read_manifest`` reads the list of files of a multi-part log. Both block: call them in a thread.
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
from archiver.rdb.manifest import LogFile, Manifest, Role, read_manifest
from archiver.rdb.window import Readable

__all__ = [
    "CommandLog",
    "Contents",
    "Database",
    "Expiries",
    "Inspection",
    "LogFile",
    "Manifest",
    "Module",
    "Readable",
    "Role",
    "Verdict",
    "inspect",
    "read_manifest",
]
