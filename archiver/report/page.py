"""Generates the page from the JSON: one HTML file that needs no network and no script.

The template engine escapes every value. As a second line of defence, a Content-Security-Policy
forbids everything except the style sheet inside the page.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from archiver.report import words
from archiver.report.document import decode, format_of
from archiver.report.evidence import RECOVERY_PHASES, Database, FileEvidence, Phases

if TYPE_CHECKING:
    from jinja2 import Environment

_PHASE_NAMES = {
    "read": "Read",
    "verify": "Verify",
    "lay_out": "Lay out",
    "start": "Start",
    "load": "Load",
    "census": "Census",
    "assertions": "Assertions",
    "tear_down": "Tear down",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One phase in the chart; ``left`` and ``width`` are percent of the total time of the set."""

    name: str
    seconds: float | None
    is_recovery: bool
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class CountRow:
    """The number of keys of one type in one database: of our parser, and of the server.

    If ``sampled``, ``loaded`` counts only the keys of a sample.
    """

    database: int
    name: str
    parsed: int | None
    loaded: int | None
    sampled: bool

    @property
    def change(self) -> int:
        """Loaded minus parsed; 0 if one of them is unknown or counts a sample."""
        if self.parsed is None or self.loaded is None or self.sampled:
            return 0
        return self.loaded - self.parsed


def to_page(data: bytes) -> bytes:
    """Return the HTML (UTF-8) for the evidence document ``data``.

    Raises IntegrityError, UnsupportedFormat.
    """
    evidence = decode(data)
    text = (
        _environment()
        .get_template("page.html")
        .render(
            e=evidence,
            format=format_of(evidence),
            own_sha256=hashlib.sha256(data).hexdigest(),
            files=[file for one in evidence.sets for file in one.files],
            rto=words.worst_rto(evidence.sets),
            rpo=words.worst_rpo(evidence.sets),
            endless=sum(one.rto.seconds is None for one in evidence.sets),
            slowest=max((s for one in evidence.sets if (s := one.rto.seconds)), default=None),
            took=(evidence.finished_at - evidence.started_at).total_seconds(),
        )
    )
    return words.printable(text).encode()


def bars(phases: Phases) -> list[Bar]:
    """Return the phases in order, on one scale; a phase that was not reached has no width."""
    seconds = {name: getattr(phases, name) for name in _PHASE_NAMES}
    whole = sum(value or 0.0 for value in seconds.values()) or 1.0
    found, passed = [], 0.0
    for name, label in _PHASE_NAMES.items():
        value = seconds[name]
        left, width = (100 * part / whole for part in (passed, value or 0.0))
        found.append(Bar(label, value, name in RECOVERY_PHASES, left, width))
        passed += value or 0.0
    return found


def count_rows(file: FileEvidence) -> Iterator[CountRow]:
    """Yield a row per type, for all keys and for keys with expiry, of each database."""
    parsed = {database.index: database for database in file.parsed or ()}
    loaded = {database.index: database for database in file.loaded or ()}
    for index in sorted(parsed.keys() | loaded.keys()):
        ours, theirs = (
            _numbers(side.get(index), known=known is not None)
            for side, known in ((parsed, file.parsed), (loaded, file.loaded))
        )
        names = sorted((ours | theirs).keys() - {_ALL, _EXPIRING})
        for name in [*names, _ALL, _EXPIRING]:
            # 0 if this side counted and did not find the type, None if it did not count.
            yield CountRow(
                index,
                name,
                ours.get(name, None if file.parsed is None else 0),
                theirs.get(name, None if file.loaded is None else 0),
                sampled=name != _ALL and index in loaded and loaded[index].sampled,
            )


_ALL = "all keys"
_EXPIRING = "with expiry"


def _numbers(database: Database | None, *, known: bool) -> dict[str, int]:
    if database is None:
        return {_ALL: 0, _EXPIRING: 0} if known else {}
    return {**database.types, _ALL: database.keys, _EXPIRING: database.with_expiry}


@cache
def _environment() -> "Environment":
    # Imported here because only this function needs the template engine.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("archiver.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"bars": bars, "count_rows": count_rows}
    for name in (
        "duration",
        "exposure",
        "headline",
        "loaded_keys",
        "met",
        "moment",
        "number",
        "plural",
        "relative",
        "size",
        "tone",
        "total_keys",
        "verdict_word",
    ):
        environment.filters[name] = getattr(words, name)
    for name in ("duration", "size"):
        environment.filters[name] = _unbroken(getattr(words, name))
    return environment


def _unbroken(format_value: Callable[[float], str]) -> Callable[[float], str]:
    """Return ``format_value`` with no-break spaces, so that no line ends before a unit."""
    return lambda value: format_value(value).replace(" ", "\N{NO-BREAK SPACE}")
