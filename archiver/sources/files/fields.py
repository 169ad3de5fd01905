"""What is known of a file that is a backup, as its record keeps it. Pure.

``place`` and ``name`` say where the file was, ``size``, ``modified_at`` and ``version`` which of
the files that had this name it is. ``node``, ``set`` and ``started_at`` are what was concluded, and
``started_at_from`` is what the time is known from: ``name``, ``ctime`` (the field of the dump) or
``mtime`` (when the file was last written).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from archiver.documents import Fields
from archiver.model import Backup, BackupType, SourceName, Status

SOURCE: Final = SourceName("files", "adopt 1")

_MOST_READABLE = 32
_NOT_READABLE = re.compile(r"[^A-Za-z0-9]+")


def read_backup(instance_id: str, item: Mapping[str, Any]) -> Backup:
    """The backup that a file is. Raises BadDocument where a field is missing or of another type.

    Its type is full, whether it is a dump or a log: the log of a server holds all of its data.
    """
    fields = Fields("a file", item)
    name, size, modified_at = fields.text("name"), fields.number("size"), fields.text("modified_at")
    return Backup(
        source=SOURCE,
        instance_id=instance_id,
        node_id=instance_id if fields.is_null("node") else fields.text("node"),
        backup_id=_backup_id(name, size, modified_at),
        set_id=None if fields.is_null("set") else fields.text("set"),
        started_at=fields.moment("started_at"),
        status=Status.SUCCESS,
        type=BackupType.FULL,
        size=size,
        received=item,
    )


def _backup_id(name: str, size: int, modified_at: str) -> str:
    """Another one for each file that has had this name: the time of its last change tells them
    apart. It begins with what can be read of the name."""
    identity = hashlib.sha256(f"{name}\n{size}\n{modified_at}".encode()).hexdigest()[:16]
    stem = name.rpartition("/")[2].rpartition(".")[0]
    readable = _NOT_READABLE.sub("_", stem).strip("_")[:_MOST_READABLE].rstrip("_")
    return f"{readable or 'file'}.{identity}"
