"""An archive in a bucket: a Store whose objects are written whole, under their final keys."""

import functools
import hashlib
import itertools
import math
import threading
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Final

from archiver.concurrency import entered, for_each, in_thread
from archiver.documents import MAX_BYTES, is_key
from archiver.errors import ArchiverError, BadDocument, UnreadableObject, UsageError
from archiver.ids import is_instance_id
from archiver.ignored_names import is_listed
from archiver.model import Stored
from archiver.retry import RetryPolicy
from archiver.stores.base import Entry, Leftover, OpenedObject, Staging
from archiver.stores.commit import Commit, drive, sync_each
from archiver.stores.loans import Borrowed, Loan
from archiver.stores.s3.bucket import Bucket, ObjectReader
from archiver.stores.s3.capabilities import Capabilities, probe
from archiver.stores.s3.errors import BucketMissing
from archiver.stores.s3.layout import (
    QUARANTINE,
    STAGING,
    is_journal,
    parse_replaced_copy,
    quarantine_prefix,
    scope_of_internal,
)
from archiver.stores.s3.lease import BEAT_SECONDS, Lease, hold, name_in
from archiver.stores.s3.multipart import ListedUpload
from archiver.stores.s3.options import S3Options, parse_url
from archiver.stores.s3.outages import OutageBudget
from archiver.stores.s3.replacing import copy_once, copy_to_quarantine, move_object
from archiver.stores.s3.staging import S3Staging
from archiver.stores.s3.unfinished import own_uploads, scopes_of_abandoned, sweep
from archiver.stores.s3.writing import VerifiedWriter
from archiver.stores.scope import WHOLE, HeldLocks, NotHeld, other_archive, scope_of

_ENTRIES_AT_ONCE = 1000
# Far stores take their time to answer; the client keeps 64 connections.
_READ_AT_ONCE = 32
_DOCUMENTS = (".json", "/SHA256SUMS")
# For how long a listing of all uploads serves the sweeps of one instance after the other.
_LISTED_SECONDS = 600.0


