"""The line, end to end, in one process: real files, a real listing, a real directory."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from blockbuster import BlockBuster

from archiver import (
    Archive,
    PullOptions,
    Query,
    TairSource,
    TransferOptions,
    events,
    pull,
    verify,
    words,
)
from archiver.emulator import Emulator, Faults
from archiver.errors import (
    BackupFailed,
    BadDocument,
    CorruptFile,
    IntegrityError,
    NoSpace,
    UnknownInstance,
    UnsafeInput,
    UnsupportedFormat,
    UsageError,
)
from archiver.model import BackupMode, BackupType, Network
from archiver.retry import RetryPolicy
from archiver.stores.local import disk
from archiver.stores.local.staging import LocalStaging
from archiver.stores.scope import WHOLE
from archiver.transfer import download_url
from archiver.transfer.download_url import NetworkChoice
from archiver.transfer.limits import MinimumRate
from examples.sample_rdb import write_rdb
from tests.conftest import DATA, INSTANCE, QUICK, EmulatorMaker, everything, source_of

STAMP = "20261124021500"
CLUSTER = "r-bp1cluster"
SMALL_PARTS = PullOptions(transfer=TransferOptions(part_size=64 * 1024, retry=QUICK))


def found(root: Path) -> dict[str, bytes]:
    """Every file below ``root`` by its path, but for the lock."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def records(root: Path) -> list[dict[str, object]]:
    return [
        json.loads(data)
        for name, data in found(root).items()
        if name.endswith(".json") and name != "archive.json"
    ]


def overrides(files: Path, **fields: Mapping[str, object]) -> None:
    (files / INSTANCE / "backups.json").write_text(json.dumps(fields))


async def test_real_files_come_home_byte_for_byte(
    files: Path, source: TairSource, archive: Archive
) -> None:
    originals = {}
    for path in DATA.glob("*.rdb"):
        if path.name not in ("librdb__invalid_chksum_v8.rdb", "librdb__future_v19.rdb"):
            (files / INSTANCE / path.name).write_bytes(path.read_bytes())
            originals[hashlib.sha256(path.read_bytes()).hexdigest()] = path.read_bytes()

    summary = await pull(source, archive, [everything()])

    assert summary.exit_code == 0
    root = archive.store.root  # type: ignore[attr-defined]
    kept = {r["sha256"]: r for r in records(root)}
    assert set(kept) == set(originals)
    for name, data in found(root).items():
        if name.endswith(".rdb"):
            assert data == originals[hashlib.sha256(data).hexdigest()]
    assert all(r["rdb"]["footer"] in ("ok", "none", "disabled") for r in kept.values())  # type: ignore[index]
    assert not list((root / ".staging").iterdir())


async def test_layout_modes_and_sums(files: Path, source: TairSource, archive: Archive) -> None:
    data = write_rdb(files / INSTANCE / f"dump_{STAMP}.rdb", 300_000)

    await pull(source, archive, [everything()], SMALL_PARTS)

    root: Path = archive.store.root  # type: ignore[attr-defined]
    [record] = records(root)
    month = root / INSTANCE / "2026" / "11"
    stem = f"20261124T021500Z-{record['backup_id']}"
    assert {p.name for p in month.iterdir()} == {
        f"{stem}.rdb", f"{stem}.json", "SHA256SUMS", "index.jsonl"
    }  # fmt: skip
    assert (month / f"{stem}.rdb").read_bytes() == data
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=month, check=True)
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert record["received"]["BackupDownloadURL"].startswith("http://")  # type: ignore[index]
    assert "?" not in json.dumps(record["received"])


async def test_unknown_fields_are_kept(files: Path, source: TairSource, archive: Archive) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    overrides(files, **{"a.rdb": {"Novelty": {"Deep": [1, "https://u:p@h/x?Signature=s"]}}})
    await pull(source, archive, [everything()])
    [record] = records(archive.store.root)  # type: ignore[attr-defined]
    assert record["received"]["Novelty"] == {"Deep": [1, "https://h/x"]}  # type: ignore[index]


