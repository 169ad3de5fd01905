"""A small S3 server in memory that is as odd as it is told to be, and what is known of public ones.

It has one bucket, believes every signature, and answers in the same thread that a gateway has, so
the faults of a gateway can be had as well. Each field of ``Habits`` is a way in which some server
differs from AWS; ``PUBLIC`` has the combinations that public servers are known to have.
"""

import base64
import contextlib
import functools
import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from anycrc import Model

from tests.servers.gateway import Answer, Fault, Gateway, Request, error, serving

BUCKET: Final = "odd"
_LEAST_PART: Final = 5 * 2**20
_MOST_KEY: Final = 1024
_CRC: Final = Model("CRC64-NVME")
_CLASS: Final = "x-amz-storage-class"
_ENCRYPTION: Final = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
_LOCK: Final = ("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date")
_KEPT: Final = {"class": (_CLASS,), "encryption": _ENCRYPTION, "lock": _LOCK}


@dataclass(frozen=True, slots=True)
class Habits:
    """AWS's, unless told otherwise.

    ``if_match``: the form in which a right ETag is taken by a put. ``signs``: the keys
    whose signatures are believed. ``uploads``: what
    ListMultipartUploads answers. ``etags``: their form in headers; ``etags_in_xml``: in bodies.
    ``lag``: listings that do not show a new key yet. ``keeps``: what objects are kept with, and
    said to be. ``forbids``: operations that the key may not do.
    """

    conditions: Literal["kept", "ignored", "not implemented"] = "kept"
    if_match: Literal["any", "bare", "quoted", "never"] = "any"
    signs: Literal["any", "plain"] = "any"
    md5: bool = True
    crc64nvme: bool = True
    wrong_part_ends_upload: bool = False
    uploads: Literal["listed", "by exact key", "not implemented"] = "listed"
    initiated: str | None = None
    ranges: bool = True
    etags: Literal["quoted", "bare", "upper", "weak", "none"] = "quoted"
    etags_in_xml: Literal["quoted", "bare"] = "quoted"
    put_tells_etag: bool = True
    continues: bool = True
    listing: Literal["v2", "v1"] = "v2"
    page: int = 10  # small, so that tests need few keys for more than one
    lag: int = 0
    keeps: frozenset[str] = frozenset(_KEPT)
    forbids: frozenset[str] = frozenset()


