"""The chain of evidence: each document has the SHA-256 of the previous one. Pure.

    drills/<yyyy>/<mm>/<id>.json     the evidence; <id> = UTC basic time, a hyphen, six hex digits
                       <id>.html     generated from it; not part of the chain
                       <id>.md
                       <id>.xml
    drills/last/<instance>.id        the id of the last drill that the instance passed: derived,
                                     not part of the chain either

Ids sort by time, so a listing of ``drills/`` gives the chain in order.

An unbroken chain shows that no document except the last was altered, removed, inserted or moved
since the next one was written. It cannot show that documents at its end were replaced or removed,
or that somebody rewrote all of it. To prove that, keep something out of the writer's reach: store
the last id and hash somewhere else (a ticket, a mail, another team's log) and pass them to
:func:`check_chain` as anchors, or store the documents under an object lock.
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
from archiver.times import format_compact, parse_iso

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
    """What can be wrong with a document of the chain."""

    UNREADABLE = "unreadable"
    MISPLACED = "misplaced"
    MISSING = "missing"
    ALTERED = "altered"
    REORDERED = "reordered"
    FORKED = "forked"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault: the key of the document, one line about it, and the exit code for it.

    The exit code is not that of damage if only the store failed to return the document.
    """

    key: str
    fault: Fault
    text: str
    exit_code: int = IntegrityError.exit_code

    def __str__(self) -> str:
        return f"{self.key}: {self.fault}: {self.text}"


def new_id(moment: datetime, suffix: str, *, after: str | None = None) -> str:
    """Return the id of a drill that ended at ``moment``; ``suffix`` is six random hex digits.

    It sorts after ``after``, the last id of the chain. If both drills ended in the same second, or
    the clock was set back, the id has the time of ``after`` plus one second.
    """
    found = f"{format_compact(moment)}-{suffix}"
    if after is not None and found <= after:
        last = parse_iso(after.partition("-")[0])
        found = f"{format_compact(last + timedelta(seconds=1))}-{suffix}"
    return found


def evidence_key(drill_id: str) -> str:
    """Return the key of a drill's document."""
    return f"{PREFIX}{drill_id[:4]}/{drill_id[4:6]}/{drill_id}{EVIDENCE_SUFFIX}"


def last_key(instance_id: str) -> str:
    """Return the key of the note on the last drill that an instance passed."""
    return f"{PREFIX}last/{instance_id}.id"


def instance_of_last(key: str) -> str | None:
    """Return the instance of such a note's key; None for any other key."""
    found = _LAST.fullmatch(key)
    return None if found is None else found["instance"]


def last_document(drill_id: str) -> bytes:
    """Return the content of such a note."""
    return f"{drill_id}\n".encode("ascii")


def last_id(key: str, data: bytes) -> str:
    """Return the drill id in such a note. Raises BadDocument."""
    found = _ID.fullmatch(data)
    if found is None:
        raise BadDocument(key, f"{data[:60]!a} is not a drill id")
    return found[1].decode("ascii")


def beside(key: str, suffix: str) -> str:
    """Return the key of a report generated from the document at ``key``, such as its page."""
    return f"{key.removesuffix(EVIDENCE_SUFFIX)}{suffix}"


def is_evidence_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def link(previous: bytes) -> Link:
    """Return the link to a document. Raises IntegrityError, UnsupportedFormat."""
    return Link(id=decode(previous).id, sha256=_sha256(previous))


def check_chain(
    documents: Iterable[tuple[str, bytes | ArchiverError]], *, anchors: Sequence[Link] = ()
) -> list[Finding]:
    """Return all faults of the chain, in its order.

    ``documents`` are all (key, bytes) sorted by key; an error stands for bytes that cannot be
    read. ``anchors`` are ids and hashes that were stored outside of the archive: each document
    must still be in the chain, unchanged.
    """
    entries = [_entry(key, data) for key, data in documents]
    findings = [finding for entry in entries for finding in entry.findings]
    positions = {entry.id: position for position, entry in enumerate(entries)}
    for position, entry in enumerate(entries):
        if entry.is_read:
            findings.extend(_check_link(entries, positions, position))
    findings.extend(_check_anchors(entries, positions, anchors))
    return findings


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    id: str
    sha256: str | None  # None if the bytes cannot be read
    previous: Link | None
    is_read: bool
    findings: tuple[Finding, ...]


def _entry(key: str, data: bytes | ArchiverError) -> _Entry:
    match = _KEY.fullmatch(key)
    # From the key: an altered document may have another id.
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


def _check_link(
    entries: Sequence[_Entry], positions: dict[str, int], position: int
) -> Iterator[Finding]:
    entry = entries[position]
    named = entry.previous
    if named is None:
        if position > 0:
            text = f"has no link to a previous document, though {entries[position - 1].id} exists"
            yield Finding(entry.key, Fault.RESTARTED, text)
        return
    found = positions.get(named.id)
    if found is None:
        text = f"does not exist, but {entry.id} links to it"
        yield Finding(evidence_key(named.id), Fault.MISSING, text)
        return
    if found != position - 1:
        yield _misordered(entries, position, named)
    if entries[found].sha256 not in (None, named.sha256):
        text = f"SHA-256 is {entries[found].sha256}, but {entry.id} recorded {named.sha256}"
        yield Finding(entries[found].key, Fault.ALTERED, text)


def _misordered(entries: Sequence[_Entry], position: int, named: Link) -> Finding:
    entry = entries[position]
    for other in entries[:position]:
        if other.previous is not None and other.previous.id == named.id:
            text = f"links to {named.id}, as {other.id} does"
            return Finding(entry.key, Fault.FORKED, text)
    text = f"links to {named.id}, which is not the document right before it"
    return Finding(entry.key, Fault.REORDERED, text)


def _check_anchors(
    entries: Sequence[_Entry], positions: dict[str, int], anchors: Sequence[Link]
) -> Iterator[Finding]:
    for anchor in anchors:
        position = positions.get(anchor.id)
        if position is None:
            text = "does not exist, but there is an anchor for it"
            yield Finding(evidence_key(anchor.id), Fault.MISSING, text)
        elif entries[position].sha256 not in (None, anchor.sha256):
            text = f"SHA-256 is {entries[position].sha256}, but the anchor has {anchor.sha256}"
            yield Finding(entries[position].key, Fault.ALTERED, text)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
