"""The record: what the archive knows of one file, as JSON beside it. Its presence is the commit.

format                1
instance_id, node_id, backup_id; job_id, or null
object                the file's name, beside this record
size, sha256          bytes; lower-case hex
crc64ecma             CRC-64/XZ as computed, decimal; crc64ecma_declared as the source said, or null
etag, kind, rdb       of the object, or null; rdb, aof or bin; the RDB's version, or null, and
                      footer verdict
source                network (intranet or public) and origin, the URL without its query
api                   every field of DescribeBackups as received, URLs without their query
transfer              part_size, started_at, finished_at, attempts, bytes_fetched,
                      bytes_fetched_again
tool                  name and version of what wrote it
repairs               where a repair took it from: at, from, why, tool; only of repaired ones

Every field but the last is required, whether a command has a use for it or not: what one of them
calls a record, all of them do. Times have a zone, or are UTC. Further fields are kept as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import orjson

from archiver.documents import Fields, parse
from archiver.model import Backup, BackupType, Footer, Kind, Network, Stored
from archiver.times import format_iso

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
    def name(self) -> str:
        """The object's name in its folder, and in SHA256SUMS."""
        return self.object_key.rpartition("/")[2]

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
        """Read a record. Raises BadDocument for what is none, or of another format.

        Whether it belongs under its key is for :mod:`archiver.archive.consistency` to say.
        """
        fields = parse(key, data)
        fields.format("format", FORMAT)
        _check_provenance(fields)
        api = fields.within("api")
        return cls(
            key=key,
            instance_id=fields.line("instance_id"),
            node_id=fields.line("node_id"),
            backup_id=fields.line("backup_id"),
            job_id=None if fields.is_null("job_id") else fields.line("job_id"),
            object_key=f"{key.rpartition('/')[0]}/{fields.name('object')}",
            size=fields.number("size"),
            sha256=fields.sha256("sha256"),
            started_at=api.moment("BackupStartTime"),
            document=fields.values,
        )


def _check_provenance(fields: Fields) -> None:
    """What a record says beside what it is about. Raises BadDocument."""
    fields.crc64("crc64ecma")
    if not fields.is_null("crc64ecma_declared"):
        fields.crc64("crc64ecma_declared")
    if not fields.is_null("etag"):
        fields.text("etag")
    fields.word("kind", Kind)
    rdb = fields.within("rdb")
    if not rdb.is_null("version"):
        rdb.line("version")
    rdb.word("footer", Footer)
    source = fields.within("source")
    source.word("network", Network)
    source.text("origin")
    transfer = fields.within("transfer")
    transfer.moment("started_at")
    transfer.moment("finished_at")
    transfer.number("part_size", least=1)
    for name in ("attempts", "bytes_fetched", "bytes_fetched_again"):
        transfer.number(name)
    fields.text("tool")
    if "repairs" in fields.values and not all(
        isinstance(one, dict) for one in fields.items("repairs")
    ):
        fields.refuse("repairs", "has something else than repairs in it")


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
            "started_at": format_iso(receipt.started_at, "microseconds"),
            "finished_at": format_iso(receipt.finished_at, "microseconds"),
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


def _decimal(value: int | None) -> str | None:
    # 64-bit numbers as text: JSON readers in other languages would round them.
    return None if value is None else str(value)
