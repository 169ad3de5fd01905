"""Parses the head of an HTTP/1.1 response: status line and header fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httptools


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The status and header fields of a response; names in lower case."""

    status: int
    fields: Mapping[str, str]
    keeps_alive: bool


class MalformedResponse(Exception):
    """The server sent something that is not a valid HTTP response."""


class _HeadFields:
    """Collects what the parser reports."""

    __slots__ = ("fields", "is_complete")

    def __init__(self) -> None:
        self.fields: Final[dict[str, str]] = {}
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # The parser keeps blanks after a value, which are not part of it (RFC 9112 §5).
        self.fields[name.decode("ascii").lower()] = value.decode("latin-1").strip(" \t")

    def on_headers_complete(self) -> None:
        self.is_complete = True


def parse_head(head: bytes) -> ResponseHead:
    """Parse a head, including its empty line.

    Raises MalformedResponse, also where the length is ambiguous: given twice, or along with a
    transfer encoding.
    """
    found = _HeadFields()
    parser = httptools.HttpResponseParser(found)
    try:
        parser.feed_data(head[:-1])
        # Once a response without a body ends, the parser forgets what its head said of this.
        keeps_alive = parser.should_keep_alive()
        parser.feed_data(head[-1:])
    except httptools.HttpParserError:
        raise MalformedResponse("the response is not HTTP") from None
    except httptools.HttpParserUpgrade:
        raise MalformedResponse("the response switches to another protocol") from None
    status = parser.get_status_code()
    if status < 200 or not found.is_complete:
        raise MalformedResponse("the response does not start with a final status line")
    return ResponseHead(status, found.fields, keeps_alive=keeps_alive)
