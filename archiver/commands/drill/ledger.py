"""Where the evidence of drills is kept: one chain, written under the archive's lock."""

import hashlib
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from archiver import events
from archiver.archive.archive import Archive, Beginning
from archiver.commands.drill import events as happened
from archiver.concurrency import in_thread
from archiver.errors import (
    EXIT_OK,
    ArchiveBusy,
    ArchiverError,
    BadDocument,
    NoSpace,
    StoreError,
    UnreadableObject,
)
from archiver.report import chain
from archiver.report.document import decode, encode
from archiver.report.evidence import Evidence, Link, Verdict
from archiver.report.junit import to_junit
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from archiver.report.words import loaded_keys, plural
from archiver.stores.base import Store
from archiver.stores.local.store import LocalStore

_LOOK_BACK = 100  # documents that are read, so that their number does not count


@dataclass(frozen=True, slots=True)
class Filed:
    """Evidence that was written: its key, its bytes, and the places that have it.

    ``trouble`` is why it is not in all the places that it should be in; ``exit_code`` says so of
    a place that was asked for.
    """

    evidence: Evidence
    key: str
    data: bytes
    places: tuple[str, ...]
    trouble: str | None = None
    exit_code: int = EXIT_OK


class EvidenceNotKept(StoreError):
    """No place took the evidence of a drill, which is all there is of it now: ``data``."""

    def __init__(self, why: str, evidence: Evidence, data: bytes) -> None:
        super().__init__(
            f"the evidence of this drill is kept nowhere: {why}",
            hint="keep what is printed; another time, --evidence DIRECTORY takes it",
        )
        self.evidence = evidence
        self.data = data


class EvidenceKeptOut(EvidenceNotKept):
    """The same, since somebody else was writing to the archive all the time."""

    exit_code = ArchiveBusy.exit_code


_Documents: TypeAlias = list[tuple[str, bytes]]