async def test_second_pull_downloads_nothing(
    files: Path, emulator: Emulator, source: TairSource, archive: Archive
) -> None:
    for number in range(5):
        write_rdb(files / INSTANCE / f"{number}.rdb", 50_000, number)
    await pull(source, archive, [everything()])
    before = emulator.tally.object_requests
    summary = await pull(source, archive, [everything()])
    assert (summary.held, summary.planned, summary.archived) == (5, 0, 0)
    assert emulator.tally.object_requests == before
    assert summary.exit_code == 0


async def test_dry_run_writes_nothing(files: Path, source: TairSource, archive: Archive) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    summary = await pull(source, archive, [everything()], PullOptions(dry_run=True))
    assert summary.planned == 1
    assert not Path(str(archive.store)).exists()


async def test_types_modes_and_aof(files: Path, source: TairSource, archive: Archive) -> None:
    write_rdb(files / INSTANCE / "full.rdb", 2000)
    write_rdb(files / INSTANCE / "manual.rdb", 2000, 1)
    (files / INSTANCE / "log.aof").write_bytes((DATA / "rdb__memory.aof").read_bytes())
    overrides(files, **{"manual.rdb": {"BackupMode": "Manual"}})

    async def planned(query: Query, **options: frozenset[str]) -> int:
        return (
            await pull(source, archive, [query], PullOptions(dry_run=True, **options))  # type: ignore[arg-type]
        ).planned

    assert await planned(everything()) == 2
    assert await planned(everything(need_aof=True)) == 3
    assert await planned(everything(), modes=frozenset({BackupMode.MANUAL})) == 1
    incremental = frozenset({BackupType.INCREMENTAL})
    assert await planned(everything(need_aof=True), types=incremental) == 1
    with pytest.raises(UsageError, match="'FullBackup' is not one of full, incremental"):
        await planned(everything(), types=frozenset({"FullBackup"}))
    await pull(source, archive, [everything(need_aof=True)])
    assert {r["kind"] for r in records(archive.store.root)} == {"rdb", "aof"}  # type: ignore[attr-defined]


async def test_a_cluster_is_one_set(files: Path, source: TairSource, archive: Archive) -> None:
    for node in range(3):
        write_rdb(files / INSTANCE / f"{INSTANCE}-db-{node}" / f"d_{STAMP}.rdb", 9000, node)
    # The nodes of one job begin seconds apart.
    overrides(
        files, **{f"{INSTANCE}-db-1/d_{STAMP}.rdb": {"BackupStartTime": "2026-11-24T02:15:09Z"}}
    )
    seen: list[events.Event] = []
    await pull(source, archive, [everything()], observer=seen.append)
    root: Path = archive.store.root  # type: ignore[attr-defined]
    [sums] = root.rglob("SHA256SUMS")
    assert len(sums.read_text().splitlines()) == 3
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=sums.parent, check=True)
    assert [e.files for e in seen if isinstance(e, events.SetCompleted)] == [3]


