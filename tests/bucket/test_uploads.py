"""Unfinished uploads: ours are resumed or aborted, those of others stay."""

import functools
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from archiver.emulator import Emulator
from archiver.errors import ArchiveBusy
from archiver.stores.s3 import S3Options, S3Store
from tests.bucket.conftest import PREFIX
from tests.bucket.test_pull import archive_in, assert_whole, bring
from tests.cli.conftest import Run
from tests.servers import gateway as gates
from tests.servers.gateway import Gateway
from tests.servers.seaweedfs import SeaweedFS

ORPHAN = f"{PREFIX}/r-x/2026/11/20261124T021500Z-1/r-x-7.rdb"
OTHERS = (f"{PREFIX}/somebody/elses.bin", "elsewhere/r-x/2026/11/20261124T021500Z-1/r-x-7.rdb")


def begin_uploads(seaweed: SeaweedFS, bucket: str, *keys: str) -> None:
    for key in keys:
        seaweed.client().create_multipart_upload(Bucket=bucket, Key=key)


def open_keys(seaweed: SeaweedFS, bucket: str) -> set[str]:
    return {key for key, _ in seaweed.uploads(bucket)}


async def stop_half_way(emulator: Emulator, gate: Gateway, bucket: str) -> None:
    """A pull that is cancelled once a part of the large file was uploaded."""
    gate.add(gates.delay(0.3, "UploadPart", times=None))
    with anyio.CancelScope() as scope:

        async def watch() -> None:
            while gate.counts["UploadPart"] < 6:  # some of them ask what the store can do
                await anyio.sleep(0.01)
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await bring(emulator, archive_in(bucket, gate.endpoint))
            group.cancel_scope.cancel()
    gate.faults.clear()


async def test_a_pull_ends_no_upload_that_is_not_known_for_its_own(
    emulator: Emulator, seaweed: SeaweedFS, bucket: str, s3_writer: None,
    originals: dict[str, bytes],
) -> None:  # fmt: skip
    """Not even one under a name of ours: another archiver may have created it just now."""
    await to_thread.run_sync(begin_uploads, seaweed, bucket, ORPHAN, *OTHERS)
    assert (await bring(emulator, archive_in(bucket, seaweed.endpoint))).failures == []
    assert await to_thread.run_sync(open_keys, seaweed, bucket) == {ORPHAN, *OTHERS}


async def test_the_command(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], run: Run,
) -> None:  # fmt: skip
    await stop_half_way(emulator, gate, bucket)
    await to_thread.run_sync(begin_uploads, seaweed, bucket, ORPHAN, *OTHERS)
    command = ("uploads", f"s3://{bucket}/{PREFIX}", "--s3-endpoint", seaweed.endpoint)
    shown = [json.loads(line) for line in (await run(*command, "--json")).out.splitlines()]
    states = {f"{PREFIX}/{found['key']}": found["state"] for found in shown}
    assert states[ORPHAN] == "orphan"
    assert states[OTHERS[0]] == "not ours"
    assert "resumable" in states.values()
    assert OTHERS[1] not in states
    young = await run(*command, "--abort")
    assert (young.code, "aborted" in young.out) == (0, False)  # begun less than a day ago
    ended = await run(*command, "--abort", "--older-than", "0s")
    assert ended.code == 0
    left = await to_thread.run_sync(open_keys, seaweed, bucket)
    assert ORPHAN not in left
    assert left >= set(OTHERS)
    assert left - set(OTHERS)  # a pull will go on with it
    again = await run(*command, "--abort", "--older-than", "0s", "--include-resumable")
    assert again.code == 0
    assert await to_thread.run_sync(open_keys, seaweed, bucket) == set(OTHERS)


async def test_of_a_directory(run: Run, tmp_path: Path) -> None:
    result = await run("uploads", str(tmp_path))
    assert result.code == 2
    assert "only buckets have uploads" in result.err


Tamper = Callable[[dict[str, object]], None]


def other_etag(journal: dict[str, object]) -> None:
    parts: list[list[object]] = journal["parts"]  # type: ignore[assignment]
    parts[0][3] = '"00000000000000000000000000000000"'


def other_upload(journal: dict[str, object]) -> None:
    journal["upload_id"] = "0" * 32


def no_state(journal: dict[str, object]) -> None:
    journal["state"] = None


def rubbish_state(journal: dict[str, object]) -> None:
    journal["state"] = "{}"


def another_size(journal: dict[str, object]) -> None:
    journal["size"] = 7


