"""Ids that may become part of a path. Pure."""

import re
from typing import Final

from archiver.errors import UnsafeInput
from archiver.ignored_names import is_litter
from archiver.model import Backup, Kind

# What the vendor's ids look like, with room to spare. No slash, no leading dot: an id that is
# taken into a path must not be able to leave its folder.
ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_MOST_ID_LENGTH = 64
# A set's folder is named for its job: with one of these at its end it would pass for a file.
_FILES = (".json", *(f".{kind}" for kind in Kind))


def check_ids(backup: Backup) -> Backup:
    """A backup whose ids may be part of a path. Raises UnsafeInput."""
    for one in (backup.instance_id, backup.node_id, backup.backup_id, backup.job_id or "none"):
        safe(one)
    if backup.job_id is not None and backup.job_id.endswith(_FILES):
        raise _unsafe(backup.job_id)
    return backup


def safe(text: str) -> str:
    """``text`` if it may be part of a path. Raises UnsafeInput."""
    # A listing shows nothing that has the name of litter.
    if len(text) > _MOST_ID_LENGTH or not ID.fullmatch(text) or is_litter(text):
        raise _unsafe(text)
    return text


def _unsafe(text: str) -> UnsafeInput:
    return UnsafeInput(
        f"the API gave the id {text[:80]!r}, which must not become part of a path",
        hint="nothing was fetched for it",
    )
