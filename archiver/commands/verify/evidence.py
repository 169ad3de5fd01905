"""Checks what an archive has of drills, earlier verifies and acknowledgements: that the chain of
evidence is whole, that reports are those of the evidence, and that there is nothing else."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from anyio import from_thread

from archiver.archive import layout, verified
from archiver.archive.acknowledged import Acknowledged
from archiver.commands.drill.ledger import REPORTS
from archiver.commands.verify.findings import Fault, Finding, out_of_place
from archiver.concurrency import in_thread
from archiver.documents import parse
from archiver.errors import (
    ArchiverError,
    BadAcknowledgement,
    BadDocument,
    NewerAcknowledgement,
    UnreadableObject,
)
from archiver.report import chain
from archiver.report.document import decode
from archiver.report.evidence import Link, Verdict
from archiver.stores.base import Store
from archiver.version import __version__


async def check_evidence(
    store: Store,
    anchors: Sequence[Link],
    found: Callable[[Finding], None],
    noted: Callable[[str, str], None],
) -> None:
    """Check all below ``drills/`` and ``verified/``. ``anchors`` are ids and hashes of documents
    that were stored in another place; ``noted`` is called with a key and a text about what is no
    fault. Raises StoreError."""
    entries = {entry.key: entry async for entry in store.entries(chain.PREFIX)}
    keys = entries.keys()
    notes = {key for key in keys if chain.instance_of_last(key) is not None}
    documents = sorted(key for key in keys - notes if key.endswith(chain.EVIDENCE_SUFFIX))
    pages = {chain.beside(key, suffix): key for key in documents for suffix in REPORTS}
    for key in sorted(keys - pages.keys() - set(documents) - notes):
        found(out_of_place(entries[key]))
    for key in sorted(notes):
        if (wrong_note := await _check_note(store, key)) is not None:
            found(wrong_note)
    reading = _Reading(store, keys)
    broken = await in_thread(lambda: chain.check_chain(reading.all(documents), anchors=anchors))
    for wrong in broken:
        if wrong.fault is chain.Fault.UNREADABLE and wrong.key in reading.unreadable:
            found(Finding(wrong.key, Fault.UNREADABLE, wrong.text))
        else:
            found(Finding(wrong.key, Fault.EVIDENCE, f"{wrong.fault}: {wrong.text}"))
    for finding in sorted(reading.wrong_pages, key=lambda one: one.key):
        found(finding)
    for lines in (reading.gone, reading.not_compared):
        for key, text in sorted(lines.items()):
            noted(key, text)
    await _check_results(store, found, noted)


async def _check_results(
    store: Store, found: Callable[[Finding], None], noted: Callable[[str, str], None]
) -> None:
    async for entry in store.entries(verified.PREFIX):
        if verified.month_of(entry.key) is not None:
            continue
        if entry.is_file and await _holds_results(store, entry.key):
            noted(entry.key, "results of a verify under another name: nothing reads them")
        else:
            found(out_of_place(entry))


async def _check_note(store: Store, key: str) -> Finding | None:
    """The finding if the note of an instance's last drill is wrong."""
    try:
        document = chain.evidence_key(chain.last_id(key, await store.read(key) or b""))
        data = await store.read(document)  # it may be newer than the listing
    except BadDocument as error:
        return Finding(key, Fault.EVIDENCE, error.fault)
    except UnreadableObject as error:
        return Finding(key, Fault.UNREADABLE, str(error))
    if data is None:
        return Finding(key, Fault.EVIDENCE, f"{document}, which it names, is gone")
    with suppress(ArchiverError):  # reported with the chain
        sets = decode(data, document).sets
        instance = chain.instance_of_last(key)
        if not any(one.instance_id == instance and one.verdict is Verdict.PASS for one in sets):
            return Finding(key, Fault.EVIDENCE, f"{document} did not pass this instance")
    return None


async def _holds_results(store: Store, key: str) -> bool:
    """Whether a verify wrote it, whatever its name is now."""
    try:
        fields = parse(key, await store.read(key) or b"")
        fields.number("format", least=1)
        fields.within("files")
    except (BadDocument, UnreadableObject):
        return False
    return True


async def check_acknowledged(
    acknowledged: Acknowledged,
    store: Store,
    found: Callable[[Finding], None],
    noted: Callable[[str, str], None],
) -> None:
    """Check all below ``acknowledged/``. Raises StoreError."""
    reported = set[str]()
    async for entry in store.entries(layout.ACKNOWLEDGED):
        if entry.hides is not None or not layout.is_acknowledgement(entry.key):
            reported.add(entry.key)
            found(out_of_place(entry))
    await acknowledged.read()
    for key, error in sorted(acknowledged.bad.items()):
        if key in reported:
            continue
        if isinstance(error, NewerAcknowledgement):
            found(Finding(key, Fault.NEWER, error.fault))
        elif isinstance(error, BadAcknowledgement):
            found(Finding(key, Fault.BAD_ACKNOWLEDGEMENT, error.fault))
        else:
            found(Finding(key, Fault.UNREADABLE, error.message))
    for one in await acknowledged.ended():
        noted(one.subject, f"it was {one}; that no longer applies, because it has changed since")


class _Reading:
    """Reads documents of evidence, and checks their reports; in a worker thread."""

    def __init__(self, store: Store, keys: Collection[str]) -> None:
        self.wrong_pages: Final[list[Finding]] = []
        self.unreadable: Final[set[str]] = set()
        # Notes about the reports of documents, by key, which are no faults.
        self.gone: Final[dict[str, str]] = {}
        self.not_compared: Final[dict[str, str]] = {}
        self._store: Final = store
        self._keys: Final = keys

    def all(self, documents: Iterable[str]) -> Iterator[tuple[str, bytes | ArchiverError]]:
        """Yield each document, or the error that it cannot be read."""
        for key in documents:
            data = self._read(key)
            version = _version_of(data) if isinstance(data, bytes) else None
            there = [suffix for suffix in REPORTS if chain.beside(key, suffix) in self._keys]
            if isinstance(data, bytes) and version == __version__:
                self._check_pages(key, data)
            elif version is not None and there:
                self.not_compared[key] = (
                    f"{', '.join(there)} beside it: not compared with it, because archiver "
                    f"{version} made them, and this is {__version__}"
                )
            if version is not None and 0 < len(there) < len(REPORTS):
                gone = ", ".join(suffix for suffix in REPORTS if suffix not in there)
                self.gone[key] = f"{gone} beside it: missing; all that they say is in this one"
            yield key, data

    def _check_pages(self, key: str, data: bytes) -> None:
        for suffix, make in REPORTS.items():
            page = chain.beside(key, suffix)
            if page not in self._keys:
                continue
            there = self._read(page)
            if page in self.unreadable:
                self.wrong_pages.append(Finding(page, Fault.UNREADABLE, str(there)))
            elif there != make(data):
                text = f"it is not what {key.rpartition('/')[2]} makes: somebody changed it"
                self.wrong_pages.append(Finding(page, Fault.EVIDENCE, text))

    def _read(self, key: str) -> bytes | ArchiverError:
        try:
            return from_thread.run(self._store.read, key) or b""
        except BadDocument as error:
            return error
        except UnreadableObject as error:
            self.unreadable.add(key)
            return error


def _version_of(data: bytes) -> str | None:
    """The version that made a document of evidence; None if it is none."""
    try:
        return decode(data).tool.version
    except ArchiverError:
        return None  # reported with the chain
