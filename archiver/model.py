"""The nouns of the line, frozen. Times are aware UTC, sizes are bytes, digests as named.

``Page → Backup → Transfer → Part → Receipt → Stored → Record`` (the record lives in
:mod:`archiver.archive.record`): each is made by the step before it and needed by the step after.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from archiver.errors import ArchiverError
from archiver.secret import Secret


class Status(StrEnum):
    """Where a backup stands at its source. Anything but success or failure is unfinished."""

    SUCCESS = "success"
    FAILED = "failed"
    UNFINISHED = "unfinished"


class BackupType(StrEnum):
    """What a backup is, by its source."""

    FULL = "full"  # a dump
    INCREMENTAL = "incremental"  # a log of commands


class BackupMode(StrEnum):
    """Who had a backup made, by its source: a schedule, or somebody."""

    AUTOMATED = "automated"
    MANUAL = "manual"


class Network(StrEnum):
    """Which of a backup's two addresses the bytes came from."""

    INTRANET = "intranet"
    PUBLIC = "public"


class Kind(StrEnum):
    """What a file is, by its first bytes; also its suffix in the archive."""

    RDB = "rdb"
    AOF = "aof"
    UNKNOWN = "bin"


class Footer(StrEnum):
    """What the checksum at the end of an RDB says of everything before it."""

    OK = "ok"
    MISMATCH = "mismatch"
    DISABLED = "disabled"  # the server wrote zeros: rdbchecksum no
    NONE = "none"  # versions before 5, and files that are no RDB


@dataclass(frozen=True, slots=True)
class Query:
    """Which backups of one instance to list: those that began in a range (:mod:`archiver.times`),
    and of these only one backup, or those of one set.

    ``region`` is the part of the source that has the instance, for sources of several: what
    concerns all of a source concerns that part.
    """

    instance_id: str
    start: str
    end: str
    need_aof: bool = False
    backup_id: str | None = None
    set_id: str | None = None
    region: str = ""


@dataclass(frozen=True, slots=True)
class SourceName:
    """What listed a backup: the ``kind`` of source, such as ``alibaba``, and the ``action`` that
    it was asked for, with its version: ``DescribeBackups 2015-01-01``."""

    kind: str
    action: str


@dataclass(frozen=True, slots=True)
class Engine:
    """The server that made a backup; each None where the source does not say."""

    name: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class NodesExpected:
    """How many nodes a backup set should have files of, and what said so, in a few words."""

    count: int
    known_from: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a source makes backups by itself: on these ``weekdays`` (0 is Monday), beginning about
    ``minute`` minutes after midnight UTC. It keeps them for ``kept_days``, None if unknown.
    ``since`` is when it was first seen to do so, None if always."""

    weekdays: tuple[int, ...]
    minute: int
    kept_days: int | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class InstanceDescription:
    """An instance as its source described it at ``seen_at``; "" and None where it said nothing.

    ``ends_at`` is when its subscription ends, ``deleted_at`` when the source deletes it, with its
    backups. ``gone_at`` is when it was first not found any more. ``no_backups``: why the source
    makes no backups of it.
    """

    instance_id: str
    seen_at: datetime
    source: str = ""
    region: str = ""
    name: str = ""
    architecture: str = ""
    shards: int | None = None
    engine: Engine | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    ends_at: datetime | None = None
    deleted_at: datetime | None = None
    gone_at: datetime | None = None
    schedule: Schedule | None = None
    no_backups: str | None = None


class Named:
    """What identifies a backup, and says where it lies in an archive: a listing has it, and
    a record."""

    __slots__ = ()

    instance_id: str
    node_id: str
    backup_id: str
    set_id: str | None
    started_at: datetime
    type: BackupType | None

    @property
    def is_standard(self) -> bool:
        """Of an instance without nodes: its backup set is this one file."""
        return self.node_id == self.instance_id

    @property
    def is_log(self) -> bool:
        """A log of commands by the source's word, whatever its bytes look like."""
        return self.type is BackupType.INCREMENTAL

    def __str__(self) -> str:
        return f"{self.node_id}-{self.backup_id}"


