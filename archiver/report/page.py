"""The page: one HTML file that needs nothing else, no network and no script. Made from the JSON.

Every value is escaped by the template engine, and a Content-Security-Policy forbids everything
but the style sheet inside the page, should that ever not be enough.
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
    """One phase of the chart; ``left`` and ``width`` are percent of the whole drill of the set."""

    name: str
    seconds: float | None
    is_recovery: bool
    left: float
    width: float


@dataclass(frozen=True, slots=True)
class CountRow:
    """Keys of one type in one database, as parsed and as the server has them.

    ``sampled``: ``loaded`` are those among the keys that were looked at.
    """

    database: int
    name: str
    parsed: int | None
    loaded: int | None
    sampled: bool

    @property
    def change(self) -> int:
        """Loaded minus parsed; 0 where one of them is not known, or not of all keys."""
        if self.parsed is None or self.loaded is None or self.sampled:
            return 0
        return self.loaded - self.parsed


def to_page(data: bytes) -> bytes:
    """The HTML, UTF-8, of the evidence document ``data``.

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
    """The phases one after the other, on one scale; those not reached have no width."""
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
    """Types, all keys and keys with expiry of each database that either side knows of."""
    parsed = {database.index: database for database in file.parsed or ()}
    loaded = {database.index: database for database in file.loaded or ()}
    for index in sorted(parsed.keys() | loaded.keys()):
        ours, theirs = (
            _numbers(side.get(index), known=known is not None)
            for side, known in ((parsed, file.parsed), (loaded, file.loaded))
        )
        names = sorted((ours | theirs).keys() - {_ALL, _EXPIRING})
        for name in [*names, _ALL, _EXPIRING]:
            # A side that counted has none of what it does not name; one that did not knows nothing.
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
    # Imported here: nobody but this function needs a template engine.
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


def _unbroken(say: Callable[[float], str]) -> Callable[[float], str]:
    """``say``, so that no line ends between a number and its unit."""
    return lambda value: say(value).replace(" ", "\N{NO-BREAK SPACE}")