AWS: Final = Habits()
# Who has it, and where that is said: docs/buckets.md has the table.
PUBLIC: Final = {
    "AWS": AWS,
    "Ceph RGW 16": Habits(if_match="bare", crc64nvme=False),
    "DigitalOcean Spaces": Habits(if_match="bare", crc64nvme=False),
    "rclone serve s3": Habits(
        conditions="ignored", crc64nvme=False, wrong_part_ends_upload=True, keeps=frozenset()
    ),
    "Alibaba OSS": Habits(conditions="not implemented", crc64nvme=False, etags="upper"),
    "MinIO": Habits(uploads="by exact key"),
    "Swift": Habits(conditions="ignored", crc64nvme=False, keeps=frozenset()),
    "a simulator": Habits(
        conditions="ignored", crc64nvme=False, etags_in_xml="bare", keeps=frozenset(),
        initiated="2010-11-10T20:48:33.000Z",
    ),
    "a small server": Habits(
        conditions="ignored", crc64nvme=False, wrong_part_ends_upload=True,
        uploads="not implemented", keeps=frozenset(),
    ),
    "before 2016": Habits(
        conditions="ignored", crc64nvme=False, md5=False, listing="v1", continues=False,
        etags="bare", put_tells_etag=False, keeps=frozenset(),
    ),
    "behind a proxy that packs": Habits(etags="weak", crc64nvme=False),
    "behind a proxy that drops ETags": Habits(etags="none", crc64nvme=False),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Object:
    """``etag`` without quotes; ``fields`` are the headers that it is kept with."""

    data: bytes
    etag: str
    fields: dict[str, str] = field(default_factory=dict)
    crc64nvme: str | None = None
    born: int = 0  # after so many listings


@dataclass(slots=True)
class _Upload:
    key: str
    fields: dict[str, str]
    crc64nvme: bool
    begun: datetime
    parts: dict[int, tuple[str, bytes]] = field(default_factory=dict)


class _Refused(Exception):
    """``answer`` is what to say."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.answer = error(status, code, "of the odd store")


@dataclass
class OddStore(Gateway):
    """``objects`` and ``cold`` (those in an archive class) by key are a test's to change;
    ``puts`` are the keys that were written, in order."""

    habits: Habits = AWS
    objects: dict[str, Object] = field(default_factory=dict)
    cold: set[str] = field(default_factory=set)
    puts: list[str] = field(default_factory=list)
    open_uploads: dict[str, _Upload] = field(default_factory=dict)
    _ids: Iterator[int] = field(default_factory=itertools.count)
    _listings: int = 0

    def become(self, habits: Habits) -> None:
        """Empty, and of other habits."""
        self.forget()
        for each in (self.objects, self.cold, self.puts, self.open_uploads):
            each.clear()
        self.habits, self.continues, self._listings = habits, habits.continues, 0

    def place(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"

    async def _ask(
        self, request: Request, body: AsyncIterator[bytes], fault: Fault | None
    ) -> Answer | None:
        data = b"".join([piece async for piece in body])
        if fault is not None and fault.body is not None:
            data = fault.body(0, data)
        try:
            return self._do(request, data)
        except _Refused as refused:
            return refused.answer

    def _do(self, request: Request, data: bytes) -> Answer:
        _, bucket, *rest = request.path.split("/", 2)
        key = rest[0] if rest else ""
        if bucket != BUCKET:
            raise _Refused(404, "NoSuchBucket")
        if request.kind in self.habits.forbids:
            raise _Refused(403, "AccessDenied")
        if self.habits.signs == "plain" and "%" in key:
            raise _Refused(403, "SignatureDoesNotMatch")
        if len(key.encode()) > _MOST_KEY:
            raise _Refused(400, "KeyTooLongError")
        if request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            raise _Refused(501, "NotImplemented")
        answers = {
            "PutObject": self._put, "GetObject": self._get, "HeadObject": self._get,
            "CopyObject": self._copy, "PutObjectRetention": self._retain,
            "DeleteObject": self._delete, "ListObjectsV2": self._list,
            "CreateMultipartUpload": self._create, "UploadPart": self._part,
            "CompleteMultipartUpload": self._complete, "AbortMultipartUpload": self._abort,
            "ListParts": self._list_parts, "ListMultipartUploads": self._list_uploads,
        }  # fmt: skip
        kind = request.kind if key or request.kind != "GetObject" else "ListObjectsV2"
        if kind not in answers:
            raise _Refused(501, "NotImplemented")
        return answers[kind](request, key, data)

    # Objects

    def _put(self, request: Request, key: str, data: bytes) -> Answer:
        self._check_conditions(request, key)
        crc = self._check_digests(request, data)
        fields = self._fields(request)
        made = Object(data, _md5(data), fields, crc)
        self._keep(key, made)
        said: dict[str, str] = {name: fields[name] for name in _ENCRYPTION if name in fields}
        if crc is not None:
            said |= {"x-amz-checksum-crc64nvme": crc, "x-amz-checksum-type": "FULL_OBJECT"}
        return Answer(200, [*self._etag(made.etag, put=True), *said.items()])

    def _keep(self, key: str, made: Object) -> None:
        born = self.objects[key].born if key in self.objects else self._listings
        self.objects[key] = replace(made, born=born)
        self.cold.discard(key)
        self.puts.append(key)

    def _check_conditions(self, request: Request, key: str) -> None:
        match, none_match = (request.headers.get(name) for name in ("if-match", "if-none-match"))
        if self.habits.conditions == "ignored" or (match is None and none_match is None):
            return
        if self.habits.conditions == "not implemented":
            raise _Refused(501, "NotImplemented")
        there = self.objects.get(key)
        if none_match is not None and there is not None:
            raise _Refused(412, "PreconditionFailed")
        if match is None:
            return
        if there is None:
            raise _Refused(404, "NoSuchKey")
        right = {
            "any": (there.etag, f'"{there.etag}"'), "bare": (there.etag,),
            "quoted": (f'"{there.etag}"',), "never": (),
        }  # fmt: skip
        if match not in right[self.habits.if_match]:
            raise _Refused(412, "PreconditionFailed")

    def _check_digests(self, request: Request, data: bytes) -> str | None:
        """The CRC-64/NVME that it is kept with."""
        md5, crc = (request.headers.get(n) for n in ("content-md5", "x-amz-checksum-crc64nvme"))
        if self.habits.md5 and md5 and md5 != base64.b64encode(_digest(data)).decode():
            raise _Refused(400, "BadDigest")
        if not self.habits.crc64nvme or crc is None:
            return None
        if crc != _crc(data):
            raise _Refused(400, "BadDigest")
        return crc

    def _fields(self, request: Request) -> dict[str, str]:
        """Of a request, what an object is kept with."""
        kept = [name for what in self.habits.keeps for name in _KEPT[what]]
        return {
            name: value for name, value in request.headers.items()
            if name in kept or name.startswith("x-amz-meta-")
        }  # fmt: skip

    def _etag(self, etag: str, *, put: bool = False) -> list[tuple[str, str]]:
        if self.habits.etags == "none" or (put and not self.habits.put_tells_etag):
            return []
        forms = {
            "quoted": f'"{etag}"', "bare": etag, "upper": f'"{etag.upper()}"',
            "weak": f'W/"{etag}"',
        }  # fmt: skip
        return [("ETag", forms[self.habits.etags])]

    def _etag_in_xml(self, etag: str) -> str:
        if self.habits.etags == "upper":
            etag = etag.upper()
        return f"&quot;{etag}&quot;" if self.habits.etags_in_xml == "quoted" else etag

    def _there(self, key: str) -> Object:
        if key not in self.objects:
            raise _Refused(404, "NoSuchKey")
        return self.objects[key]

    def _get(self, request: Request, key: str, _: bytes) -> Answer:
        found = self._there(key)
        match = request.headers.get("if-match")
        if match is not None and _bare(match).lower() != found.etag:
            raise _Refused(412, "PreconditionFailed")
        if request.method == "GET" and key in self.cold:
            raise _Refused(403, "InvalidObjectState")
        said = [*self._etag(found.etag), *found.fields.items()]
        said.append(("Last-Modified", "Tue, 24 Nov 2026 02:15:00 GMT"))
        if found.crc64nvme and "x-amz-checksum-mode" in request.headers:
            said += [("x-amz-checksum-crc64nvme", found.crc64nvme)]
            said += [("x-amz-checksum-type", "FULL_OBJECT")]
        if request.method == "HEAD":
            return Answer(200, [*said, ("Content-Length", str(len(found.data)))])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if wanted is None or not self.habits.ranges:
            return Answer(200, said, found.data)
        start, last = int(wanted[1]), min(int(wanted[2]), len(found.data) - 1)
        said.append(("Content-Range", f"bytes {start}-{last}/{len(found.data)}"))
        return Answer(206, said, found.data[start : last + 1])

    def _copy(self, request: Request, key: str, _: bytes) -> Answer:
        source = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2]
        found = self._there(source)
        if source in self.cold:
            raise _Refused(403, "InvalidObjectState")
        fields = self._fields(request)
        if request.headers.get("x-amz-metadata-directive") != "REPLACE":
            meta = {n: v for n, v in found.fields.items() if n.startswith("x-amz-meta-")}
            fields = meta | fields
        self._keep(key, Object(found.data, _md5(found.data), fields, found.crc64nvme))
        etag = self._etag_in_xml(self.objects[key].etag)
        modified = "<LastModified>2026-11-24T02:15:00.000Z</LastModified>"
        return _xml("CopyObjectResult", f"<ETag>{etag}</ETag>{modified}")

    def _retain(self, _: Request, key: str, data: bytes) -> Answer:
        if "lock" in self.habits.keeps:
            said = [_text(data, name) for name in ("Mode", "RetainUntilDate")]
            self._there(key).fields.update(zip(_LOCK, said, strict=True))
        return Answer(200)

    def _delete(self, _: Request, key: str, __: bytes) -> Answer:
        self.objects.pop(key, None)
        return Answer(204)

    # Listings

    def _list(self, request: Request, _: str, __: bytes) -> Answer:
        self._listings += 1
        query = request.query
        is_v2 = "list-type" in query and self.habits.listing == "v2"
        after = query.get("continuation-token" if is_v2 else "marker", "")
        prefix = query.get("prefix", "")
        keys = sorted(
            key for key, one in self.objects.items()
            if key.startswith(prefix) and key > after
            and (self.habits.lag == 0 or one.born + self.habits.lag < self._listings)
        )  # fmt: skip
        page, more = keys[: self.habits.page], len(keys) > self.habits.page
        encodes = query.get("encoding-type") == "url" and self.habits.listing == "v2"

        def shown(text: str) -> str:
            return quote(text, safe="/") if encodes else escape(text)

        inner = f"<Name>{BUCKET}</Name><Prefix>{shown(prefix)}</Prefix>"
        inner += f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        if encodes:
            inner += "<EncodingType>url</EncodingType>"
        if is_v2:
            inner += f"<KeyCount>{len(page)}</KeyCount>"
            if more:
                token = escape(page[-1])
                inner += f"<NextContinuationToken>{token}</NextContinuationToken>"
        written = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"
        for key in page:
            one = self.objects[key]
            etag = self._etag_in_xml(one.etag)
            inner += (
                f"<Contents><Key>{shown(key)}</Key><Size>{len(one.data)}</Size>"
                f"<LastModified>{written}</LastModified><ETag>{etag}</ETag></Contents>"
            )
        return _xml("ListBucketResult", inner)

    def _list_uploads(self, request: Request, _: str, __: bytes) -> Answer:
        prefix = request.query.get("prefix", "")
        if self.habits.uploads == "not implemented":
            raise _Refused(501, "NotImplemented")
        inner = f"<Bucket>{BUCKET}</Bucket><IsTruncated>false</IsTruncated>"
        for upload_id, upload in self.open_uploads.items():
            exact = self.habits.uploads == "by exact key"
            if upload.key == prefix or (upload.key.startswith(prefix) and not exact):
                begun = self.habits.initiated or f"{upload.begun:%Y-%m-%dT%H:%M:%S.000Z}"
                inner += (
                    f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{upload_id}</UploadId>"
                    f"<Initiated>{begun}</Initiated></Upload>"
                )
        return _xml("ListMultipartUploadsResult", inner)

    # Multipart uploads

    def _create(self, request: Request, key: str, _: bytes) -> Answer:
        upload_id = f"upload-{next(self._ids)}"
        wants = request.headers.get("x-amz-checksum-algorithm", "").upper() == "CRC64NVME"
        crc = wants and self.habits.crc64nvme
        self.open_uploads[upload_id] = _Upload(key, self._fields(request), crc, datetime.now(UTC))
        said = f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{upload_id}</UploadId>"
        return _xml("InitiateMultipartUploadResult", said)

    def _upload(self, request: Request, key: str) -> _Upload:
        found = self.open_uploads.get(request.query["uploadId"])
        if found is None or found.key != key:
            raise _Refused(404, "NoSuchUpload")
        return found

    def _part(self, request: Request, key: str, data: bytes) -> Answer:
        upload = self._upload(request, key)
        try:
            self._check_digests(request, data)
        except _Refused:
            if self.habits.wrong_part_ends_upload:
                del self.open_uploads[request.query["uploadId"]]
            raise
        etag = _md5(data)
        upload.parts[request.part or 0] = (etag, data)
        return Answer(200, self._etag(etag) or [("ETag", etag)])  # none can do without

    def _list_parts(self, request: Request, key: str, _: bytes) -> Answer:
        upload = self._upload(request, key)
        inner = f"<Bucket>{BUCKET}</Bucket><UploadId>{request.query['uploadId']}</UploadId>"
        inner += "<IsTruncated>false</IsTruncated>"
        for number, (etag, data) in sorted(upload.parts.items()):
            inner += (
                f"<Part><PartNumber>{number}</PartNumber><ETag>{self._etag_in_xml(etag)}</ETag>"
                f"<Size>{len(data)}</Size></Part>"
            )
        return _xml("ListPartsResult", inner)

    def _complete(self, request: Request, key: str, body: bytes) -> Answer:
        upload = self._upload(request, key)
        self._check_conditions(request, key)
        asked = re.findall(rb"<Part>.*?</Part>", body, re.DOTALL)
        parts, etags = list[bytes](), list[str]()
        for one in asked:
            etag, data = upload.parts.get(int(_text(one, "PartNumber")), ("", b""))
            if _bare(_text(one, "ETag").replace("&quot;", '"')).lower() != etag:
                raise _Refused(400, "InvalidPart")
            parts.append(data)
            etags.append(etag)
        if any(len(data) < _LEAST_PART for data in parts[:-1]):
            raise _Refused(400, "EntityTooSmall")
        whole = b"".join(parts)
        crc = _crc(whole) if upload.crc64nvme else None
        if crc and request.headers.get("x-amz-checksum-crc64nvme", crc) != crc:
            raise _Refused(400, "BadDigest")
        etag = f"{_md5(bytes.fromhex(''.join(etags)))}-{len(parts)}"
        self._keep(key, Object(whole, etag, upload.fields, crc))
        del self.open_uploads[request.query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", f"<ETag>{self._etag_in_xml(etag)}</ETag>")

    def _abort(self, request: Request, key: str, _: bytes) -> Answer:
        self._upload(request, key)
        del self.open_uploads[request.query["uploadId"]]
        return Answer(204)


@contextlib.contextmanager
def oddstore(habits: Habits = AWS) -> Iterator[OddStore]:
    store = OddStore(("", 0), habits=habits, continues=habits.continues)
    with serving(store):
        yield store


def object_of(data: bytes) -> Object:
    """For a test to put past the server."""
    return Object(data, _md5(data))


def _xml(root: str, inner: str) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inner}</{root}>'
    return Answer(200, [("Content-Type", "application/xml")], body.encode())


def _text(xml: bytes, name: str) -> str:
    found: Sequence[bytes] = re.findall(rb"<%s>(.*?)</%s>" % ((name.encode(),) * 2), xml)
    return found[0].decode() if found else ""


@functools.lru_cache(maxsize=1)  # a body is checked, and then has it as its ETag
def _digest(data: bytes) -> bytes:
    return hashlib.md5(data).digest()


def _md5(data: bytes) -> str:
    return _digest(data).hex()


def _crc(data: bytes) -> str:
    return base64.b64encode(int(_CRC.calc(data)).to_bytes(8, "big")).decode()


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
