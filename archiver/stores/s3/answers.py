"""Whether what a store answered is an answer to what was asked, before anybody believes it.

botocore reads any well-formed XML, and an empty body, and takes for absent what it does not find
there: a proxy's page becomes a listing of nothing. So the raw answer of every operation is looked
at, once, here.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol
from urllib.parse import unquote, unquote_plus
from xml.etree import ElementTree as ET

# What the root of an answer is called, in whatever namespace; the first is the name in the API.
_ROOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ListObjectsV2": ("ListBucketResult",),
    "ListObjects": ("ListBucketResult",),
    "ListParts": ("ListPartsResult",),
    "ListMultipartUploads": ("ListMultipartUploadsResult",),
    # The second is what servers made with gofakes3 say, as rclone's.
    "CreateMultipartUpload": ("InitiateMultipartUploadResult", "InitiateMultipartUpload"),
    "CompleteMultipartUpload": ("CompleteMultipartUploadResult",),
    "CopyObject": ("CopyObjectResult",),
    "UploadPartCopy": ("CopyPartResult", "CopyObjectResult"),
}
# Under this name the raw text of the root's children is in what botocore returns.
SAID: Final = "Said"
# Their listings name another bucket than was asked.
_ALIASES: Final = ("arn:",), ("-s3alias",)
_MOST_SHOWN: Final = 40
# An XML declaration, and what some stores write ahead to keep a connection alive.
_MOST_BEFORE_ROOT: Final = 1000


class NoAnswer(Exception):
    """What came is no answer of an S3 store to this request; the text says what it is."""


class _Operation(Protocol):
    """Of botocore's model, what is asked here."""

    @property
    def name(self) -> str: ...


def check(
    operation_model: _Operation,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: object,
) -> None:
    """For botocore's ``before-parse``. Raises NoAnswer."""
    operation, status = operation_model.name, response_dict["status_code"]
    if status == 404:
        _check_absence(response_dict["body"])
    if status >= 300:
        return
    if operation in ("GetObject", "HeadObject"):
        # Every store gives objects an ETag; nobody's object is kept as a web page without one.
        is_page = "html" in response_dict["headers"].get("content-type", "").lower()
        if is_page and "etag" not in response_dict["headers"]:
            with suppress(AttributeError):  # a stream, of GetObject
                response_dict["body"].close()
            raise NoAnswer("a web page came instead of an object")
    elif operation in _ROOTS:
        said = _said(response_dict["body"], _ROOTS[operation])
        customized_response_dict[SAID] = said


def _said(body: bytes, wanted: tuple[str, ...]) -> Mapping[str, str]:
    """The texts of a root that is wanted. Raises NoAnswer."""
    root = _root(body)
    if root is None:
        # One that was cut on its way is asked for again, by botocore.
        if any(name.encode() in body[:_MOST_BEFORE_ROOT] for name in (*wanted, "<Error")):
            return {}
    elif _local(root.tag) in wanted:
        return {_local(child.tag): child.text or "" for child in root if len(child) == 0}
    elif _local(root.tag) == "Error":
        return {}  # botocore makes a 500 of it
    raise NoAnswer(f"{_shown(body)} came instead of a {wanted[0]}")


def _check_absence(body: bytes | None) -> None:
    """A page that says 404 says nothing about an object; HEAD has no body to tell."""
    if body and body.strip():
        root = _root(body)
        if root is None or _local(root.tag) != "Error":
            raise NoAnswer(f"404, and {_shown(body)} came instead of an S3 error")


def check_echo(answer: Mapping[str, Any], asked: Mapping[str, str]) -> None:
    """That what an answer repeats of the request is what was asked. Raises NoAnswer."""
    said: Mapping[str, str] = answer[SAID]
    for name, value in asked.items():
        given = said.get(name)
        if given is None or value in (given, unquote(given), unquote_plus(given)):
            continue
        if name in ("Name", "Bucket") and _is_alias(value):
            continue
        raise NoAnswer(f"an answer about {name} {given[:200]!r} came, asked was {value!r}")


def _is_alias(bucket: str) -> bool:
    beginnings, ends = _ALIASES
    return bucket.startswith(beginnings) or bucket.endswith(ends)


def is_truncated(answer: Mapping[str, Any], *, must_say: bool) -> bool:
    """Whether more follows. Raises NoAnswer when that cannot be told."""
    said = answer[SAID].get("IsTruncated")
    if said is None and not must_say:
        return False
    if said is None or said.strip().lower() not in ("true", "false"):
        what = "does not say" if said is None else f"says {said[:_MOST_SHOWN]!r} to"
        raise NoAnswer(f"a page of a listing {what} whether more follows")
    return bool(said.strip().lower() == "true")


def number(found: Mapping[str, Any], name: str) -> int:
    """A count of an answer, that none can do without. Raises NoAnswer."""
    value = found.get(name)
    if not isinstance(value, int) or value < 0:
        raise NoAnswer(f"an answer has {'no' if value is None else value} {name}")
    return value


def text(found: Mapping[str, Any], name: str) -> str:
    """A text of an answer, that none can do without. Raises NoAnswer."""
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise NoAnswer(f"an answer has no {name}")
    return value


def bare(etag: str) -> str:
    """An ETag without its quotes, and without the mark of who packs answers on their way."""
    return etag.removeprefix("W/").strip('"')


def _shown(body: bytes) -> str:
    """What came, in a few words."""
    root = _root(body)
    if root is not None:
        return f"<{_local(root.tag)[:_MOST_SHOWN]}>"
    if not body.strip():
        return "an empty answer"
    begins = body.lstrip()[:_MOST_SHOWN].decode("utf-8", "backslashreplace")
    return f"something that is no XML ({begins!r})"


def _root(body: bytes) -> ET.Element | None:
    try:
        return ET.fromstring(body.lstrip())  # noqa: S314  # as botocore itself does
    except ET.ParseError:
        return None


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
