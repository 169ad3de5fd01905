"""The names of the objects in a bucket that are not part of the archive itself.

Other applications may use the same prefix, and folders of the same names. An object without exactly
one of these names is theirs.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from archiver.model import Kind

STAGING = ".staging/"
QUARANTINE = ".quarantine/"
LOCK_KEY = f"{STAGING}lock"
PROBE_KEY = f"{STAGING}probe"
# Replaces the slashes of a key. No part of a key contains it, and no shell interprets it.
SEPARATOR = "~"
# Minimum size of all parts but the last (S3 API, UploadPart).
MIN_PART_BYTES = 5 * 2**20

# Without a leading dot: a part must not lead to another folder.
_NAME: Final = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_KINDS: Final = "|".join(Kind)


def _stem(separator: str) -> str:
    """A pattern of instance/yyyy/mm/set/node-backup with this separator."""
    parts = (_NAME, r"\d{4}", r"\d\d", rf"\d{{8}}T\d{{6}}Z-{_NAME}", _NAME)
    return re.escape(separator).join(parts)


_TAG: Final = "[0-9a-f]{16}"
_OBJECT: Final = re.compile(rf"{_stem('/')}\.({_KINDS})")
_JOURNAL: Final = re.compile(rf"{re.escape(STAGING)}{_stem(SEPARATOR)}\.json")
_QUARANTINED: Final = re.compile(
    rf"{re.escape(QUARANTINE)}{_stem(SEPARATOR)}(\.({_KINDS})~{_TAG}(~{_TAG})?)?\.data"
)
_REPLACED: Final = re.compile(
    rf"{re.escape(QUARANTINE)}(?P<key>{_stem(SEPARATOR)}\.({_KINDS}))~(?P<tag>{_TAG})"
    r"~(?P<successor>[0-9a-f]{64})\.replaced"
)


def flatten(key: str) -> str:
    """A key as a single name."""
    return key.replace("/", SEPARATOR)


def journal_key(stem: str) -> str:
    """The key of the journal of an upload."""
    return f"{STAGING}{flatten(stem)}.json"


def is_journal(key: str) -> bool:
    """Whether a key has the form of a journal's."""
    return _JOURNAL.fullmatch(key) is not None


def is_own_upload(key: str) -> bool:
    """Whether a key has the form of what this tool uploads, or copies, in parts."""
    forms: Iterable[re.Pattern[str]] = (_OBJECT, _QUARANTINED, _REPLACED)
    return key == PROBE_KEY or any(form.fullmatch(key) for form in forms)


def rejected_key(stem: str) -> str:
    """The quarantine key of bytes that failed verification before they were stored."""
    return f"{QUARANTINE}{flatten(stem)}.data"


def quarantine_key(key: str, tag: str) -> str:
    """The quarantine key of an object; ``tag`` identifies its contents."""
    return f"{QUARANTINE}{flatten(key)}~{tag}.data"


def note_key(quarantined: str) -> str:
    """The key of the note that says why an object is in quarantine."""
    return f"{quarantined.removesuffix('.data')}.json"


def replaced_copy_key(key: str, tag: str, successor: str) -> str:
    """The key of the copy of an object while one with the SHA-256 ``successor`` replaces it."""
    return f"{QUARANTINE}{flatten(key)}~{tag}~{successor}.replaced"


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
