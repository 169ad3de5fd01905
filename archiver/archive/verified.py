"""The results of verifies, kept in the archive: a witness, and where the next verify continues.

    verified/<instance>/<yyyy>-<mm>.json

format   1
tool     name and version of what wrote it
files    by ``<file>`` or ``<set>/<file>``: ``at``, ``size`` and ``sha256`` of the last time it
         was right, ``named`` (true) if SHA256SUMS named it then or before, which never names less,
         and ``wrong`` (``at``, ``fault``) if it was not right since
"""

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from archiver.archive import layout
from archiver.archive.archive import TOOL
from archiver.documents import Fields, is_clean, is_name, parse
from archiver.errors import ArchiverError, BadDocument, IntegrityError
from archiver.stores.base import Store
from archiver.times import format_day, format_iso

PREFIX: Final = "verified/"
FORMAT = 1
_KEY = re.compile(r"verified/([^/]+)/([0-9]{4})-([0-9]{2})\.json")
_MOST_SET_BYTES = 255
# A fault that says nothing of the bytes: the store did not give them.
_UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Result:
    """The result for one file: when it was right, and its bytes then; what was wrong since; and
    whether SHA256SUMS has ever named it."""

    at: datetime | None = None
    size: int = -1
    sha256: str | None = None
    wrong_at: datetime | None = None
    fault: str | None = None
    named: bool = False


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
    """The same; none where they cannot be read."""
    key = results_key(month)
    return decode_if_any(month, (await store.read_many([key]))[key])


def decode_if_any(month: str, data: bytes | ArchiverError | None) -> dict[str, Result]:
    """The same of a document as :meth:`Store.read_many` gave it."""
    with suppress(BadDocument):
        if isinstance(data, bytes):
            return decode(results_key(month), month, data)
    return {}


def found_wrong(key: str, results: Mapping[str, Result]) -> IntegrityError | None:
    """What the last verify found wrong with an object, if it did, and nothing has repaired or
    replaced that since (pure)."""
    one = results.get(key)
    if one is None or one.wrong_at is None or one.fault == _UNREADABLE:
        return None
    return IntegrityError(
        f"{key}: a verify on {format_day(one.wrong_at)} found it wrong ({one.fault})",
        hint="verify --repair-from source, or from a copy, repairs it; if that is done, run verify",
    )


async def replaced(store: Store, month: str, keys: Collection[str]) -> None:
    """Other bytes are in these objects of a month now, which were proven when they came: what was
    wrong before counts no more. Raises BadDocument and UnreadableObject where the results cannot be
    read, which stay as they are, StoreError."""
    known = await read_results(store, month)
    for key in keys & known.keys():
        known[key] = replace(known[key], wrong_at=None, fault=None)
    # One that never was right says nothing any more.
    left = {key: one for key, one in known.items() if one.at or one.wrong_at}
    await store.put(results_key(month), encode(month, left))


async def forget(store: Store, stems: Collection[str]) -> None:
    """Remove the results of these stems: a repair has just compared their objects with another
    witness. Raises StoreError."""
    months: dict[str, set[str]] = {}
    for stem in stems:
        months.setdefault(layout.month_of(stem), set()).add(stem)
    for month, confirmed in months.items():
        # What cannot be read is found and named by the next verify.
        known = await results_if_any(store, month)
        left = {key: one for key, one in known.items() if key.rpartition(".")[0] not in confirmed}
        if len(left) < len(known):
            await store.put(results_key(month), encode(month, left))


def decode(key: str, month: str, data: bytes) -> dict[str, Result]:
    """The results in a document, by key. Raises BadDocument."""
    document = parse(key, data)
    document.format("format", FORMAT)
    files = document.within("files")
    found = {}
    for name in files.values:
        if not is_key(name):
            files.refuse(ascii(name), "names no file of a set")
        found[f"{month}/{name}"] = _result(files.within(name))
    return found


def is_key(name: str) -> bool:
    """Whether a file of a month can have this name in any store: ``<file>`` or ``<set>/<file>``."""
    folder, slash, file = name.rpartition("/")
    is_folder = is_clean(folder) and 0 < len(folder.encode()) <= _MOST_SET_BYTES
    is_folder = is_folder and "/" not in folder and not folder.startswith(".")
    return is_name(file) and (is_folder or not slash)


def encode(month: str, results: Mapping[str, Result]) -> bytes:
    """The document with these results, by key."""
    files = {key.removeprefix(f"{month}/"): _fields(results[key]) for key in sorted(results)}
    text = json.dumps({"format": FORMAT, "tool": TOOL, "files": files}, indent=1)
    return f"{text}\n".encode("ascii")


def _fields(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if result.at is not None:
        fields = {"at": format_iso(result.at), "size": result.size, "sha256": result.sha256}
    if result.wrong_at is not None:
        fields["wrong"] = {"at": format_iso(result.wrong_at), "fault": result.fault}
    if result.named:
        fields["named"] = True
    return fields


def _result(fields: Fields) -> Result:
    at, size, sha256 = None, -1, None
    named = "named" in fields.values and fields.flag("named")
    if "at" in fields.values:
        at, size, sha256 = fields.moment("at"), fields.number("size"), fields.sha256("sha256")
    if "wrong" not in fields.values:
        return Result(at, size, sha256, named=named)
    wrong = fields.within("wrong")
    return Result(at, size, sha256, wrong.moment("at"), wrong.line("fault"), named)
