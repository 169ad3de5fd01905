"""Writes the evidence of a drill: into one chain, under the archive's lock."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from archiver import events
from archiver.archive.archive import Archive, Beginning
from archiver.commands.drill.events import Observer, WaitingForLock
from archiver.commands.drill.history import History
from archiver.concurrency import in_thread
from archiver.errors import EXIT_OK, ArchiveBusy, ArchiverError, NoSpace, StoreError
from archiver.report import chain
from archiver.report.document import encode
from archiver.report.evidence import Evidence, Verdict
from archiver.report.junit import to_junit
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from archiver.stores.base import Store
from archiver.stores.local.store import LocalStore
from archiver.stores.scope import WHOLE

# How the reports beside the evidence are made, by suffix.
REPORTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    chain.PAGE_SUFFIX: to_page,
    chain.MARKDOWN_SUFFIX: to_markdown,
    chain.JUNIT_SUFFIX: to_junit,
}
# How long another drill is waited for that writes its evidence to the same directory.
_DIRECTORY_SECONDS = 10.0
# Keys and contents, the evidence first.
_Documents: TypeAlias = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class FiledEvidence:
    """Evidence that was written: its key, its bytes, and the names of the stores that have it.

    ``problem`` says why it is not everywhere it should be, or may not be durable; ``exit_code`` is
    the exit code for that.
    """

    evidence: Evidence
    key: str
    data: bytes
    stores: tuple[str, ...]
    problem: str | None = None
    exit_code: int = EXIT_OK


class EvidenceNotKept(StoreError):
    """The evidence could not be written anywhere. ``data`` is the only copy."""

    def __init__(self, why: str, evidence: Evidence, data: bytes) -> None:
        super().__init__(
            f"the evidence of this drill could not be stored: {why}",
            hint="keep the output; next time, --evidence DIRECTORY stores a second copy",
        )
        self.evidence = evidence
        self.data = data


class EvidenceKeptOut(EvidenceNotKept):
    """The same, because another process was writing to the archive all the time."""

    exit_code = ArchiveBusy.exit_code


class Ledger:
    """Writes evidence to an archive and, if given, to a directory.

    If the archive cannot be written from the start, the directory has a chain of its own.
    """

    def __init__(
        self,
        archive: Archive,
        directory: Path | None,
        lock_wait: float = 0.0,
        observer: Observer = lambda _: None,
    ) -> None:
        # If the archive disappears during the drill, do not create a new one.
        self._archive: Final = Archive(
            archive.store, lock_wait=lock_wait, beginning=Beginning.NEVER
        )
        self._observer: Final = observer
        self._lock_wait: Final = lock_wait
        self._directory: Final = None if directory is None else LocalStore(directory)
        # The directory, if it has the chain because the archive cannot be written.
        self._instead: LocalStore | None = None

    @property
    def history(self) -> History:
        """The chain to which this ledger adds."""
        return History(self._store)

    async def prepare(self) -> ArchiverError | None:
        """Check that the archive can be written; return the error if it cannot.

        :meth:`file` tries the archive again, unless the directory has the chain now.
        """
        try:
            async with Archive(self._archive.store, beginning=Beginning.NEVER).writing(WHOLE):
                return None
        except ArchiveBusy:
            return None  # the other process may have finished by the end of the drill
        except NoSpace as error:
            return error
        except ArchiverError as error:
            self._instead = self._directory
            return error

    async def file(self, draft: Evidence) -> FiledEvidence:
        """Give the evidence its position in the chain, and write it with its reports.

        No other process can add one between the document and the one that it links to. If the
        archive cannot be written, the document goes to the directory, outside of any chain. Raises
        EvidenceNotKept.
        """
        try:
            filed, documents = await self._add_to_chain(draft)
        except ArchiverError as error:
            return await self._write_outside_chain(draft, error)
        if self._directory is None or self._instead is not None:
            return filed
        return await self._write_copy(filed, documents, self._directory)

    async def _add_to_chain(self, draft: Evidence) -> tuple[FiledEvidence, _Documents]:
        """Add the document as the only writer. Raises ArchiverError if it was not written."""
        written: tuple[FiledEvidence, _Documents] | None = None
        try:
            async with self._lock():
                written = await self._write(draft)
        except ArchiverError as error:
            # An error on leaving the lock does not undo the document.
            if written is None:
                raise
            filed, documents = written
            written = replace(filed, problem=filed.problem or error.message), documents
        return written

    def _lock(self) -> AbstractAsyncContextManager[object]:
        if self._instead is not None:
            return self._alone(self._instead)
        return self._archive.writing(WHOLE, self._observe)

    def _alone(self, directory: LocalStore) -> AbstractAsyncContextManager[object]:
        """The lock of a directory of evidence: drills of several archives may share one."""
        seconds = max(self._lock_wait, _DIRECTORY_SECONDS)
        return Archive(directory, lock_wait=seconds).alone(WHOLE, self._observe)

    def _observe(self, event: events.Event) -> None:
        if isinstance(event, events.WaitingForLock):
            self._observer(WaitingForLock(event.error.message))

    async def _write(self, draft: Evidence) -> tuple[FiledEvidence, _Documents]:
        last, link = await self.history.last()
        evidence = replace(draft, id=_new_id(last), previous=link)
        documents = await in_thread(_documents, evidence) + _notes(evidence)
        problem, exit_code = await _put(self._store, documents)
        key, data = documents[0]
        filed = FiledEvidence(evidence, key, data, (str(self._store),), problem, exit_code)
        return filed, documents

    async def _write_outside_chain(self, draft: Evidence, error: ArchiverError) -> FiledEvidence:
        """Write the document to the directory only. Raises EvidenceNotKept."""
        last, link = None, None
        with suppress(ArchiverError):
            last, link = await self.history.last()
        evidence = replace(draft, id=_new_id(last), previous=link)
        documents = [(Path(key).name, data) for key, data in await in_thread(_documents, evidence)]
        key, data = documents[0]
        kind = EvidenceKeptOut if isinstance(error, ArchiveBusy) else EvidenceNotKept
        if self._directory is None:
            raise kind(error.message, evidence, data) from error
        try:
            async with self._alone(self._directory):
                await _put(self._directory, documents)
        except ArchiverError as another:
            both = dict.fromkeys((error.message, another.message))
            raise EvidenceNotKept("; and ".join(both), evidence, data) from error
        return FiledEvidence(evidence, key, data, (str(self._directory),), problem=error.message)

    async def _write_copy(
        self, filed: FiledEvidence, documents: _Documents, store: LocalStore
    ) -> FiledEvidence:
        """Write the documents to the directory, too; note the problem if that fails."""
        try:
            async with self._alone(store):
                problem, exit_code = await _put(store, documents)
        except ArchiverError as error:
            both = f"{filed.problem}; {error.message}" if filed.problem else error.message
            return replace(filed, problem=both, exit_code=error.exit_code)
        return replace(
            filed,
            stores=(*filed.stores, str(store)),
            problem=filed.problem or problem,
            exit_code=filed.exit_code or exit_code,
        )

    @property
    def _store(self) -> Store:
        """The store that has the chain."""
        return self._archive.store if self._instead is None else self._instead


def _new_id(after: str | None) -> str:
    return chain.new_id(datetime.now(UTC), secrets.token_hex(3), after=after)


async def _put(store: Store, documents: _Documents) -> tuple[str | None, int]:
    """Write the evidence and its reports; return a problem and its exit code.

    A report that cannot be written is a problem with exit code 0, because it can be generated
    again. Raises ArchiverError if the evidence was not written.
    """
    (key, data), *reports = documents
    try:
        await store.put(key, data)
    except ArchiverError as error:
        # It may exist nevertheless: then it is in the chain, and the next one will link to it.
        if not await _is_stored(store, key, data):
            raise
        return f"it was written, but may not survive a power failure: {error.message}", (
            error.exit_code
        )
    try:
        for key, data in reports:
            await store.put(key, data)
    except ArchiverError as error:
        return error.message, EXIT_OK
    return None, EXIT_OK


async def _is_stored(store: Store, key: str, data: bytes) -> bool:
    try:
        return await store.read(key) == data
    except ArchiverError:
        return False


def _documents(evidence: Evidence) -> _Documents:
    """Return the evidence and the reports generated from it."""
    key, data = chain.evidence_key(evidence.id), encode(evidence)
    reports = [(chain.beside(key, suffix), make(data)) for suffix, make in REPORTS.items()]
    return [(key, data), *reports]


def _notes(evidence: Evidence) -> _Documents:
    """Return for each instance that passed the note that this was its last drill."""
    passed = {one.instance_id for one in evidence.sets if one.verdict is Verdict.PASS}
    document = chain.last_document(evidence.id)
    return [(chain.last_key(instance), document) for instance in sorted(passed)]
