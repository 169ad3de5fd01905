"""Where things that are no part of the archive lie in a bucket, and what they are called.

Other applications may keep something below the same prefix, and in folders of the same name. What
has not exactly one of these names is theirs.
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
# Key parts never hold it, and it is plain in every shell.
SEPARATOR = "~"
# For all parts but the last (S3 API, UploadPart).
LEAST_PART_BYTES = 5 * 2**20

# No dot at its beginning: a part must not be one that leads out of where it is.
_NAME: Final = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"
_KINDS: Final = "|".join(Kind)


def _stem(separator: str) -> str:
    """instance/yyyy/mm/set/node-backup, whatever is between them."""
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


def flat(key: str) -> str:
    """A key as one name."""
    return key.replace("/", SEPARATOR)


def journal_key(stem: str) -> str:
    return f"{STAGING}{flat(stem)}.json"


def is_journal(key: str) -> bool:
    """Whether it has the name of the notes of an upload."""
    return _JOURNAL.fullmatch(key) is not None


def is_uploaded_by_us(key: str) -> bool:
    """Whether it has the name of something that is sent, or copied, in parts."""
    forms: Iterable[re.Pattern[str]] = (_OBJECT, _QUARANTINED, _REPLACED)
    return key == PROBE_KEY or any(form.fullmatch(key) for form in forms)


def failed_key(stem: str) -> str:
    """Where bytes lie that failed on their way; the note about them ends in ``json``."""
    return f"{QUARANTINE}{flat(stem)}.data"


def aside_key(key: str, tag: str) -> str:
    """Where an object is kept for good that something replaced."""
    return f"{QUARANTINE}{flat(key)}~{tag}.data"


def note_key(kept: str) -> str:
    """The note beside bytes in quarantine."""
    return f"{kept.removesuffix('.data')}.json"


def replaced_key(key: str, tag: str, successor: str) -> str:
    """Where an object is kept while one with the SHA-256 ``successor`` takes its place."""
    return f"{QUARANTINE}{flat(key)}~{tag}~{successor}.replaced"


@dataclass(frozen=True, slots=True)
class Replaced:
    """What the name of such a copy says."""

    key: str
    tag: str
    successor: str


def parse_replaced(kept: str) -> Replaced | None:
    """None for what is no such copy."""
    match = _REPLACED.fullmatch(kept)
    if match is None:
        return None
    return Replaced(match["key"].replace(SEPARATOR, "/"), match["tag"], match["successor"])
