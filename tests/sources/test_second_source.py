"""A vendor of another shape goes through all commands: nothing but its own module knows it."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from fastcrc import crc64

from archiver import Archive, LocalStore, PullOptions, TransferOptions, events, pull, verify
from archiver.archive.record import Record
from archiver.cli import words as texts
from archiver.commands.copy.run import copy
from archiver.commands.drill import DrillOptions, drill
from archiver.commands.ls.listing import State, archived_rows
from archiver.commands.restore.run import restore
from archiver.errors import IntegrityError
from archiver.model import BackupMode, BackupType, Engine, NodesExpected, Page, Query
from archiver.retry import RetryPolicy
from archiver.times import EVERYTHING_FROM
from examples.sample_rdb import rdb
from tests.drill.conftest import left_in, programs
from tests.servers.cloudkv import Batch, CloudKv
from tests.sources.cloudkv import SOURCE, CloudKvSource

SINGLE, CLUSTER = "kv-single", "kv-cluster"
PART = 64 * 1024
OPTIONS = PullOptions(
    transfer=TransferOptions(
        part_size=PART, retry=RetryPolicy(attempts=3, first_wait=0.001, max_wait=0.002)
    )
)


@pytest.fixture
def vendor() -> CloudKv:
    return CloudKv(
        {
            SINGLE: [Batch("b1", "2026-11-24 02:15:00.250", {None: rdb(3000)})],
            CLUSTER: [
                Batch(
                    "c1", "2026-11-24 07:59:59", {0: rdb(5000, 1), 1: rdb(300_000, 2)},
                    trigger="hand",
                )
            ],
        }
    )  # fmt: skip


@pytest.fixture
async def source(vendor: CloudKv) -> AsyncIterator[CloudKvSource]:
    async with TestServer(vendor.app()) as server, aiohttp.ClientSession() as session:
        vendor.endpoint = str(server.make_url("")).rstrip("/")
        yield CloudKvSource(vendor.endpoint, session)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(LocalStore(tmp_path / "archive"))


def queries(*instances: str) -> list[Query]:
    return [
        Query(one, EVERYTHING_FROM, "2100-01-01T00:00Z") for one in instances or [SINGLE, CLUSTER]
    ]


def record_of(root: Path, node: str) -> Path:
    [path] = root.glob(f"archive/kv-*/*/*/*/{node}-*.json")
    return path


@pytest.mark.parametrize("takes_ranges", [True, False])
async def test_pull_copy_verify_restore_and_drill(
    vendor: CloudKv, source: CloudKvSource, archive: Archive, tmp_path: Path, takes_ranges: bool
) -> None:
    vendor.takes_ranges = takes_ranges
    told: list[events.Event] = []
    summary = await pull(source, archive, queries(), OPTIONS, told.append)
    assert (summary.archived, summary.exit_code, summary.failures) == (3, 0, [])
    assert all(one.vouched_for for one in told if isinstance(one, events.Archived))
    assert vendor.asked["url"] == 3
    assert "s3cr3t" not in record_of(tmp_path, f"{CLUSTER}-shard-1").read_text()

    # A second run asks for no file.
    before = dict(vendor.asked)
    again = await pull(source, archive, queries(), OPTIONS)
    assert (again.held, again.archived, again.exit_code) == (3, 0, 0)
    assert {**vendor.asked, "list": 0} == {**before, "list": 0}

    copied = Archive(LocalStore(tmp_path / "copied"))
    assert (await copy(archive, copied)).archived == 3
    for one in (archive, copied):
        found = await verify(one)
        assert (found.findings, found.exit_code) == ([], 0)
        rows = await archived_rows(one)
        assert [(row.state, row.set_note, row.type) for row in rows] == [
            (State.ARCHIVED, None, BackupType.FULL)
        ] * 3

    await restore(copied, tmp_path / "restored", instance_id=CLUSTER)
    restored = {path.read_bytes() for path in (tmp_path / "restored").rglob("*.rdb")}
    assert restored == set(vendor.batches[CLUSTER][0].shards.values())

    place = tmp_path / "place"
    place.mkdir()
    done = await drill(copied, await programs(), DrillOptions(scratch=place))
    assert done.exit_code == 0, [one.why for one in done.evidence.sets]
    assert len(done.evidence.sets) == 2
    assert left_in(place) == []


async def test_a_rehearsal_asks_for_no_file(
    vendor: CloudKv, source: CloudKvSource, archive: Archive
) -> None:
    summary = await pull(source, archive, queries(), replace(OPTIONS, dry_run=True))
    assert (summary.planned, summary.bytes_planned, summary.unsized) == (3, 0, 3)
    [line] = texts.summary(summary, 1.0, finished=True, dry_run=True)
    assert line.startswith("would archive 3 backups, 0 B and 3 of unknown size;")
    assert vendor.asked.keys() == {"list"}


async def test_its_record(
    vendor: CloudKv, source: CloudKvSource, archive: Archive, tmp_path: Path
) -> None:
    await pull(source, archive, queries(CLUSTER), OPTIONS)
    path = record_of(tmp_path, f"{CLUSTER}-shard-1")
    record = Record.decode(path.relative_to(tmp_path / "archive").as_posix(), path.read_bytes())
    assert record.source == SOURCE
    assert (record.set_id, record.backup_id) == ("c1", "c1.1")
    # Shanghai's morning is still the day before.
    assert record.started_at == datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)
    assert (record.type, record.mode) == (BackupType.FULL, BackupMode.MANUAL)
    assert record.engine == Engine("valkey", "8.0")
    assert record.nodes_expected == NodesExpected(2, "the records of its batch")
    assert record.received["record"] == {"shard": 1, "status": "backup_ok"}
    assert record.size == 300_000


async def test_its_words_for_what_is_not_there(
    vendor: CloudKv, source: CloudKvSource, archive: Archive
) -> None:
    vendor.batches[SINGLE] += [
        Batch("b2", "2026-11-25 02:15:00", {None: b""}, status="backup_broken"),
        Batch("b3", "2026-11-26 02:15:00", {None: b""}, status="backup_going_on"),
        Batch("b4", "2026-11-27 02:15:00", {None: b""}),
    ]
    summary = await pull(source, archive, queries(SINGLE), OPTIONS)
    assert (summary.archived, summary.unfinished, summary.exit_code) == (1, 1, 3)
    failed, empty = (str(one.error) for one in summary.failures)
    assert "this backup failed at the vendor" in failed
    assert "a full backup cannot have 0 bytes" in empty


async def test_what_breaks_off_is_not_taken_for_whole(
    vendor: CloudKv, source: CloudKvSource, archive: Archive, tmp_path: Path
) -> None:
    """Nothing but the length of the answer says how long the file is."""
    vendor.short = True
    summary = await pull(source, archive, queries(SINGLE), OPTIONS)
    assert (summary.archived, len(summary.failures), summary.exit_code) == (0, 1, 1)
    assert list(tmp_path.rglob("*.rdb")) == []


async def test_what_proves_nothing_is_said_to_have_its_size_alone(
    vendor: CloudKv, source: CloudKvSource, archive: Archive
) -> None:
    vendor.batches = {SINGLE: [Batch("b1", "2026-11-24 02:15:00", {None: b"sealed" * 1000})]}
    told: list[events.Event] = []
    summary = await pull(source, archive, queries(SINGLE), OPTIONS, told.append)
    assert summary.exit_code == 0
    assert [one.vouched_for for one in told if isinstance(one, events.Archived)] == [False]


class _Declaring:
    """The same source, had its listing a CRC-64."""

    def __init__(self, source: CloudKvSource, crc: int) -> None:
        self._source = source
        self._crc = crc
        self.again = source.again

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        async with aclosing(self._source.pages(query)) as pages:
            async for page in pages:
                yield replace(
                    page, backups=tuple(replace(one, crc64=self._crc) for one in page.backups)
                )


@pytest.mark.parametrize(("wrong", "code"), [(0, 0), (1, 3)])
async def test_a_checksum_in_the_listing_counts(
    vendor: CloudKv, source: CloudKvSource, archive: Archive, wrong: int, code: int
) -> None:
    data = b"sealed" * 1000
    vendor.batches = {SINGLE: [Batch("b1", "2026-11-24 02:15:00", {None: data})]}
    told: list[events.Event] = []
    declaring = _Declaring(source, crc64.xz(data) ^ wrong)
    summary = await pull(declaring, archive, queries(SINGLE), OPTIONS, told.append)
    assert summary.exit_code == code
    archived = [one.vouched_for for one in told if isinstance(one, events.Archived)]
    assert archived == ([] if wrong else [True])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("started", "2026-11-24 07:59:58"),
        ("batchId", "c2"),
        ("kind", "stream"),
        ("trigger", "timer"),
    ],
)
async def test_all_commands_ask_its_own_function(
    source: CloudKvSource, archive: Archive, tmp_path: Path, field: str, value: str
) -> None:
    await pull(source, archive, queries(CLUSTER), OPTIONS)
    path = record_of(tmp_path, f"{CLUSTER}-shard-0")
    document = json.loads(path.read_text())
    document["received"][field] = value
    path.write_text(json.dumps(document))
    found = await verify(archive)
    assert {one.key.rpartition("/")[2] for one in found.findings} == {path.name}
    with pytest.raises(IntegrityError):
        await restore(archive, tmp_path / "restored", instance_id=CLUSTER)
    assert State.DAMAGED in {row.state for row in await archived_rows(archive)}
    place = tmp_path / "place"
    place.mkdir()
    assert (await drill(archive, await programs(), DrillOptions(scratch=place))).exit_code == 3


async def test_of_a_source_that_nobody_registered_the_other_fields_count(
    source: CloudKvSource, archive: Archive, tmp_path: Path
) -> None:
    await pull(source, archive, queries(CLUSTER), OPTIONS)
    path = record_of(tmp_path, f"{CLUSTER}-shard-0")
    document = json.loads(path.read_text())
    document["source"]["action"] = "list batches v9"
    document["received"] = {"of": "another shape"}
    path.write_text(json.dumps(document))
    assert (await verify(archive)).exit_code == 0
    path.write_text(json.dumps({**document, "node_id": f"{CLUSTER}-shard-7"}))
    assert (await verify(archive)).exit_code == 3
