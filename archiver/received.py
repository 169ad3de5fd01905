"""How to read again what a source sent: one function for each source and action.

A record keeps the fields of its backup twice: normalised, for every command, and under
``received`` as the source sent them. Only the source's own module can read the second, so it
registers a function here that turns them into a :class:`~archiver.model.Backup` once more; what
differs from the record was changed by somebody (:mod:`archiver.archive.consistency`).

The table is below the archive, and the commands do not choose what is in it: whoever imports the
package gets the same built-in sources (``archiver/__init__``), so that all commands call the same
records tampered. The functions are named as text and imported when the first record of their
source is read. They are pure: a drill, which must work without the vendor, loads no HTTP client
with them. A record of a source that is not in the table is checked by its normalised fields alone.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

from archiver.model import Backup, SourceName

# From an instance's id and one entry as the source sent it, its URLs with or without their query.
# Raises ArchiverError for an entry that cannot be read.
ReadReceived = Callable[[str, Mapping[str, Any]], Backup]

_readers: dict[SourceName, ReadReceived | str] = {}


def register(source: SourceName, read: ReadReceived | str) -> None:
    """Have what ``source`` sends read by a function, or by one named as ``package.module:name``."""
    _readers[source] = read


def reader(source: SourceName) -> ReadReceived | None:
    """The function registered for this source and action; None if there is none."""
    read = _readers.get(source)
    if isinstance(read, str):
        module, _, name = read.partition(":")
        read = cast("ReadReceived", getattr(importlib.import_module(module), name))
        _readers[source] = read
    return read