class S3Store:
    """A Store at ``s3://bucket/prefix``.

    ``on_capabilities`` is called once with what the store can do. ``retry`` says how long to wait
    for a bucket that does not respond; ``on_wait`` is called once for each outage that lasts, with
    its reason, in a thread. ``beat`` is the interval in seconds at which the lease is renewed.
    The store is not asked for its ``capabilities`` where they are given.
    """

    def __init__(
        self,
        url: str,
        options: S3Options | None = None,
        on_capabilities: Callable[[Capabilities], None] = lambda _: None,
        beat: float = BEAT_SECONDS,
        retry: RetryPolicy | None = None,
        on_wait: Callable[[str], None] = lambda _: None,
        capabilities: Capabilities | None = None,
    ) -> None:
        """Raises UsageError for a URL of another form."""
        bucket, prefix = parse_url(url)
        self._url: Final = url
        outages = OutageBudget(retry, on_wait)
        self.bucket: Final = Bucket(bucket, prefix, options or S3Options(), outages)
        self.bucket.before_each_write(self._check_lease)
        self._on_capabilities: Final = on_capabilities
        self._beat: Final = beat
        self._writer: VerifiedWriter | None = None
        if capabilities is not None:
            self._writer = VerifiedWriter(self.bucket, capabilities)
        self._creating: Final = threading.Lock()
        # The leases that this store holds, by scope. A thread for each keeps it alive.
        self._leases: Final = HeldLocks[Lease | Borrowed]()
        self._lends = False
        # The unfinished uploads, and when they were listed.
        self._uploads: list[ListedUpload] | None = None
        self._listed_at = -math.inf
        self._listing: Final = threading.Lock()

    def __str__(self) -> str:
        return str(self.bucket)

    @asynccontextmanager
    async def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AsyncGenerator[None, None]:
        writer, stop = await in_thread(self._verified_writer), threading.Event()
        held = hold(
            self.bucket, writer.capabilities, self._beat, stop, scope,
            watch=watch, briefly=briefly, lent=self._lends and not briefly,
        )  # fmt: skip
        async with entered(held, stop.set) as lease:
            self._leases[scope] = lease
            writer.forget_quarantine_listing(scope)  # others may have written
            try:
                yield
            finally:
                del self._leases[scope]

    def elsewhere(self) -> Callable[[], "S3Store"]:
        return functools.partial(
            S3Store, self._url, self.bucket.options, retry=self.bucket.outages.policy,
            capabilities=None if self._writer is None else self._writer.capabilities,
        )  # fmt: skip

    def lend(self) -> None:
        self._lends = True

    def loan(self, scope: str) -> Loan:
        lease = self._leases.get(scope)
        if not isinstance(lease, Lease):
            raise NotHeld(scope)
        return lease.loan()

    @contextmanager
    def borrowed(self, scope: str, name: str, lock: Borrowed) -> Iterator[None]:
        if name_in(self.bucket, scope) != name:
            raise other_archive(self)
        self._leases[scope] = lock
        self._verified_writer().forget_quarantine_listing(scope)
        try:
            yield
        finally:
            del self._leases[scope]

    def doubt(self, scope: str) -> None:
        """A bucket has nothing that is visible and not durable."""

    @property
    def missing_hint(self) -> str:
        return "check the bucket and the prefix"

    async def check_exists(self) -> None:
        try:
            first = await in_thread(next, self.bucket.listing(""), None)
        except BucketMissing:
            hint = self.missing_hint
            raise UsageError(f"no such bucket: s3://{self.bucket.name}", hint=hint) from None
        if first is None:
            raise UsageError(
                f"{self}: there is nothing in this bucket with this prefix",
                hint=f"{self.missing_hint}; of a single object, name the prefix above it",
            )

    async def obstacle(self) -> str | None:
        async with aclosing(self.entries("")) as entries:
            async for entry in entries:
                return f"something else is: {entry.key}"
        return None

    async def nearest_above(self, name: str, is_wanted: Callable[[bytes], bool]) -> str | None:
        return await in_thread(self.bucket.nearest_above, name, is_wanted)

    async def location(self) -> tuple[str, ...]:
        endpoint, name = self.bucket.options.endpoint or "", self.bucket.name
        return ("s3", endpoint, name, *filter(None, self.bucket.prefix.split("/")))

    async def read(self, key: str) -> bytes | None:
        found = await in_thread(self.bucket.get, key)
        return None if found is None else found[0]

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        found: dict[str, bytes | ArchiverError | None] = {}

        async def read(key: str) -> None:
            try:
                found[key] = await self.read(key)
            except (BadDocument, UnreadableObject) as error:
                found[key] = error

        await for_each(keys, read, _READ_AT_ONCE)
        return found

    async def put(self, key: str, data: bytes) -> str:
        def work() -> str:
            self._leases.check_for(key)()
            return self._verified_writer().put_document(key, data)

        return await in_thread(work)

    async def clear(self, key: str) -> str | None:
        return await in_thread(self._clear, key)

    def _clear(self, key: str) -> str | None:
        """A put replaces any object. Only what is too large for a document is moved away, since it
        may be worth something."""
        self._leases.check_for(key)()
        head = self.bucket.head(key)
        if head is None or head.size <= MAX_BYTES or not key.endswith(_DOCUMENTS):
            return None
        tag = hashlib.sha256(f"{head.etag} {head.size}".encode()).hexdigest()[:16]
        target = f"{quarantine_prefix(key)}.{tag}.cleared"
        copy_once(self._verified_writer(), key, target)
        self.bucket.delete_if_allowed(key)  # if not, the next put replaces it
        return target

    async def move_to_quarantine(self, key: str) -> str:
        def work() -> str:
            self._leases.check_for(key)()
            target = copy_to_quarantine(self._verified_writer(), key)
            move_object(self._verified_writer(), key, target)
            return target

        return await in_thread(work)

    async def size(self, key: str) -> int | None:
        head = await in_thread(self.bucket.head, key)
        return None if head is None else head.size

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        """Without litter, names that begin with a dot, and what is not a key of an archive (``/x``,
        ``a/../b``, the marker ``a/`` of a folder): other applications wrote those."""
        found = self.bucket.listing(prefix)
        while page := await in_thread(lambda: list(itertools.islice(found, _ENTRIES_AT_ONCE))):
            for key, size, etag, modified in page:
                if is_key(key) and all(map(is_listed, key.split("/"))):
                    yield Entry(key, size, version=etag, modified=modified)

    async def folders(self) -> list[str]:
        """By a listing of all keys, since stores differ in how they list folders."""
        found: set[str] = set()
        async with aclosing(self.entries("")) as entries:
            async for entry in entries:
                folder, slash, _ = entry.key.partition("/")
                found |= {folder} if slash else set()
        return sorted(found)

    @contextmanager
    def open(self, key: str) -> Generator[OpenedObject, None, None]:
        reader = ObjectReader(self.bucket, key)
        try:
            yield reader
        finally:
            reader.close()

    @contextmanager
    def stage(
        self, stem: str, size: int, existing: Mapping[str, int] | None = None
    ) -> Generator[Staging, None, None]:
        check = self._leases.check_of(scope_of(stem))
        check()
        staging = S3Staging(self._verified_writer(), stem, size, check)
        try:
            staging.open(existing)
            yield staging
        finally:
            staging.close()

    @property
    def batch_size(self) -> int:
        return 1

    def finish(self, commits: Iterable[Commit]) -> list[Stored]:
        return drive(commits, sync_each)

    async def leftovers(self) -> list[str]:
        return await in_thread(self._leftovers)

    def _leftovers(self) -> list[str]:
        """By one listing of each of the two folders, however many instances there are."""
        found = {
            scope_of_internal(key)
            for key, size, *_ in self.bucket.listing(STAGING)
            if size and is_journal(key)
        }
        found |= {
            scope_of_internal(key)
            for key, size, *_ in self.bucket.listing(QUARANTINE)
            if size and parse_replaced_copy(key) is not None
        }
        if self._writer is not None and self._uploads is not None:
            listing = self._writer.capabilities.upload_listing
            found |= scopes_of_abandoned(self._uploads, listing)
        ours = {scope for scope in found if scope == WHOLE or is_instance_id(scope)}
        return sorted(ours - self._leases.keys())

    async def sweep(self, scope: str) -> list[Leftover]:
        """One leftover at a time, since objects may be copied for it: a cancellation takes effect
        in between."""
        found = await in_thread(self._sweep, scope)
        swept: list[Leftover] = []
        while (leftover := await in_thread(next, found, None)) is not None:
            swept.append(leftover)
        return swept

    def _sweep(self, scope: str) -> Iterator[Leftover]:
        check, writer = self._leases.check_of(scope), self._verified_writer()
        check()
        with self._listing:
            if self._uploads is None or time.monotonic() - self._listed_at > _LISTED_SECONDS:
                self._uploads, self._listed_at = own_uploads(writer), time.monotonic()
        return sweep(writer, scope, check, self._uploads)

    def _check_lease(self, key: str) -> None:
        """Check the lease, if one is held, that guards what is written under a key."""
        if (lease := self._leases.get(scope_of_internal(key))) is not None:
            lease.check()

    def _verified_writer(self) -> VerifiedWriter:
        """Created at first use, which probes the store."""
        with self._creating:
            if self._writer is None:
                self._writer = VerifiedWriter(self.bucket, probe(self.bucket))
                self._on_capabilities(self._writer.capabilities)
            return self._writer
