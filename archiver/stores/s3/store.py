"""An archive in a bucket: a Store like any, its objects put whole under their final keys."""

import hashlib
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final

from archiver.concurrency import entered, in_thread
from archiver.documents import MAX_BYTES, is_key
from archiver.ignored_names import is_listed
from archiver.model import Stored
from archiver.retry import RetryPolicy
from archiver.stores.base import Entry, Leftover, Opened, Staging
from archiver.stores.commit import Commit, drive
from archiver.stores.local.filesystem import sync_each
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.dialect import Dialect, probe
from archiver.stores.s3.layout import QUARANTINE, SEPARATOR
from archiver.stores.s3.lease import BEAT_SECONDS, Lease, hold
from archiver.stores.s3.options import S3Options, parse_place
from archiver.stores.s3.patience import Patience
from archiver.stores.s3.reading import OpenedObject
from archiver.stores.s3.replaced import clear_away, copy_aside, keep_aside
from archiver.stores.s3.sending import Sender
from archiver.stores.s3.staging import S3Staging
from archiver.stores.s3.uploads import sweep

_ENTRIES_AT_ONCE = 1000
_DOCUMENTS = (".json", "/SHA256SUMS")


class S3Store:
    """A Store at ``s3://bucket/prefix``. ``on_dialect`` is told once what the store can do.

    ``retry`` says how long a bucket that does not answer is waited for; ``on_wait`` is told once of
    each outage that lasts, in a thread: what is wrong.
    """

    def __init__(
        self,
        place: str,
        options: S3Options | None = None,
        on_dialect: Callable[[Dialect], None] = lambda _: None,
        beat: float = BEAT_SECONDS,
        retry: RetryPolicy | None = None,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        bucket, prefix = parse_place(place)
        patience = Patience(retry, on_wait)
        self.bucket: Final = Bucket(bucket, prefix, options or S3Options(), patience)
        self.bucket.guard(self._check_lease)
        self._on_dialect: Final = on_dialect
        self._beat: Final = beat
        self._sending: Sender | None = None
        self._lease: Lease | None = None

    def __str__(self) -> str:
        return str(self.bucket)

    @asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[None, None]:
        dialect = (await in_thread(self._sender)).dialect
        stop = threading.Event()
        async with entered(hold(self.bucket, dialect, self._beat, stop), stop.set) as lease:
            self._lease = lease
            self._sender().forget_quarantine()  # others wrote meanwhile
            try:
                yield
            finally:
                self._lease = None

    @property
    def doubt(self) -> str:
        return "are the bucket and the prefix right?"

    async def obstacle(self) -> str | None:
        async with aclosing(self.entries("")) as entries:
            async for entry in entries:
                return f"something else is: {entry.key}"
        return None

    async def above(self, name: str, is_meant: Callable[[bytes], bool]) -> str | None:
        return await in_thread(self.bucket.above, name, is_meant)

    async def place(self) -> tuple[str, ...]:
        endpoint, name = self.bucket.options.endpoint or "", self.bucket.name
        return ("s3", endpoint, name, *filter(None, self.bucket.prefix.split("/")))

    async def read(self, key: str) -> bytes | None:
        found = await in_thread(self.bucket.get, key)
        return None if found is None else found[0]

    async def put(self, key: str, data: bytes) -> None:
        await in_thread(lambda: self._sender().put_document(key, data))

    async def clear(self, key: str) -> str | None:
        return await in_thread(self._clear, key)

    def _clear(self, key: str) -> str | None:
        """Every object can be replaced; one that is no document may be worth something."""
        self._check_lease()
        head = self.bucket.head(key)
        if head is None or head.size <= MAX_BYTES or not key.endswith(_DOCUMENTS):
            return None
        tag = hashlib.sha256(f"{head.etag} {head.size}".encode()).hexdigest()[:16]
        kept = f"{QUARANTINE}{key.replace('/', SEPARATOR)}.{tag}.cleared"
        copy_aside(self._sender(), key, kept)
        self.bucket.delete_if_allowed(key)  # else what is to come replaces it
        return kept

    async def set_aside(self, key: str) -> str:
        def work() -> str:
            self._check_lease()
            kept = keep_aside(self._sender(), key)
            clear_away(self._sender(), key, kept)
            return kept

        return await in_thread(work)

    async def size(self, key: str) -> int | None:
        head = await in_thread(self.bucket.head, key)
        return None if head is None else head.size

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        """What an archive cannot have as a key (``/x``, ``a/../b``, the marker ``a/`` of a folder)
        is somebody else's, as are litter and names that begin with a dot."""
        found = self.bucket.listing(prefix)
        while page := await in_thread(lambda: list(itertools.islice(found, _ENTRIES_AT_ONCE))):
            for key, size in page:
                if is_key(key) and all(map(is_listed, key.split("/"))):
                    yield Entry(key, size)

    @contextmanager
    def open(self, key: str) -> Generator[Opened, None, None]:
        opened = OpenedObject(self.bucket, key)
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def stage(self, stem: str, size: int) -> Generator[Staging, None, None]:
        self._check_lease()
        staging = S3Staging(self._sender(), stem, size, self._check_lease)
        try:
            staging.open()
            yield staging
        finally:
            staging.close()

    @property
    def together(self) -> int:
        return 1

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        return drive(commits, sync_each)

    async def sweep(self) -> list[Leftover]:
        """One by one, since objects may be copied for it: a cancellation comes in between."""
        found = sweep(await in_thread(self._sender), self._check_lease)
        swept: list[Leftover] = []
        while (leftover := await in_thread(next, found, None)) is not None:
            swept.append(leftover)
        return swept

    def _check_lease(self) -> None:
        """Blocks while the store does not answer. Raises ArchiveBusy."""
        if self._lease is not None:
            self._lease.check()

    def _sender(self) -> Sender:
        if self._sending is None:
            self._sending = Sender(self.bucket, probe(self.bucket))
            self._on_dialect(self._sending.dialect)
        return self._sending
