"""Pulls from the vendor into a real S3 server, through a gateway that injects faults."""

import functools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import anyio
import pytest

from archiver import Archive, LocalStore, PullOptions, Summary, TransferOptions, events, pull
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions, Selection
from archiver.commands.ls.listing import State, archived_rows
from archiver.commands.verify.run import verify
from archiver.emulator import Emulator
from archiver.errors import NoSpace, StoreError, StoreForbidden, UsageError
from archiver.stores.s3 import LockMode, S3Lock, S3Options, S3Store
from archiver.stores.s3.capabilities import Capabilities, ConditionalPuts
from archiver.stores.s3.checksums import ChecksumKind
from archiver.stores.scope import WHOLE
from tests.bucket.conftest import MIB, PREFIX
from tests.conftest import QUICK, everything, source_of
from tests.servers import gateway as gates
from tests.servers.gateway import Gateway
from tests.servers.seaweedfs import READER, SeaweedFS

OPTIONS = PullOptions(transfer=TransferOptions(part_size=5 * MIB, retry=QUICK))
Told = list[Capabilities]


def archive_in(bucket: str, endpoint: str, told: Told | None = None, **options: object) -> Archive:
    given = S3Options(endpoint=endpoint, **options)  # type: ignore[arg-type]
    tell: Callable[[Capabilities], None] = (lambda _: None) if told is None else told.append
    return Archive(S3Store(f"s3://{bucket}/{PREFIX}", given, tell))


async def bring(
    emulator: Emulator, archive: Archive, observer: events.Observer = events.ignore
) -> Summary:
    async with source_of(emulator) as source:
        return await pull(source, archive, [everything()], OPTIONS, observer)


async def assert_whole(seaweed: SeaweedFS, bucket: str, originals: dict[str, bytes]) -> None:
    """Every file and its record are there, byte for byte, and nothing else."""
    keys = await anyio.to_thread.run_sync(seaweed.objects, bucket, "")
    kept = [key for key in keys if key.endswith(".rdb")]
    content = [await anyio.to_thread.run_sync(seaweed.content, bucket, key) for key in kept]
    assert sorted(content) == sorted(originals.values())
    [sums] = [key for key in keys if key.endswith("SHA256SUMS")]
    lines = (await anyio.to_thread.run_sync(seaweed.content, bucket, sums)).decode().splitlines()
    assert {f"{sums.rpartition('/')[0]}/{name}": sha for sha, name in map(str.split, lines)} == {
        key: sha256(data).hexdigest() for key, data in zip(kept, content, strict=True)
    }
    assert [key for key in keys if "/.staging/" in key] == [f"{PREFIX}/.staging/probe"]
    assert await anyio.to_thread.run_sync(seaweed.uploads, bucket) == []


async def test_there_and_back(
    emulator: Emulator, seaweed: SeaweedFS, bucket: str, s3_writer: None,
    originals: dict[str, bytes], tmp_path: Path,
) -> None:  # fmt: skip
    """Pull, list, verify, copy to a directory, compare, and copy back somewhere else."""
    told: Told = []
    archive = archive_in(bucket, seaweed.endpoint, told)
    assert (await bring(emulator, archive)).archived == len(originals)
    assert told == [Capabilities(ChecksumKind.CRC64NVME, ConditionalPuts.QUOTED)]
    await assert_whole(seaweed, bucket, originals)
    again = await bring(emulator, archive_in(bucket, seaweed.endpoint))
    assert (again.held, again.archived) == (len(originals), 0)
    rows = await archived_rows(archive)
    assert [row.state for row in rows] == [State.ARCHIVED] * len(originals)
    assert (await verify(archive)).exit_code == 0

    home = Archive(LocalStore(tmp_path / "home"))
    assert (await copy(archive, home)).archived == len(originals)
    assert [m async for m in mismatches(archive, home, Selection())] == []
    assert (await copy(archive, home)).held == len(originals)
    kept = {path.read_bytes() for path in (tmp_path / "home").rglob("*.rdb")}
    assert kept == set(originals.values())
    for path in (tmp_path / "home").rglob("*.json"):
        if path.parent != tmp_path / "home":
            key = path.relative_to(tmp_path / "home").as_posix()
            assert path.read_bytes() == await archive.store.read(key)

    elsewhere = Archive(S3Store(f"s3://{bucket}/second", S3Options(endpoint=seaweed.endpoint)))
    assert (await copy(home, elsewhere)).archived == len(originals)
    assert [m async for m in mismatches(home, elsewhere, Selection())] == []
    assert (await verify(elsewhere)).exit_code == 0


