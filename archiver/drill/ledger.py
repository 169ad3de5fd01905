"""Where the evidence of drills is kept: one chain, written under the archive's lock."""

import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from archiver import events
from archiver.archive.archive import Archive
from archiver.drill import happened
from archiver.errors import (
    ArchiveBusy,
    ArchiverError,
    BadDocument,
    NoSpace,
    StoreError,
    StoreForbidden,
    UnreadableObject,
    UsageError,
)
from archiver.report import chain
from archiver.report.document import decode, encode
from archiver.report.evidence import Evidence, Link, Verdict
from archiver.report.junit import to_junit
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from archiver.report.words import loaded_keys
from archiver.stores.base import Store
from archiver.stores.local import LocalStore
from archiver.threads import in_thread

_LOOK_BACK = 100  # documents that are read, so that their number does not count


@dataclass(frozen=True, slots=True)
class Filed:
    """Evidence that was written: its key, its bytes, and the places that have it.

    ``trouble`` is why it is not in all the places that it should be in.
    """

    evidence: Evidence
    key: str
    data: bytes
    places: tuple[str, ...]
    trouble: str | None = None


class EvidenceNotKept(StoreError):
    """No place took the evidence of a drill, which is all there is of it now: ``data``."""

    def __init__(self, error: ArchiverError, data: bytes) -> None:
        super().__init__(
            f"the evidence of this drill is kept nowhere: {error.message}",
            hint="keep what is printed; another time, --evidence DIRECTORY takes it",
        )
        self.data = data


class EvidenceKeptOut(EvidenceNotKept):
    """The same, since somebody else was writing to the archive all the time."""

    exit_code = ArchiveBusy.exit_code


def _not_kept(error: ArchiverError, data: bytes) -> EvidenceNotKept:
    kind = EvidenceKeptOut if isinstance(error, ArchiveBusy) else EvidenceNotKept
    return kind(error, data)


class Ledger:
    """The evidence of one archive, in the archive or, if that cannot be written, in a directory."""

    def __init__(
        self,
        archive: Archive,
        directory: Path | None,
        lock_wait: float = 0.0,
        watcher: happened.Watcher = lambda _: None,
    ) -> None:
        self._archive: Final = Archive(archive.store, lock_wait=lock_wait)
        self._watcher: Final = watcher
        self._beside: Final = None if directory is None else LocalStore(directory)
        self._read_only = False

    async def prepare(self) -> str | None:
        """See whether the archive can be written; why it cannot, if there is another place.

        Raises UsageError when there is none, NoSpace, UnsupportedFormat.
        """
        try:
            async with Archive(self._archive.store).writing():
                pass  # whoever writes now is done when the drill is, perhaps
        except (ArchiveBusy, NoSpace) as error:
            if isinstance(error, NoSpace):
                raise
        except (StoreError, StoreForbidden) as error:
            if self._beside is None:
                raise UsageError(
                    f"the archive cannot be written, and the evidence has no other place: {error}",
                    hint="--evidence DIRECTORY",
                ) from error
            self._read_only = True
            return str(error)
        return None

    async def faults(self) -> list[chain.Finding]:
        """What is wrong with the newest hundred documents of the chain."""
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

        A document that cannot be read is passed over here; :meth:`faults` names it.
        """
        found: dict[str, tuple[str, int]] = {}
        for key in reversed((await self._keys())[-_LOOK_BACK:]):
            if found.keys() >= instances:
                break
            data = await self._read(key)
            if isinstance(data, ArchiverError):
                continue
            try:
                evidence = decode(data, key)
            except ArchiverError:
                continue
            for one in evidence.sets:
                if one.verdict is Verdict.PASS and one.instance_id in instances:
                    found.setdefault(one.instance_id, (evidence.id, loaded_keys(one.files)))
        return found

    async def file(self, make: Callable[[str, Link | None], Evidence]) -> Filed:
        """Write the next document, and what is made from it.

        ``make`` is given its id and the link to the one before, which nobody can come between.
        When the archive does not take it, it lies in the directory, apart from the chain there.
        Raises EvidenceNotKept.
        """
        try:
            return await self._file_in_turn(make)
        except (StoreError, StoreForbidden, ArchiveBusy) as error:
            return await self._keep_apart(make, error)

    async def _file_in_turn(self, make: Callable[[str, Link | None], Evidence]) -> Filed:
        """Raises ArchiveBusy, NoSpace, StoreError, StoreForbidden."""
        if self._read_only:
            return await self._file(make)
        async with self._archive.writing(self._observe):
            return await self._file(make)

    def _observe(self, event: events.Event) -> None:
        if isinstance(event, events.WaitingForLock):
            self._watcher(happened.WaitingForLock(event.error.message))

    async def _keep_apart(
        self, make: Callable[[str, Link | None], Evidence], error: ArchiverError
    ) -> Filed:
        """Into the directory, where it lies in no chain: it has no place in the archive's."""
        last, link = None, None
        with suppress(ArchiverError):
            last, link = await self._last()
        evidence = make(_new_id(last), link)
        documents = await in_thread(_documents, evidence)
        if self._beside is None:
            raise _not_kept(error, documents[0][1]) from error
        try:
            for key, data in documents:
                await self._beside.put(Path(key).name, data)
        except (StoreError, ArchiveBusy) as another:
            raise _not_kept(another, documents[0][1]) from error
        key, data = documents[0]
        return Filed(evidence, Path(key).name, data, (str(self._beside),), trouble=error.message)

    async def _file(self, make: Callable[[str, Link | None], Evidence]) -> Filed:
        if self._beside is None:
            return await self._write(make, [])
        async with self._beside.exclusive():
            return await self._write(make, [self._beside])

    async def _write(
        self, make: Callable[[str, Link | None], Evidence], stores: list[Store]
    ) -> Filed:
        last, link = await self._last()
        evidence = make(_new_id(last), link)
        documents = await in_thread(_documents, evidence)
        if not self._read_only:
            stores = [self._archive.store, *stores]
        places, trouble = list[str](), None
        for store in stores:
            try:
                for key, data in documents:
                    await store.put(key, data)
            except (StoreError, ArchiveBusy) as error:
                if not places:
                    raise
                trouble = error.message
            else:
                places.append(str(store))
        key, data = documents[0]
        return Filed(evidence, key, data, tuple(places), trouble)

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
        if self._read_only and self._beside is not None:
            return self._beside
        return self._archive.store

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


def _documents(evidence: Evidence) -> list[tuple[str, bytes]]:
    """The evidence first: what is made from it can be made again."""
    key, data = chain.evidence_key(evidence.id), encode(evidence)
    return [
        (key, data),
        (chain.beside(key, chain.PAGE_SUFFIX), to_page(data)),
        (chain.beside(key, chain.MARKDOWN_SUFFIX), to_markdown(data)),
        (chain.beside(key, chain.JUNIT_SUFFIX), to_junit(data)),
    ]