@dataclass(frozen=True, slots=True)
class Backup(Named):
    """One backup file, as any source lists it.

    Times are UTC. ``node_id`` is the instance's own id for a standard instance, and ``backup_id``
    has no hyphen: the file is called ``<node>-<backup id>``. ``set_id`` is what the files of
    one backup set have in common: the vendor's job or cluster backup. None there means that the
    file is a set of its own, and elsewhere that the source does not say. A ``size`` of None is
    found when the file is fetched, and a source without ``urls`` gives them when it is asked for
    this backup again. ``crc64`` is the CRC-64/XZ of the file, where the listing gives one.

    ``received`` holds every field as the source gave it, those that nobody knows too; its URLs have
    lost their query. Only the source's own module reads it. ``refused`` says of networks whose URL
    must not be fetched why that is.
    """

    source: SourceName
    instance_id: str
    node_id: str
    backup_id: str
    set_id: str | None
    started_at: datetime
    status: Status
    type: BackupType | None
    mode: BackupMode | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    engine: Engine | None = None
    nodes_expected: NodesExpected | None = None
    size: int | None = None
    crc64: int | None = None
    urls: Mapping[Network, Secret] = field(default_factory=dict)
    received: Mapping[str, Any] = field(default_factory=dict, repr=False)
    refused: Mapping[Network, str] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, str]:
        """What makes a backup that backup: its id is unique within a node."""
        return self.backup_id, self.node_id


@dataclass(frozen=True, slots=True)
class Refused:
    """A listed entry that cannot be used, and what could be read of it: the id of its set, and its
    start."""

    error: ArchiverError
    set_id: str | None = None
    started_at: datetime | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """What is known of it: the same error may be that of several sets."""
        return str(self.error), self.set_id, self.started_at


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; ``total`` spans all pages and may change between them, or is None
    where the source does not say. ``is_last``: whether it is clear that none follows; None where it
    is only likely."""

    number: int
    size: int
    total: int | None
    backups: tuple[Backup, ...]
    refused: tuple[Refused, ...] = ()
    is_last: bool | None = False


@dataclass(frozen=True, slots=True)
class Transfer:
    """A backup that the archive does not hold yet, the set that it belongs to, and the key (without
    suffix) it will get.

    ``is_named``: whether SHA256SUMS has its line already; ``is_known``: whether something in the
    archive may say which bytes the file has. ``present`` are objects under its stem, by key, with
    their sizes in bytes; None where no listing has shown whether there are any.
    """

    backup: Backup
    set_key: str
    stem: str
    is_named: bool = False
    is_known: bool = False
    present: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Bytes ``start`` (included) to ``stop`` (excluded) of a file."""

    index: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Pin:
    """What the first answer said of the object, and what every later answer must agree with."""

    total: int
    etag: str | None
    crc64: int | None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where bytes came from: the URL without its query, and over which network of the vendor's;
    None where the source has no such two."""

    origin: str
    network: Network | None


@dataclass(frozen=True, slots=True)
class RdbVerdict:
    """What the file says of itself. ``version`` is the magic's, as written: ``REDIS0011``."""

    version: str | None
    footer: Footer


@dataclass(frozen=True, slots=True)
class Measured:
    """What an object is, read from its first byte to its last. ``beginning`` is the SHA-256 of its
    first bytes, as many as were expected, when there are more."""

    size: int
    sha256: str
    crc64: int
    kind: Kind
    rdb: RdbVerdict
    beginning: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a staged file is the one at the source. Only a finished transfer makes one."""

    size: int
    sha256: str
    crc64: int
    crc64_declared: int | None
    etag: str | None
    kind: Kind
    rdb: RdbVerdict
    provenance: Provenance
    part_size: int
    started_at: datetime
    finished_at: datetime
    attempts: int
    bytes_fetched: int
    bytes_fetched_again: int

    @property
    def is_vouched_for(self) -> bool:
        """Whether a checksum of the source's or of the file's own agrees; else its size alone."""
        return self.crc64_declared is not None or self.rdb.footer is Footer.OK


@dataclass(frozen=True, slots=True)
class Stored:
    """A durable object under its final key. Only a store's commit makes one. ``cleared`` are keys
    that something else had, and where that is kept now. ``versions`` are those that a listing
    should show of the documents about it, by key, and of it, where it was not compared with what is
    stored already. ``documents`` are their keys and contents."""

    key: str
    receipt: Receipt
    cleared: tuple[tuple[str, str], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    documents: Sequence[tuple[str, bytes]] = field(default=(), repr=False)