async def test_a_mirror_check_names_both_ways(
    emulator: Emulator, originals: dict[str, bytes], tmp_path: Path
) -> None:
    one, two = Archive(LocalStore(tmp_path / "one")), Archive(LocalStore(tmp_path / "two"))
    await bring(emulator, one)
    await copy(one, two)
    first, second, third = sorted((tmp_path / "one").rglob("*.rdb"))[:3]
    first.with_suffix(".json").unlink()
    (tmp_path / "two" / second.relative_to(tmp_path / "one")).with_suffix(".json").unlink()
    (tmp_path / "two" / third.relative_to(tmp_path / "one")).unlink()
    found = {m.key.rpartition("/")[2]: m.what async for m in mismatches(one, two, Selection())}
    assert found == {
        first.name: f"damaged in {one.store}",
        second.name: f"missing in {two.store}",
        third.name: f"damaged in {two.store}",
    }
    assert (await copy(one, two)).archived == 2
    left = [m async for m in mismatches(one, two, Selection())]
    assert [m.key.rpartition("/")[2] for m in left] == [first.name]
    third.write_bytes(b"cut")
    found = {m.key.rpartition("/")[2]: m.what async for m in mismatches(one, two, Selection())}
    assert found[third.name] == f"damaged in {one.store}"


async def test_a_copy_checks_what_it_reads(
    emulator: Emulator, originals: dict[str, bytes], tmp_path: Path
) -> None:
    one, two = Archive(LocalStore(tmp_path / "one")), Archive(LocalStore(tmp_path / "two"))
    await bring(emulator, one)
    damaged = min((tmp_path / "one").rglob("*.rdb"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    options = CopyOptions(transfer=TransferOptions(retry=QUICK))
    summary = await copy(one, two, options)
    assert summary.exit_code == 3
    assert summary.archived == len(originals) - 1
    assert not (tmp_path / "two" / damaged.relative_to(tmp_path / "one")).exists()


HARMLESS: dict[str, Callable[[], gates.Fault]] = {
    "a byte flipped in a part": lambda: gates.flip_byte(1000, kind="UploadPart"),
    "a byte flipped in a small file": lambda: gates.flip_byte(100, kind="PutObject"),
    "cut in a part": lambda: gates.cut_upload(100_000, kind="UploadPart"),
    "slow down": lambda: gates.slow_down(2),
    "the answer to a part is lost": lambda: gates.drop_answer("UploadPart"),
    "the answer to the end is lost": lambda: gates.drop_answer("CompleteMultipartUpload"),
    "the answer to a put is lost": lambda: gates.drop_answer("PutObject"),
    "an error in a 200": gates.error_in_200,
    "an error in a 200, though done": lambda: gates.error_in_200(done=True),
    "no ETag at the end": gates.empty_etag,
    "parts are listed twice": gates.duplicate_parts,
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_harm_on_the_way_is_mended(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], name: str,
) -> None:  # fmt: skip
    archive = archive_in(bucket, gate.endpoint)
    async with archive.writing(WHOLE):
        pass  # the capabilities are known: the fault is for later
    fault = gate.add(HARMLESS[name]())
    summary = await bring(emulator, archive)
    assert fault.met or name == "parts are listed twice"
    assert summary.failures == []
    await assert_whole(seaweed, bucket, originals)


STORES: dict[str, tuple[Callable[[], list[gates.Fault]], Capabilities]] = {
    "no conditions": (
        lambda: [gates.refuse_headers("If-None-Match", "If-Match")],
        Capabilities(ChecksumKind.CRC64NVME, ConditionalPuts.NONE),
    ),
    "MD5 only": (
        lambda: [gates.refuse_headers("x-amz-checksum-*", "x-amz-sdk-checksum-algorithm")],
        Capabilities(ChecksumKind.MD5, ConditionalPuts.QUOTED),
    ),
    "as OSS": (
        lambda: [gates.refuse_chunked(), gates.refuse_headers("x-amz-checksum-*", "If-*-Match")],
        Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE),
    ),
    "checks nothing": (
        lambda: [gates.refuse_headers("x-amz-checksum-*", "Content-MD5", "If-None-Match")],
        Capabilities(ChecksumKind.NONE, ConditionalPuts.NONE),
    ),
}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", STORES)
async def test_stores(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], name: str,
) -> None:  # fmt: skip
    faults, expected = STORES[name]
    for fault in faults():
        gate.add(fault)
    told: Told = []
    assert (await bring(emulator, archive_in(bucket, gate.endpoint, told))).failures == []
    assert told == [expected]
    await assert_whole(seaweed, bucket, originals)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", ["UploadPart", "PutObject"])
async def test_a_store_that_keeps_something_else_is_caught(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], kind: str,
) -> None:  # fmt: skip
    """It verifies nothing, responds 200, and has other bytes."""
    for fault in STORES["checks nothing"][0]():
        gate.add(fault)
    archive = archive_in(bucket, gate.endpoint)
    async with archive.writing(WHOLE):
        pass  # the capabilities are known
    gate.add(whenever_a_backup_is_sent(gates.flip_byte(1000, kind=kind)))
    with pytest.raises(StoreError, match="is not what was sent"):
        await bring(emulator, archive)
    records = [
        key
        for key in await anyio.to_thread.run_sync(seaweed.objects, bucket, "")
        if key.endswith(".json") and "/2026/" in key
    ]
    for key in records:
        data = await anyio.to_thread.run_sync(
            seaweed.content, bucket, key.removesuffix(".json") + ".rdb"
        )
        assert data in originals.values()


