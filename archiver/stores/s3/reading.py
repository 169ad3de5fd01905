"""Reading an object front to back, or from anywhere; a stream that breaks off is opened again."""

from typing import Any, Final

from archiver.errors import ObjectMissing, StoreError
from archiver.retry import RETRIES
from archiver.stores.s3.bucket import BROKE_OFF, Bucket

_MOST_REOPENINGS = RETRIES.s3_read.attempts
# Asked for at once, so that little is sent in vain to who reads a part only.
_STREAM_BYTES = 8 * 2**20


class OpenedObject:
    """An Opened; each read goes on where the last one ended, or opens a new stream."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket: Final = bucket
        self.key: Final = key
        head = bucket.head(key)
        if head is None:
            raise ObjectMissing(f"{bucket.where(key)}: there is no such object")
        self.size: Final = head.size
        self._etag: Final = head.etag
        self._stream: Any = None
        self._position = self._stop = 0

    def read(self, offset: int, block: memoryview) -> int:
        """Fill ``block`` from ``offset`` on; fewer bytes only at the end. Raises StoreError."""
        wanted = max(0, min(len(block), self.size - offset))
        filled = failures = 0
        while filled < wanted:
            try:
                filled += self._read_some(offset + filled, block[filled:wanted])
            except BROKE_OFF as error:
                self.close()
                failures += 1
                if failures == _MOST_REOPENINGS:
                    raise StoreError(
                        f"{self._bucket.where(self.key)}: reading broke off: {type(error).__name__}"
                    ) from None
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
