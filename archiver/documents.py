"""The JSON that an archive keeps beside its backups, read strictly. Pure.

Records, results, journals, leases and ``archive.json`` lie where anybody may have changed them, or
a disk may have. Whatever the bytes are, reading them gives values that were looked at, or raises
BadDocument, which names the document and its fault. It takes no more time and memory than their
number allows.

Names come from outside, too, and become paths: text has no control characters and no half of a
surrogate pair. Whole numbers are what they say: neither true nor 1.5, nor 5,000 digits long.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeVar

from archiver.errors import BadDocument, NewerDocument

# Bytes of one document that are read at all. The largest are a month's results, and evidence.
MOST_BYTES: Final = 64 * 2**20
# A value takes up to a hundred times as much memory as the two bytes that it may have as JSON.
MOST_VALUES: Final = 4_000_000
MOST_DEPTH: Final = 32
MOST_DIGITS: Final = 40
MOST_TEXT: Final = 64 * 1024
MOST_NUMBER: Final = 2**63 - 1
# A name that every file system takes, with room for a suffix.
MOST_NAME_BYTES: Final = 200
# What is written of times has four digits for the year, and an hour before and after it.
_FIRST_YEAR, _LAST_YEAR = 1970, 9998

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CRC64 = re.compile(r"0|[1-9][0-9]{0,19}")
_UNCLEAN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fields:
    """An object within the document ``key``: its fields, each asked for as what it must be.

    Every method raises BadDocument. ``place`` says where in the document the object is.
    """

    key: str
    values: Mapping[str, Any]
    place: str = ""

    def text(self, name: str) -> str:
        """Text of any kind, of a bounded length."""
        value = self._value(name)
        if not isinstance(value, str):
            self.refuse(name, "is no text")
        if len(value) > MOST_TEXT:
            self.refuse(name, f"is longer than {MOST_TEXT:,} characters")
        return value

    def line(self, name: str) -> str:
        """Text that can be printed in a line, and be part of a path."""
        text = self.text(name)
        if not is_clean(text):
            self.refuse(name, "has characters that no line of text has")
        return text

    def word(self, name: str, kind: Callable[[str], T]) -> T:
        """One of the words of an enumeration."""
        text = self.line(name)
        try:
            return kind(text)
        except ValueError:
            self.refuse(name, f"is {text:.40}, which means nothing here")

    def name(self, name: str) -> str:
        """The name of a file: of one in the same folder, that every file system can have."""
        text = self.text(name)
        if not is_name(text):
            self.refuse(name, "is no name of a file")
        return text

    def sha256(self, name: str) -> str:
        """64 hex digits in lower case."""
        text = self.text(name)
        if not _SHA256.fullmatch(text):
            self.refuse(name, "is no SHA-256")
        return text

    def crc64(self, name: str) -> int:
        """A CRC-64, which is written as text: readers in other languages round such numbers."""
        text = self.text(name)
        if not _CRC64.fullmatch(text) or int(text) >= 2**64:
            self.refuse(name, "is no CRC-64")
        return int(text)

    def number(self, name: str, least: int = 0, most: int = MOST_NUMBER) -> int:
        """A whole number between ``least`` and ``most``, both included."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(name, "is no whole number")
        if not least <= value <= most:
            self.refuse(name, f"is not between {least} and {most}")
        return value

    def moment(self, name: str) -> datetime:
        """A time in ISO 8601, as UTC; without a zone it is taken for UTC."""
        text = self.text(name)
        try:
            return read_moment(text)
        except ValueError:
            self.refuse(name, f"is {text:.40}, which is no time")

    def is_null(self, name: str) -> bool:
        """Whether a field, which must be there, has no value."""
        return self._value(name) is None

    def flag(self, name: str) -> bool:
        """The truth value in a field."""
        value = self._value(name)
        if not isinstance(value, bool):
            self.refuse(name, "is neither true nor false")
        return value

    def within(self, name: str) -> "Fields":
        """The object in a field."""
        value = self._value(name)
        if not isinstance(value, dict):
            self.refuse(name, "is no object")
        return Fields(self.key, value, f"{self.place}{name:.80}.")

    def items(self, name: str) -> list[Any]:
        """The list in a field."""
        value = self._value(name)
        if not isinstance(value, list):
            self.refuse(name, "is no list")
        return value

    def format(self, name: str, newest: int) -> int:
        """The number of the document's format, which this version must know."""
        number = self.number(name)
        if not 1 <= number <= newest:
            kind = NewerDocument if number > newest else BadDocument
            raise kind(
                self.key,
                f"it is of {name} {number}, and this version reads up to {newest}",
                hint="use a newer archiver; if nobody has one, the document is damaged",
            )
        return number

    def refuse(self, name: str, what: str) -> NoReturn:
        """Say what is wrong with a field."""
        raise BadDocument(self.key, f"it cannot be read: {self.place}{name:.80} {what}")

    def _value(self, name: str) -> Any:  # noqa: ANN401 - the caller says what it must be
        if name not in self.values:
            self.refuse(name, "is missing")
        return self.values[name]


def parse(key: str, data: bytes, most_bytes: int = MOST_BYTES) -> Fields:
    """The fields of the JSON object that a document is. Raises BadDocument."""
    if not data:
        raise BadDocument(key, "it cannot be read: it is empty")
    if len(data) > most_bytes:
        raise BadDocument(key, f"it cannot be read: it has more than {most_bytes:,} bytes")
    # Each value has at least one of these before it, but for the first.
    if sum(data.count(mark) for mark in (b",", b"[", b"{", b":")) > MOST_VALUES:
        raise BadDocument(key, f"it cannot be read: it has more than {MOST_VALUES:,} values")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
        check_value(value)
    except RecursionError:
        raise BadDocument(key, "it cannot be read: it is nested too deep") from None
    except UnicodeDecodeError:
        raise BadDocument(key, "it cannot be read: it is no UTF-8") from None
    except ValueError as error:
        raise BadDocument(key, f"it cannot be read: {error!s:.120}") from None
    if not isinstance(value, dict):
        raise BadDocument(key, "it cannot be read: it is no JSON object")
    return Fields(key, value)


def check_value(value: object) -> None:
    """What is received and kept as it is, must be such that it can be read again.

    Raises ValueError for what is nested too deep, or no JSON.
    """
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MOST_DEPTH} deep")


def _inner(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is none, or infinite")
    if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    return ()


def read_moment(text: str) -> datetime:
    """A time in ISO 8601, as UTC. Raises ValueError, for one that no archive can have, too."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(f"{text:.40} is no time") from None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ValueError(f"{text:.40} is too long ago, or too far ahead")
    return moment


def is_clean(text: str) -> bool:
    """Whether a text can be printed in a line, written as UTF-8, and be part of a path."""
    return _UNCLEAN.search(text) is None


def is_within(text: str) -> bool:
    """Whether a text, taken as a path, names something below where it begins."""
    return not any(part in ("", ".", "..") for part in text.split("/"))


def is_key(text: str) -> bool:
    """Whether a text can be the key of something in an archive, in a directory as in a bucket."""
    return is_clean(text) and is_within(text)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a file that an archive keeps."""
    return (
        bool(text)
        and not text.startswith(".")
        and "/" not in text
        and is_clean(text)
        and len(text.encode()) <= MOST_NAME_BYTES
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers differ in which of two equal names they believe, so there may be only one.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice in one object")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.20} is too large a number")
    return value


def _short(text: str) -> int:
    # The digits are turned into a number in a time that grows with their square.
    if len(text) > MOST_DIGITS + 1:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    return int(text)