def whenever_a_backup_is_sent(fault: gates.Fault) -> gates.Fault:
    """And not when a journal is: whoever comes next would not know that upload for its own."""
    return replace(fault, times=None, wanted=lambda request: request.path.endswith(".rdb"))


async def test_what_was_uploaded_is_not_uploaded_again(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    large_originals: dict[str, bytes],
) -> None:  # fmt: skip
    """Cancelled at several points, and resumed by a new process."""
    for _ in range(4):
        with anyio.move_on_after(0.4):
            await bring(emulator, archive_in(bucket, gate.endpoint))
    assert (await bring(emulator, archive_in(bucket, gate.endpoint))).failures == []
    await assert_whole(seaweed, bucket, large_originals)
    whole = sum(len(data) for data in large_originals.values() if len(data) > 5 * MIB)
    # In each of the four, at most one part for each of 2 files and 4 connections was under way.
    assert gate.bytes_up["UploadPart"] <= whole + 4 * 8 * 5 * MIB


@pytest.mark.parametrize(
    ("change", "error", "exit_code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, StoreForbidden, 4),
        ({"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}, StoreForbidden, 4),
        ({"AWS_ACCESS_KEY_ID": READER.key_id, "AWS_SECRET_ACCESS_KEY": READER.secret},
         StoreForbidden, 4),
        ({"AWS_PROFILE": "nobody"}, UsageError, 2),
    ],
)  # fmt: skip
async def test_not_let_in(
    emulator: Emulator, seaweed: SeaweedFS, bucket: str, originals: dict[str, bytes],
    s3_writer: None, monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str], error: type[Exception], exit_code: int,
) -> None:  # fmt: skip
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error) as caught:
        await bring(emulator, archive_in(bucket, seaweed.endpoint))
    assert caught.value.exit_code == exit_code  # type: ignore[attr-defined]
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value).lower().replace("aws_secret_access_key", "")


async def test_refusals_have_names(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes],
) -> None:  # fmt: skip
    with pytest.raises(UsageError, match="NoSuchBucket") as missing:
        await bring(emulator, archive_in(f"{bucket}-other", seaweed.endpoint))
    assert missing.value.exit_code == 2
    gate.add(gates.refuse(400, "ExpiredToken"))
    with pytest.raises(StoreForbidden, match="ExpiredToken") as expired:
        await bring(emulator, archive_in(bucket, gate.endpoint))
    assert expired.value.exit_code == 4
    gate.forget()


@pytest.mark.parametrize("code", ["QuotaExceeded", "XMinioStorageFull"])
async def test_a_full_bucket(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], code: str,
) -> None:  # fmt: skip
    archive = archive_in(bucket, gate.endpoint)
    async with archive.writing(WHOLE):
        pass  # the capabilities are known
    full = gate.add(gates.no_space(code=code))
    with pytest.raises(NoSpace) as caught:
        await bring(emulator, archive)
    assert full.met
    assert caught.value.exit_code == 6
    gate.forget()
    gate.faults.clear()
    assert (await bring(emulator, archive_in(bucket, gate.endpoint))).failures == []
    await assert_whole(seaweed, bucket, originals)


async def test_object_lock(
    emulator: Emulator, seaweed: SeaweedFS, s3_writer: None, originals: dict[str, bytes]
) -> None:
    name = await anyio.to_thread.run_sync(
        lambda: seaweed.make_bucket(f"locked-{datetime.now(UTC):%H%M%S%f}", object_lock=True)
    )
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    archive = archive_in(name, seaweed.endpoint, lock=S3Lock(LockMode.GOVERNANCE, until=until))
    assert (await bring(emulator, archive)).failures == []
    client = seaweed.client()
    keys = await anyio.to_thread.run_sync(seaweed.objects, name, "")
    for key in keys:
        if key.endswith(".rdb"):
            head = await anyio.to_thread.run_sync(
                functools.partial(client.head_object, Bucket=name, Key=key)
            )
            assert head["ObjectLockMode"] == "GOVERNANCE"
            assert head["ObjectLockRetainUntilDate"] == until


async def test_the_server_is_killed_and_comes_back(
    emulator: Emulator, seaweed: SeaweedFS, bucket: str, s3_writer: None,
    large_originals: dict[str, bytes],
) -> None:  # fmt: skip
    archive = archive_in(bucket, seaweed.endpoint)
    killed = False

    async def kill() -> None:
        nonlocal killed
        await anyio.sleep(0.3)
        killed = True
        await anyio.to_thread.run_sync(seaweed.kill)
        await anyio.sleep(0.5)
        await anyio.to_thread.run_sync(seaweed.start)

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        summary = await bring(emulator, archive)
    assert killed
    assert summary.failures == []
    await assert_whole(seaweed, bucket, large_originals)
