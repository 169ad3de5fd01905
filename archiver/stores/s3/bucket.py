"""The objects of one bucket: read, write, copy, delete and list them. All methods block."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from archiver.documents import MAX_BYTES
from archiver.errors import NoDocument, ObjectMissing, StoreError, StoreForbidden
from archiver.retry import RETRIES
from archiver.stores.s3 import responses
from archiver.stores.s3.client import READ_SECONDS, S3Client
from archiver.stores.s3.errors import NotFound, conditional_errors, not_found
from archiver.stores.s3.listing import Listed, list_keys
from archiver.stores.s3.multipart import MAX_COPY_BYTES, MultipartUploads
from archiver.stores.s3.options import S3Options
from archiver.stores.s3.outages import ONE_TRY, OutageBudget
from archiver.stores.s3.protection import Protection, protection

# What reading the body of a response raises.
_BODY_ERRORS = (HTTPError, BotoCoreError, OSError)
# Attributes in a response to HeadObject that CopyObject and CreateMultipartUpload take by the same
# name.
_ATTRIBUTES = (
    "StorageClass", "ServerSideEncryption", "SSEKMSKeyId", "ObjectLockMode",
    "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus",
)  # fmt: skip
# How often a body is read that breaks off.
_MAX_READS = RETRIES.s3_read.attempts
# Size of a ranged request, so that little is sent in vain when only a part is read.
_STREAM_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Head:
    """What the store reports about an object; ``size`` in bytes.

    ``crc64nvme`` (base64) is that of the whole object, where the store has one. ``attributes`` are
    the parameters with which a copy is stored in the same way: storage class, lock, encryption.
    """

    size: int
    etag: str
    crc64nvme: str | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


class Bucket:
    """Keys are relative to ``prefix``. ``multipart`` has the requests about multipart uploads."""

    def __init__(
        self, name: str, prefix: str, options: S3Options, outages: OutageBudget | None = None,
        read_timeout: int = READ_SECONDS,
    ) -> None:  # fmt: skip
        self.name: Final = name
        self.prefix: Final = prefix
        self.options: Final = options
        self.outages: Final = outages or OutageBudget()
        self._client: Final = S3Client(name, prefix, options, self.outages, read_timeout)
        self.multipart: Final = MultipartUploads(self._client)
        self._own_connections: Bucket | None = None
        self._creating: Final = threading.Lock()

    def __str__(self) -> str:
        return str(self._client)

    def url(self, key: str) -> str:
        return self._client.url(key)

    def before_each_write(self, check: Callable[[str], None]) -> None:
        """See :meth:`S3Client.before_each_write`."""
        self._client.before_each_write(check)

    def protection(self, key: str) -> Protection:
        """See :func:`archiver.stores.s3.protection.protection`."""
        return protection(self._client, key)

    def with_own_connections(self) -> "Bucket":
        """The same bucket over separate connections, without retries. All calls return the same
        one."""
        with self._creating:
            if self._own_connections is None:
                once = OutageBudget(ONE_TRY)
                self._own_connections = Bucket(self.name, self.prefix, self.options, once, 5)
            return self._own_connections

    def get(self, key: str, max_bytes: int = MAX_BYTES) -> tuple[bytes, str] | None:
        """A small object and its ETag; None when there is none.

        Raises NoDocument when it has more than ``max_bytes``, UnreadableObject when the store has
        it but does not return it, StoreError.
        """
        for _ in range(_MAX_READS):
            try:
                with self._client.errors(key), not_found():
                    response = self._client.call("get_object", key)
            except NotFound:
                return None
            size = int(response.get("ContentLength") or 0)
            with closing(response["Body"]) as body, suppress(*_BODY_ERRORS):
                data = b"" if size > max_bytes else body.read(max_bytes + 1)
                if size > max_bytes or len(data) > max_bytes:
                    fault = f"it has {max(size, len(data)):,} bytes, far too many for a document"
                    raise NoDocument(self.url(key), fault, hint="move it out of the archive")
                if len(data) >= size:
                    return data, str(response.get("ETag", ""))
        raise StoreError(f"{self.url(key)}: the response broke off {_MAX_READS} times")

    def stream(self, key: str, start: int, stop: int, etag: str) -> Any:
        """A file-like body with the bytes ``start`` to ``stop`` (excluded), if the object still has
        this ETag. Raises StoreError when the store returns other bytes."""
        given = {"IfMatch": etag} if etag else {}
        span = f"bytes={start}-{stop - 1}"
        response = self._client.request("get_object", key, Range=span, **given)
        if not str(response.get("ContentRange", "")).startswith(f"bytes {start}-{stop - 1}/"):
            response["Body"].close()
            raise StoreError(f"{self.url(key)}: the store returned another range than requested")
        return response["Body"]

    def head(self, key: str, *, checksum: bool = False) -> Head | None:
        """What the store reports about an object; None when there is none. ``checksum`` requests
        its checksum, too, which some stores refuse."""
        given = {"ChecksumMode": "ENABLED"} if checksum else {}
        try:
            with self._client.errors(key), not_found():
                response = self._client.call("head_object", key, **given)
                return Head(
                    size=responses.number(response, "ContentLength"),
                    etag=str(response.get("ETag", "")),
                    crc64nvme=_crc64nvme(response),
                    attributes=_attributes(response),
                    metadata=response.get("Metadata") or {},
                )
        except NotFound:
            return None

    def nearest_above(self, name: str, is_wanted: Callable[[bytes], bool]) -> str | None:
        """The URL of the nearest prefix above this one that has an object called ``name`` with
        wanted contents; None when none has. Raises StoreError."""
        folders = self.prefix.split("/")[:-1]
        for depth in reversed(range(len(folders))):
            if folders[depth].startswith("."):
                return None
            prefix = "".join(f"{folder}/" for folder in folders[:depth])
            # A key may be allowed to read this prefix alone.
            with suppress(NotFound, StoreForbidden), self._client.errors(""), not_found():
                response = self._client.botocore.get_object(Bucket=self.name, Key=f"{prefix}{name}")
                with closing(response["Body"]) as body:
                    if is_wanted(body.read(MAX_BYTES)):
                        return f"s3://{self.name}/{prefix}".rstrip("/")
        return None

    def put(self, key: str, data: bytes | bytearray, **given: Any) -> Head:
        """Write an object in one request; what the response reports about it. Raises
        ConditionFailed, DamagedInTransit, StoreError.

        The body is always a bytearray. botocore makes a file of bytes, and sends that with
        ``Expect: 100-continue``, which takes a second with a server that ignores it.
        """
        body = data if isinstance(data, bytearray) else bytearray(data)
        with self._client.errors(key), conditional_errors():
            response = self._client.call("put_object", key, Body=body, **given)
        etag = str(response.get("ETag", ""))
        return Head(len(data), etag, _crc64nvme(response), _attributes(response))

    def delete(self, key: str) -> None:
        self._client.request("delete_object", key)

    def delete_if_allowed(self, key: str) -> bool:
        """Delete what is not needed any more; whether it is gone. Some access keys may only add
        objects."""
        try:
            self.delete(key)
        except StoreError:
            return False
        return True

    def copy(
        self, key: str, target: str, size: int, metadata: Mapping[str, str] | None = None,
        **given: Any,
    ) -> None:  # fmt: skip
        """Copy an object of ``size`` bytes within the store, in parts if it is too large for one
        request. ``metadata`` replaces the object's own."""
        source = {"Bucket": self.name, "Key": f"{self.prefix}{key}"}
        if metadata is not None:
            given["Metadata"] = dict(metadata)
        if size <= MAX_COPY_BYTES:
            if metadata is not None:
                given["MetadataDirective"] = "REPLACE"
            self._client.request("copy_object", target, CopySource=source, **given)
            return
        upload_id = self.multipart.create(target, **given)
        try:
            self.multipart.copy_parts(source, target, upload_id, size)
        except BaseException:
            self.multipart.abort(target, upload_id)
            raise

    def copy_as_object(
        self, key: str, target: str, size: int, attributes: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Copy an object of ``size`` bytes to its final key, and store it there with
        ``attributes``. Raises StoreError."""
        given = dict(attributes)
        until = given.get("ObjectLockRetainUntilDate")
        if until is not None and until <= datetime.now(UTC):
            del given["ObjectLockRetainUntilDate"]
            given.pop("ObjectLockMode", None)
        self.copy(key, target, size, metadata, **given)
        if "ObjectLockMode" not in given:
            return
        found = self._client.request("head_object", target)
        if "ObjectLockMode" not in found:
            # Some stores ignore the lock in a request to copy.
            version = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
            retention = {"Mode": given["ObjectLockMode"], "RetainUntilDate": until}
            self._client.request("put_object_retention", target, Retention=retention, **version)

    def listing(self, prefix: str) -> Iterator[Listed]:
        """The objects below a prefix, page by page. Raises StoreError."""

        def request(operation: str, given: Mapping[str, str]) -> Mapping[str, Any]:
            return self._client.request(operation, **given)

        with self._client.errors():
            for one in list_keys(request, self.name, f"{self.prefix}{prefix}"):
                yield one._replace(key=one.key.removeprefix(self.prefix))


class ObjectReader:
    """Reads an object from any offset; ``size`` in bytes. Implements OpenedObject.

    A read continues the stream of the last one, or opens a new one. A stream that breaks off is
    opened again.
    """

    def __init__(self, bucket: Bucket, key: str) -> None:
        """Raises ObjectMissing, StoreError."""
        self._bucket: Final = bucket
        self.key: Final = key
        head = bucket.head(key)
        if head is None:
            raise ObjectMissing(f"{bucket.url(key)}: there is no such object")
        self.size: Final = head.size
        self._etag: Final = head.etag
        self.version: Final = responses.bare(head.etag)
        self._stream: Any = None
        self._position = self._stop = 0

    def read(self, offset: int, block: memoryview) -> int:
        """Fill ``block`` from ``offset`` on; the number of bytes, less only at the end. Raises
        StoreError."""
        wanted = max(0, min(len(block), self.size - offset))
        filled = failures = 0
        while filled < wanted:
            try:
                filled += self._read_some(offset + filled, block[filled:wanted])
            except _BODY_ERRORS:
                self.close()
                failures += 1
                if failures == _MAX_READS:
                    url = self._bucket.url(self.key)
                    raise StoreError(f"{url}: the response broke off") from None
        return filled

    def _read_some(self, offset: int, block: memoryview) -> int:
        if self._stream is None or self._position != offset or offset == self._stop:
            self.close()
            self._stop = min(offset + _STREAM_BYTES, self.size)
            self._stream = self._bucket.stream(self.key, offset, self._stop, self._etag)
            self._position = offset
        data = self._stream.read(min(len(block), self._stop - offset))
        if not data:
            raise ConnectionResetError("the body ended early")
        block[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _attributes(response: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: response[name] for name in _ATTRIBUTES if name in response}


def _crc64nvme(response: Mapping[str, Any]) -> str | None:
    """The checksum in a response, if it is that of the whole object."""
    is_whole = response.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return response.get("ChecksumCRC64NVME") if is_whole else None
