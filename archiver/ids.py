"""Checks ids before they become part of a path. Pure."""

import re
from typing import Final

from archiver.errors import UnsafeInput
from archiver.ignored_names import is_ignored
from archiver.model import Backup, Kind

# Looser than the vendor's ids. No slash and no leading dot: an id in a path must not lead out of
# its folder.
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_MAX_ID_LENGTH = 64
# The folder of a set is named after its job; with such a suffix it would pass for a file.
_FILE_SUFFIXES = (".json", *(f".{kind}" for kind in Kind))


def check_ids(backup: Backup) -> Backup:
    """Returns the backup if its ids may be part of a path. Raises UnsafeInput."""
    for one in (backup.instance_id, backup.node_id, backup.backup_id, backup.job_id or "none"):
        safe(one)
    if backup.job_id is not None and backup.job_id.endswith(_FILE_SUFFIXES):
        raise _unsafe(backup.job_id)
    return backup


def safe(text: str) -> str:
    """Returns ``text`` if it may be part of a path. Raises UnsafeInput."""
    # A store does not list ignored names.
    if len(text) > _MAX_ID_LENGTH or not ID.fullmatch(text) or is_ignored(text):
        raise _unsafe(text)
    return text


def _unsafe(text: str) -> UnsafeInput:
    return UnsafeInput(
        f"the API gave the id {text[:80]!r}, which must not become part of a path",
        hint="nothing was downloaded for it",
    )
