"""The multipart API of one bucket. All methods block."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from archiver.stores.s3 import responses
from archiver.stores.s3.client import S3Client
from archiver.stores.s3.errors import NotFound, conditional_errors, not_found

# By operation, the markers that name the next page, and their values for the first one.
_MARKERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "list_parts": {"PartNumberMarker": 0},
    "list_multipart_uploads": {"KeyMarker": "", "UploadIdMarker": ""},
}
# Copied in one request; a larger copy takes longer than the read timeout.
MAX_COPY_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class ListedPart:
    """A part as the store lists it; ``number`` counts from 1, ``size`` is in bytes."""

    number: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class ListedUpload:
    """An upload that was neither completed nor aborted. ``key`` is relative to the prefix."""

    key: str
    upload_id: str
    initiated: datetime


class MultipartUploads:
    """Creates, fills, completes, aborts and lists the multipart uploads of a bucket."""

    def __init__(self, client: S3Client) -> None:
        self._client: Final = client

    def create(self, key: str, **given: Any) -> str:
        """Create an upload; its id."""
        response = self._client.request("create_multipart_upload", key, **given)
        with self._client.errors(key):
            return responses.text(response, "UploadId")

    def upload_part(
        self, key: str, upload_id: str, number: int, data: bytearray, **given: Any
    ) -> str:
        """Upload a part; its ETag. Raises NoSuchUpload, DamagedInTransit, StoreError.

        ``data`` is a bytearray because botocore writes that to the socket as it is, but bytes in
        small pieces.
        """
        with self._client.errors(key), conditional_errors():
            response = self._client.call(
                "upload_part", key, UploadId=upload_id, PartNumber=number, Body=data, **given
            )
            return responses.text(response, "ETag")

    def copy_parts(self, source: Mapping[str, str], target: str, upload_id: str, size: int) -> None:
        """Fill an upload with the ``size`` bytes of an object in the store, and complete it."""
        etags = []
        for number, start in enumerate(range(0, size, MAX_COPY_BYTES), 1):
            span = f"bytes={start}-{min(start + MAX_COPY_BYTES, size) - 1}"
            response = self._client.request(
                "upload_part_copy", target, UploadId=upload_id, PartNumber=number,
                CopySource=source, CopySourceRange=span,
            )  # fmt: skip
            with self._client.errors(target):
                etags.append(responses.text(response.get("CopyPartResult", {}), "ETag"))
        self.complete(target, upload_id, etags)

    def parts(self, key: str, upload_id: str) -> list[ListedPart] | None:
        """The parts of an upload that the store has, in its order; None when there is no such
        upload."""
        found: list[ListedPart] = []
        given: dict[str, Any] = {"UploadId": upload_id}
        try:
            with self._client.errors(key), not_found():
                for response in self._pages("list_parts", key, given):
                    bucket = self._client.name
                    responses.check_echoed(response, {"Bucket": bucket, "UploadId": upload_id})
                    found += [
                        ListedPart(
                            responses.number(part, "PartNumber"),
                            responses.text(part, "ETag"),
                            responses.number(part, "Size"),
                        )
                        for part in response.get("Parts") or ()
                    ]
        except NotFound:
            return None
        return found

    def complete(self, key: str, upload_id: str, etags: Sequence[str], **given: Any) -> None:
        """Make an object of the parts with these ETags, in order. Raises NoSuchUpload,
        ConditionFailed, DamagedInTransit, StoreError."""
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        with self._client.errors(key), conditional_errors():
            self._client.call(
                "complete_multipart_upload", key, UploadId=upload_id,
                MultipartUpload={"Parts": parts}, **given,
            )  # fmt: skip

    def abort(self, key: str, upload_id: str) -> None:
        """Abort an upload, if it still exists."""
        try:
            with self._client.errors(key), not_found():
                self._client.call("abort_multipart_upload", key, UploadId=upload_id)
        except NotFound:
            return

    def unfinished(self, prefix: str = "") -> Iterator[ListedUpload]:
        """All uploads below a prefix that the store lists. Raises StoreError."""
        own_prefix = self._client.prefix
        given: dict[str, Any] = {"Prefix": f"{own_prefix}{prefix}"}
        with self._client.errors():
            for response in self._pages("list_multipart_uploads", None, given):
                responses.check_echoed(response, {"Bucket": self._client.name})
                for found in response.get("Uploads") or ():
                    key = responses.text(found, "Key")
                    upload_id = responses.text(found, "UploadId")
                    initiated = found.get("Initiated") or datetime.now(UTC)
                    if key.startswith(given["Prefix"]):  # some stores ignore the prefix
                        yield ListedUpload(key.removeprefix(own_prefix), upload_id, initiated)

    def _pages(
        self, operation: str, key: str | None, given: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """The pages of a listing that is continued by markers. Raises InvalidResponse for a listing
        that is cut off."""
        markers: dict[str, Any] = {}
        while True:
            response = self._client.call(operation, key, **given, **markers)
            yield response
            if not responses.is_truncated(response, required=False):
                return
            previous, markers = (
                markers,
                {
                    name: response.get(f"Next{name}") or first
                    for name, first in _MARKERS[operation].items()
                },
            )
            if markers == previous or not any(markers.values()):
                raise responses.InvalidResponse("the listing is truncated and has no next marker")
