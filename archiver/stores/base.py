"""What a store must do. A key is a relative path with ``/``, whose parts were validated before."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from archiver.errors import ArchiverError
from archiver.model import Part, Pin, Provenance, Receipt, Stored
from archiver.stores.commit import Commit
from archiver.stores.loans import Borrowed, Loan


class Entry(NamedTuple):
    """An object in a listing; ``size`` in bytes.

    ``version`` changes when the object is written again: the time of its last change
    and its inode in a directory, its ETag in a bucket; empty where the store does not say.
    ``is_file`` is False for something that has the key of an object or document and is not a file,
    such as a folder, a link or a device; ``what`` says in words what it is. ``hides`` is the reason
    why this entry, or everything below it, cannot be listed: the store does not return it, or a
    link is in the place of a folder. ``modified`` is when it was last written, in nanoseconds since
    1970; None where the store does not say.
    """

    key: str
    size: int
    is_file: bool = True
    hides: ArchiverError | None = None
    what: str = "something else"
    version: str = ""
    modified: int | None = None


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that an earlier run left and a sweep settled; ``why`` says what it was."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Resumable:
    """The parts of a file that an earlier run staged.

    ``crcs`` is the CRC-64/XZ of each complete part by index, ``partial`` (bytes, CRC-64/XZ) of
    those of which only the first bytes are there. ``state`` is that of the hash at the end of the
    complete parts, in stores that cannot read them back; without it nothing may be trusted there.
    """

    pin: Pin
    provenance: Provenance
    part_size: int
    crcs: Mapping[int, int]
    partial: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    state: str | None = None


# The documents to write once an object is durable, given what was stored: keys and contents, in
# order.
Documents: TypeAlias = Callable[[Stored], Sequence[tuple[str, bytes]]]


class Staging(Protocol):
    """A file that is being written. It is not visible under its key before ``commit``.

    An object that already has the key is only read, and stays until ``commit`` replaces it with
    verified bytes. All methods block and are called in worker threads: ``write``, ``read`` and
    ``save_part`` in several at once. They raise StoreError. A file that is written in one piece
    needs neither ``begin`` nor ``save_part`` before its ``commit``.
    """

    @property
    def resumable(self) -> Resumable | None:
        """What an earlier run staged; None for a new file."""
        ...

    @property
    def existing(self) -> Mapping[str, int]:
        """The objects that already have one of this file's final keys: size in bytes, by key."""
        ...

    @property
    def can_read_back(self) -> bool:
        """Whether saved parts can be read before the commit. If not, a part can be read only
        between ``write`` and ``save_part``, and must be hashed then."""
        ...

    @property
    def can_rewrite_parts(self) -> bool:
        """Whether a saved part can be written again. If not, only the whole file can."""
        ...

    def begin(self, pin: Pin, provenance: Provenance, part_size: int) -> None:
        """Note what the file will be, before its first part is saved."""
        ...

    def write(self, offset: int, data: memoryview) -> None: ...

    def read(self, offset: int, block: memoryview) -> int:
        """Fill ``block`` from ``offset`` on; the number of bytes, less only at the end."""
        ...

    def save_part(self, part: Part, crc: int, so_far: int | None = None) -> None:
        """Make a part durable, or its first ``so_far`` bytes, then note that in the journal.

        Returns when both are done. A store may ignore a partial part.
        """
        ...

    def save_hash_state(self, part: Part, state: str) -> None:
        """Take the state of the hash at the end of a part, from which a later run can continue.
        Called before ``save_part`` in stores that cannot read back."""
        ...

    def restart(self) -> None:
        """Discard everything that was staged."""
        ...

    def copy_to_quarantine(self, key: str, why: str) -> str:
        """Keep the bytes of an existing object, which a commit will replace, in quarantine; their
        key there. The object stays where it is."""
        ...

    def commit(self, receipt: Receipt, documents: Documents) -> Commit:
        """The steps that make the file durable under its final key, then its ``documents``.

        The key is the stem, a dot and the receipt's kind. An existing object with this key is
        replaced, those with the stem's other suffixes are removed. The caller passes the steps to
        the store's ``finish`` before it leaves this staging.
        """
        ...

    def record(self, key: str, receipt: Receipt, documents: Documents) -> Commit:
        """The steps that write the ``documents`` about an existing object, which was read and found
        to be what ``receipt`` says. The object is made durable before, and never written."""
        ...

    def quarantine(self, why: str) -> str | None:
        """Move the staged bytes to quarantine, with the reason; their key there. None when they
        could not be kept without changing an existing object."""
        ...


