"""The rules of objects behind signed URLs, as OSS holds to them; no I/O."""

import hmac
import html
import re
from collections.abc import Mapping

from archiver.emulator.gateway import Key
from archiver.emulator.signatures import oss_v1_signature

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_EPOCH = re.compile(r"\d{1,12}", re.ASCII)


class OssError(Exception):
    """An error answer with its HTTP status, code and EC."""

    def __init__(self, status: int, code: str, message: str, ec: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.ec = ec

    def xml(self, request_id: str, host: str) -> str:
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n'
            f"  <Code>{self.code}</Code>\n  <Message>{self.message}</Message>\n"
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
    """Hold a request against the signature in its URL. Raises OssError as OSS would.

    ``resource`` is ``/bucket/key``, decoded; header names are lower-case.
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
    signs_more = any(
        name.startswith("x-oss-") or name in ("content-type", "content-md5") for name in headers
    )
    if signs_more or not hmac.compare_digest(computed.encode(), query["Signature"].encode()):
        raise OssError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            "0002-00000040",
        )
    if now > expires:
        raise OssError(403, "AccessDenied", "Request has expired.", "0002-00000069")


def satisfiable(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one past the last; None for the whole object.

    By default OSS answers a range that it cannot satisfy with the whole object, not with 416.
    A last byte past the end counts as out of bounds, too.
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
    """412 or 304 when a condition says so (RFC 9110 §13); None to go on."""
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if wanted is not None and not _names(wanted, etag):
        return 412
    if unwanted is not None and _names(unwanted, etag):
        return 304
    return None


def _names(condition: str, etag: str) -> bool:
    given = {item.strip().strip('"') for item in condition.split(",")}
    return "*" in given or etag.strip('"') in given
