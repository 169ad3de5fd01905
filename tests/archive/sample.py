"""Archives as a pull leaves them, made without one."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fastcrc import crc64

from archiver.archive import layout
from archiver.archive.record import FORMAT
from archiver.errors import ArchiverError, BadDocument, UnreadableObject
from archiver.model import BackupType, Kind
from archiver.rdb.meter import FileMeter
from archiver.stores.local.store import LocalStore
from examples.sample_rdb import rdb

INSTANCE = "r-bp1zxszhcgatnx"
CLUSTER = "r-bp1clusterdemo0"
_VENDORS_WORDS = {"full": "FullBackup", "incremental": "IncrementalBackup"}
STARTS = ("20261121T021500Z", "20261122T021500Z", "20261123T021500Z")


class ReadsOneByOne(LocalStore):
    """A directory whose documents are all read by ``read``, which may be made to fail."""

    async def read_many(self, keys: Sequence[str]) -> Mapping[str, bytes | ArchiverError | None]:
        found: dict[str, bytes | ArchiverError | None] = {}
        for key in keys:
            try:
                found[key] = await self.read(key)
            except (BadDocument, UnreadableObject) as error:
                found[key] = error
        return found


def put_format(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / layout.FORMAT_KEY).write_text(f'{{"format": {layout.FORMAT}}}\n')


def put_backup(
    root: Path,
    start: str,
    data: bytes,
    *,
    instance: str = INSTANCE,
    node: str | None = None,
    job: str = "1",
    backup_id: str = "100",
    backup_type: str | None = None,
    suffix: str | None = None,
) -> Path:
    """A file with its record; returns the object's path. ``put_sums`` completes the set. A standard
    instance's lies in its month, a node's in the folder of the set ``job``."""
    put_format(root)
    month = root / instance / start[:4] / start[4:6]
    stem = month / f"{start}-{backup_id}"
    if node is not None and node != instance:
        stem = month / f"{start}-{job}" / f"{node}-{backup_id}"
    node = node or instance
    meter = FileMeter(len(data))
    meter.feed(memoryview(data))
    kind, verdict = meter.verdict(is_log=backup_type == BackupType.INCREMENTAL)
    kind = Kind(suffix) if suffix is not None else kind
    if backup_type is None:
        backup_type = BackupType.INCREMENTAL if kind is Kind.AOF else BackupType.FULL
    target = stem.with_suffix(f".{kind}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    moment = datetime.fromisoformat(start)
    record = {
        "format": FORMAT,
        "instance_id": instance,
        "node_id": node,
        "backup_id": backup_id,
        "set_id": job,
        "source": {"kind": "alibaba", "action": "DescribeBackups 2015-01-01"},
        "started_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "ended_at": None,
        "type": backup_type or None,
        "mode": None,
        "engine": None,
        "expires_at": None,
        "nodes_expected": None,
        "object": target.name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "crc64ecma": str(crc64.xz(data)),
        "crc64ecma_declared": None,
        "etag": None,
        "kind": str(kind),
        "rdb": {"version": verdict.version, "footer": str(verdict.footer)},
        "transfer": {
            "network": "public",
            "origin": f"http://oss.example/{target.name}",
            "part_size": 1,
            "started_at": f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}",
            "finished_at": f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}",
            "attempts": 1,
            "bytes_fetched": len(data),
            "bytes_fetched_again": 0,
        },
        "tool": "archiver test",
        "received": {
            "BackupId": int(backup_id),
            "BackupJobID": job,
            "BackupSize": len(data),
            "BackupStartTime": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            "BackupType": _VENDORS_WORDS.get(backup_type, ""),
            "NodeInstanceId": node,
        },
    }
    target.with_suffix(".json").write_text(f"{json.dumps(record, indent=2)}\n")
    return target


def set_key(root: Path, target: Path) -> str:
    """The key of the set that a backup's file belongs to."""
    return layout.set_of(target.relative_to(root).as_posix())


def sums_of(path: Path) -> Path:
    """The SHA256SUMS of the month that a file or folder of an archive lies in."""
    month = next(one for one in (path, *path.parents) if re.fullmatch(r"[0-9]{2}", one.name))
    return month / layout.SUMS_NAME


def put_sums(folder: Path) -> None:
    """Have SHA256SUMS name what is recorded in a set's folder, or in the month itself, and nothing
    else there. What it says of other folders stays."""
    sums = sums_of(folder)
    within = "" if folder == sums.parent else f"{folder.name}/"
    put_lines(
        folder,
        {name: sha256 for name, sha256 in lines_of(sums).items() if not _is_in(name, within)}
        | {f"{within}{one['object']}": one["sha256"] for one in _records(folder)},
    )


def lines_of(path: Path) -> dict[str, str]:
    """What the SHA256SUMS of its month says: the SHA-256 by name."""
    sums = sums_of(path)
    lines = sums.read_text().splitlines() if sums.exists() else []
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def put_lines(path: Path, lines: Mapping[str, str]) -> None:
    """Write the SHA256SUMS of its month; where there are no lines, there is none."""
    sums = sums_of(path)
    if lines:
        sums.write_text("".join(f"{lines[name]}  {name}\n" for name in sorted(lines)))
    else:
        sums.unlink(missing_ok=True)


def remove_lines(path: Path) -> None:
    """As if SHA256SUMS had never named it: a backup's file, or all of a set's folder."""
    name = path.relative_to(sums_of(path).parent).as_posix()
    lines = lines_of(path)
    put_lines(
        path, {one: lines[one] for one in lines if one != name and not one.startswith(f"{name}/")}
    )


def _is_in(name: str, within: str) -> bool:
    return name.rpartition("/")[0] == within.rstrip("/")


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def put_standard(
    root: Path,
    data: bytes,
    start: str = STARTS[-1],
    *,
    backup_type: str | None = None,
    suffix: str | None = None,
    **given: str,
) -> Path:
    """A complete set of one file."""
    target = put_backup(root, start, data, backup_type=backup_type, suffix=suffix, **given)
    sha256 = hashlib.sha256(data).hexdigest()
    name = target.relative_to(sums_of(target).parent).as_posix()
    put_lines(target, lines_of(target) | {name: sha256})
    return target


def put_cluster(root: Path, start: str = STARTS[-1], nodes: int = 3) -> list[Path]:
    """A complete set of a cluster; each node has a dump of three keys."""
    made = [
        put_backup(
            root,
            start,
            rdb(20_000 + node, node),
            instance=CLUSTER,
            node=f"{CLUSTER}-db-{node}",
            backup_id=f"20{node}",
        )
        for node in range(nodes)
    ]
    put_sums(made[0].parent)
    return made


def remove_node(target: Path) -> None:
    """As if the node's file had never come: no object, no record."""
    target.unlink()
    target.with_suffix(".json").unlink()


def put_shards(root: Path) -> list[Path]:
    """A backup of an old cluster, of which each shard has a folder; the files of its shards."""
    return [
        put_standard(
            root, rdb(3000, node), f"20261121T02150{node}Z",
            instance=CLUSTER, node=f"{CLUSTER}-db-{node}", job=f"7{node}",
        )
        for node in range(3)
    ]  # fmt: skip


def change_record(target: Path, **changes: object) -> None:
    path = target.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2))


def began_at(document: dict[str, Any], start: str) -> None:
    """Have a record say that its backup began at another time, and that the source said so."""
    document["started_at"] = document["received"]["BackupStartTime"] = start


def copy_of(root: Path, to: Path) -> Path:
    shutil.copytree(root, to)
    return to
