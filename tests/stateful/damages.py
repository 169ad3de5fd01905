"""What disks, people and other programs do to an archive. Each damage works on one thing that the
dice choose among what is there, and returns False when there is nothing to damage."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from fastcrc import crc64

from tests.stateful.disk import FORMAT, LOCK, LOCKS, SUMS
from tests.stateful.truth import INSTANCES, SUFFIXES

# Takes the root of an archive.
Damage = Callable[[Path, Random], bool]


def objects(root: Path) -> list[Path]:
    return [path for suffix in SUFFIXES for path in _in_sets(root, suffix)]


def records(root: Path) -> list[Path]:
    return _in_sets(root, "json")


def sums(root: Path) -> list[Path]:
    return _regular(root, f"*/*/*/{SUMS}")


def results(root: Path) -> list[Path]:
    return _regular(root, "verified/*/*.json")


def sets(root: Path) -> list[Path]:
    """A cluster's folders; of a standard instance the files without suffix."""
    return sorted({path.parent if _is_in_folder(path) else path.with_suffix("") for path in
                   records(root)})  # fmt: skip


def _in_sets(root: Path, suffix: str) -> list[Path]:
    return [*_regular(root, f"*/*/*/*.{suffix}"), *_regular(root, f"*/*/*/*/*.{suffix}")]


def _is_in_folder(path: Path) -> bool:
    return not path.parent.name.isdecimal()


def _files_of(one: Path) -> list[Path]:
    """Of a set that has no folder."""
    return [path for path in one.parent.iterdir() if path.stem == one.name]


def _regular(root: Path, pattern: str) -> list[Path]:
    return sorted(p for p in root.glob(pattern) if p.is_file() and not p.is_symlink())


def on_one(
    things: Callable[[Path], list[Path]], change: Callable[[Path, Random], bool | None]
) -> Damage:
    """A damage of one of ``things``."""

    def damage(root: Path, dice: Random) -> bool:
        found = things(root)
        return bool(found) and change(dice.choice(found), dice) is not False

    return damage


def on_bytes(
    things: Callable[[Path], list[Path]], change: Callable[[bytes, Random], bytes]
) -> Damage:
    """A damage of the bytes of one of ``things``, in their place, as a disk or an editor does: a
    snapshot of hard links has it, too."""

    def changed(path: Path, dice: Random) -> bool:
        before = path.read_bytes()
        after = change(before, dice)
        with path.open("r+b") as file:
            file.write(after)
            file.truncate()
        return after != before

    return on_one(things, changed)


def on_two(things: Callable[[Path], list[Path]], change: Callable[[Path, Path], None]) -> Damage:
    def damage(root: Path, dice: Random) -> bool:
        found = things(root)
        if len(found) < 2:
            return False
        change(*dice.sample(found, 2))
        return True

    return damage


# Bytes


def flipped(data: bytes, dice: Random) -> bytes:
    changed = bytearray(data)
    if changed:
        changed[dice.randrange(len(changed))] ^= 0x10
    return bytes(changed)