async def test_one_sha256sums_names_a_month_and_nothing_else(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """Cluster and standard sets, whenever their backups came; each month has its own."""
    stamps = ("20261124021500", "20261125021500", "20261202021500")
    for number, stamp in enumerate(stamps):
        for node in range(2):
            write_rdb(files / CLUSTER / f"{CLUSTER}-db-{node}" / f"d_{stamp}.rdb", 9000, node)
        write_rdb(files / INSTANCE / f"d_{stamp}.rdb", 9000, number)
        await pull(source, archive, [everything(), everything(CLUSTER)])
    root = Path(str(archive.store))
    for instance, each in ((INSTANCE, 1), (CLUSTER, 2)):
        for month, sets in (("11", 2), ("12", 1)):
            sums = root / instance / "2026" / month / "SHA256SUMS"
            lines = sums.read_text().splitlines()
            assert len(lines) == sets * each
            assert lines == sorted(lines, key=lambda line: line[66:])
            subprocess.run(["sha256sum", "-c", "--quiet", sums.name], cwd=sums.parent, check=True)
    assert len(list(root.rglob("SHA256SUMS"))) == 4


async def test_a_pull_names_what_an_interrupted_one_left(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """A standard backup has its record then, and no line; the next pull of the month adds it, also
    of one that is listed no more."""
    for number in range(3):
        write_rdb(files / INSTANCE / f"d_2026112{number}021500.rdb", 9000, number)
    await pull(source, archive, [everything()])
    [sums] = Path(str(archive.store)).rglob("SHA256SUMS")
    right = sums.read_bytes()
    sums.unlink()
    sums.with_name("index.jsonl").unlink()  # it is written after it
    (files / INSTANCE / "d_20261120021500.rdb").unlink()
    summary = await pull(source, archive, [everything()])
    assert (summary.archived, summary.exit_code, sums.read_bytes()) == (0, 0, right)


async def test_sha256sums_keeps_the_names_of_what_is_gone(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """It is the witness of what was there."""
    write_rdb(files / INSTANCE / "d_20261120021500.rdb", 9000)
    await pull(source, archive, [everything()])
    [sums] = Path(str(archive.store)).rglob("SHA256SUMS")
    before = sums.read_text()
    for path in sums.parent.glob("2026*"):
        path.unlink()
    (files / INSTANCE / "d_20261120021500.rdb").unlink()
    write_rdb(files / INSTANCE / "d_20261121021500.rdb", 9000, 1)
    await pull(source, archive, [everything()])
    assert sums.read_text().startswith(before)
    assert len(sums.read_text().splitlines()) == 2


async def test_a_set_with_a_failed_node_is_not_sealed(
    files: Path, source: TairSource, archive: Archive
) -> None:
    for node in range(2):
        write_rdb(files / INSTANCE / f"{INSTANCE}-db-{node}" / f"d_{STAMP}.rdb", 9000, node)
    overrides(files, **{f"{INSTANCE}-db-1/d_{STAMP}.rdb": {"BackupStatus": "Failed"}})
    seen: list[events.Event] = []
    summary = await pull(source, archive, [everything()], observer=seen.append)
    assert not list(Path(str(archive.store)).rglob("SHA256SUMS"))
    assert [e.why for e in seen if isinstance(e, events.SetIncomplete)] == ["1 of 2 files are here"]
    assert summary.exit_code == 1
    assert isinstance(summary.failures[0].error, BackupFailed)


async def test_a_month_names_its_complete_sets_alone(
    files: Path, source: TairSource, archive: Archive
) -> None:
    for day in (23, 24):
        for node in range(2):
            name = f"d_202611{day}021500.rdb"
            write_rdb(files / INSTANCE / f"{INSTANCE}-db-{node}" / name, 9000, day + node)
    overrides(files, **{f"{INSTANCE}-db-1/d_20261124021500.rdb": {"BackupStatus": "Failed"}})
    await pull(source, archive, [everything()])
    [sums] = Path(str(archive.store)).rglob("SHA256SUMS")
    assert [line[66:74] for line in sums.read_text().splitlines()] == ["20261123"] * 2


async def test_a_sealed_set_that_grows_is_sealed_anew(
    files: Path, source: TairSource, archive: Archive
) -> None:
    for node in range(2):
        write_rdb(files / INSTANCE / f"{INSTANCE}-db-{node}" / f"d_{STAMP}.rdb", 9000, node)
        await pull(source, archive, [everything()])
    [sums] = Path(str(archive.store)).rglob("SHA256SUMS")
    assert len(sums.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "node_id", ["../../../etc", "a/b", "..", ".hidden", "a\x00b", "x" * 65, "a..b", "-rf"]
)
async def test_an_id_that_would_leave_its_folder(
    files: Path, source: TairSource, archive: Archive, node_id: str
) -> None:
    write_rdb(files / INSTANCE / "bad.rdb", 2000)
    write_rdb(files / INSTANCE / "good.rdb", 2000, 1)
    overrides(files, **{"bad.rdb": {"NodeInstanceId": node_id}})
    summary = await pull(source, archive, [everything()])
    [failure] = summary.failures
    assert isinstance(failure.error, UnsafeInput)
    assert (summary.archived, summary.exit_code) == (1, 1)
    assert len(records(Path(str(archive.store)))) == 1


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "file:///etc/passwd", "http:///x", "gopher://[::1", "x"]
)
async def test_a_url_that_must_not_be_fetched(
    files: Path, source: TairSource, archive: Archive, url: str
) -> None:
    write_rdb(files / INSTANCE / "bad.rdb", 2000)
    overrides(files, **{"bad.rdb": {"BackupDownloadURL": url}})
    summary = await pull(source, archive, [everything()])
    assert isinstance(summary.failures[0].error, UnsafeInput)
    assert summary.exit_code == 1
    assert not records(Path(str(archive.store)))


async def test_a_size_that_is_not_the_objects(
    files: Path, source: TairSource, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    overrides(files, **{"a.rdb": {"BackupSize": 1999}})
    summary = await pull(source, archive, [everything()])
    assert isinstance(summary.failures[0].error, IntegrityError)
    assert summary.exit_code == 3
    assert not records(Path(str(archive.store)))


async def test_a_damaged_file_at_the_source_is_kept_in_quarantine(
    files: Path, source: TairSource, archive: Archive
) -> None:
    data = bytearray(write_rdb(files / INSTANCE / "a.rdb", 200_000))
    data[100_000] ^= 1
    (files / INSTANCE / "a.rdb").write_bytes(data)
    summary = await pull(source, archive, [everything()], SMALL_PARTS)
    assert isinstance(summary.failures[0].error, CorruptFile)
    assert summary.exit_code == 3
    root = Path(str(archive.store))
    assert not records(root / INSTANCE)
    [kept] = (root / ".quarantine" / INSTANCE).glob("*.data")
    assert kept.read_bytes() == data
    assert json.loads(kept.with_suffix(".json").read_text())["size"] == 200_000


async def test_the_quarantined_file_goes_when_the_right_bytes_come(
    files: Path, source: TairSource, archive: Archive
) -> None:
    path = files / INSTANCE / f"a_{STAMP}.rdb"
    good = write_rdb(path, 200_000)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(path, (1.7e9, 1.7e9))
    assert (await pull(source, archive, [everything()])).exit_code == 3
    path.write_bytes(good)
    assert (await pull(source, archive, [everything()])).exit_code == 0
    assert not list((Path(str(archive.store)) / ".quarantine").iterdir())


async def test_corrupt_bytes_on_the_way_are_mended(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    data = write_rdb(files / INSTANCE / "a.rdb", 2_000_000)
    emulator = await emulator_of(files, faults=Faults(corrupt=0.15, seed=5))
    seen: list[events.Event] = []
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], SMALL_PARTS, seen.append)
    assert summary.exit_code == 0
    assert any(isinstance(event, events.Mending) for event in seen)
    [kept] = Path(str(archive.store)).rglob("*.rdb")
    assert kept.read_bytes() == data


@pytest.mark.parametrize("in_a_burst", [True, False])
async def test_a_link_that_always_corrupts_is_not_believed(
    files: Path, emulator_of: EmulatorMaker, archive: Archive, in_a_burst: bool
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 200_000)
    emulator = await emulator_of(files, faults=Faults(corrupt=1.0))
    seen: list[events.Event] = []
    async with source_of(emulator) as source:
        options = PullOptions() if in_a_burst else SMALL_PARTS
        summary = await pull(source, archive, [everything()], options, seen.append)
    assert isinstance(summary.failures[0].error, CorruptFile)
    assert "; fetching it again did not help" in summary.failures[0].error.message
    retries = [event.error.message for event in seen if isinstance(event, events.Retrying)]
    assert len(retries) == in_a_burst
    assert not any("did not help" in message for message in retries)
    assert not list(Path(str(archive.store) + f"/{INSTANCE}").rglob("*.rdb"))


async def test_a_bad_day(files: Path, emulator_of: EmulatorMaker, archive: Archive) -> None:
    """Drops, throttling, 503s and URLs that expire: all of it comes home."""
    originals = {
        hashlib.sha256(write_rdb(files / INSTANCE / f"{n}.rdb", 700_000, n)).hexdigest()
        for n in range(6)
    }
    faults = Faults(drop=0.3, throttle=0.2, server_errors=0.2, expire_after=1, latency=0.01, seed=3)
    emulator = await emulator_of(files, faults=faults)
    patient = RetryPolicy(attempts=15, first_wait=0.001, max_wait=0.002)
    options = PullOptions(
        workers=2,
        transfer=TransferOptions(
            part_size=64 * 1024, limit_rate=2_000_000, retry=patient, connections=3
        ),
    )
    async with source_of(emulator, retry=patient) as source:
        summary = await pull(source, archive, [everything()], options)
    assert summary.failures == []
    assert {r["sha256"] for r in records(Path(str(archive.store)))} == originals


@pytest.mark.parametrize(
    "ahead", [timedelta(seconds=60), timedelta(days=-1)], ids=["ahead", "on 403"]
)
async def test_urls_that_expire_in_the_middle(
    files: Path,
    emulator_of: EmulatorMaker,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    ahead: timedelta,
) -> None:
    monkeypatch.setattr(download_url, "REFRESH_AHEAD", ahead)
    data = write_rdb(files / INSTANCE / "a.rdb", 400_000)
    emulator = await emulator_of(files, faults=Faults(rate=130_000, expire_after=1))
    options = PullOptions(transfer=TransferOptions(part_size=64 * 1024, connections=1))
    seen: list[events.Event] = []
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], options, seen.append)
    assert summary.failures == []
    assert any(isinstance(event, events.UrlRefreshed) for event in seen)
    assert "AccessDenied" in emulator.tally.refused
    # Listed, listed again ahead once at most, and then only when a URL had expired.
    assert emulator.tally.api_calls <= 2 + emulator.tally.refused["AccessDenied"]
    [kept] = Path(str(archive.store)).rglob("*.rdb")
    assert kept.read_bytes() == data
    assert emulator.tally.object_bytes == 400_000


