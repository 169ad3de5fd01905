"""Checks whether a response of the store is one to the request that was sent.

botocore accepts any well-formed XML, and an empty body, and treats what is missing there as absent:
a proxy's error page becomes an empty listing. So the raw response of every operation is checked
once, here.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol
from urllib.parse import unquote, unquote_plus
from xml.etree import ElementTree as ET

# By operation, the root elements of its responses, in whatever namespace. The first is the API's.
_ROOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ListObjectsV2": ("ListBucketResult",),
    "ListObjects": ("ListBucketResult",),
    "ListParts": ("ListPartsResult",),
    "ListMultipartUploads": ("ListMultipartUploadsResult",),
    # The second is that of servers built with gofakes3, such as rclone's.
    "CreateMultipartUpload": ("InitiateMultipartUploadResult", "InitiateMultipartUpload"),
    "CompleteMultipartUpload": ("CompleteMultipartUploadResult",),
    "CopyObject": ("CopyObjectResult",),
    "UploadPartCopy": ("CopyPartResult", "CopyObjectResult"),
}
# Key under which the result that botocore returns holds the texts of the root's children.
RAW: Final = "ArchiverRawTexts"
# Listings of a bucket that was addressed by an alias name another bucket.
_ALIASES: Final = ("arn:",), ("-s3alias",)
_MAX_SHOWN: Final = 40
# Where a root element begins: after the XML declaration, and the blanks that some stores send to
# keep a connection alive.
_MAX_BEFORE_ROOT: Final = 1000


class InvalidResponse(Exception):
    """A response that no S3 store gives to this request. The text says what came instead."""


class _Operation(Protocol):
    """The part of botocore's operation model that is used here."""

    @property
    def name(self) -> str: ...


def check_response(
    operation_model: _Operation,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """Handler of botocore's ``before-parse`` event. Raises InvalidResponse."""
    operation, status = operation_model.name, response_dict["status_code"]
    if status == 404:
        _check_not_found(response_dict["body"])
    if status >= 300:
        return
    if operation in ("GetObject", "HeadObject"):
        # Every store gives its objects an ETag, so HTML without one is not an object.
        is_page = "html" in response_dict["headers"].get("content-type", "").lower()
        if is_page and "etag" not in response_dict["headers"]:
            with suppress(AttributeError):  # the body of GetObject is a stream
                response_dict["body"].close()
            raise InvalidResponse("received a web page instead of an object")
    elif operation in _ROOTS:
        texts = _root_texts(response_dict["body"], _ROOTS[operation])
        customized_response_dict[RAW] = texts


def _root_texts(body: bytes, roots: tuple[str, ...]) -> Mapping[str, str]:
    """The texts of the children of a root element, which must be one of ``roots``. Raises
    InvalidResponse."""
    root = _root(body)
    if root is None:
        # botocore retries a response that was cut off.
        if any(name.encode() in body[:_MAX_BEFORE_ROOT] for name in (*roots, "<Error")):
            return {}
    elif _local_name(root.tag) in roots:
        return {_local_name(child.tag): child.text or "" for child in root if len(child) == 0}
    elif _local_name(root.tag) == "Error":
        return {}  # botocore treats it as a 500
    raise InvalidResponse(f"received {_describe(body)} instead of {roots[0]}")


def _check_not_found(body: bytes | None) -> None:
    """Check that a 404 comes from a store: a web page with that status says nothing about an
    object. Responses to HEAD have no body to check. Raises InvalidResponse."""
    if body and body.strip():
        root = _root(body)
        if root is None or _local_name(root.tag) != "Error":
            raise InvalidResponse(f"404: received {_describe(body)} instead of an S3 error")


def check_echoed(response: Mapping[str, Any], requested: Mapping[str, str]) -> None:
    """Check that the parameters which a response repeats are those of the request. Raises
    InvalidResponse."""
    texts: Mapping[str, str] = response[RAW]
    for name, value in requested.items():
        echoed = texts.get(name)
        if echoed is None or value in (echoed, unquote(echoed), unquote_plus(echoed)):
            continue
        if name in ("Name", "Bucket") and _is_alias(value):
            continue
        raise InvalidResponse(f"the response is about {name} {echoed[:200]!r}, not {value!r}")


def _is_alias(bucket: str) -> bool:
    prefixes, suffixes = _ALIASES
    return bucket.startswith(prefixes) or bucket.endswith(suffixes)


def is_truncated(response: Mapping[str, Any], *, required: bool) -> bool:
    """Whether a page of a listing has a next one. Without the field the answer is False, or
    InvalidResponse when it is ``required``. Raises InvalidResponse for any other value."""
    text = response[RAW].get("IsTruncated")
    if text is None and not required:
        return False
    if text is None or text.strip().lower() not in ("true", "false"):
        found = "no IsTruncated" if text is None else f"IsTruncated {text[:_MAX_SHOWN]!r}"
        raise InvalidResponse(f"a page of a listing has {found}")
    return bool(text.strip().lower() == "true")


def number(found: Mapping[str, Any], name: str) -> int:
    """A required count in a response. Raises InvalidResponse."""
    value = found.get(name)
    if not isinstance(value, int) or value < 0:
        raise InvalidResponse(f"the response has {'no' if value is None else value} {name}")
    return value


def text(found: Mapping[str, Any], name: str) -> str:
    """A required text in a response. Raises InvalidResponse."""
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidResponse(f"the response has no {name}")
    return value


def bare(etag: str) -> str:
    """An ETag without quotes, and without the ``W/`` of proxies that compress responses."""
    return etag.removeprefix("W/").strip('"')


def _describe(body: bytes) -> str:
    """What a body is, in a few words."""
    root = _root(body)
    if root is not None:
        return f"<{_local_name(root.tag)[:_MAX_SHOWN]}>"
    if not body.strip():
        return "an empty response"
    start = body.lstrip()[:_MAX_SHOWN].decode("utf-8", "backslashreplace")
    return f"something that is not XML ({start!r})"


def _root(body: bytes) -> ET.Element | None:
    try:
        return ET.fromstring(body.lstrip())  # noqa: S314  # as botocore itself does
    except ET.ParseError:
        return None


def _local_name(tag: str) -> str:
    return tag.rpartition("}")[2]