def cut(data: bytes, dice: Random) -> bytes:
    return data[: dice.choice((0, len(data) // 2, max(0, len(data) - 1)))]


def padded(data: bytes, dice: Random) -> bytes:
    return data + b"x" * dice.randint(1, 100)


def garbage(_: bytes, dice: Random) -> bytes:
    return dice.choice((b"", b"[1]", b"null", bytes(range(256)), b"[" * 100_000))


def swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def swap_backups(one: Path, other: Path) -> None:
    """The objects and the records of two."""
    for suffix in ("json", *SUFFIXES):
        mine, theirs = one.with_suffix(f".{suffix}"), other.with_suffix(f".{suffix}")
        if mine.exists() and theirs.exists():
            swap(mine, theirs)


def forge(path: Path, dice: Random) -> bool:
    """An object and its record, changed together so that they agree; SHA256SUMS is left alone. Not
    where that says nothing of it yet: then nothing would be left that tells."""
    record = path.with_suffix(".json")
    if not record.is_file() or not _is_told_of(path):
        return False
    data = flipped(path.read_bytes(), dice)
    try:
        document = json.loads(record.read_bytes())
        document["sha256"] = hashlib.sha256(data).hexdigest()
        document["crc64ecma"] = document["crc64ecma_declared"] = str(crc64.xz(data))
    except (ValueError, TypeError, RecursionError):
        return False
    path.write_bytes(data)
    record.write_text(json.dumps(document))
    return True


def _is_told_of(path: Path) -> bool:
    """Whether the SHA256SUMS of its month has the SHA-256 of an object. A verify may have seen it,
    too, but people make room where its results are in the way (people.py)."""
    month = path.parent if path.parent.name.isdigit() else path.parent.parent
    sums = month / "SHA256SUMS"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return sums.is_file() and sha256 in sums.read_text("latin-1")


def other_suffix(path: Path, dice: Random) -> bool:
    target = path.with_suffix(dice.choice([f".{s}" for s in SUFFIXES if f".{s}" != path.suffix]))
    if target.exists():
        return False
    path.rename(target)
    return True


# Things in the place of files


def as_link(path: Path, _: Random) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


def as_folder(path: Path, _: Random) -> None:
    path.unlink()
    path.mkdir()


def as_fifo(path: Path, _: Random) -> None:
    path.unlink()
    os.mkfifo(path)


# Documents


def digit(text: str, dice: Random) -> str:
    """Another digit somewhere in it."""
    at = dice.randrange(len(text)) if text else 0
    return f"{text[:at]}{'2' if text[at : at + 1] == '1' else '1'}{text[at + 1 :]}"


def _set(*path: str, to: Callable[[Any, Random], object]) -> Callable[[Any, Random], None]:
    def change(document: Any, dice: Random) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = to(document[path[-1]], dice)

    return change


def _without(name: str) -> Callable[[Any, Random], None]:
    def change(document: Any, _: Random) -> None:
        del document[name]

    return change


def _both_crcs(document: Any, dice: Random) -> None:
    document["crc64ecma"] = document["crc64ecma_declared"] = digit(document["crc64ecma"], dice)


# One field of a record, changed by an editor or a bit.
FIELDS: dict[str, Callable[[Any, Random], None]] = {
    "sha256": _set("sha256", to=digit),
    "size": _set("size", to=lambda size, dice: size + dice.choice((-1, 1))),
    "crc64ecma": _set("crc64ecma", to=digit),
    "declared": _set("crc64ecma_declared", to=lambda crc, dice: digit(crc or "1", dice)),
    "both-crcs": _both_crcs,
    "node": _set("node_id", to=lambda node, _: f"{node}x"),
    "backup": _set("backup_id", to=digit),
    "job": _set("set_id", to=lambda job, dice: dice.choice((None, digit(job, dice)))),
    "instance": _set("instance_id", to=lambda *_: "r-other"),
    "object": _set("object", to=lambda name, _: f"{name.rpartition('.')[0]}.bin"),
    "footer": _set("rdb", "footer", to=lambda *_: "none"),
    "rdb": _set("rdb", to=lambda _, dice: dice.choice(("x", None, {}))),
    "received-size": _set("received", "BackupSize", to=lambda size, _: size + 1),
    "received-start": _set("received", "BackupStartTime", to=lambda *_: "2026-11-01T00:00:00Z"),
    "start": _set("started_at", to=lambda *_: "2026-11-01T00:00:00Z"),
    "type": _set("type", to=lambda said, _: "full" if said == "incremental" else "incremental"),
    "received": _set("received", to=lambda *_: [1]),
    "no-rdb": _without("rdb"),
    "no-received": _without("received"),
    "no-source": _without("source"),
    "no-transfer": _without("transfer"),
    "repairs": lambda document, _: document.update(repairs=5),
    # What one flipped bit, or malice, makes of a number or a name.
    "format": _set("format", to=lambda _, dice: dice.choice((3, "1", None))),
    "odd-size": _set("size", to=lambda size, dice: dice.choice((-size, size + 0.5, 10**30))),
    "infinite-size": _set("size", to=lambda *_: float("inf")),
    "odd-name": _set(
        "object",
        to=lambda _, dice: dice.choice(("a\0b.rdb", "\ud800.rdb", "n" * 300 + ".rdb", ".x.rdb")),
    ),
    "long-crc": _set("crc64ecma", to=lambda *_: "9" * 5000),
    "odd-node": _set("node_id", to=lambda *_: ["x"]),
    "odd-start": _set(
        "started_at", to=lambda _, dice: dice.choice(("", 5, None, "2026-13-01T0:0Z"))
    ),
}


def edited(name: str) -> Callable[[bytes, Random], bytes]:
    """A record with that field changed; one that cannot be read stays as it is."""

    def change(data: bytes, dice: Random) -> bytes:
        try:
            document = json.loads(data)
            FIELDS[name](document, dice)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return data
        return json.dumps(document, indent=2).replace("Infinity", "1e999").encode()

    return change


def _line_edit(data: bytes, dice: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = dice.randrange(len(lines))
    lines[at] = digit(lines[at][:64].decode("latin-1"), dice).encode("latin-1") + lines[at][64:]
    return b"".join(lines)


def _line_dropped(data: bytes, dice: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines:
        del lines[dice.randrange(len(lines))]
    return b"".join(lines)


def _line_added(data: bytes, dice: Random) -> bytes:
    names = ("nobody-1.rdb", "no\0body-1.rdb", "n" * 300 + "-1.rdb", "20260101T000000Z-1.rdb")
    name = dice.choice(names)
    return data + f"{'0' * 64}  {name}\n".encode()


def _line_zeroed(data: bytes, dice: Random) -> bytes:
    """As a power cut leaves it."""
    lines = data.splitlines(keepends=True)
    if lines:
        at = dice.randrange(len(lines))
        lines[at] = bytes(len(lines[at]))
    return b"".join(lines)


def _of_everything(path: Path, _: Random) -> bool:
    """``sha256sum * */* > SHA256SUMS``: of the records and of itself, too. Not where an object and
    its record were forged: then nothing would be left that tells."""
    before = path.read_text("utf-8", "replace")
    there = {one.relative_to(path.parent).as_posix(): one for one in
             (*_regular(path.parent, "*"), *_regular(path.parent, "*/*"))}  # fmt: skip
    for name, one in there.items():
        record = one.with_suffix(".json")
        sha256 = hashlib.sha256(one.read_bytes()).hexdigest()
        is_named = name in before and f"{sha256}  {name}" not in before
        if (
            is_named
            and record != one
            and record.is_file()
            and sha256 in record.read_text("latin-1")
        ):
            return False
    path.write_bytes(b"")
    lines = [
        f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {name}\n" for name, one in there.items()
    ]
    path.write_text("".join(lines))
    return True


def _edit_results(
    change: Callable[[dict[str, Any], str, Random], None],
) -> Callable[[bytes, Random], bytes]:
    """What an earlier verify kept, changed at the entry of one file."""

    def edit(data: bytes, dice: Random) -> bytes:
        try:
            document = json.loads(data)
            change(document["files"], dice.choice(sorted(document["files"])), dice)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return data
        return json.dumps(document).encode()

    return edit


def _result_changed(files: dict[str, Any], name: str, dice: Random) -> None:
    field = dice.choice(("sha256", "at", "size"))
    values = {"at": "2099-01-01T00:00:00Z", "size": 10**400}
    files[name][field] = values.get(field, digit(str(files[name]["sha256"]), dice))


def _result_added(files: dict[str, Any], name: str, dice: Random) -> None:
    files[f"x/{dice.choice(('a' + chr(0), 'n' * 300, '..'))}-1.rdb"] = dict(files[name])


# Whole sets


def remove_set(path: Path, dice: Random) -> None:
    """With its lines, or without them."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        for one in _files_of(path):
            _remove(one)
    document = path.with_name(SUMS)
    if dice.random() < 0.5 and document.is_file() and not document.is_symlink():
        lines = document.read_bytes().splitlines(keepends=True)
        document.write_bytes(b"".join(x for x in lines if path.name.encode() not in x))


def rename_set(path: Path, dice: Random) -> bool:
    start, _, name = path.name.partition("-")
    names = (f"{start[:-3]}59Z-{name}", f"{start}-7", "old")
    return _to(path, path.with_name(dice.choice(names)), shutil.move)


def double_set(path: Path, dice: Random) -> bool:
    start, _, name = path.name.partition("-")
    targets = [path.with_name(f"{start[:-3]}59Z-{name}"), path.with_name(f"{path.name}.bak")]
    if not path.is_dir():  # into another month
        targets.append(path.parents[1] / "01" / path.name)
    return _to(path, dice.choice(targets), shutil.copytree if path.is_dir() else shutil.copy)


def _to(path: Path, target: Path, bring: Callable[[Path, Path], object]) -> bool:
    """The set ``path`` as ``target``; False where there is one."""
    if target.exists() or (target.parent.exists() and _files_of(target)):
        return False
    target.parent.mkdir(exist_ok=True)
    if path.is_dir():
        bring(path, target)
    else:
        for one in filter(Path.is_file, _files_of(path)):
            bring(one, target.with_name(f"{target.name}{one.suffix}"))
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# What begins with a dot, and what is not ours


def leftover_staging(root: Path, dice: Random) -> bool:
    """Bytes of a backup, right or not, as an interrupted run may have left them."""
    found = objects(root)
    if not found:
        return False
    path = dice.choice(found)
    flat = path.with_suffix("").relative_to(root).as_posix().replace("/", "~")
    folder = root / ".staging" / flat.partition("~")[0]
    folder.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes()
    (folder / f"{flat}.data").write_bytes(dice.choice((data, flipped(data, dice), b"")))
    if dice.random() < 0.5:
        (folder / f"{flat}.journal").write_bytes(b'{"garbled\n')
    return True


def leftover_quarantine(root: Path, dice: Random) -> bool:
    """What a killed repair of an earlier version put aside."""
    found = objects(root)
    if not found:
        return False
    path = dice.choice(found)
    flat = path.relative_to(root).as_posix().replace("/", "~")
    folder = root / ".quarantine" / flat.partition("~")[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{flat}.aside").write_bytes(flipped(path.read_bytes(), dice))
    return True


def foreign_file(root: Path, dice: Random) -> bool:
    """A file of another program or of a person."""
    folders = [root, root / ".staging", *filter(Path.is_dir, sets(root))]
    folders += [path.parent for path in sets(root)]
    names = ("README.txt", "notes.json", "a-1.rdb", "core", "dump.rdb.tmp", "b.data")
    path = dice.choice(folders) / dice.choice(names)
    if path.exists() or not path.parent.is_dir():
        return False
    path.write_bytes(b"{}")
    return True


def stale_lock(root: Path, dice: Random) -> bool:
    holder = {"host": "h", "pid": 99999, "boot": "another", "name": "x", "beat": 3}
    odd: dict[str, object] = {"host": None, "pid": [], "boot": {}}
    text = dice.choice((json.dumps(holder), json.dumps(odd), "\0 not json", "[" * 4000))
    path = dice.choice((root / LOCK, *(root / LOCKS / name for name in INSTANCES)))
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return True


def damaged_format(root: Path, dice: Random) -> bool:
    texts = (b'{"format": 99}', b"", bytes(range(256)), b"[]", b"[" * 100_000)
    (root / FORMAT).write_bytes(dice.choice(texts))
    return True


# What a repair leaves as it is, and a verify names: a person looks at it (people.py).
FOR_PEOPLE = ("object-", "set-", "sums-add", "sums-garbage", "results-add")

DAMAGES: dict[str, Damage] = {
    "flip": on_bytes(objects, flipped),
    "cut": on_bytes(objects, cut),
    "pad": on_bytes(objects, padded),
    "delete": on_one(objects, lambda path, _: path.unlink()),
    "swap": on_two(objects, swap),
    "swap-records": on_two(records, swap),
    "swap-backups": on_two(records, swap_backups),
    "forge": on_one(objects, forge),
    "suffix": on_one(objects, other_suffix),
    "object-link": on_one(objects, as_link),
    "object-folder": on_one(objects, as_folder),
    "object-fifo": on_one(objects, as_fifo),
    "record-link": on_one(records, as_link),
    "record-folder": on_one(records, as_folder),
    "record-fifo": on_one(records, as_fifo),
    "record-delete": on_one(records, lambda path, _: path.unlink()),
    "record-garbage": on_bytes(records, garbage),
    "record-cut": on_bytes(records, cut),
    **{f"record-{name}": on_bytes(records, edited(name)) for name in FIELDS},
    "sums-delete": on_one(sums, lambda path, _: path.unlink()),
    "sums-garbage": on_bytes(sums, garbage),
    "sums-line": on_bytes(sums, _line_edit),
    "sums-drop": on_bytes(sums, _line_dropped),
    "sums-zeros": on_bytes(sums, _line_zeroed),
    "sums-cut": on_bytes(sums, cut),
    "sums-add": on_bytes(sums, _line_added),
    "sums-all": on_one(sums, _of_everything),
    "sums-folder": on_one(sums, as_folder),
    "sums-fifo": on_one(sums, as_fifo),
    "results-edit": on_bytes(results, _edit_results(_result_changed)),
    "results-add": on_bytes(results, _edit_results(_result_added)),
    "results-garbage": on_bytes(results, garbage),
    "set-remove": on_one(sets, remove_set),
    "set-rename": on_one(sets, rename_set),
    "set-double": on_one(sets, double_set),
    "staging": leftover_staging,
    "quarantine": leftover_quarantine,
    "foreign": foreign_file,
    "lock": stale_lock,
    "format": damaged_format,
}