async def test_urls_that_are_always_refused(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 4000)
    late = iter(range(10**6))  # a second passes at every look at the clock
    emulator = await emulator_of(
        files, faults=Faults(expire_after=0), clock=lambda: time.time() + next(late)
    )
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()])
    assert "403 AccessDenied 0002-00000069" in str(summary.failures[0].error)
    assert summary.exit_code == 1
    assert emulator.tally.object_requests < 12


async def test_a_dripping_connection_is_given_up(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 200_000)
    emulator = await emulator_of(files, faults=Faults(rate=2000))
    minimum = MinimumRate(bytes_per_second=100_000, window=0.3)
    options = PullOptions(transfer=TransferOptions(minimum_rate=minimum, retry=QUICK))
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], options)
    assert "too slow" in str(summary.failures[0].error)


async def test_intranet_falls_back_and_says_so(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    emulator = await emulator_of(files, intranet_host="127.0.0.1:1")
    seen: list[events.Event] = []
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], observer=seen.append)
        assert set(summary.bytes_fetched) == {Network.PUBLIC}
        [chosen] = [event for event in seen if isinstance(event, events.RouteChosen)]
        assert (chosen.network, chosen.host) == (Network.PUBLIC, "127.0.0.1:1")
        write_rdb(files / INSTANCE / "b.rdb", 2000)
        only = PullOptions(transfer=TransferOptions(network=NetworkChoice.INTRANET, retry=QUICK))
        assert (await pull(source, archive, [everything()], only)).exit_code == 5


