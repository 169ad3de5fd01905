"""One bucket, and what is asked of it; all methods block.

botocore's own client in threads of ours: it lists parts, and resumes, which obstore cannot, and
needs no event loop. Figures of whole pulls, and of clients apart: benchmarks/README.md.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from archiver.concurrency import on_abort
from archiver.documents import MAX_BYTES
from archiver.errors import NoDocument, StoreError, StoreForbidden
from archiver.network import check_authorities
from archiver.retry import RETRIES
from archiver.stores.s3 import answers
from archiver.stores.s3.access import shared_session
from archiver.stores.s3.connections import Connections
from archiver.stores.s3.errors import bucket_errors, code_of, endpoint_errors, status_of
from archiver.stores.s3.listing import keys_below
from archiver.stores.s3.options import S3Options
from archiver.stores.s3.patience import ONE_TRY, Patience
from archiver.stray_characters import clean_variable
from archiver.version import __version__

# What reading the body of an answer raises.
BROKE_OFF = (HTTPError, BotoCoreError, OSError)
_ABSENT = frozenset(("NoSuchKey", "NotFound", "404", "NoSuchUpload"))
_GARBLED = frozenset(
    ["BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"]
)
# Where pages go on, by operation; with the value that means from the beginning.
_MARKERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "list_parts": {"PartNumberMarker": 0},
    "list_multipart_uploads": {"KeyMarker": "", "UploadIdMarker": ""},
}
# Of an answer to HeadObject what CopyObject and CreateMultipartUpload are given by the same name.
_KEPT_AS = (
    "StorageClass", "ServerSideEncryption", "SSEKMSKeyId", "ObjectLockMode",
    "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus",
)  # fmt: skip
_READ_WITH = frozenset(("GET", "HEAD"))
# Copied in one request; more takes longer than anybody waits for an answer.
_MOST_COPIED = 512 * 2**20
_CONNECT_SECONDS = int(RETRIES.connect.timeout)
_READ_SECONDS = int(RETRIES.s3_call.timeout)
# Times that a small object is asked for whose bytes break off.
_MOST_READINGS = RETRIES.s3_read.attempts


@dataclass(frozen=True, slots=True)
class Head:
    """An object; ``crc64nvme`` (base64) where the store keeps it for the whole object. ``kept_as``
    are the parameters that a copy needs to be kept as it is: its class, lock and encryption."""

    size: int
    etag: str
    crc64nvme: str | None
    kept_as: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part as the store lists it; ``number`` from 1."""

    number: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that was neither completed nor aborted. ``key`` is below the prefix."""

    key: str
    upload_id: str
    initiated: datetime


class Refused(Exception):
    """A condition was not met (412), or the object is there already (409)."""


class Gone(Exception):
    """There is no such upload any more."""


class Garbled(Exception):
    """What came there is not what was sent, the store says."""


class Bucket:
    """Keys are relative to ``prefix``."""

    def __init__(
        self, name: str, prefix: str, options: S3Options, patience: Patience | None = None,
        answers_within: int = _READ_SECONDS,
    ) -> None:  # fmt: skip
        self.patience: Final = patience or Patience()
        self._answers_within: Final = answers_within
        self.name: Final = name
        self.prefix: Final = prefix
        self.options: Final = options
        self._client: Any = None
        self._check_writer: Callable[[], None] = lambda: None
        self._connections: Final = Connections(f"s3://{name}")
        on_abort(self._connections.give_up)

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def where(self, key: str) -> str:
        return f"s3://{self.name}/{self.prefix}{key}"

    def _ask(self, operation: str, key: str | None = None, **given: Any) -> dict[str, Any]:
        with bucket_errors(str(self) if key is None else self.where(key)):
            if key is not None:
                given["Key"] = f"{self.prefix}{key}"
            answer: dict[str, Any] = getattr(self._opened(), operation)(Bucket=self.name, **given)
            return answer

    def _opened(self) -> Any:
        if self._client is None:
            client = self._made(self.options.addressing_at(self.options.endpoint))
            # The endpoint may be the environment's: only the client knows.
            style = self.options.addressing_at(client.meta.endpoint_url)
            if style != self.options.addressing_at(self.options.endpoint):
                client = self._made(style)
            self._client = client
        return self._client

    def _made(self, addressing_style: str) -> Any:
        session = shared_session(str(self))
        config = Config(
            s3={"addressing_style": addressing_style},
            signature_version="s3v4",
            # Else newer SDKs send bodies in a framing that many stores refuse, or keep.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 1},  # what is more is ours
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=self._answers_within,
            max_pool_connections=64,
            user_agent_extra=f"archiver/{__version__}",
        )
        region = session.get_config_variable("region") or "us-east-1"
        with endpoint_errors(str(self)):
            client = session.create_client(
                "s3", region_name=region, endpoint_url=self.options.endpoint, config=config,
                verify=None if self._is_plain else _trusted(session),
            )  # fmt: skip
        self._connections.watch(client)
        # Before botocore's own, which ask again and again for what is no XML.
        client.meta.events.register_first("before-parse.*", answers.check)
        # Before it is signed: what is checked may take longer than a signature is good for.
        client.meta.events.register_first("request-created.s3", self._before_request)
        client.meta.events.register("before-send.s3", self.patience.before_send)
        client.meta.events.register("needs-retry.s3", self._needs_retry)
        return client

    @property
    def _is_plain(self) -> bool:
        """Whether it is asked in the clear, as far as that is told."""
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        told = [self.options.endpoint, *map(os.environ.get, names)]
        return next(filter(None, told), "").lower().startswith("http://")

    def guard(self, check: Callable[[], None]) -> None:
        """Have ``check`` called before each request that changes something, also when that is sent
        again, and after its answer: by then it may have been somebody else's to change. What it
        raises is raised in its place."""
        self._check_writer = check

    def _before_request(self, request: Any, **_: object) -> None:
        """For botocore's ``request-created``, which comes anew with each try."""
        if request.method not in _READ_WITH:
            self._check_writer()

    def _needs_retry(self, **given: Any) -> float | None:
        """For botocore's ``needs-retry``: after all was given up, there is no next try."""
        if self._connections.is_given_up:
            return None
        waited = self.patience.needs_retry(**given)
        is_answered = waited is None and given.get("response") is not None
        if is_answered and given["request_dict"]["method"] not in _READ_WITH:
            self._check_writer()
        return waited

    def apart(self) -> "Bucket":
        """The same over connections of its own, with no patience."""
        return Bucket(self.name, self.prefix, self.options, Patience(ONE_TRY), answers_within=5)

    # Objects

    def get(self, key: str, most: int = MAX_BYTES) -> tuple[bytes, str] | None:
        """A small object and its ETag; None when there is none.

        Raises NoDocument when it has more than ``most`` bytes, UnreadableObject when the store
        keeps it and does not give it as it is.
        """
        for _ in range(_MOST_READINGS):
            try:
                with bucket_errors(self.where(key)), _absent():
                    answer = self._opened().get_object(Bucket=self.name, Key=f"{self.prefix}{key}")
            except _Absent:
                return None
            size = int(answer.get("ContentLength") or 0)
            with closing(answer["Body"]) as body, suppress(*BROKE_OFF):
                data = b"" if size > most else body.read(most + 1)
                if size > most or len(data) > most:
                    found = f"it has {max(size, len(data)):,} bytes, far too many for it"
                    raise NoDocument(self.where(key), found, hint="move it out of the archive")
                if len(data) >= size:
                    return data, str(answer.get("ETag", ""))
        raise StoreError(f"{self.where(key)}: reading broke off, again and again")

    def stream(self, key: str, start: int, stop: int, etag: str) -> Any:
        """Bytes ``start`` to ``stop`` (excluded), if the object is still the same: a file-like
        body. Raises StoreError when other bytes are answered."""
        given = {"IfMatch": etag} if etag else {}
        answer = self._ask("get_object", key, Range=f"bytes={start}-{stop - 1}", **given)
        if not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-{stop - 1}/"):
            answer["Body"].close()
            raise StoreError(f"{self.where(key)}: the store does not answer ranges as asked")
        return answer["Body"]

    def head(self, key: str, *, checksum: bool = False) -> Head | None:
        """``checksum`` asks for it, which some stores refuse."""
        given = {"ChecksumMode": "ENABLED"} if checksum else {}
        try:
            with bucket_errors(self.where(key)), _absent():
                answer = self._opened().head_object(
                    Bucket=self.name, Key=f"{self.prefix}{key}", **given
                )
                return Head(
                    size=answers.number(answer, "ContentLength"),
                    etag=str(answer.get("ETag", "")),
                    crc64nvme=_crc64nvme(answer),
                    kept_as=_kept_as(answer),
                    metadata=answer.get("Metadata") or {},
                )
        except _Absent:
            return None

    def above(self, name: str, is_meant: Callable[[bytes], bool]) -> str | None:
        """The nearest prefix above this one that has an object of that name that is meant. Raises
        StoreError."""
        folders = self.prefix.split("/")[:-1]
        for depth in reversed(range(len(folders))):
            if folders[depth].startswith("."):
                return None
            prefix = "".join(f"{folder}/" for folder in folders[:depth])
            # Who may read this prefix alone need not know of others.
            with suppress(_Absent, StoreForbidden), bucket_errors(self.where("")), _absent():
                answer = self._opened().get_object(Bucket=self.name, Key=f"{prefix}{name}")
                with closing(answer["Body"]) as body:
                    if is_meant(body.read(MAX_BYTES)):
                        return f"s3://{self.name}/{prefix}".rstrip("/")
        return None

    def put(self, key: str, data: bytes | bytearray, **given: Any) -> Head:
        """Write an object whole; what the answer says of it. Raises Refused, Garbled.

        Always a bytearray: of bytes botocore makes a file, and asks with ``Expect: 100-continue``
        before it sends that, which takes a second with a server that does not answer.
        """
        body = data if isinstance(data, bytearray) else bytearray(data)
        with bucket_errors(self.where(key)), _plain_refusals():
            answer = self._opened().put_object(
                Bucket=self.name, Key=f"{self.prefix}{key}", Body=body, **given
            )
        etag = str(answer.get("ETag", ""))
        return Head(len(data), etag, _crc64nvme(answer), _kept_as(answer))

    def delete(self, key: str) -> None:
        self._ask("delete_object", key)

    def delete_if_allowed(self, key: str) -> bool:
        """Delete what is of no use, if that may be: with a key that may only add it stays."""
        try:
            self.delete(key)
        except (StoreError, StoreForbidden):
            return False
        return True

    def copy(
        self, key: str, target: str, size: int, metadata: Mapping[str, str] | None = None,
        **given: Any,
    ) -> None:  # fmt: skip
        """Within the store; in parts where it is larger than one copy may be. ``metadata`` in the
        place of the object's own."""
        source = {"Bucket": self.name, "Key": f"{self.prefix}{key}"}
        if metadata is not None:
            given["Metadata"] = dict(metadata)
        if size <= _MOST_COPIED:
            if metadata is not None:
                given["MetadataDirective"] = "REPLACE"
            self._ask("copy_object", target, CopySource=source, **given)
            return
        upload_id = self.create_upload(target, **given)
        try:
            self._copy_parts(source, target, upload_id, size)
        except BaseException:
            self.abort(target, upload_id)
            raise

    def copy_as_object(
        self, key: str, target: str, size: int, kept_as: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """To a final key, with what an object is given there. Raises StoreError."""
        given = dict(kept_as)
        until = given.get("ObjectLockRetainUntilDate")
        if until is not None and until <= datetime.now(UTC):
            del given["ObjectLockRetainUntilDate"]
            given.pop("ObjectLockMode", None)
        self.copy(key, target, size, metadata, **given)
        if "ObjectLockMode" not in given:
            return
        found = self._ask("head_object", target)
        if "ObjectLockMode" not in found:
            # Some stores copy an object without the lock that they were asked for.
            version = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
            retention = {"Mode": given["ObjectLockMode"], "RetainUntilDate": until}
            self._ask("put_object_retention", target, Retention=retention, **version)

    def _copy_parts(self, source: dict[str, str], target: str, upload_id: str, size: int) -> None:
        etags = []
        for number, start in enumerate(range(0, size, _MOST_COPIED), 1):
            span = f"bytes={start}-{min(start + _MOST_COPIED, size) - 1}"
            answer = self._ask(
                "upload_part_copy", target, UploadId=upload_id, PartNumber=number,
                CopySource=source, CopySourceRange=span,
            )  # fmt: skip
            with bucket_errors(self.where(target)):
                etags.append(answers.text(answer.get("CopyPartResult", {}), "ETag"))
        self.complete(target, upload_id, etags)

    def listing(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys below a prefix and their sizes, page by page. Raises StoreError."""

        def ask(operation: str, given: Mapping[str, str]) -> Mapping[str, Any]:
            return self._ask(operation, **given)

        with bucket_errors(str(self)):
            for key, size in keys_below(ask, self.name, f"{self.prefix}{prefix}"):
                yield key.removeprefix(self.prefix), size

    # Multipart uploads

    def create_upload(self, key: str, **given: Any) -> str:
        answer = self._ask("create_multipart_upload", key, **given)
        with bucket_errors(self.where(key)):
            return answers.text(answer, "UploadId")

    def upload_part(
        self, key: str, upload_id: str, number: int, data: bytearray, **given: Any
    ) -> str:
        """Send a part; its ETag. Raises Gone, Garbled.

        A bytearray, since botocore hands that to the socket as it is, and bytes in small pieces.
        """
        with bucket_errors(self.where(key)), _plain_refusals():
            answer = self._opened().upload_part(
                Bucket=self.name, Key=f"{self.prefix}{key}", UploadId=upload_id,
                PartNumber=number, Body=data, **given,
            )  # fmt: skip
            return answers.text(answer, "ETag")

    def parts(self, key: str, upload_id: str) -> list[SentPart] | None:
        """What the store has of an upload, in its order; None when there is no such upload."""
        found: list[SentPart] = []
        given: dict[str, Any] = {"UploadId": upload_id}
        try:
            with bucket_errors(self.where(key)), _absent():
                for answer in self._pages("list_parts", f"{self.prefix}{key}", given):
                    answers.check_echo(answer, {"Bucket": self.name, "UploadId": upload_id})
                    found += [
                        SentPart(
                            answers.number(part, "PartNumber"),
                            answers.text(part, "ETag"),
                            answers.number(part, "Size"),
                        )
                        for part in answer.get("Parts") or ()
                    ]
        except _Absent:
            return None
        return found

    def complete(self, key: str, upload_id: str, etags: Sequence[str], **given: Any) -> None:
        """Raises Gone, Refused, Garbled."""
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        with bucket_errors(self.where(key)), _plain_refusals():
            self._opened().complete_multipart_upload(
                Bucket=self.name, Key=f"{self.prefix}{key}", UploadId=upload_id,
                MultipartUpload={"Parts": parts}, **given,
            )  # fmt: skip

    def abort(self, key: str, upload_id: str) -> None:
        try:
            with bucket_errors(self.where(key)), _absent():
                self._opened().abort_multipart_upload(
                    Bucket=self.name, Key=f"{self.prefix}{key}", UploadId=upload_id
                )
        except _Absent:
            return

    def uploads(self, prefix: str = "") -> Iterator[Upload]:
        given: dict[str, Any] = {"Prefix": f"{self.prefix}{prefix}"}
        with bucket_errors(str(self)):
            for answer in self._pages("list_multipart_uploads", None, given):
                answers.check_echo(answer, {"Bucket": self.name})
                for found in answer.get("Uploads") or ():
                    key, upload_id = answers.text(found, "Key"), answers.text(found, "UploadId")
                    begun = found.get("Initiated") or datetime.now(UTC)
                    if key.startswith(given["Prefix"]):  # some stores ignore it
                        yield Upload(key.removeprefix(self.prefix), upload_id, begun)

    def _pages(
        self, operation: str, key: str | None, given: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The pages of a listing that goes on from markers. Raises NoAnswer for one that is cut."""
        named = {"Bucket": self.name} if key is None else {"Bucket": self.name, "Key": key}
        markers: dict[str, Any] = {}
        while True:
            answer = getattr(self._opened(), operation)(**named, **given, **markers)
            yield answer
            if not answers.is_truncated(answer, must_say=False):
                return
            before, markers = (
                markers,
                {
                    name: answer.get(f"Next{name}") or nothing
                    for name, nothing in _MARKERS[operation].items()
                },
            )
            if markers == before or not any(markers.values()):
                raise answers.NoAnswer("a listing is cut: more follows, and not from where")


def _trusted(session: Any) -> str | None:
    """A file of authorities; None leaves it to botocore, which has some of its own. Raises
    UsageError for a file that has none."""
    if bundle := session.get_config_variable("ca_bundle"):
        return check_authorities(bundle, "AWS_CA_BUNDLE, or ca_bundle in the profile")
    others = clean_variable(os.environ, "SSL_CERT_FILE")
    return check_authorities(others, "SSL_CERT_FILE") if others else None


def _kept_as(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: answer[name] for name in _KEPT_AS if name in answer}


def _crc64nvme(answer: Mapping[str, Any]) -> str | None:
    """As an answer says it of a whole object."""
    whole = answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return answer.get("ChecksumCRC64NVME") if whole else None


class _Absent(Exception):
    """There is nothing there."""


@contextmanager
def _absent() -> Iterator[None]:
    """Tell what is not there from what went wrong."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code in _ABSENT or (status_of(error) == 404 and code != "NoSuchBucket"):
            raise _Absent from None
        raise


@contextmanager
def _plain_refusals() -> Iterator[None]:
    """Tell refusals that somebody waits for from what went wrong."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if status_of(error) == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise Refused(code) from None
        if code == "NoSuchUpload":
            raise Gone from None
        if code in _GARBLED:
            raise Garbled(code) from None
        raise
