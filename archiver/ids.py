"""Checks ids before they become part of a path, and backups before they become a record. Pure."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Final

from archiver.documents import MAX_TEXT, is_clean
from archiver.errors import UnsafeInput
from archiver.ignored_names import is_ignored
from archiver.model import Backup, Engine, Kind

# Looser than the vendors' ids. No slash and no leading dot: an id in a path must not lead out of
# its folder.
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_MAX_ID_LENGTH = 64
# Folders of an archive beside those of its instances, or kept for such.
RESERVED: Final = frozenset(
    ("acknowledged", "drills", "holds", "instances", "tombstones", "verified")
)
# A set is named after its id, or its backup's; with such a suffix it would pass for a file.
_FILE_SUFFIXES = (".json", *(f".{kind}" for kind in Kind))


def check_backup(backup: Backup) -> Backup:
    """Returns the backup if its ids may be part of a path, and its record could be read again.
    Raises UnsafeInput."""
    for one in (backup.instance_id, backup.node_id, backup.backup_id, backup.set_id or "none"):
        safe(one)
    if not is_instance_id(backup.instance_id):
        raise _unsafe(backup.instance_id)
    for one in (backup.set_id or "none", backup.backup_id):
        if one.endswith(_FILE_SUFFIXES):
            raise _unsafe(one)
    if "-" in backup.backup_id:
        # In a file name it follows the node id, which has hyphens.
        raise UnsafeInput(f"{backup}: the backup id {backup.backup_id!r} has a hyphen in it")
    engine, expected = backup.engine or Engine(), backup.nodes_expected
    known_from = None if expected is None else expected.known_from
    for text in (engine.name, engine.version, known_from):
        if text is not None and (not is_clean(text) or len(text) > MAX_TEXT):
            raise UnsafeInput(
                f"{backup}: the source gave {text[:80]!r}, which is not a line of text"
            )
    for moment in (backup.started_at, backup.ended_at, backup.expires_at):
        if moment is not None and moment.utcoffset() != timedelta(0):
            raise UnsafeInput(f"{backup}: the source gave the time {moment}, which is not UTC")
    return backup


def safe(text: str) -> str:
    """Returns ``text`` if it may be part of a path. Raises UnsafeInput."""
    if not _is_safe(text):
        raise _unsafe(text)
    return text


@lru_cache
def _is_safe(text: str) -> bool:
    # A store does not list ignored names.
    return len(text) <= _MAX_ID_LENGTH and ID.fullmatch(text) is not None and not is_ignored(text)


def is_instance_id(text: str) -> bool:
    """Whether an instance may be called so: its folder is none that an archive has for others."""
    return _is_safe(text) and text not in RESERVED


def _unsafe(text: str) -> UnsafeInput:
    return UnsafeInput(
        f"the source gave the id {text[:80]!r}, which must not become part of a path",
        hint="nothing was downloaded for it",
    )