class Ledger:
    """The evidence of one archive, in the archive or, if that cannot be written, in a directory."""

    def __init__(
        self,
        archive: Archive,
        directory: Path | None,
        lock_wait: float = 0.0,
        watcher: happened.Watcher = lambda _: None,
    ) -> None:
        # Where the archive is gone when the drill is over, there is none to be begun.
        self._archive: Final = Archive(
            archive.store, lock_wait=lock_wait, beginning=Beginning.NEVER
        )
        self._watcher: Final = watcher
        self._beside: Final = None if directory is None else LocalStore(directory)
        # The place of the chain, where the archive cannot be written and there is another place.
        self._instead: LocalStore | None = None

    async def prepare(self) -> ArchiverError | None:
        """See whether the archive can be written; why it cannot. It is tried again when the drill
        is over, but where the evidence has another place and a chain of its own there."""
        try:
            async with Archive(self._archive.store, beginning=Beginning.NEVER).writing():
                return None
        except ArchiveBusy:
            return None  # whoever writes now is done when the drill is, perhaps
        except NoSpace as error:
            return error
        except ArchiverError as error:
            self._instead = self._beside
            return error

    async def faults(self) -> list[chain.Finding]:
        """What is wrong with the newest hundred documents of the chain. Raises what hides some."""
        keys = await self._keys()
        documents = [(key, await self._read(key)) for key in keys[-_LOOK_BACK:]]
        # The one before them is not gone, it was only not read.
        return [
            finding
            for finding in chain.check_chain(documents)
            if finding.fault is not chain.Fault.MISSING or finding.key not in keys
        ]

    async def last_keys(self, instances: set[str]) -> dict[str, tuple[str, int]]:
        """Of each instance the last drill that passed it: its id, and the keys it counted.

        Looked for in the newest hundred documents, and for an instance that they do not name in
        the one that is noted as its last: however many drills of others came between. A document
        that cannot be read is passed over here; :meth:`faults` names it.
        """
        found: dict[str, tuple[str, int]] = {}
        keys = await self._keys()
        for key in reversed(keys[-_LOOK_BACK:]):
            if found.keys() >= instances:
                return found
            for instance, last in (await self._passed(key)).items():
                if instance in instances:
                    found.setdefault(instance, last)
        if len(keys) > _LOOK_BACK:
            for instance in instances - found.keys():
                noted = await self._noted(instance)
                if noted is not None:
                    found[instance] = noted
        return found

    async def why_no_last(self) -> str:
        """Why :meth:`last_keys` may know no drill of an instance. Raises what hides some."""
        count = len(await self._keys())
        if count <= _LOOK_BACK:
            return "no earlier drill of it passed"
        return (
            f"none of the newest {_LOOK_BACK} of {plural(count, 'drill')} passed it, and there is "
            "no note of an earlier one"
        )

    async def _passed(self, key: str) -> dict[str, tuple[str, int]]:
        """Of each instance that a drill passed: its id, and the keys it counted."""
        data = await self._read(key)
        found: dict[str, tuple[str, int]] = {}
        if isinstance(data, ArchiverError):
            return found
        try:
            evidence = decode(data, key)
        except ArchiverError:
            return found
        for one in evidence.sets:
            if one.verdict is Verdict.PASS:
                found.setdefault(one.instance_id, (evidence.id, loaded_keys(one.files)))
        return found

    async def _noted(self, instance: str) -> tuple[str, int] | None:
        """The same of the drill that is noted as the last of an instance. The evidence itself has
        the keys: a note that is wrong leads to none."""
        key = chain.last_key(instance)
        data = await self._read(key)
        if isinstance(data, ArchiverError) or not data:
            return None
        try:
            noted = chain.last_id(key, data)
        except ArchiverError:
            return None
        return (await self._passed(chain.evidence_key(noted))).get(instance)

    async def file(self, make: Callable[[str, Link | None], Evidence]) -> Filed:
        """Write the next document, and what is made from it.

        ``make`` is given its id and the link to the one before, which nobody can come between.
        When the archive does not take it, it lies in the directory, apart from the chain there.
        Raises EvidenceNotKept.
        """
        try:
            filed, documents = await self._file_in_turn(make)
        except ArchiverError as error:
            return await self._keep_apart(make, error)
        if self._beside is None or self._instead is not None:
            return filed
        return await _copied(filed, documents, self._beside)

    async def _file_in_turn(
        self, make: Callable[[str, Link | None], Evidence]
    ) -> tuple[Filed, _Documents]:
        """Into the chain, as the only writer. Raises ArchiverError if it is not there then."""
        written: tuple[Filed, _Documents] | None = None
        try:
            async with self._alone():
                written = await self._write(make)
        except ArchiverError as error:
            if written is None:
                raise
            filed, documents = written
            written = replace(filed, trouble=filed.trouble or error.message), documents
        return written

    def _alone(self) -> AbstractAsyncContextManager[object]:
        if self._instead is not None:
            return self._instead.exclusive()
        return self._archive.writing(self._observe)

    def _observe(self, event: events.Event) -> None:
        if isinstance(event, events.WaitingForLock):
            self._watcher(happened.WaitingForLock(event.error.message))

    async def _write(
        self, make: Callable[[str, Link | None], Evidence]
    ) -> tuple[Filed, _Documents]:
        last, link = await self._last()
        evidence = make(_new_id(last), link)
        documents = await in_thread(_documents, evidence) + _notes(evidence)
        trouble, exit_code = await _put(self._store, documents)
        key, data = documents[0]
        filed = Filed(evidence, key, data, (str(self._store),), trouble, exit_code)
        return filed, documents

    async def _keep_apart(
        self, make: Callable[[str, Link | None], Evidence], error: ArchiverError
    ) -> Filed:
        """Into the directory, where it lies in no chain: it has no place in the archive's."""
        last, link = None, None
        with suppress(ArchiverError):
            last, link = await self._last()
        evidence = make(_new_id(last), link)
        documents = [(Path(key).name, data) for key, data in await in_thread(_documents, evidence)]
        key, data = documents[0]
        kind = EvidenceKeptOut if isinstance(error, ArchiveBusy) else EvidenceNotKept
        if self._beside is None:
            raise kind(error.message, evidence, data) from error
        try:
            await _put(self._beside, documents)
        except ArchiverError as another:
            both = dict.fromkeys((error.message, another.message))
            raise EvidenceNotKept("; and ".join(both), evidence, data) from error
        return Filed(evidence, key, data, (str(self._beside),), trouble=error.message)

    async def _last(self) -> tuple[str | None, Link | None]:
        """The last id of the chain, and the last document in it whose bytes can be had: to this
        the next one is linked, and what lies between stays a fault. Raises StoreError."""
        keys = await self._keys()
        last = Path(keys[-1]).stem if keys else None
        for key in reversed(keys):
            data = await self._read(key)
            if not isinstance(data, ArchiverError):
                # Not chain.link: a document that was made unreadable is linked to as it is now.
                return last, Link(Path(key).stem, hashlib.sha256(data).hexdigest())
        return last, None

    async def _read(self, key: str) -> bytes | ArchiverError:
        """A document, or why it cannot be had."""
        try:
            return await self._store.read(key) or b""
        except (BadDocument, UnreadableObject) as error:
            return error

    @property
    def _store(self) -> Store:
        """Where the chain is."""
        return self._archive.store if self._instead is None else self._instead

    async def _keys(self) -> list[str]:
        """Those of all evidence. Raises what hides some: the chain may go on there."""
        keys = list[str]()
        async for entry in self._store.entries(chain.PREFIX):
            if chain.is_evidence_key(entry.key):
                keys.append(entry.key)
            elif entry.hides is not None:
                raise entry.hides
        return sorted(keys)