async def test_an_intranet_host_that_is_somebody_else(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    """It answers, but with a page of its own: the run moves to the public network."""
    write_rdb(files / INSTANCE / "a.rdb", 200_000)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Nothing here</html>", content_type="text/html", status=404)

    app = web.Application()
    app.router.add_get("/{tail:.*}", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    emulator = await emulator_of(files, intranet_host=f"127.0.0.1:{runner.addresses[0][1]}")
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], SMALL_PARTS)
    await runner.cleanup()
    assert summary.failures == []
    assert set(summary.bytes_fetched) == {Network.PUBLIC}


async def test_a_busy_intranet_host_is_not_given_up(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    """An object store that answers 503 in its own words is the one that was meant."""
    for n in range(6):
        write_rdb(files / INSTANCE / f"{n}.rdb", 200_000, n)
    emulator = await emulator_of(files, faults=Faults(server_errors=0.5, seed=2))
    patient = RetryPolicy(attempts=30, first_wait=0.001, max_wait=0.002)
    options = PullOptions(transfer=TransferOptions(part_size=64 * 1024, retry=patient))
    async with source_of(emulator, retry=patient) as source:
        summary = await pull(source, archive, [everything()], options)
    assert summary.failures == []
    assert emulator.tally.refused["ServiceUnavailable"] > 0
    assert set(summary.bytes_fetched) == {Network.INTRANET}


async def test_an_empty_full_backup_is_none(
    files: Path, source: TairSource, archive: Archive
) -> None:
    (files / INSTANCE / "empty.rdb").write_bytes(b"")
    summary = await pull(source, archive, [everything()])
    assert summary.exit_code == 3


async def test_an_unreadable_record_is_named_and_the_rest_goes_on(
    files: Path, source: TairSource, archive: Archive
) -> None:
    for node in range(2):
        write_rdb(files / INSTANCE / f"{INSTANCE}-db-{node}" / f"d_{STAMP}.rdb", 9000, node)
    write_rdb(files / INSTANCE / "other.rdb", 9000, 5)
    await pull(source, archive, [everything()])
    [folder] = {path.parent for path in Path(str(archive.store)).rglob("*-db-0-*.json")}
    (folder / "notes.json").write_text("not a record")
    write_rdb(files / INSTANCE / "later.rdb", 9000, 6)
    summary = await pull(source, archive, [everything()])
    assert summary.archived == 1
    assert [type(failure.error) for failure in summary.failures] == [BadDocument]
    assert "notes.json" in str(summary.failures[0].error)


async def test_a_missing_node_is_loud(files: Path, source: TairSource, archive: Archive) -> None:
    for day in (1, 2, 3):
        for node in range(1 if day == 2 else 2):
            name = f"d_2026110{day}021500.rdb"
            write_rdb(files / INSTANCE / f"{INSTANCE}-db-{node}" / name, 9000, node)
    summary = await pull(source, archive, [everything()])
    [incomplete] = summary.incomplete
    assert incomplete.why.startswith(f"node {INSTANCE}-db-1 is missing: the sets of 2026-11-01")
    assert summary.exit_code == 1


async def test_a_full_disk_with_one_worker_is_named(
    files: Path, source: TairSource, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        write_rdb(files / INSTANCE / f"{n}.rdb", 9000, n)

    def full(*_: object) -> None:
        raise NoSpace("no space")

    written = disk.written
    monkeypatch.setattr(disk, "written", full)
    with pytest.raises(NoSpace):
        async with archive.writing(WHOLE):
            pass
    monkeypatch.setattr(LocalStaging, "open", full)
    monkeypatch.setattr(disk, "written", written)
    with pytest.raises(NoSpace):
        await pull(source, archive, [everything()], PullOptions(workers=1))


async def test_one_instance_fails_and_the_others_go_on(
    files: Path, source: TairSource, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    summary = await pull(source, archive, [everything("r-unknown"), everything()])
    assert isinstance(summary.failures[0].error, UnknownInstance)
    assert (summary.archived, summary.exit_code) == (1, 1)


async def test_an_unknown_instance_alone_writes_nothing(
    source: TairSource, archive: Archive
) -> None:
    summary = await pull(source, archive, [everything("r-unknown")])
    assert summary.exit_code == 1
    assert not Path(str(archive.store)).exists()


async def test_an_archive_of_a_newer_format_is_left_alone(
    files: Path, source: TairSource, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    root = Path(str(archive.store))
    root.mkdir()
    (root / "archive.json").write_text('{"format": 3}')
    with pytest.raises(UnsupportedFormat, match="format 3"):
        await pull(source, archive, [everything()])
    assert [p.name for p in root.iterdir()] == ["archive.json"]


async def test_a_lost_object_is_fetched_again(
    files: Path, source: TairSource, archive: Archive
) -> None:
    data = write_rdb(files / INSTANCE / "a.rdb", 2000)
    await pull(source, archive, [everything()])
    [kept] = Path(str(archive.store)).rglob("*.rdb")
    for damage in (kept.unlink, lambda: kept.write_bytes(data[:1000])):
        damage()
        seen: list[events.Event] = []
        await pull(source, archive, [everything()], observer=seen.append)
        assert [event.cure for event in seen if isinstance(event, events.Damaged)] == [
            "downloading it again"
        ]
        assert kept.read_bytes() == data


async def test_a_lost_record_is_written_again(
    files: Path, emulator: Emulator, source: TairSource, archive: Archive
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    await pull(source, archive, [everything()])
    [record] = Path(str(archive.store)).rglob(f"{INSTANCE}/*/*/*Z-*.json")
    before, downloaded = record.read_bytes(), emulator.tally.object_bytes
    record.write_bytes(b"{")
    seen: list[events.Event] = []
    await pull(source, archive, [everything()], observer=seen.append)
    [damaged] = [event for event in seen if isinstance(event, events.Damaged)]
    assert words.line(damaged) == (
        words.NORMAL,
        f"damaged: {damaged.backup}: {damaged.why}; checking its file and writing the record again",
    )
    assert damaged.why.endswith("it cannot be read: it is not JSON, from line 1, column 2 on")
    assert emulator.tally.object_bytes - downloaded < 2000
    assert json.loads(record.read_bytes())["sha256"] == json.loads(before)["sha256"]


@pytest.mark.parametrize("listed", [1999, 2001])
async def test_a_lost_record_of_a_backup_that_is_listed_with_another_size(
    files: Path, emulator: Emulator, source: TairSource, archive: Archive, listed: int
) -> None:
    """What the checksums prove was recorded with that size, and then called contradictory."""
    data = write_rdb(files / INSTANCE / "a.rdb", 2000)
    await pull(source, archive, [everything()])
    root = Path(str(archive.store))
    [record] = root.rglob(f"{INSTANCE}/*/*/*Z-*.json")
    record.unlink()
    overrides(files, **{"a.rdb": {"BackupSize": listed}})
    [failure] = (await pull(source, archive, [everything()])).failures
    assert failure.error.exit_code == 3
    assert f"the object has 2,000 bytes, the source said {listed:,}" in failure.error.message
    assert "run the command again later" in str(failure.error.hint)
    assert not record.exists()
    assert record.with_suffix(".rdb").read_bytes() == data

    overrides(files)
    downloaded = emulator.tally.object_bytes
    assert (await pull(source, archive, [everything()])).exit_code == 0
    assert emulator.tally.object_bytes - downloaded < 2000
    assert json.loads(record.read_bytes())["received"]["BackupSize"] == 2000
    assert (await verify(archive)).exit_code == 0


async def test_an_empty_file(files: Path, source: TairSource, archive: Archive) -> None:
    (files / INSTANCE / "empty.aof").write_bytes(b"")
    summary = await pull(source, archive, [everything(need_aof=True)])
    assert summary.failures == []
    [record] = records(Path(str(archive.store)))
    assert record["size"] == 0
    assert record["sha256"] == hashlib.sha256(b"").hexdigest()


async def test_a_file_whose_size_is_a_multiple_of_the_part(
    files: Path, source: TairSource, archive: Archive
) -> None:
    data = write_rdb(files / INSTANCE / "a.rdb", 4 * 64 * 1024)
    await pull(source, archive, [everything()], SMALL_PARTS)
    [kept] = Path(str(archive.store)).rglob("*.rdb")
    assert kept.read_bytes() == data


async def test_least_memory_and_one_of_everything(
    files: Path, source: TairSource, archive: Archive
) -> None:
    for n in range(3):
        write_rdb(files / INSTANCE / f"{n}.rdb", 300_000, n)
    options = PullOptions(
        workers=3, transfer=TransferOptions(part_size=64 * 1024, memory=1, connections=4)
    )
    summary = await pull(source, archive, [everything()], options)
    assert summary.archived == 3


async def test_twelve_hundred_backups_while_the_listing_moves(
    files: Path, emulator: Emulator, archive: Archive, no_blocking_on_the_loop: BlockBuster
) -> None:
    """Five pages, while the newest appear and the oldest expire: none missed, none twice."""
    no_blocking_on_the_loop.deactivate()  # the observer below writes files, for the test
    folder = files / INSTANCE

    def make(number: int) -> None:
        start = datetime.fromtimestamp(1_790_000_000 + number, UTC)
        path = folder / f"d{number}_{start:%Y%m%d%H%M%S}.rdb"
        path.write_bytes(b"REDIS0003\xff%d" % number)

    for number in range(1200):
        make(number)
    pages = iter(range(10**6))
    oldest = iter(range(0, 1200, 3))
    newest = iter(range(2000, 3000))
    seen: list[events.Event] = []

    def observe(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.PageListed) and next(pages) < 12:
            for _ in range(5):
                make(next(newest))
                for path in folder.glob(f"d{next(oldest)}_*"):
                    path.unlink()

    async with source_of(emulator, observer=observe) as source:
        summary = await pull(source, archive, [everything()], observer=observe)

    held = {json.loads(d)["started_at"] for d in record_files(archive)}
    lasting = {
        f"{datetime.strptime(path.name.partition('_')[2][:14], '%Y%m%d%H%M%S'):%Y-%m-%dT%H:%M:%SZ}"
        for path in folder.glob("d*.rdb")
    }
    assert lasting <= held
    archived = [event.backup.identity for event in seen if isinstance(event, events.Archived)]
    assert len(archived) == len(set(archived)) == summary.archived
    # What expired between its listing and its turn is said to be gone, and nothing else fails.
    assert {type(failure.error).__name__ for failure in summary.failures} <= {"BackupGone"}


def record_files(archive: Archive) -> list[bytes]:
    root = Path(str(archive.store)) / INSTANCE
    return [path.read_bytes() for path in root.rglob("*.json")]


async def test_queries_that_overlap(files: Path, source: TairSource, archive: Archive) -> None:
    """A small backup that is listed by both may come to be twice in one batch."""
    originals = [
        write_rdb(files / INSTANCE / f"a{n}_20261124021500.rdb", 2000 + n, n) for n in range(10)
    ]
    summary = await pull(source, archive, [everything(), everything()])
    assert summary.exit_code == 0
    here = found(files.parent / "archive")
    assert sorted(here[key] for key in here if key.endswith(".rdb")) == sorted(originals)
    assert not any(key.startswith(".staging/") for key in here)
