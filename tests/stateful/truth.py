"""The truth: each backup's bytes as its server wrote them, and where an archive keeps them."""

import hashlib
import random
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from fastcrc import crc64

from archiver.emulator.backup import number_of
from examples.sample_rdb import rdb

STANDARD, CLUSTER = "r-bp1standard", "r-bp1cluster"
INSTANCES = (STANDARD, CLUSTER)
NODES = tuple(f"{CLUSTER}-db-{number}" for number in range(3))
# From a batch's to several parts' (64 KiB each, see operations.OPTIONS).
SIZES = (1_000, 5_000, 70_000, 300_000)
FIRST_DAY = datetime(2026, 9, 27, 23, 59, 50)
DAYS = 6  # over the end of a month
SUFFIXES = ("rdb", "aof", "bin")


class Content(StrEnum):
    """What is in a file, which says who can vouch for it."""

    DUMP = "dump"  # has a checksum of its own
    PLAIN = "plain"  # a dump of a server with rdbchecksum no
    LOG = "log"  # commands
    SEALED = "sealed"  # an encrypted dump: nothing is known of it
    SEALED_LOG = "sealed-log"

    @property
    def is_full(self) -> bool:
        """Whether the vendor lists it as a full backup; a log is an incremental one."""
        return self not in (Content.LOG, Content.SEALED_LOG)

    @property
    def suffix(self) -> str:
        """In the archive."""
        return _SUFFIXES.get(self, "rdb")

    @property
    def footer(self) -> str:
        """What a record must say of its checksum."""
        return {Content.DUMP: "ok", Content.PLAIN: "disabled"}.get(self, "none")


_SUFFIXES = {Content.LOG: "aof", Content.SEALED: "bin", Content.SEALED_LOG: "bin"}


@dataclass(frozen=True)
class Backup:
    """One file; ``file`` is its name at the vendor, the same for all nodes of a set."""

    instance: str
    node: str
    file: str
    started: datetime
    content: Content
    data: bytes

    def __repr__(self) -> str:
        return f"{self.file} of {self.node}"

    @cached_property
    def path(self) -> str:
        """At the vendor, below the instance."""
        return self.file if self.is_standard else f"{self.node}/{self.file}"

    @cached_property
    def job(self) -> str:
        return str(number_of(f"{self.instance}\0{self.file}"))

    @cached_property
    def backup_id(self) -> str:
        return str(number_of(f"{self.instance}/{self.path}"))

    @property
    def is_standard(self) -> bool:
        """Whether it lies in its month itself, and is a set of its own."""
        return self.node == self.instance

    @cached_property
    def stem(self) -> str:
        """Its name in an archive without suffix: in its month, or in whichever folder of its
        job."""
        first = f"{self.started:%Y%m%dT%H%M%SZ}" if self.is_standard else self.node
        return f"{first}-{self.backup_id}"

    @cached_property
    def place(self) -> str:
        """A pattern of its key below the instance without suffix, wherever somebody moved it: its
        set under another time, or in another month. The group is its set's name."""
        set_name = rf"([0-9]{{8}}T[0-9]{{6}}Z-{self.backup_id if self.is_standard else self.job})"
        return set_name if self.is_standard else f"{set_name}/{re.escape(self.stem)}"

    @cached_property
    def object(self) -> str:
        return f"{self.stem}.{self.content.suffix}"

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def crc64(self) -> str:
        return str(crc64.xz(self.data))


def made(instance: str, content: Content, day: int, seed: int) -> list[Backup]:
    """The files of a set: one, or one of each node, which begin seconds apart."""
    dice = random.Random(f"{instance} {content} {day} {seed}")
    size = dice.choice(SIZES)
    started = FIRST_DAY + timedelta(days=day % DAYS)
    suffix = "rdb" if content.is_full else "aof"
    file = f"d{seed}_{started:%Y%m%d%H%M%S}.{suffix}"
    nodes = NODES if instance == CLUSTER else (instance,)
    # Not in the order of the nodes' names: the first one listed is not the first one begun.
    apart = dice.sample((0, 4, 8, 12), len(nodes)) if instance == CLUSTER else [0]
    return [
        Backup(
            instance, node, file, started + timedelta(seconds=late), content,
            _bytes(content, size + 10 * number, dice.randrange(10**6)),
        )
        for number, (node, late) in enumerate(zip(nodes, apart, strict=True))
    ]  # fmt: skip


def _bytes(content: Content, size: int, seed: int) -> bytes:
    dice = random.Random(seed)
    if content in (Content.SEALED, Content.SEALED_LOG):
        return b"\x01\x02" + dice.randbytes(size)
    if content is Content.LOG:
        value = dice.randbytes(size // 2).hex().encode()
        return b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n" % (len(value), value)
    data = rdb(size, seed)
    return data if content is Content.DUMP else data[:-8] + bytes(8)
