"""What verifying came to, kept in the archive, so that the next one knows.

    verified/<instance>/<yyyy>-<mm>.json

format   1
tool     name and version of what wrote it
files    by ``<set>/<file>``: ``at``, ``size`` and ``sha256`` of the last time it was right, and
         ``wrong`` (``at``, ``fault``) if it was not since

The documents are written without the archive's lock: a long verify must not keep a pull out. They
are this module's alone, each is written whole, and what another verify wrote meanwhile is merged.
A ``put`` that a pull's sweep gets in the way of is tried again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from archiver.archive.archive import TOOL
from archiver.documents import Fields, is_clean, is_name, parse
from archiver.errors import BadDocument, StoreError, StoreForbidden, UnreadableObject
from archiver.events import Cleared
from archiver.scrub import events
from archiver.scrub.findings import Fault
from archiver.stores.base import Store

PREFIX = "verified/"
FORMAT = 1
_KEY = re.compile(r"verified/([^/]+)/([0-9]{4})-([0-9]{2})\.json")
_MOST_SET_BYTES = 255
# Results in memory, at most, before they are written.
_MOST_PENDING = 1000
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Result:
    """Of one file: when it was right, which bytes it had then, and what was wrong since."""

    at: datetime | None = None
    size: int = -1
    sha256: str | None = None
    wrong_at: datetime | None = None
    fault: str | None = None


def results_key(month: str) -> str:
    """Where the results of ``<instance>/<yyyy>/<mm>`` are."""
    instance, year, number = month.split("/")
    return f"{PREFIX}{instance}/{year}-{number}.json"


def month_of(key: str) -> str | None:
    """The month whose results a key holds; None for another key."""
    match = _KEY.fullmatch(key)
    return "/".join(match.groups()) if match else None


async def read_results(store: Store, month: str) -> dict[str, Result]:
    """The results of a month by key.

    Raises BadDocument when they cannot be read, UnreadableObject, StoreError.
    """
    key = results_key(month)
    data = await store.read(key)
    return {} if data is None else decode(key, month, data)


async def results_if_any(store: Store, month: str) -> dict[str, Result]:
    """The same, for who has use for what can be read, and finds nothing where nothing can."""
    try:
        return await read_results(store, month)
    except (BadDocument, UnreadableObject):
        return {}


def decode(key: str, month: str, data: bytes) -> dict[str, Result]:
    """The results in a document, by key. Raises BadDocument."""
    document = parse(key, data)
    document.format("format", FORMAT)
    files = document.within("files")
    found = {}
    for name in files.values:
        if not _is_key(name):
            files.refuse(ascii(name), "names no file of a set")
        found[f"{month}/{name}"] = _result(files.within(name))
    return found


def _is_key(name: str) -> bool:
    """Whether ``<set>/<file>`` can be, in any store."""
    folder, slash, file = name.partition("/")
    is_folder = is_clean(folder) and 0 < len(folder.encode()) <= _MOST_SET_BYTES
    return bool(slash) and is_folder and not folder.startswith(".") and is_name(file)


class Results:
    """The results of one run on their way into the archive."""

    def __init__(self, store: Store, observer: events.Observer, every: float) -> None:
        self._store: Final = store
        self._tell: Final = observer
        self._every: Final = every
        self._pending: dict[str, dict[str, Result]] = {}
        self._count = 0
        self._told_at = anyio.current_time()
        self._writing: Final = anyio.Lock()
        self.not_kept: str | None = None

    async def right(self, month: str, key: str, size: int, sha256: str) -> None:
        """This object is as it should be."""
        await self._note(month, key, Result(datetime.now(UTC), size, sha256))

    async def wrong(self, month: str, key: str, fault: Fault) -> None:
        """It is not."""
        await self._note(month, key, Result(wrong_at=datetime.now(UTC), fault=fault))

    async def _note(self, month: str, key: str, result: Result) -> None:
        if self.not_kept is not None or not _is_key(key.removeprefix(f"{month}/")):
            return
        self._pending.setdefault(month, {})[key] = result
        self._count += 1
        due = anyio.current_time() - self._told_at >= self._every
        if (due or self._count >= _MOST_PENDING) and not self._writing.locked():
            await self.keep()

    async def keep(self) -> None:
        """Write what is pending. A store that does not take it is told of once."""
        async with self._writing:
            pending, self._pending = self._pending, {}
            count, self._count = self._count, 0
            try:
                for month, noted in pending.items():
                    try:
                        await self._put(month, noted)
                    except UnreadableObject:
                        count -= len(noted)  # found and named when the month was begun: it stays
            except (StoreError, StoreForbidden) as error:
                if self.not_kept is None:
                    self.not_kept = str(error)
                    self._tell(events.ResultsNotKept(str(error)))
                return
            self._told_at = anyio.current_time()
            if count:
                self._tell(events.ResultsKept(count))

    async def _put(self, month: str, noted: Mapping[str, Result]) -> None:
        """Raises UnreadableObject when what is known of the month may be worth something."""
        for left in reversed(range(_TRIES)):
            known = await self._known(month)
            for key, result in noted.items():
                known[key] = _merged(known.get(key), result)
            try:
                await self._store.put(results_key(month), _encode(month, known))
            except StoreError:
                if not left:
                    raise
            else:
                return

    async def _known(self, month: str) -> dict[str, Result]:
        """What earlier runs found, if that can be read; room for it, if not."""
        key = results_key(month)
        try:
            return await read_results(self._store, month)
        except BadDocument:  # found and named when the month was begun
            kept = await self._store.clear(key)
            if kept is not None:
                self._tell(Cleared(key, kept))
            return {}


def _merged(before: Result | None, now: Result) -> Result:
    """What was right once stays known: it is what a changed file is told by."""
    if now.at is not None or before is None:
        return now
    return Result(before.at, before.size, before.sha256, now.wrong_at, now.fault)


def _encode(month: str, results: Mapping[str, Result]) -> bytes:
    files = {key.removeprefix(f"{month}/"): _fields(results[key]) for key in sorted(results)}
    text = json.dumps({"format": FORMAT, "tool": TOOL, "files": files}, indent=1)
    return f"{text}\n".encode("ascii")


def _fields(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if result.at is not None:
        fields = {"at": _iso(result.at), "size": result.size, "sha256": result.sha256}
    if result.wrong_at is not None:
        fields["wrong"] = {"at": _iso(result.wrong_at), "fault": result.fault}
    return fields


def _result(fields: Fields) -> Result:
    at, size, sha256 = None, -1, None
    if "at" in fields.values:
        at, size, sha256 = fields.moment("at"), fields.number("size"), fields.sha256("sha256")
    if "wrong" not in fields.values:
        return Result(at, size, sha256)
    wrong = fields.within("wrong")
    return Result(at, size, sha256, wrong.moment("at"), wrong.line("fault"))


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
