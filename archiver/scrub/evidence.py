"""What an archive keeps of drills and of earlier verifies: that the chain holds, that pages say
what the evidence says, and that there is nothing else."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from anyio import from_thread

from archiver.archive import verified
from archiver.errors import ArchiverError, BadDocument, UnreadableObject
from archiver.report import chain
from archiver.report.document import decode
from archiver.report.evidence import Link, Verdict
from archiver.report.junit import to_junit
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from archiver.scrub.findings import Fault, Finding, out_of_place
from archiver.stores.base import Store
from archiver.threads import in_thread
from archiver.version import __version__

_PAGES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    chain.PAGE_SUFFIX: to_page,
    chain.MARKDOWN_SUFFIX: to_markdown,
    chain.JUNIT_SUFFIX: to_junit,
}


async def check_evidence(
    store: Store, anchors: Sequence[Link], found: Callable[[Finding], None]
) -> None:
    """Look at all below ``drills/`` and ``verified/``. ``anchors`` are ids and hashes of documents
    that were kept elsewhere. Raises StoreError."""
    entries = {entry.key: entry async for entry in store.entries(chain.PREFIX)}
    keys = entries.keys()
    notes = {key for key in keys if chain.instance_of_last(key) is not None}
    documents = sorted(key for key in keys - notes if key.endswith(chain.EVIDENCE_SUFFIX))
    pages = {chain.beside(key, suffix): key for key in documents for suffix in _PAGES}
    for key in sorted(keys - pages.keys() - set(documents) - notes):
        found(out_of_place(entries[key]))
    for key in sorted(notes):
        if (wrong_note := await _check_note(store, key, keys)) is not None:
            found(wrong_note)
    reading = _Reading(store, keys)
    broken = await in_thread(lambda: chain.check_chain(reading.all(documents), anchors=anchors))
    for wrong in broken:
        if wrong.fault is chain.Fault.UNREADABLE and wrong.key in reading.not_given:
            found(Finding(wrong.key, Fault.UNREADABLE, wrong.text))
        else:
            found(Finding(wrong.key, Fault.EVIDENCE, f"{wrong.fault}: {wrong.text}"))
    for finding in sorted(reading.wrong_pages, key=lambda one: one.key):
        found(finding)
    async for entry in store.entries(verified.PREFIX):
        if verified.month_of(entry.key) is None:
            found(out_of_place(entry))


async def _check_note(store: Store, key: str, keys: Collection[str]) -> Finding | None:
    """What is wrong with the note of an instance's last drill, if anything is."""
    try:
        document = chain.evidence_key(chain.last_id(key, await store.read(key) or b""))
        data = await store.read(document) if document in keys else None
    except BadDocument as error:
        return Finding(key, Fault.EVIDENCE, error.fault)
    except UnreadableObject as error:
        return Finding(key, Fault.UNREADABLE, str(error))
    if data is None:
        return Finding(key, Fault.EVIDENCE, f"{document}, which it names, is gone")
    with suppress(ArchiverError):  # the chain says so
        sets = decode(data, document).sets
        instance = chain.instance_of_last(key)
        if not any(one.instance_id == instance and one.verdict is Verdict.PASS for one in sets):
            return Finding(key, Fault.EVIDENCE, f"{document} did not pass this instance")
    return None


class _Reading:
    """Documents of evidence, and the pages made from them; in a worker thread."""

    def __init__(self, store: Store, keys: Collection[str]) -> None:
        self.wrong_pages: Final[list[Finding]] = []
        self.not_given: Final[set[str]] = set()  # by the store
        self._store: Final = store
        self._keys: Final = keys

    def all(self, documents: Iterable[str]) -> Iterator[tuple[str, bytes | ArchiverError]]:
        """Each document once, or why it cannot be had."""
        for key in documents:
            data = self._given(key)
            if isinstance(data, bytes) and _is_ours(data):
                self._check_pages(key, data)
            yield key, data

    def _check_pages(self, key: str, data: bytes) -> None:
        for suffix, make in _PAGES.items():
            page = chain.beside(key, suffix)
            if page not in self._keys:
                continue
            there = self._given(page)
            if page in self.not_given:
                self.wrong_pages.append(Finding(page, Fault.UNREADABLE, str(there)))
            elif there != make(data):
                text = f"it is not what {key.rpartition('/')[2]} makes: somebody changed it"
                self.wrong_pages.append(Finding(page, Fault.EVIDENCE, text))

    def _given(self, key: str) -> bytes | ArchiverError:
        try:
            return from_thread.run(self._store.read, key) or b""
        except BadDocument as error:
            return error
        except UnreadableObject as error:
            self.not_given.add(key)
            return error


def _is_ours(data: bytes) -> bool:
    """Whether this version made it: another one may word its pages otherwise."""
    try:
        tool = decode(data).tool
    except ArchiverError:
        return False  # the chain says so
    return (tool.name, tool.version) == ("archiver", __version__)
