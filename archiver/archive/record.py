"""The record: what the archive knows of one file, as JSON beside it. Its presence is the commit.

docs/archive-format.md describes the fields. What the source said is in fields that any source can
fill; ``received`` has every field as the source gave it, for the source's own module alone (see
:mod:`archiver.received`). Every field but ``repairs`` is required, whether a command uses it or
not: what one of them calls a record, all of them do. Further fields are kept as they are.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self, TypeVar

import orjson

from archiver.archive.layout import set_of
from archiver.documents import Fields, parse
from archiver.model import (
    Backup,
    BackupMode,
    BackupType,
    Engine,
    Footer,
    Kind,
    Named,
    Network,
    NodesExpected,
    Provenance,
    SourceName,
    Status,
    Stored,
)
from archiver.times import format_iso

FORMAT = 2
_LAID_OUT = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record(Named):
    """A record as it was read; ``document`` is the whole JSON. The fields are those of a
    :class:`~archiver.model.Backup`, except ``size``, which is the object's."""

    key: str
    source: SourceName
    instance_id: str
    node_id: str
    backup_id: str
    set_id: str | None
    started_at: datetime
    ended_at: datetime | None
    type: BackupType | None
    mode: BackupMode | None
    engine: Engine | None
    expires_at: datetime | None
    nodes_expected: NodesExpected | None
    object_key: str
    size: int
    sha256: str
    document: Mapping[str, Any]

    @property
    def set_key(self) -> str:
        """The backup set it belongs to."""
        return set_of(self.key)

    @property
    def provenance(self) -> Provenance:
        """Where its bytes came from, and over which network."""
        transfer = self.document["transfer"]
        network = transfer["network"]
        return Provenance(transfer["origin"], network and Network(network))

    @property
    def received(self) -> Mapping[str, Any]:
        """What the source sent, for the source's own module to read."""
        fields: Mapping[str, Any] = self.document["received"]
        return fields

    @property
    def backup(self) -> Backup:
        """The backup that it is about, as far as the record goes: it has no URLs."""
        return Backup(
            source=self.source,
            instance_id=self.instance_id,
            node_id=self.node_id,
            backup_id=self.backup_id,
            set_id=self.set_id,
            started_at=self.started_at,
            status=Status.SUCCESS,
            type=self.type,
            mode=self.mode,
            ended_at=self.ended_at,
            expires_at=self.expires_at,
            engine=self.engine,
            nodes_expected=self.nodes_expected,
            size=self.size,
            received=self.received,
        )

    def renamed(self, object_key: str) -> Self:
        """The same of an object with another key in the same folder."""
        document = {**self.document, "object": object_key.rpartition("/")[2]}
        return replace(self, object_key=object_key, document=document)

    def encode(self) -> bytes:
        return encode(self.document)

    @classmethod
    def decode(cls, key: str, data: bytes) -> Self:
        """Read a record. Raises BadDocument for what cannot be one, or is of another format.

        Whether it belongs under its key is for :mod:`archiver.archive.consistency` to say.
        """
        fields = parse(key, data)
        fields.format("format", FORMAT, oldest=FORMAT)
        _check_object(fields)
        source = fields.within("source")
        fields.within("received")
        return cls(
            key=key,
            source=SourceName(source.line("kind"), source.line("action")),
            instance_id=fields.line("instance_id"),
            node_id=fields.line("node_id"),
            backup_id=fields.line("backup_id"),
            set_id=_or_none(fields, "set_id", fields.line),
            started_at=fields.moment("started_at"),
            ended_at=_or_none(fields, "ended_at", fields.moment),
            type=_or_none(fields, "type", lambda name: fields.word(name, BackupType)),
            mode=_or_none(fields, "mode", lambda name: fields.word(name, BackupMode)),
            engine=_or_none(fields, "engine", lambda name: _engine(fields.within(name))),
            expires_at=_or_none(fields, "expires_at", fields.moment),
            nodes_expected=_or_none(
                fields, "nodes_expected", lambda name: _nodes_expected(fields.within(name))
            ),
            object_key=f"{key.rpartition('/')[0]}/{fields.name('object')}",
            size=fields.number("size"),
            sha256=fields.sha256("sha256"),
            document=fields.values,
        )


