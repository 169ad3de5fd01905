"""What a look at an archive finds wrong, and what it believes."""

import hashlib
import json
import random
import zlib
from collections.abc import Callable

import pytest

from tests.faults.facts import Facts, Truth, inspect
from tests.faults.posix import FileSystem
from tests.faults.promises import Promises
from tests.faults.syscalls import Moment

MONTH = "r-a/2026/11"
FOLDER = f"{MONTH}/20261122T021500Z-1"
OBJECT, RECORD, SUMS = f"{FOLDER}/n-1.rdb", f"{FOLDER}/n-1.json", f"{MONTH}/SHA256SUMS"
# A standard instance's.
ALONE = f"{MONTH}/20261123T021500Z-7"
STAGED = f".staging/r-a/{FOLDER.replace('/', '~')}~n-1"
DATA, OTHER = random.Random(1).randbytes(2_500), random.Random(2).randbytes(700)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def record(name: str, data: bytes) -> bytes:
    return json.dumps({"object": name, "size": len(data), "sha256": digest(data)}).encode()


def line_of(key: str, data: bytes) -> bytes:
    return f"{digest(data)}  {key.removeprefix(f'{MONTH}/')}\n".encode()


LINES = line_of(OBJECT, DATA), line_of(f"{ALONE}.rdb", OTHER)
WHOLE = {
    "archive.json": b'{"format": 1}',
    OBJECT: DATA,
    RECORD: record("n-1.rdb", DATA),
    f"{ALONE}.rdb": OTHER,
    f"{ALONE}.json": record(f"{ALONE.rpartition('/')[2]}.rdb", OTHER),
    SUMS: b"".join(LINES),
}
TRUTH = Truth(WHOLE, [DATA, OTHER])


def line(**fields: object) -> bytes:
    text = json.dumps(fields).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


HEAD = line(journal=1, size=2_500, part_size=1_000)
NOTED = HEAD + line(part=0, crc64=1) + line(part=2, crc64=1) + line(part=1, crc64=1, bytes=600)


def test_a_whole_archive_is_right() -> None:
    facts = inspect(WHOLE, TRUTH, {})
    objects = {OBJECT, f"{ALONE}.rdb"}
    assert facts == Facts([], objects, objects, {FOLDER, ALONE, MONTH}, {})
    assert facts.lacks(TRUTH, [OBJECT]) == 0


@pytest.mark.parametrize(("number", "sealed"), [(0, FOLDER), (1, ALONE)])
def test_a_line_seals_its_own_set(number: int, sealed: str) -> None:
    facts = inspect({**WHOLE, SUMS: LINES[number]}, TRUTH, {})
    assert (facts.wrong, facts.sealed) == ([], {sealed})


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({OBJECT: DATA[:-1]}, "object"),
        ({OBJECT: b""}, "object"),
        ({OBJECT: None, SUMS: None}, "record"),
        ({RECORD: WHOLE[RECORD][:-5]}, "record"),
        ({RECORD: WHOLE[RECORD].replace(b"2500", b"2501")}, "record"),
        ({SUMS: WHOLE[SUMS][:-1]}, "sums"),
        ({SUMS: b""}, "sums"),
        ({SUMS: b"0" + WHOLE[SUMS][1:]}, "sums"),
        ({OBJECT: None, RECORD: None}, "sums"),
        ({"archive.json": b"{"}, "document"),
        ({"verified/r-a/2026-11.json": b""}, "document"),
        ({"instances/r-a.json": b"{"}, "document"),
        ({f"{FOLDER}/other": b""}, "stray"),
        (
            {OBJECT: None, RECORD: None, SUMS: None, f"{STAGED}.data": bytes(2_500),
             f"{STAGED}.journal": NOTED},
            "journal",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(changed: dict[str, bytes | None], kind: str) -> None:
    files = {key: data for key, data in {**WHOLE, **changed}.items() if data is not None}
    kinds = {one.partition(":")[0] for one in inspect(files, TRUTH, {}).wrong}
    assert kind in kinds
    # What was so before is nobody's fault.
    if kind not in ("stray", "document", "journal"):
        assert inspect(files, TRUTH, files).wrong == []


def test_what_a_journal_notes_need_not_be_fetched() -> None:
    files = {f"{STAGED}.data": DATA, f"{STAGED}.journal": NOTED + b"torn"}
    facts = inspect(files, TRUTH, {})
    assert facts.wrong == []
    assert facts.noted == {OBJECT: {0: 1_000, 2: 500, 1: 600}}
    assert facts.lacks(TRUTH, [OBJECT]) == 400 + 1
    assert inspect({f"{STAGED}.journal": NOTED}, TRUTH, {}).lacks(TRUTH, [OBJECT]) == 2_500 + 1


def told(event: str, key: str) -> Moment:
    return Moment("told", json.dumps({"event": event, "key": key}).encode() + b"\n")


def broken(promises: Promises, files: dict[str, bytes]) -> list[str]:
    return list(promises.broken(files, inspect(files, TRUTH, {})))


@pytest.mark.parametrize(
    ("moment", "without"),
    [
        (told("archived", OBJECT), {OBJECT, RECORD, SUMS}),
        (told("archived", OBJECT), {RECORD}),
        (told("repaired", SUMS), {SUMS}),
        (told("set_completed", FOLDER), {SUMS}),
        (told("set_completed", ALONE), {f"{ALONE}.json"}),
    ],
)
def test_what_was_reported_is_there(moment: Moment, without: set[str]) -> None:
    promises = Promises(TRUTH, Facts(), frozenset())
    files = {key: data for key, data in WHOLE.items() if key not in without}
    assert broken(promises, files) == []
    promises.add(moment, FileSystem({}))
    assert broken(promises, WHOLE) == []
    assert broken(promises, files)


def write_journal(system: FileSystem) -> None:
    inode = system.create(f"archive/{STAGED}.journal")
    system.write(inode, 0, NOTED)


def sync_it(system: FileSystem) -> None:
    system.sync_all(set(system.pending()))


def write_more(system: FileSystem) -> None:
    inode = system.lookup(f"archive/{STAGED}.journal")
    assert inode is not None
    system.write(inode, len(NOTED), line(part=1, crc64=1))


@pytest.mark.parametrize("after", [sync_it, write_more])
def test_what_was_noted_is_to_be_there(after: Callable[[FileSystem], None]) -> None:
    """Once it was synced, or once another line was written, which comes after a sync."""
    system = FileSystem(dict.fromkeys(("archive", "archive/.staging", "archive/.staging/r-a")))
    promises = Promises(TRUTH, Facts(), frozenset())
    write_journal(system)
    promises.add(Moment("pwrite64"), system)
    assert broken(promises, {}) == []
    after(system)
    promises.add(Moment("fsync"), system)
    assert broken(promises, {})
    assert broken(promises, {f"{STAGED}.data": DATA, f"{STAGED}.journal": NOTED}) == []
    assert broken(promises, WHOLE) == []


def test_what_was_there_at_exit_is_to_be_there() -> None:
    system = FileSystem({"archive": None, "archive/archive.json": b'{"format": 1}'})
    promises = Promises(TRUTH, Facts(), frozenset())
    promises.exited(system)
    assert broken(promises, {"archive.json": b'{"format": 1}'}) == []
    assert broken(promises, {})
