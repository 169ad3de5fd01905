"""The record: what the archive knows of one file, as JSON beside it. Its presence is the commit.

format                1
instance_id, node_id, backup_id, job_id
object                the file's name, beside this record
size, sha256          bytes; lower-case hex
crc64ecma             CRC-64/XZ as computed, decimal; crc64ecma_declared as the source said
etag, kind, rdb       of the object; rdb, aof or bin; the RDB's version and footer verdict
source                network (intranet or public) and origin, the URL without its query
api                   every field of DescribeBackups as received, URLs without their query
transfer              part_size, started_at, finished_at, attempts, bytes_fetched,
                      bytes_fetched_again
tool                  name and version of what wrote it
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from archiver.errors import IntegrityError, UnsupportedFormat
from archiver.model import Backup, BackupType, Stored

FORMAT = 1
_LAID_OUT = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read or about to be written; ``document`` is the JSON, whole."""

    key: str
    instance_id: str
    node_id: str
    backup_id: str
    job_id: str | None
    object_key: str
    size: int
    sha256: str
    started_at: datetime
    document: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The backup set it belongs to."""
        return self.key.rpartition("/")[0]

    @property
    def is_log(self) -> bool:
        """A log of commands by the source's word, whatever its bytes look like."""
        return bool(self.document["api"].get("BackupType") == BackupType.INCREMENTAL)

    def renamed(self, object_key: str) -> Self:
        """The same, of an object under this key in its folder."""
        document = {**self.document, "object": object_key.rpartition("/")[2]}
        return replace(self, object_key=object_key, document=document)

    def encode(self) -> bytes:
        try:
            return orjson.dumps(self.document, option=_LAID_OUT)
        except TypeError:
            # It takes no integer beyond 64 bits and no half of a surrogate pair, which a listing
            # may have.
            return f"{json.dumps(self.document, indent=2)}\n".encode("ascii")

    @classmethod
    def decode(cls, key: str, data: bytes) -> Self:
        """Read a record. Raises IntegrityError, UnsupportedFormat."""
        try:
            document = json.loads(data)
            _check_format(key, document["format"])
            return cls(
                key=key,
                instance_id=str(document["instance_id"]),
                node_id=str(document["node_id"]),
                backup_id=str(document["backup_id"]),
                job_id=document["job_id"],
                object_key=_beside(key, str(document["object"])),
                size=int(document["size"]),
                sha256=str(document["sha256"]),
                started_at=_time(document["api"]["BackupStartTime"]),
                document=document,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"{key}: this record cannot be read ({error!r:.120})") from None


def make_record(key: str, backup: Backup, stored: Stored, tool: str) -> Record:
    """The record of an object that is durable under its key."""
    receipt = stored.receipt
    document = {
        "format": FORMAT,
        "instance_id": backup.instance_id,
        "node_id": backup.node_id,
        "backup_id": backup.backup_id,
        "job_id": backup.job_id,
        "object": stored.key.rpartition("/")[2],
        "size": receipt.size,
        "sha256": receipt.sha256,
        "crc64ecma": str(receipt.crc64),
        "crc64ecma_declared": _decimal(receipt.crc64_declared),
        "etag": receipt.etag,
        "kind": receipt.kind,
        "rdb": {"version": receipt.rdb.version, "footer": receipt.rdb.footer},
        "source": {
            "network": receipt.provenance.network,
            "origin": receipt.provenance.origin,
        },
        "api": dict(backup.fields),
        "transfer": {
            "part_size": receipt.part_size,
            "started_at": _iso(receipt.started_at),
            "finished_at": _iso(receipt.finished_at),
            "attempts": receipt.attempts,
            "bytes_fetched": receipt.bytes_fetched,
            "bytes_fetched_again": receipt.bytes_fetched_again,
        },
        "tool": tool,
    }
    return Record(
        key=key,
        instance_id=backup.instance_id,
        node_id=backup.node_id,
        backup_id=backup.backup_id,
        job_id=backup.job_id,
        object_key=stored.key,
        size=receipt.size,
        sha256=receipt.sha256,
        started_at=backup.started_at,
        document=document,
    )


def _check_format(key: str, written: object) -> None:
    if not isinstance(written, int) or not 1 <= written <= FORMAT:
        raise UnsupportedFormat(
            f"{key}: a record of format {written!r}; this version reads up to {FORMAT}",
            hint="use a newer archiver",
        )


def _beside(key: str, name: str) -> str:
    """The key of the file ``name`` in the record's own folder, and in no other."""
    if "/" in name or name in ("", ".", ".."):
        raise ValueError(f"object {name!r}")
    return f"{key.rpartition('/')[0]}/{name}"


def _decimal(value: int | None) -> str | None:
    # 64-bit numbers as text: JSON readers in other languages would round them.
    return None if value is None else str(value)


def _iso(moment: datetime) -> str:
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return f"{text.removesuffix('+00:00')}Z"


def _time(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