def _or_none(fields: Fields, name: str, read: Callable[[str], T]) -> T | None:
    return None if fields.is_null(name) else read(name)


def _engine(fields: Fields) -> Engine:
    return Engine(_or_none(fields, "name", fields.line), _or_none(fields, "version", fields.line))


def _nodes_expected(fields: Fields) -> NodesExpected:
    return NodesExpected(fields.number("count", least=1), fields.line("known_from"))


def _check_object(fields: Fields) -> None:
    """What a record says of the object beside its name, size and SHA-256. Raises BadDocument."""
    fields.crc64("crc64ecma")
    _or_none(fields, "crc64ecma_declared", fields.crc64)
    _or_none(fields, "etag", fields.text)
    fields.word("kind", Kind)
    rdb = fields.within("rdb")
    _or_none(rdb, "version", rdb.line)
    rdb.word("footer", Footer)
    transfer = fields.within("transfer")
    _or_none(transfer, "network", lambda name: transfer.word(name, Network))
    transfer.text("origin")
    transfer.moment("started_at")
    transfer.moment("finished_at")
    transfer.number("part_size", least=1)
    for name in ("attempts", "bytes_fetched", "bytes_fetched_again"):
        transfer.number(name)
    fields.text("tool")
    if "repairs" in fields.values and not all(
        isinstance(one, dict) for one in fields.items("repairs")
    ):
        fields.refuse("repairs", "contains something other than repairs")


def new_document(backup: Backup, stored: Stored, tool: str) -> dict[str, Any]:
    """The record of an object that is durable under its key."""
    receipt = stored.receipt
    return {
        "format": FORMAT,
        **_said(backup),
        "object": stored.key.rpartition("/")[2],
        "size": receipt.size,
        "sha256": receipt.sha256,
        "crc64ecma": str(receipt.crc64),
        "crc64ecma_declared": _decimal(receipt.crc64_declared),
        "etag": receipt.etag,
        "kind": receipt.kind,
        "rdb": {"version": receipt.rdb.version, "footer": receipt.rdb.footer},
        "transfer": {
            "network": receipt.provenance.network,
            "origin": receipt.provenance.origin,
            "part_size": receipt.part_size,
            "started_at": format_iso(receipt.started_at, "microseconds"),
            "finished_at": format_iso(receipt.finished_at, "microseconds"),
            "attempts": receipt.attempts,
            "bytes_fetched": receipt.bytes_fetched,
            "bytes_fetched_again": receipt.bytes_fetched_again,
        },
        "tool": tool,
        "received": dict(backup.received),
    }


def encode(document: Mapping[str, Any]) -> bytes:
    """A record as it is written."""
    try:
        return orjson.dumps(document, option=_LAID_OUT)
    except TypeError:
        # It takes no integer beyond 64 bits and no half of a surrogate pair, which a listing
        # may have.
        return f"{json.dumps(document, indent=2)}\n".encode("ascii")


def _said(backup: Backup) -> dict[str, object]:
    """What the source said of a backup, as a record has it."""
    engine, expected = backup.engine, backup.nodes_expected
    return {
        "instance_id": backup.instance_id,
        "node_id": backup.node_id,
        "backup_id": backup.backup_id,
        "set_id": backup.set_id,
        "source": {"kind": backup.source.kind, "action": backup.source.action},
        "started_at": format_iso(backup.started_at, "auto"),
        "ended_at": None if backup.ended_at is None else format_iso(backup.ended_at, "auto"),
        "type": backup.type,
        "mode": backup.mode,
        "engine": engine and {"name": engine.name, "version": engine.version},
        "expires_at": None if backup.expires_at is None else format_iso(backup.expires_at, "auto"),
        "nodes_expected": expected and {"count": expected.count, "known_from": expected.known_from},
    }


def _decimal(value: int | None) -> str | None:
    # 64-bit numbers as text: JSON readers in other languages would round them.
    return None if value is None else str(value)
