"""Parses the JSON documents of an archive strictly. Pure.

Records, results, journals, leases and ``archive.json`` may have been changed by anybody, or by a
failing disk. Whatever the bytes are, parsing returns checked values or raises BadDocument, which
names the document and what is wrong with it. Time and memory are bounded by the number of bytes.

Names in documents come from outside, too, and become paths: text with control characters or half a
surrogate pair is rejected. So are true and 1.5 as integers, and numbers of 5,000 digits.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar

from archiver.errors import BadDocument, NewerDocument
from archiver.times import parse_document_time

# The largest document that is read. The largest ones written are a month's results, and evidence.
MAX_BYTES: Final = 64 * 2**20
# A parsed value takes up to a hundred times the memory of its JSON, which may be two bytes.
MAX_VALUES: Final = 4_000_000
MAX_DEPTH: Final = 32
MAX_DIGITS: Final = 40
MAX_TEXT: Final = 64 * 1024
MAX_NUMBER: Final = 2**63 - 1
# A file name that every file system accepts, with room for a suffix.
MAX_NAME_BYTES: Final = 200

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CRC64 = re.compile(r"0|[1-9][0-9]{0,19}")
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FINE: Final = frozenset((str, bool, type(None)))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object within the document ``key``; each method reads a field as one type.

    Every method raises BadDocument. ``place`` is the path of the object within the document.
    """

    key: str
    values: Mapping[str, Any]
    place: str = ""

    def text(self, name: str) -> str:
        """Any text of bounded length."""
        value = self._value(name)
        if not isinstance(value, str):
            self.refuse(name, "is not text")
        if len(value) > MAX_TEXT:
            self.refuse(name, f"is longer than {MAX_TEXT:,} characters")
        return value

    def line(self, name: str) -> str:
        """Text that fits on one line and may be part of a path."""
        text = self.text(name)
        if not is_clean(text):
            self.refuse(name, "contains control characters or line breaks")
        return text

    def word(self, name: str, kind: Callable[[str], T]) -> T:
        """A value of an enumeration."""
        text = self.line(name)
        try:
            return kind(text)
        except ValueError:
            self.refuse(name, f"is {text:.40}, which is not a known value")

    def name(self, name: str) -> str:
        """The name of a file in the same folder, valid on every file system."""
        text = self.text(name)
        if not is_name(text):
            self.refuse(name, "is not a valid file name")
        return text

    def sha256(self, name: str) -> str:
        """64 hex digits in lower case."""
        text = self.text(name)
        if not _SHA256.fullmatch(text):
            self.refuse(name, "is not a SHA-256")
        return text

    def crc64(self, name: str) -> int:
        """A CRC-64. It is written as text, since other languages round such large numbers."""
        text = self.text(name)
        if not _CRC64.fullmatch(text) or int(text) >= 2**64:
            self.refuse(name, "is not a CRC-64")
        return int(text)

    def number(self, name: str, least: int = 0, most: int = MAX_NUMBER) -> int:
        """An integer between ``least`` and ``most``, both included."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, "is not an integer")
        if not least <= value <= most:
            self.refuse(name, f"is not between {least} and {most}")
        return value

    def moment(self, name: str) -> datetime:
        """A time in ISO 8601, as aware UTC; one without an offset is UTC."""
        text = self.text(name)
        try:
            return parse_document_time(text)
        except ValueError:
            self.refuse(name, f"is {text:.40}, which is not a valid time")

    def is_null(self, name: str) -> bool:
        """Whether a field is null; it must be there."""
        return self._value(name) is None

    def flag(self, name: str) -> bool:
        """A boolean."""
        value = self._value(name)
        if not isinstance(value, bool):
            self.refuse(name, "is neither true nor false")
        return value

    def within(self, name: str) -> "Fields":
        """An object."""
        value = self._value(name)
        if not isinstance(value, dict):
            self.refuse(name, "is not an object")
        return Fields(self.key, value, f"{self.place}{name:.80}.")

    def items(self, name: str) -> list[Any]:
        """A list; its items are not checked."""
        value = self._value(name)
        if not isinstance(value, list):
            self.refuse(name, "is not a list")
        return value

    def format(self, name: str, newest: int, oldest: int = 1) -> int:
        """The document's format number. Raises NewerDocument when it is above ``newest``."""
        number = self.number(name)
        if number > newest:
            raise NewerDocument(
                self.key,
                f"its {name} is {number}; this version reads up to {newest}",
                hint="use a newer archiver; if there is none, the document is damaged",
            )
        if number < oldest:
            raise BadDocument(
                self.key, f"its {name} is {number}; this version reads from {oldest} on"
            )
        return number

    def refuse(self, name: str, what: str) -> NoReturn:
        """Raise BadDocument for a field; ``what`` completes the sentence."""
        raise BadDocument(self.key, f"it cannot be read: {self.place}{name:.80} {what}")

    def _value(self, name: str) -> Any:  # noqa: ANN401 - the caller says what it must be
        if name not in self.values:
            self.refuse(name, "is missing")
        return self.values[name]


