"""The names of the objects in a bucket that are not part of the archive itself.

Other applications may use the same prefix, and folders of the same names. An object without exactly
one of these names is theirs.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from archiver.model import Kind
from archiver.stores.scope import below, scope_of

STAGING = ".staging/"
QUARANTINE = ".quarantine/"
PROBE_KEY = f"{STAGING}probe"
# Replaces the slashes of a key. No part of a key contains it, and no shell interprets it.
SEPARATOR = "~"
# Minimum size of all parts but the last (S3 API, UploadPart).
MIN_PART_BYTES = 5 * 2**20

_LEASE: Final = "lock"
# Without a leading dot: a part must not lead to another folder.
_NAME: Final = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_KINDS: Final = "|".join(Kind)


def _stem(separator: str, instance: str = _NAME) -> str:
    """A pattern of instance/yyyy/mm/start-backup, or instance/yyyy/mm/start-set/node-backup, with
    this separator."""
    parts = (instance, r"\d{4}", r"\d\d", rf"\d{{8}}T\d{{6}}Z-{_NAME}")
    between = re.escape(separator)
    return rf"{between.join(parts)}({between}{_NAME})?"


def _own(folder: str) -> str:
    """A pattern of the part of a folder that belongs to an instance."""
    return rf"{re.escape(folder)}(?P<instance>{_NAME})/"


# A stem as a single name, in the part of a folder that belongs to the same instance.
_FLAT: Final = _stem(SEPARATOR, "(?P=instance)")
_TAG: Final = "[0-9a-f]{16}"
_OBJECT: Final = re.compile(rf"{_stem('/')}\.({_KINDS})")
_JOURNAL: Final = re.compile(rf"{_own(STAGING)}{_FLAT}\.json")
_QUARANTINED: Final = re.compile(
    rf"{_own(QUARANTINE)}{_FLAT}(\.({_KINDS})~{_TAG}(~{_TAG})?)?\.data"
)
_REPLACED: Final = re.compile(
    rf"{_own(QUARANTINE)}(?P<key>{_FLAT}\.({_KINDS}))~(?P<tag>{_TAG})"
    r"~(?P<successor>[0-9a-f]{64})\.replaced"
)


def flatten(key: str) -> str:
    """A key as a single name."""
    return key.replace("/", SEPARATOR)


def lease_key(scope: str) -> str:
    """The key of the lease of a scope."""
    return f"{below(STAGING, scope)}{_LEASE}"


def scope_of_internal(key: str) -> str:
    """The scope of what is staged, in quarantine or uploaded under a key."""
    for folder in (STAGING, QUARANTINE):
        if key.startswith(folder):
            return scope_of(key.removeprefix(folder))
    return scope_of(key)


def quarantine_prefix(key: str) -> str:
    """How the keys begin under which the object ``key`` is kept in quarantine."""
    return f"{below(QUARANTINE, scope_of(key))}{flatten(key)}"


def journal_key(stem: str) -> str:
    """The key of the journal of an upload."""
    return f"{below(STAGING, scope_of(stem))}{flatten(stem)}.json"


def is_journal(key: str) -> bool:
    """Whether a key has the form of a journal's."""
    return _JOURNAL.fullmatch(key) is not None


def is_own_upload(key: str) -> bool:
    """Whether a key has the form of what this tool uploads, or copies, in parts."""
    forms: Iterable[re.Pattern[str]] = (_OBJECT, _QUARANTINED, _REPLACED)
    return key == PROBE_KEY or any(form.fullmatch(key) for form in forms)


def rejected_key(stem: str) -> str:
    """The quarantine key of bytes that failed verification before they were stored."""
    return f"{quarantine_prefix(stem)}.data"


def quarantine_key(key: str, tag: str) -> str:
    """The quarantine key of an object; ``tag`` identifies its contents."""
    return f"{quarantine_prefix(key)}~{tag}.data"


def note_key(quarantined: str) -> str:
    """The key of the note that says why an object is in quarantine."""
    return f"{quarantined.removesuffix('.data')}.json"


def replaced_copy_key(key: str, tag: str, successor: str) -> str:
    """The key of the copy of an object while one with the SHA-256 ``successor`` replaces it."""
    return f"{quarantine_prefix(key)}~{tag}~{successor}.replaced"


@dataclass(frozen=True, slots=True)
class ReplacedCopy:
    """What the key of such a copy says: the object's key, a tag of its contents, and the SHA-256 of
    its successor."""

    key: str
    tag: str
    successor: str


def parse_replaced_copy(copy_key: str) -> ReplacedCopy | None:
    """The parts of such a key; None for any other key."""
    match = _REPLACED.fullmatch(copy_key)
    if match is None:
        return None
    return ReplacedCopy(match["key"].replace(SEPARATOR, "/"), match["tag"], match["successor"])
