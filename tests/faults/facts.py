"""What an archive holds, looked at without any code of the tool.

object      what has a final name has the source's bytes, or those that were there before the run
record      a record is whole, and its object is there with its size and SHA-256
sums        SHA256SUMS is whole, and what it names is there and right
document    archive.json, what verify wrote and descriptions of instances are whole
stray       nothing else is visible
journal     each part that a journal notes has the source's bytes in the staged file
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from tests.faults.posix import Tree

ARCHIVE = "archive"
STAGING, QUARANTINE = ".staging/", ".quarantine/"
DESCRIPTIONS = "instances/"
_SUM = re.compile(r"([0-9a-f]{64})  ((?:[^/]+/)?[^/]+)")


class Truth:
    """What is to be in the archive: files by key, and of these the objects."""

    def __init__(self, files: Mapping[str, bytes], served: Iterable[bytes]) -> None:
        self.files: Final = files
        self.objects: Final = {key: data for key, data in files.items() if key.endswith(".rdb")}
        if sorted(self.objects.values()) != sorted(served):
            raise ValueError("the archive does not hold what is served")
        self.object_of: Final = {f"{stem_of(key)}.json": key for key in self.objects}

    def of(self, instances: Iterable[str]) -> frozenset[str]:
        """The objects of instances."""
        wanted = set(instances)
        return frozenset(key for key in self.objects if key.partition("/")[0] in wanted)


def stem_of(key: str) -> str:
    return key.rpartition(".")[0]


def set_of(key: str) -> str:
    """The key of the set that an object is of: a cluster's folder, or the stem of a standard
    instance's object, which lies in its month."""
    return key.rpartition("/")[0] if key.count("/") == 4 else stem_of(key)


@dataclass(slots=True)
class Facts:
    """``right``: objects with the source's bytes; ``recorded``: of these, those with their record;
    ``sealed``: sets of which the SHA256SUMS of their month names all, and months of which it does;
    ``noted``: parts by object that the next run need not fetch, each with how many bytes."""

    wrong: list[str] = field(default_factory=list)
    right: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)
    sealed: set[str] = field(default_factory=set)
    noted: dict[str, dict[int, int]] = field(default_factory=dict)

    def lacks(self, truth: Truth, wanted: Iterable[str]) -> int:
        """Bytes that the next run may fetch; of what is not recorded one more, to ask for."""
        return sum(
            1 + (0 if key in self.right else len(truth.objects[key]) - self._noted_of(key))
            for key in wanted
            if key not in self.recorded
        )

    def _noted_of(self, key: str) -> int:
        return sum(self.noted.get(key, {}).values())


def own(folder: str, stem: str) -> str:
    """Where what belongs to the instance of a stem lies in ``folder``, without its suffix."""
    return f"{folder}{stem.partition('/')[0]}/{stem.replace('/', '~')}"


def archive_of(tree: Tree) -> dict[str, bytes]:
    """The files of the archive in a tree."""
    prefix = f"{ARCHIVE}/"
    return {
        path.removeprefix(prefix): data
        for path, data in tree.items()
        if data is not None and path.startswith(prefix)
    }


def inspect(
    files: Mapping[str, bytes],
    truth: Truth,
    before: Mapping[str, bytes],
    otherwise: frozenset[str] = frozenset(),
) -> Facts:
    """Look at an archive without the tool; ``before`` are the files that were there before the
    run, damaged ones with them; of the objects in ``otherwise`` the source once served others."""
    facts = Facts()
    for key, data in truth.objects.items():
        if files.get(key) == data:
            facts.right.add(key)
    for key, data in files.items():
        if key.startswith("."):
            continue
        name = key.rpartition("/")[2]
        if key in truth.objects:
            if key not in facts.right and data != before.get(key):
                facts.wrong.append(f"object: {key} has {len(data)} bytes that nobody served")
        elif key in truth.object_of:
            _inspect_record(key, data, truth, before, facts)
        elif name == "SHA256SUMS":
            _inspect_sums(key, data, files, truth, before, facts)
        elif name == "index.jsonl":
            if not _is_whole_catalogue(data):
                facts.wrong.append(f"document: {key} is not whole: {data[:40]!r}")
        elif key == "archive.json" or key.startswith(("verified/", DESCRIPTIONS)):
            if not isinstance(parsed(data), dict):
                facts.wrong.append(f"document: {key} is not whole: {data[:40]!r}")
        else:
            facts.wrong.append(f"stray: {key}")
    _inspect_journals(files, truth, otherwise, facts)
    return facts