def _new_id(after: str | None) -> str:
    return chain.new_id(datetime.now(UTC), secrets.token_hex(3), after=after)


async def _put(store: Store, documents: _Documents) -> tuple[str | None, int]:
    """Write the evidence and what is made from it; what is not as it should be, and the exit code
    for it. What is made can be made again, and is no reason for one.

    Raises ArchiverError when the store does not take the evidence.
    """
    (key, data), *made = documents
    try:
        await store.put(key, data)
    except ArchiverError as error:
        # It may have its name all the same: then it is in the chain, and the next is linked to it.
        if not await _is_there(store, key, data):
            raise
        return f"it is there, and may not outlast a power cut: {error.message}", error.exit_code
    try:
        for key, data in made:
            await store.put(key, data)
    except ArchiverError as error:
        return error.message, EXIT_OK
    return None, EXIT_OK


async def _is_there(store: Store, key: str, data: bytes) -> bool:
    try:
        return await store.read(key) == data
    except ArchiverError:
        return False


async def _copied(filed: Filed, documents: _Documents, store: Store) -> Filed:
    """The same in one more place, or why it is not there."""
    try:
        trouble, exit_code = await _put(store, documents)
    except ArchiverError as error:
        both = f"{filed.trouble}; {error.message}" if filed.trouble else error.message
        return replace(filed, trouble=both, exit_code=error.exit_code)
    return replace(
        filed,
        places=(*filed.places, str(store)),
        trouble=filed.trouble or trouble,
        exit_code=filed.exit_code or exit_code,
    )


def _documents(evidence: Evidence) -> _Documents:
    """The evidence first: what is made from it can be made again."""
    key, data = chain.evidence_key(evidence.id), encode(evidence)
    return [
        (key, data),
        (chain.beside(key, chain.PAGE_SUFFIX), to_page(data)),
        (chain.beside(key, chain.MARKDOWN_SUFFIX), to_markdown(data)),
        (chain.beside(key, chain.JUNIT_SUFFIX), to_junit(data)),
    ]


def _notes(evidence: Evidence) -> _Documents:
    """For the drills to come: that this one was the last of each instance that it passed."""
    passed = {one.instance_id for one in evidence.sets if one.verdict is Verdict.PASS}
    document = chain.last_document(evidence.id)
    return [(chain.last_key(instance), document) for instance in sorted(passed)]