@pytest.mark.parametrize(
    "tamper", [other_etag, other_upload, no_state, rubbish_state, another_size]
)
async def test_a_journal_that_the_store_does_not_agree_with(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], tamper: Tamper,
) -> None:  # fmt: skip
    """Nothing of it is trusted, and everything converges."""
    await stop_half_way(emulator, gate, bucket)
    keys = await to_thread.run_sync(seaweed.objects, bucket, f"{PREFIX}/.staging/")
    for key in keys:
        if key.endswith(".json"):
            data = await to_thread.run_sync(seaweed.content, bucket, key)
            journal = json.loads(data.partition(b" ")[2])
            if journal["parts"]:
                tamper(journal)
                text = json.dumps(journal).encode()
                body = b"%08x %s" % (zlib.crc32(text), text)
                put = functools.partial(seaweed.client().put_object, Bucket=bucket)
                await to_thread.run_sync(functools.partial(put, Key=key, Body=body))
    assert (await bring(emulator, archive_in(bucket, gate.endpoint))).failures == []
    await assert_whole(seaweed, bucket, originals)


async def test_what_is_not_a_journal_is_somebody_elses(
    emulator: Emulator, seaweed: SeaweedFS, bucket: str, s3_writer: None,
    originals: dict[str, bytes],
) -> None:  # fmt: skip
    """Whatever it is called, it does no harm, and stays."""
    name = "r-x~2026~11~20261124T021500Z-1~r-x-7.json"
    key = f"{PREFIX}/.staging/r-x/{name}"
    await to_thread.run_sync(
        lambda: seaweed.client().put_object(Bucket=bucket, Key=key, Body=b"rubbish")
    )
    assert (await bring(emulator, archive_in(bucket, seaweed.endpoint))).failures == []
    assert await to_thread.run_sync(seaweed.content, bucket, key) == b"rubbish"
    await to_thread.run_sync(lambda: seaweed.client().delete_object(Bucket=bucket, Key=key))
    await assert_whole(seaweed, bucket, originals)


async def test_one_writer(seaweed: SeaweedFS, bucket: str, s3_writer: None) -> None:
    """A live one keeps others out; the lease of one that dies on this host is taken at once."""

    def store() -> S3Store:
        return S3Store(f"s3://{bucket}/{PREFIX}", S3Options(endpoint=seaweed.endpoint), beat=0.3)

    async with store().exclusive("r-x"):
        await anyio.sleep(0.7)
        with pytest.raises(ArchiveBusy, match="is writing"):
            async with store().exclusive("r-x"):
                pass
    key = f"{PREFIX}/.staging/r-x/lock"
    assert key not in await to_thread.run_sync(seaweed.objects, bucket, "")

    def left_by(**changed: object) -> None:
        holder = {"host": "another", "pid": 1, "started": "1", "boot": "b", "name": "n", "beat": 1}
        body = json.dumps({**holder, **changed}).encode()
        seaweed.client().put_object(Bucket=bucket, Key=key, Body=body)

    await to_thread.run_sync(left_by)
    late = store()
    async with late.exclusive("r-x"):  # after three beats without a sign of life
        await to_thread.run_sync(lambda: left_by(name="thief"))
        await anyio.sleep(0.8)
        with pytest.raises(ArchiveBusy, match="another"):
            await late.put("r-x/x", b"")
    assert key in await to_thread.run_sync(seaweed.objects, bucket, "")  # the thief's


async def test_noted_parts_are_not_sent_again(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes],
) -> None:  # fmt: skip
    await stop_half_way(emulator, gate, bucket)
    noted: set[tuple[str, int]] = set()
    there = 0
    for key in await to_thread.run_sync(seaweed.objects, bucket, f"{PREFIX}/.staging/"):
        if key.endswith(".json"):
            data = await to_thread.run_sync(seaweed.content, bucket, key)
            journal = json.loads(data.partition(b" ")[2])
            noted |= {(journal["key"], n) for n in range(1, len(journal["parts"]) + 1)}
            there += sum(part[2] for part in journal["parts"])
    assert noted
    gate.forget()
    before = emulator.tally.object_bytes
    assert (await bring(emulator, archive_in(bucket, gate.endpoint))).failures == []
    sent = {
        (request.path.removeprefix(f"/{bucket}/{PREFIX}/"), request.part)
        for request, _ in gate.requests
        if request.kind == "UploadPart"
    }
    assert not sent & noted
    fetched = emulator.tally.object_bytes - before
    assert fetched <= sum(map(len, originals.values())) - there
    await assert_whole(seaweed, bucket, originals)
