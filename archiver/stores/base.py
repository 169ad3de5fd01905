"""What a store must do. A key is a relative path with ``/``; its parts were validated before."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from archiver.errors import ArchiverError
from archiver.model import Part, Pin, Provenance, Receipt, Stored
from archiver.stores.commit import Commit


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a listing; ``size`` in bytes. ``is_file`` is False for what has the name of an
    object or document and is none: a folder, a link, a device. ``hides`` says why nobody sees what
    this is, or what lies below it: what the store does not give, or a link in a folder's place.
    ``what`` says in words what is no file."""

    key: str
    size: int
    is_file: bool = True
    hides: ArchiverError | None = None
    what: str = "something else"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something an earlier run left and a sweep removed."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Resumable:
    """The parts of a file that an earlier run staged.

    ``crcs`` holds the CRC-64/XZ of each part that is here, ``begun`` (bytes, CRC-64/XZ) of those
    that came in part. ``state`` is that of measuring up to the end of those parts, where they
    cannot be read back; nothing else is to be trusted before it is.
    """

    pin: Pin
    provenance: Provenance
    part_size: int
    crcs: Mapping[int, int]
    begun: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    state: str | None = None


# What is written once an object is durable: given what was stored, keys and contents in order.
Documents = Callable[[Stored], Sequence[tuple[str, bytes]]]


class Staging(Protocol):
    """One file on its way into the store; not visible under its key before ``commit``.

    An object that has the file's key already is only read, and stays until ``commit`` replaces it
    with what was proven. All methods block and are called in worker threads, ``write``, ``read``
    and ``keep`` in several at once; they raise StoreError. A file that is written whole needs
    neither ``begin`` nor ``keep`` before its ``commit``.
    """

    @property
    def resumable(self) -> Resumable | None: ...

    @property
    def present(self) -> Mapping[str, int]:
        """Objects that have one of this file's final keys already: size in bytes, by key."""
        ...

    @property
    def reads_back(self) -> bool:
        """Whether what was kept can be read before the commit. If not, a part can be read between
        ``write`` and ``keep``, and is to be measured then."""
        ...

    @property
    def mends_in_place(self) -> bool:
        """Whether a part that was kept can be written again; else only the whole file can."""
        ...

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        """Note what the file will be, before its first part is kept."""
        ...

    def write(self, offset: int, data: memoryview) -> None: ...

    def read(self, offset: int, block: memoryview) -> int:
        """Fill ``block`` from ``offset`` on; the number of bytes, less only at the end."""
        ...

    def keep(self, part: Part, crc: int, so_far: int | None = None) -> None:
        """Make a part durable, or its first ``so_far`` bytes, then note that it is. Returns when
        both are; a store may have no use for less than a part."""
        ...

    def measured(self, part: Part, state: str) -> None:
        """Told before ``keep`` where nothing can be read back: ``state`` is what a later run
        needs to measure on from the end of that part."""
        ...

    def restart(self) -> None:
        """Forget all that was staged."""
        ...

    def keep_aside(self, key: str, why: str) -> str:
        """Keep the bytes of a present object in quarantine, since a commit will replace it; the
        key they are kept under. The object stays where it is."""
        ...

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        """The steps that make the whole durable under its final key: the stem, a dot and the
        receipt's kind, in place of what has it; present objects under the stem's other suffixes
        go. After that the ``documents`` about it, one after the other. They are for the store's
        ``finish``, before this staging is left."""
        ...

    def record(self, key: str, receipt: Receipt, documents: Documents) -> Commit:
        """The steps that write the ``documents`` about a present object, which was read back and
        is what ``receipt`` says. The object is made durable before, and never written."""
        ...

    def quarantine(self, why: str) -> str | None:
        """Put the bytes aside with the reason; returns the key they are kept under, or None where
        they could not be kept without touching an object that is there."""
        ...


class Opened(Protocol):
    """A stored object, open for reading; ``size`` in bytes. Blocks, and raises StoreError, and
    UnreadableObject when other objects may be read all the same."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, block: memoryview) -> int:
        """Fill ``block`` from ``offset`` on; the number of bytes, less only at the end."""
        ...


class Store(Protocol):
    """A place for an archive."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Be the only writer while in this context. Raises ArchiveBusy, StoreError."""
        ...

    @property
    def doubt(self) -> str:
        """What may be wrong with this place where an archive is missed: a question for people."""
        ...

    async def obstacle(self) -> str | None:
        """Why an archive should not be begun here, to follow "there is no archive here, and"; None
        for a place that is new or empty. Raises StoreError."""
        ...

    async def above(self, name: str, is_meant: Callable[[bytes], bool]) -> str | None:
        """The nearest folder above this place that has a document of that name that is meant,
        links resolved; None where none has, or none of those that may be looked at. What begins
        with a dot is no part of what is above it. Raises StoreError."""
        ...

    async def read(self, key: str) -> bytes | None:
        """A small document, whole; None when there is none.

        Raises NoDocument for what is no file, or has more than ``documents.MAX_BYTES``;
        UnreadableObject when the store does not give it, and may give others; StoreError.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Write a small document, durable and whole or not at all."""
        ...

    async def clear(self, key: str) -> str | None:
        """Make room: what has this key and is no file, or a document that cannot be read, is kept
        in quarantine. The key it is kept under; None when nothing was in the way.

        Called by the only writer, who has something to put there. Raises StoreError.
        """
        ...

    async def set_aside(self, key: str) -> str:
        """Move a file that has no use in its place into quarantine, as it is; the key it is kept
        under. Called by the only writer. Raises StoreError."""
        ...

    async def size(self, key: str) -> int | None:
        """The size in bytes of an object; None when there is none. Raises UnreadableObject when
        the store does not say."""
        ...

    async def place(self) -> tuple[str, ...]:
        """Where it is, from the outermost on: of two stores, one lies in the other when its place
        begins with the other's."""
        ...

    def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        """All objects below a prefix (``""`` or ending in ``/``), sorted within a folder. Where
        that, or a folder above it, is hidden, an entry of that one's key says so. Raises
        StoreError when nothing at all can be listed."""
        ...

    def open(self, key: str) -> AbstractContextManager[Opened]:
        """Open an object for reading. Entering and leaving block.

        Raises ObjectMissing when there is none, UnreadableObject, StoreError.
        """
        ...

    def stage(self, stem: str, size: int) -> AbstractContextManager[Staging]:
        """Begin, or go on with, a file of ``size`` bytes that will be ``stem`` + a suffix.
        Entering and leaving block."""
        ...

    @property
    def together(self) -> int:
        """How many small files it is best given to ``finish`` at once."""
        ...

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        """Carry the commits of its stagings to their ends; what they stored, in order. Blocks,
        and raises StoreError: then none of them counts, and a later run goes on."""
        ...

    async def sweep(self) -> list[Leftover]:
        """Remove what earlier runs left and no later run can use."""
        ...
