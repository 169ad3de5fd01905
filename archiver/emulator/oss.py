"""The rules of OSS for objects behind signed URLs; no I/O."""

import base64
import hashlib
import hmac
import html
import re
from collections.abc import Mapping
from urllib.parse import quote

from archiver.emulator.gateway import Key
from archiver.sources.alibaba.signing import pct

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_EPOCH = re.compile(r"\d{1,12}", re.ASCII)


class OssError(Exception):
    """An error response with its HTTP status, code and EC."""

    def __init__(self, status: int, code: str, message: str, ec: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.ec = ec

    def xml(self, request_id: str, host: str) -> str:
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n'
            f"  <Code>{self.code}</Code>\n  <Message>{html.escape(self.message)}</Message>\n"
            f"  <RequestId>{request_id}</RequestId>\n  <HostId>{html.escape(host)}</HostId>\n"
            f"  <EC>{self.ec}</EC>\n</Error>\n"
        )


def no_such_key() -> OssError:
    return OssError(404, "NoSuchKey", "The specified key does not exist.", "0026-00000001")


def check_url(
    key: Key,
    method: str,
    resource: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    now: float,
) -> None:
    """Check the signature in the URL of a request, and its expiry. Raises OssError as OSS does.

    ``resource`` is the decoded ``/bucket/key``; header names are lower-case; ``now`` is in epoch
    seconds.
    """
    if not {"Expires", "OSSAccessKeyId", "Signature"} <= query.keys():
        raise OssError(
            403, "AccessDenied", "You have no right to access this object.", "0003-00000001"
        )
    if query["OSSAccessKeyId"] != key.access_key_id:
        raise OssError(
            403, "InvalidAccessKeyId", "The OSS Access Key Id does not exist.", "0002-00000902"
        )
    if not _EPOCH.fullmatch(query["Expires"]):
        raise OssError(403, "AccessDenied", "Invalid date (should be seconds).", "0002-00000225")
    expires = int(query["Expires"])
    computed = oss_v1_signature(key.secret.reveal(), method, expires, resource)
    needs_more = any(
        name.startswith("x-oss-") or name in ("content-type", "content-md5") for name in headers
    )
    if needs_more or not hmac.compare_digest(computed.encode(), query["Signature"].encode()):
        raise OssError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            "0002-00000040",
        )
    if now > expires:
        raise OssError(403, "AccessDenied", "Request has expired.", "0002-00000069")


def oss_v1_signature(secret: str, verb: str, expires: int, resource: str) -> str:
    """The signature in an OSS V1 URL; ``resource`` is the decoded ``/bucket/key``.

    Content-MD5, Content-Type and ``x-oss-*`` headers are signed as well, and empty here: a request
    with one of them does not match (OSS, *Add signatures to URLs*).
    """
    to_sign = f"{verb}\n\n\n{expires}\n{resource}"
    digest = hmac.new(secret.encode(), to_sign.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def oss_v1_url(access_key_id: str, secret: str, resource: str, expires: int) -> str:
    """Path and query of a URL that GET may use until ``expires`` (epoch seconds)."""
    signature = oss_v1_signature(secret, "GET", expires, resource)
    return (
        f"{quote(resource)}?Expires={expires}&OSSAccessKeyId={pct(access_key_id)}"
        f"&Signature={pct(signature)}"
    )


def satisfiable(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte of a Range header and the one past the last; None for the whole object.

    By default OSS returns the whole object for a range that it cannot satisfy, not 416. A last byte
    past the end counts as out of bounds, too.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last = match[1], match[2]
    if first == "":
        length = int(last or 0)
        return (size - length, size) if 0 < length <= size else None
    start = int(first)
    stop = int(last) + 1 if last else size
    return (start, stop) if start < stop <= size else None


def precondition(headers: Mapping[str, str], etag: str) -> int | None:
    """The status 412 or 304 when a condition fails (RFC 9110 §13), else None."""
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if wanted is not None and not _names(wanted, etag):
        return 412
    if unwanted is not None and _names(unwanted, etag):
        return 304
    return None


def _names(condition: str, etag: str) -> bool:
    given = {item.strip().strip('"') for item in condition.split(",")}
    return "*" in given or etag.strip('"') in given
