"""The names of the files in a directory archive that are not part of the archive itself."""

import re

from archiver.documents import is_name

STAGING = ".staging"
QUARANTINE = ".quarantine"
# The lock of what concerns the whole archive, and the folder of the locks of its instances.
LOCK = ".lock"
LOCKS = ".locks"
DATA = ".data"
JOURNAL = ".journal"
TEMPORARY = ".tmp"
DOCUMENT = ".document"
REPLACED = ".replaced"
# An object and its record share their stem.
RECORD = ".json"
# Replaces the slashes of a key. No part of a key contains it, and no shell interprets it.
SEPARATOR = "~"
# A staged file and its journal, its record, and the documents of the archive.
_STAGED = re.compile(
    r"[^~]+(~[^~]+)+(\.data|\.journal|\.json\.document|\.tmp)"
    r"|[0-9a-f]{16}\.tmp"
)


def flatten(key: str) -> str:
    """A key as a single name."""
    return key.replace("/", SEPARATOR)


def unflatten(name: str) -> str:
    """The key of a flattened name."""
    return name.replace(SEPARATOR, "/")


def is_staged_name(name: str) -> bool:
    """Whether a name in the staging folder is one that we give.

    Others may keep files there, too. An archive from somebody else may have names there that lead
    out of it: those are not ours, either.
    """
    leads_out = any(part.startswith(".") or not is_name(part) for part in name.split(SEPARATOR))
    return _STAGED.fullmatch(name) is not None and not leads_out
