"""The chain: each evidence document holds the SHA-256 of the one before it. Pure.

    drills/<yyyy>/<mm>/<id>.json     the evidence; <id> = UTC basic time, a hyphen, six hex digits
                       <id>.html     made from it, and not part of the chain: make them again
                       <id>.md
                       <id>.xml
    drills/last/<instance>.id        the id of the last that passed this instance: derived, and
                                     not part of the chain either

Ids sort by time, so a listing of ``drills/`` gives the chain in order.

What a whole chain shows: no document but the last was altered, removed, inserted or moved since
the next one was written. What it cannot show: that the last one (or several at the end) was not
replaced or removed, or that somebody did not write all of it anew. For that, something must be
out of the writer's reach: keep the last id and hash elsewhere (a ticket, a mail, a log of another
team) and give them to :func:`check_chain` as anchors, or store the documents under an object lock.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from archiver.errors import ArchiverError, BadDocument, IntegrityError
from archiver.report.document import decode
from archiver.report.evidence import Link
from archiver.times import format_compact, parse_compact

PREFIX = "drills/"
EVIDENCE_SUFFIX = ".json"
PAGE_SUFFIX = ".html"
MARKDOWN_SUFFIX = ".md"
JUNIT_SUFFIX = ".xml"

_KEY = re.compile(
    r"drills/(?P<year>[0-9]{4})/(?P<month>[0-9]{2})/"
    r"(?P<id>(?P=year)(?P=month)[0-9]{2}T[0-9]{6}Z-[0-9a-f]{6})\.json"
)
_LAST = re.compile(r"drills/last/(?P<instance>[^/]+)\.id")
_ID = re.compile(rb"([0-9]{8}T[0-9]{6}Z-[0-9a-f]{6})\n")
_ID_TIME = "%Y%m%dT%H%M%SZ"


class Fault(StrEnum):
    """What can be wrong with a document's place in the chain."""

    UNREADABLE = "unreadable"
    MISPLACED = "misplaced"
    MISSING = "missing"
    ALTERED = "altered"
    REORDERED = "reordered"
    FORKED = "forked"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: the key of the document that it concerns, one line about it, and the exit code
    that it stands for: another one where a store does not give what may well be right."""

    key: str
    fault: Fault
    text: str
    exit_code: int = IntegrityError.exit_code

    def __str__(self) -> str:
        return f"{self.key}: {self.fault}: {self.text}"


def new_id(moment: datetime, suffix: str, *, after: str | None = None) -> str:
    """The id of a drill that ended at ``moment``; ``suffix`` is six random hex digits.

    It sorts behind ``after``, the last id of the chain, even if both ended in the same second or
    the clock was set back: then it is a second later than that one.
    """
    found = f"{format_compact(moment)}-{suffix}"
    if after is not None and found <= after:
        last = parse_compact(after.partition("-")[0])
        found = f"{format_compact(last + timedelta(seconds=1))}-{suffix}"
    return found


def evidence_key(drill_id: str) -> str:
    """Where the document of a drill is."""
    return f"{PREFIX}{drill_id[:4]}/{drill_id[4:6]}/{drill_id}{EVIDENCE_SUFFIX}"


def last_key(instance_id: str) -> str:
    """Where it is noted which drill was the last that passed an instance."""
    return f"{PREFIX}last/{instance_id}.id"


def instance_of_last(key: str) -> str | None:
    """The instance that a note of a last drill is about; None for another key."""
    found = _LAST.fullmatch(key)
    return None if found is None else found["instance"]


def last_document(drill_id: str) -> bytes:
    """The note itself."""
    return f"{drill_id}\n".encode("ascii")


def last_id(key: str, data: bytes) -> str:
    """The drill that a note names. Raises BadDocument."""
    found = _ID.fullmatch(data)
    if found is None:
        raise BadDocument(key, f"{data[:60]!a} is no id of a drill")
    return found[1].decode("ascii")


def beside(key: str, suffix: str) -> str:
    """The key of what is made from the document at ``key``, such as its page."""
    return f"{key.removesuffix(EVIDENCE_SUFFIX)}{suffix}"


def is_evidence_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def link(previous: bytes) -> Link:
    """What the next document says of this one. Raises IntegrityError, UnsupportedFormat."""
    return Link(id=decode(previous).id, sha256=_sha256(previous))


def check_chain(
    documents: Iterable[tuple[str, bytes | ArchiverError]], *, anchors: Sequence[Link] = ()
) -> list[Finding]:
    """Everything wrong with the chain, in its order; empty when it is whole.

    ``documents`` are (key, bytes) in the order of their keys, all of them; in the place of bytes
    that cannot be had, why. ``anchors`` are ids
    and hashes that were kept elsewhere: each must be in the chain as it was. The module says what
    a chain without anchors cannot show.
    """
    entries = [_entry(key, data) for key, data in documents]
    findings = [finding for entry in entries for finding in entry.findings]
    places = {entry.id: place for place, entry in enumerate(entries)}
    for place, entry in enumerate(entries):
        if entry.is_read:
            findings.extend(_check_link(entries, places, place))
    findings.extend(_check_anchors(entries, places, anchors))
    return findings


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    id: str
    sha256: str | None  # of bytes that cannot be had, nobody knows it
    previous: Link | None
    is_read: bool
    findings: tuple[Finding, ...]


def _entry(key: str, data: bytes | ArchiverError) -> _Entry:
    match = _KEY.fullmatch(key)
    # By the key, not by the document: what was altered may lie about its id.
    by_key = match["id"] if match else key
    if isinstance(data, ArchiverError):
        why = data.fault if isinstance(data, BadDocument) else data.message
        fault = Finding(key, Fault.UNREADABLE, why, data.exit_code)
        return _Entry(key, by_key, None, None, is_read=False, findings=(fault,))
    try:
        evidence = decode(data, key)
    except ArchiverError as error:
        fault = Finding(key, Fault.UNREADABLE, error.message.removeprefix(f"{key}: "))
        return _Entry(key, by_key, _sha256(data), None, is_read=False, findings=(fault,))
    findings: tuple[Finding, ...] = ()
    if evidence.id != by_key:
        findings = (Finding(key, Fault.MISPLACED, f"holds the evidence of {evidence.id}"),)
    return _Entry(key, by_key, _sha256(data), evidence.previous, is_read=True, findings=findings)


def _check_link(entries: Sequence[_Entry], places: dict[str, int], place: int) -> Iterator[Finding]:
    entry = entries[place]
    named = entry.previous
    if named is None:
        if place > 0:
            text = f"names no predecessor, though {entries[place - 1].id} comes before it"
            yield Finding(entry.key, Fault.RESTARTED, text)
        return
    found = places.get(named.id)
    if found is None:
        yield Finding(evidence_key(named.id), Fault.MISSING, f"{entry.id} names it and it is gone")
        return
    if found != place - 1:
        yield _misordered(entries, place, named)
    if entries[found].sha256 not in (None, named.sha256):
        text = f"its SHA-256 is {entries[found].sha256}, but was {named.sha256} for {entry.id}"
        yield Finding(entries[found].key, Fault.ALTERED, text)


def _misordered(entries: Sequence[_Entry], place: int, named: Link) -> Finding:
    entry = entries[place]
    for other in entries[:place]:
        if other.previous is not None and other.previous.id == named.id:
            text = f"names {named.id} as its predecessor, and so does {other.id}"
            return Finding(entry.key, Fault.FORKED, text)
    text = f"names {named.id} as its predecessor, which does not come right before it"
    return Finding(entry.key, Fault.REORDERED, text)


def _check_anchors(
    entries: Sequence[_Entry], places: dict[str, int], anchors: Sequence[Link]
) -> Iterator[Finding]:
    for anchor in anchors:
        place = places.get(anchor.id)
        if place is None:
            text = "an anchor kept elsewhere names it and it is gone"
            yield Finding(evidence_key(anchor.id), Fault.MISSING, text)
        elif entries[place].sha256 not in (None, anchor.sha256):
            text = f"its SHA-256 is {entries[place].sha256}, but an anchor says {anchor.sha256}"
            yield Finding(entries[place].key, Fault.ALTERED, text)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