class Opened(Protocol):
    """An object that is open for reading; ``size`` in bytes. Blocks. Raises StoreError, and
    UnreadableObject when only this object cannot be read."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, block: memoryview) -> int:
        """Fill ``block`` from ``offset`` on; the number of bytes, less only at the end."""
        ...


class OpenedObject(Opened, Protocol):
    """An object of a store that is open for reading."""

    @property
    def version(self) -> str:
        """As a listing has it (:class:`Entry`); of a file in a directory, as it is by now."""
        ...


class Store(Protocol):
    """A directory or bucket that holds an archive. Messages print it, so it has ``__str__``. It
    cannot delete a backup, on purpose.

    What writes raises LockLost where the lock was lost, and NotHeld, which is a fault in the
    program, where none is held for it (:mod:`archiver.stores.scope`). What is staged belongs to the
    lock that was held then: a commit under a later one is refused.
    """

    def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Be the only writer of a scope (:mod:`archiver.stores.scope`) while in this context.
        Several scopes may be held at once. Raises ArchiveBusy, StoreError.

        Where it is unknown whether a holder is alive, its lock is watched for a while. Without
        ``watch`` it counts as alive. ``briefly`` tells others that it is held for a moment only.
        """
        ...

    def elsewhere(self) -> "Callable[[], Store]":
        """What opens the same store in another process. It can be pickled, and has no secret."""
        ...

    def lend(self) -> None:
        """Lend the locks that are taken from now on to workers (:mod:`archiver.stores.loans`)."""
        ...

    def loan(self, scope: str) -> Loan:
        """What is lent of a lock that this store holds. Blocks. Raises LockLost, StoreError."""
        ...

    def borrowed(self, scope: str, name: str, lock: Borrowed) -> AbstractContextManager[None]:
        """Write under a lock that another process holds, in which it wrote ``name``. Entering and
        leaving block. Raises UsageError where this store has no such lock, so that it is another
        archive than the holder's; StoreError."""
        ...

    def doubt(self, scope: str) -> None:
        """Take note that a worker that wrote in a scope may have ended halfway. Called by the
        holder of its lock."""
        ...

    @property
    def missing_hint(self) -> str:
        """What to check when no archive is found here."""
        ...

    async def check_exists(self) -> None:
        """Raises UsageError where there is no such directory, or nothing with this prefix;
        StoreError."""
        ...

    async def obstacle(self) -> str | None:
        """Why an archive should not be created here, in words that follow "there is no archive
        here, and"; None when the store is new or empty. Raises StoreError."""
        ...

    async def nearest_above(self, name: str, is_wanted: Callable[[bytes], bool]) -> str | None:
        """The nearest folder above this store that has a document ``name`` with wanted contents;
        None when none has that may be read.

        Links are resolved. A folder that begins with a dot does not belong to those above it.
        Raises StoreError.
        """
        ...

    async def read(self, key: str) -> bytes | None:
        """The contents of a document; None when there is none.

        Raises NoDocument for what is not a file, or is larger than ``documents.MAX_BYTES``;
        UnreadableObject when only this document cannot be read; StoreError.
        """
        ...

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        """Several small documents at once, as :meth:`read` gives each; the error where it would
        raise one that concerns that document alone. Raises StoreError."""
        ...

    async def put(self, key: str, data: bytes) -> str:
        """Write a document: durably and as a whole, or not at all. Returns its version, as a
        listing has it. Raises StoreError."""
        ...

    async def clear(self, key: str) -> str | None:
        """Move to quarantine what has this key and is not a file, or not a readable document; its
        key there. None when nothing was in the way.

        Called by the only writer before it writes to that key. Raises StoreError.
        """
        ...

    async def move_to_quarantine(self, key: str) -> str:
        """Move a file to quarantine as it is; its key there. Called by the only writer. Raises
        StoreError."""
        ...

    async def size(self, key: str) -> int | None:
        """The size of an object in bytes; None when there is none. Raises UnreadableObject when
        only this size cannot be read, StoreError."""
        ...

    async def location(self) -> tuple[str, ...]:
        """Where the store is, from the outermost part on. A store lies within another one when its
        location begins with the other's."""
        ...

    def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        """All objects below a prefix (``""`` or ending in ``/``), sorted within a folder.

        When the prefix or a folder above it cannot be listed, an entry with its key says so. Raises
        StoreError when nothing can be listed.
        """
        ...

    async def folders(self) -> list[str]:
        """The names of the folders at the top, sorted, and of what may hide one. Raises
        StoreError."""
        ...

    def open(self, key: str) -> AbstractContextManager[OpenedObject]:
        """Open an object for reading. Entering and leaving block.

        Raises ObjectMissing, UnreadableObject, StoreError.
        """
        ...

    def stage(
        self, stem: str, size: int, existing: Mapping[str, int] | None = None
    ) -> AbstractContextManager[Staging]:
        """Start or resume a file of ``size`` bytes, whose key will be ``stem`` and a suffix.

        ``existing`` are the objects that a listing has shown under the stem, since nobody else
        writes there; without it, the store looks for them. Entering and leaving block. Raises
        StoreError."""
        ...

    @property
    def batch_size(self) -> int:
        """How many small files ``finish`` should be given at once."""
        ...

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        """Run the commits of stagings; what they stored, in order. Blocks.

        Raises StoreError: then none of them counts as stored, and a later run continues.
        """
        ...

    async def leftovers(self) -> list[str]:
        """The scopes in which earlier runs may have left something to sweep, or other runs are at
        work; without those whose lock this store holds. Raises StoreError."""
        ...

    async def sweep(self, scope: str) -> list[Leftover]:
        """Settle or remove what earlier runs left in a scope and no later run can use. Called by
        the holder of its lock."""
        ...
