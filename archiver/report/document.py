"""Converts the evidence to JSON and back, driven by the fields of its dataclasses.

Reading is as strict as ``schema/evidence-2.json``: an unknown or missing field, a wrong type, or
values that contradict each other make a document unreadable. A new field needs a new format number.
"""

import dataclasses
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from archiver.errors import IntegrityError, UnsupportedFormat
from archiver.report.evidence import FORMAT, KIND, Evidence
from archiver.report.verdict import contradictions
from archiver.times import format_iso, parse_iso

# Format 1 does not have this field.
_SINCE_2 = "acknowledged"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def to_document(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence as JSON values; times are ISO 8601 in UTC with microseconds and ``Z``.

    Raises ValueError for a time without a time zone.
    """
    document = {"format": format_of(evidence), "kind": KIND, **_object(evidence)}
    if not evidence.acknowledged:
        del document[_SINCE_2]
    return document


def format_of(evidence: Evidence) -> int:
    """Return the oldest format that can hold the evidence, so that older versions can read it."""
    return 2 if evidence.acknowledged else 1


def encode(evidence: Evidence) -> bytes:
    """Return the bytes to store: ASCII, fields in a fixed order, a newline at the end.

    Equal evidence gives equal bytes. Raises IntegrityError for evidence that contradicts itself,
    because nobody could read it back.
    """
    try:
        text = json.dumps(to_document(evidence), indent=2, allow_nan=False)
    except ValueError as error:
        raise IntegrityError(f"cannot write the evidence ({error})") from None
    data = f"{text}\n".encode("ascii")
    decode(data)
    return data


def decode(data: bytes, key: str = "the evidence") -> Evidence:
    """Read a document; messages refer to it by ``key``.

    Raises IntegrityError if it is not evidence or contradicts itself, UnsupportedFormat if its
    format is newer than this version.
    """
    try:
        document = json.loads(
            data.decode("ascii"), object_pairs_hook=_once, parse_constant=_no_constant
        )
        if not isinstance(document, dict):
            raise _Unreadable("not a JSON object")
        written = _check_format(key, document.pop("format", None))
        if document.pop("kind", None) != KIND:
            raise _Unreadable(f"kind: not {KIND!r}")
        if written == 1 and _SINCE_2 in document:
            raise _Unreadable(f"{_SINCE_2}: not a field of format 1")
        evidence: Evidence = _read(Evidence, {_SINCE_2: [], **document}, "")
        if format_of(evidence) != written:
            raise _Unreadable(f"{_SINCE_2}: empty, though the format is {written}")
        found = list(contradictions(evidence))
    except (ValueError, RecursionError, OverflowError) as error:
        raise IntegrityError(f"{key}: cannot be read as evidence ({error!s:.200})") from None
    if found:
        raise IntegrityError(f"{key}: the evidence contradicts itself ({'; '.join(found):.400})")
    return evidence


class _Unreadable(ValueError):
    """The message has the path in the document and what is wrong there."""


def _check_format(key: str, written: object) -> int:
    if isinstance(written, bool) or not isinstance(written, int):
        raise _Unreadable("format: not a number")
    if not 1 <= written <= FORMAT:
        raise UnsupportedFormat(
            f"{key}: evidence of format {written}; this version reads up to {FORMAT}",
            hint="use a newer archiver",
        )
    return written


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    # JSON readers differ in which of two equal names they use, so refuse both.
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Unreadable(f"{name}: twice in one object")
        found[name] = value
    return found


def _no_constant(word: str) -> float:
    raise _Unreadable(f"{word} is not a number")


def _object(one: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the evidence's dataclasses
    return {field.name: _value(getattr(one, field.name)) for field in dataclasses.fields(one)}


def _value(value: Any) -> Any:  # noqa: ANN401 - any of the evidence's values
    if dataclasses.is_dataclass(value):
        return _object(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise _Unreadable(f"{value}: a time without a time zone")
        return format_iso(value, "microseconds")
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _value(value[name]) for name in sorted(value)}
    return value


def _read(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401 - the kind says what
    origin = get_origin(kind)
    if origin is Annotated:
        return _read_within(kind, value, where)
    if origin in (Union, types.UnionType):
        # Only ``X | None`` occurs.
        (other,) = (part for part in get_args(kind) if part is not types.NoneType)
        return None if value is None else _read(other, value, where)
    if origin is tuple:
        items = _expect(list, value, where, "a list")
        return tuple(
            _read(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(items)
        )
    if origin is not None:
        pairs = _expect(dict, value, where, "an object")
        return {name: _read(get_args(kind)[1], pairs[name], f"{where}.{name}") for name in pairs}
    if dataclasses.is_dataclass(kind):
        return _read_object(kind, value, where)
    return _read_scalar(kind, value, where)


def _read_within(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401 - see _read
    base, rule = get_args(kind)
    found = _read(base, value, where)
    if not rule.allows(found):
        raise _Unreadable(f"{where}: not {rule.words}")
    return found


def _read_object(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401 - see _read
    pairs = _expect(dict, value, where, "an object")
    hints = _hints(kind)
    prefix = f"{where}." if where else ""
    if missing := hints.keys() - pairs.keys():
        raise _Unreadable(f"{prefix}{min(missing)}: missing")
    if unknown := pairs.keys() - hints.keys():
        raise _Unreadable(f"{prefix}{min(unknown):.60}: not a field of format {FORMAT}")
    return kind(**{name: _read(hint, pairs[name], prefix + name) for name, hint in hints.items()})


def _read_scalar(kind: Any, value: object, where: str) -> Any:  # noqa: ANN401 - see _read
    if issubclass(kind, StrEnum):
        return kind(_expect(str, value, where, "a string"))
    return _SCALARS[kind](value, where)


def _text(value: object, where: str) -> str:
    return str(_expect(str, value, where, "a string"))


def _truth(value: object, where: str) -> bool:
    return bool(_expect(bool, value, where, "true or false"))


def _whole(value: object, where: str) -> int:
    if isinstance(value, bool):
        raise _Unreadable(f"{where}: not a whole number")
    return int(_expect(int, value, where, "a whole number"))


def _real(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Unreadable(f"{where}: not a number")
    return float(value)


def _moment(value: object, where: str) -> datetime:
    text = _text(value, where)
    if not _TIME.fullmatch(text):
        raise _Unreadable(f"{where}: not a UTC time with microseconds")
    return parse_iso(text)


_SCALARS: Mapping[type, Callable[[object, str], Any]] = {
    str: _text,
    bool: _truth,
    int: _whole,
    float: _real,
    datetime: _moment,
}


def _expect(kind: type, value: object, where: str, words: str) -> Any:  # noqa: ANN401 - see _read
    if not isinstance(value, kind):
        raise _Unreadable(f"{where}: not {words}")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