def parse(key: str, data: bytes, max_bytes: int = MAX_BYTES) -> Fields:
    """Parse a document, which must be a JSON object. Raises BadDocument."""
    if not data:
        raise BadDocument(key, "it cannot be read: it is empty")
    if len(data) > max_bytes:
        raise BadDocument(key, f"it cannot be read: it has more than {max_bytes:,} bytes")
    # Every value but the first follows one of these.
    if sum(data.count(mark) for mark in (b",", b"[", b"{", b":")) > MAX_VALUES:
        raise BadDocument(key, f"it cannot be read: it has more than {MAX_VALUES:,} values")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_reject_constant,
            parse_float=_finite,
            parse_int=_bounded_int,
        )
        check_value(value)
    except RecursionError:
        raise BadDocument(key, "it cannot be read: it is nested too deeply") from None
    except UnicodeDecodeError:
        raise BadDocument(key, "it cannot be read: it is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno:,}, column {error.colno:,}"
        raise BadDocument(key, f"it cannot be read: it is not JSON, from {where} on") from None
    except ValueError as error:  # of the functions below
        raise BadDocument(key, f"it cannot be read: {error!s:.120}") from None
    if not isinstance(value, dict):
        raise BadDocument(key, "it cannot be read: it is not a JSON object")
    return Fields(key, value)


def check_value(value: object) -> None:
    """Check that a value can be written to a document and parsed again.

    Raises ValueError for one that is nested too deeply, or that JSON cannot represent.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        # Most values are text, and need no look.
        others = [outer for outer in level if type(outer) not in _FINE]
        level = [inner for outer in others for inner in _inner(outer)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is NaN or infinite")
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return ()


def is_clean(text: str) -> bool:
    """Whether a text fits on one line, is valid Unicode, and may be part of a path."""
    # Of ASCII, the unclean characters are those that cannot be printed: it is quick to see.
    return (text.isascii() and text.isprintable()) or _UNCLEAN.search(text) is None


def cleaned(text: str) -> str:
    """The text with ``?`` for every character that makes it unclean."""
    return _UNCLEAN.sub("?", text)


def is_within(text: str) -> bool:
    """Whether a relative path stays below its starting point."""
    return not any(part in ("", ".", "..") for part in text.split("/"))


def is_key(text: str) -> bool:
    """Whether a text may be a key in an archive, in a directory and in a bucket alike."""
    return is_clean(text) and is_within(text)


def is_name(text: str) -> bool:
    """Whether a text may be the name of a file in an archive."""
    return (
        bool(text)
        and not text.startswith(".")
        and "/" not in text
        and is_clean(text)
        and len(text.encode()) <= MAX_NAME_BYTES
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Parsers differ in which of two equal names wins, so duplicates are rejected.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same name twice")
    return found


def _reject_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is too large a number")
    return value


def _bounded_int(text: str) -> int:
    # The time to convert digits to an integer grows with the square of their number.
    if len(text) > MAX_DIGITS + 1:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return int(text)