def _is_whole_catalogue(data: bytes) -> bool:
    """Whether it is empty, as a verify leaves one before it writes it anew, or has its digest."""
    first, _, rest = data.partition(b"\n")
    head = parsed(first)
    return not data or (isinstance(head, dict) and head["sha256"] == _sha256(rest))


def _inspect_record(
    key: str, data: bytes, truth: Truth, before: Mapping[str, bytes], facts: Facts
) -> None:
    object_key = truth.object_of[key]
    if not _is_record_of(data, object_key, truth.objects[object_key]):
        if data != before.get(key):
            facts.wrong.append(f"record: {key} is not whole: {data[:40]!r}")
    elif object_key in facts.right:
        facts.recorded.add(object_key)
    elif data != before.get(key):
        facts.wrong.append(f"record: {key} is there, and its object is not")


def _inspect_sums(
    key: str,
    data: bytes,
    files: Mapping[str, bytes],
    truth: Truth,
    before: Mapping[str, bytes],
    facts: Facts,
) -> None:
    month = key.rpartition("/")[0]
    facts.sealed |= _sealed(month, data, truth)
    if data == before.get(key):
        return  # it may be damaged, or name what is
    lines = data.decode("ascii", "replace").splitlines()
    named = [_SUM.fullmatch(line) for line in lines]
    if not lines or not data.endswith(b"\n"):
        facts.wrong.append(f"sums: {key} is not whole: {data[:40]!r}")
        return
    for match in named:
        other = f"{month}/{match[2]}" if match else ""
        right = truth.objects.get(other)
        if match is None or right is None or _sha256(right) != match[1]:
            facts.wrong.append(f"sums: {key} has a line that is wrong")
        elif other not in files or (other not in facts.right and files[other] != before.get(other)):
            facts.wrong.append(f"sums: {key} names {other}, which is not there")


def _sealed(month: str, data: bytes, truth: Truth) -> set[str]:
    """The sets of a month of which a SHA256SUMS names all, and the month, if it does of all."""
    lines = set(data.splitlines(keepends=True))
    lacking = {
        set_of(key)
        for key, content in truth.objects.items()
        if key.startswith(f"{month}/")
        and f"{_sha256(content)}  {key.removeprefix(f'{month}/')}\n".encode() not in lines
    }
    sets = {set_of(key) for key in truth.objects if key.startswith(f"{month}/")}
    return sets - lacking | (set() if lacking else {month})


def _inspect_journals(
    files: Mapping[str, bytes], truth: Truth, otherwise: frozenset[str], facts: Facts
) -> None:
    for key in truth.objects.keys() - otherwise:
        right = truth.objects[key]
        staged = own(STAGING, stem_of(key))
        journal, data = files.get(f"{staged}.journal"), files.get(f"{staged}.data")
        if journal is None or data is None or key in facts.right:
            continue
        part_size, parts = noted_parts(journal, len(right))
        for part, size in parts.items():
            start = part * part_size
            if data[start : start + size] != right[start : start + size]:
                facts.wrong.append(f"journal: {key}: part {part} is noted, and is not there")
        facts.noted[key] = parts


@lru_cache(10_000)
def noted_parts(journal: bytes, total: int) -> tuple[int, dict[int, int]]:
    """Size of a part, and parts by index, each with how much of it is noted."""
    part_size, parts = 0, dict[int, int]()
    for line in journal.splitlines(keepends=True):
        checksum, _, text = line.partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
            break
        value = json.loads(text)
        if "part_size" in value:
            part_size = value["part_size"]
        else:
            whole = min(part_size, total - value["part"] * part_size)
            much = value.get("bytes", whole)
            parts[value["part"]] = max(much, parts.get(value["part"], 0))
    return part_size, parts


@lru_cache(10_000)
def _is_record_of(data: bytes, object_key: str, content: bytes) -> bool:
    value = parsed(data)
    return isinstance(value, dict) and (
        value.get("object"), value.get("size"), value.get("sha256")
    ) == (object_key.rpartition("/")[2], len(content), _sha256(content))  # fmt: skip


@lru_cache(1_000)
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
