"""Whole runs on S3 servers with unusual behaviour: nothing is refused that is possible, and nothing
that was requested is dropped.

``FAULTS=full`` (``make faults``) pulls twice on all of them, else on those that differ most.
"""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from anyio import to_thread

from archiver import Archive, LocalStore, verify
from archiver.archive.layout import is_record
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.run import repair
from archiver.documents import is_key
from archiver.emulator import Emulator
from archiver.errors import PlaceTaken, StoreError, UnreadableObject
from archiver.stores.base import Leftover
from archiver.stores.s3 import LockMode, S3Lock, S3Options, S3Store
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import Capabilities, ConditionalPuts, UploadListing, probe
from archiver.stores.s3.checksums import ChecksumKind
from archiver.stores.s3.lease import Lease, hold
from archiver.stores.s3.options import first_mismatch
from archiver.stores.s3.outages import ONE_TRY, OutageBudget
from archiver.stores.s3.unfinished import own_uploads, sweep, unfinished_uploads
from archiver.stores.s3.writing import VerifiedWriter
from examples.sample_rdb import write_rdb
from tests.bucket.conftest import PREFIX
from tests.bucket.test_pull import bring
from tests.cli.conftest import Run
from tests.conftest import INSTANCE
from tests.servers.gateway import Answer, Fault, Request, error, flip_byte
from tests.servers.oddstore import AWS, BUCKET, PUBLIC, Habits, Object, OddStore, object_of
from tests.stores.conformance import STEM, commit_file, file_of, leave, offered, read_all
from tests.stores.test_oddstore import DIFFERENT, place_in
from tests.sweeps import FULL

pytestmark = pytest.mark.usefixtures("alone")
PLACE = f"s3://{BUCKET}/{PREFIX}"


@pytest.fixture
def few(files: Path) -> dict[str, bytes]:
    """Source files that are made quickly."""
    return {
        name: write_rdb(files / INSTANCE / f"{name}_202611{day}021500.rdb", size, day)
        for day, (name, size) in enumerate((("middle", 300_000), ("small", 20_000)), 10)
    }


def swept(writer: VerifiedWriter) -> list[Leftover]:
    return list(sweep(writer, "r-x", lambda: None, own_uploads(writer)))


def options(odd: OddStore, **given: object) -> S3Options:
    return replace(S3Options(endpoint=odd.endpoint), **given)  # type: ignore[arg-type]


def archive_on(odd: OddStore, **given: object) -> Archive:
    return Archive(S3Store(PLACE, options(odd, **given)))


def bucket_on(odd: OddStore) -> Bucket:
    return Bucket(BUCKET, f"{PREFIX}/", options(odd), OutageBudget(ONE_TRY))


def whole(odd: OddStore, originals: dict[str, bytes]) -> None:
    found = [one.data for key, one in odd.objects.items() if key.endswith(".rdb")]
    assert sorted(found) == sorted(originals.values())
    assert not odd.open_uploads


@pytest.mark.parametrize("name", PUBLIC if FULL else (*DIFFERENT, "rclone serve s3"))
async def test_pull_again_with_a_key_that_may_only_add(
    emulator: Emulator, odd: OddStore, originals: dict[str, bytes], name: str
) -> None:
    """The next run overwrites what a run leaves, such as its lease, instead of deleting it."""
    odd.become(replace(PUBLIC[name], forbids=frozenset(["DeleteObject"])))
    for archived in (len(originals), 0):
        summary = await bring(emulator, archive_on(odd))
        assert (summary.failures, summary.archived) == ([], archived)
    whole(odd, originals)


# The lease


def test_a_refused_renewal_that_shows_our_name_is_nobody_else(odd: OddStore) -> None:
    """As when the servers behind one name have different versions."""
    bucket = bucket_on(odd)
    lease = Lease(bucket, Capabilities(ChecksumKind.MD5, ConditionalPuts.QUOTED), 5.0)
    assert lease.take(None) is None
    odd.habits = Habits(if_match="bare")
    found = bucket.get(".staging/lock")
    assert found is not None
    assert lease.take(found[1]) is None
    lease.check()
    lease.release()
    assert f"{PREFIX}/.staging/lock" not in odd.objects


@pytest.mark.parametrize("name", PUBLIC)
def test_a_lease_is_kept(odd: OddStore, name: str) -> None:
    """It is renewed at each beat, and released."""
    odd.become(PUBLIC[name])
    bucket = bucket_on(odd)
    with hold(bucket, probe(bucket), 0.02) as lease:
        beaten = threading.Event()
        while lease._beats < 4 and lease._lost is None:
            beaten.wait(0.01)
        assert lease._lost is None
    assert f"{PREFIX}/.staging/lock" not in odd.objects


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_dead_holder_left_is_taken(odd: OddStore, name: str) -> None:
    """By a process that can tell only from its silence, and again by the next one."""
    odd.become(PUBLIC[name])
    bucket = bucket_on(odd)
    capabilities = probe(bucket)
    for number in range(2):
        left = {"host": "another", "pid": 1, "name": f"{number}", "beat": 1}
        odd.objects[f"{PREFIX}/.staging/lock"] = object_of(json.dumps(left).encode())
        with hold(bucket, capabilities, 0.02) as lease:
            assert lease._lost is None
        assert f"{PREFIX}/.staging/lock" not in odd.objects


async def test_a_listing_that_lags(
    emulator: Emulator, odd: OddStore, few: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not list yet may be pulled again; nothing is lost or damaged by that."""
    monkeypatch.setattr("archiver.stores.s3.capabilities._LISTING_SECONDS", (0.0,) * 5)
    odd.habits = Habits(lag=4)
    for _ in range(3):
        assert (await bring(emulator, archive_on(odd))).failures == []
        whole(odd, few)
    odd.habits = AWS
    assert (await verify(archive_on(odd))).findings == []
    assert (await bring(emulator, archive_on(odd))).held == len(few)


# UploadListing


@pytest.mark.parametrize("uploads", ["listed", "by exact key", "not implemented"])
async def test_an_upload_is_gone_on_with_whatever_is_listed(odd: OddStore, uploads: str) -> None:
    odd.habits = Habits(uploads=uploads, initiated="2010-11-10T20:48:33.000Z")  # type: ignore[arg-type]
    place, data = place_in(odd), file_of(12 * 2**20)
    await leave(place, data, kept={0})
    async with place.writer() as store:
        assert await store.sweep("r-x") == []
        assert await offered(store, len(data)) is not None
        await commit_file(store, data)
    assert not odd.open_uploads


def test_the_time_of_an_upload_is_believed_only_where_it_is_one(odd: OddStore) -> None:
    """No upload is aborted that only looks old because the store reports no time."""
    odd.habits = Habits(initiated="2010-11-10T20:48:33.000Z")
    bucket = bucket_on(odd)
    bucket.multipart.create(f"{STEM}.rdb")
    capabilities = probe(bucket)
    assert capabilities.upload_listing is UploadListing.UNDATED
    assert swept(VerifiedWriter(bucket, capabilities)) == []
    assert [
        upload.initiated for upload in unfinished_uploads(bucket, capabilities.upload_listing)
    ] == [None]
    odd.habits = AWS
    [upload] = odd.open_uploads.values()
    upload.begun = datetime.now(UTC) - timedelta(days=8)
    assert len(swept(VerifiedWriter(bucket, probe(bucket)))) == 1


async def test_the_command_ends_no_upload_without_a_time(odd: OddStore, run: Run) -> None:
    odd.habits = Habits(initiated="2010-11-10T20:48:33.000Z")
    await to_thread.run_sync(bucket_on(odd).multipart.create, f"{STEM}.rdb")
    command = ("uploads", PLACE, "--s3-endpoint", odd.endpoint, "--abort")
    kept = await run(*command)
    assert (kept.code, "aborted" in kept.out) == (0, False)
    assert len(odd.open_uploads) == 1
    ended = await run(*command, "--older-than", "0s")
    assert (ended.code, "aborted" in ended.out) == (0, True)
    assert not odd.open_uploads


async def test_a_verify_that_writes_the_same_catalogue_ends_no_pull(
    emulator: Emulator,
    odd: OddStore,
    originals: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It overtakes each try. That says nothing of the lease: the catalogue is derived."""
    others = itertools.count()

    def overtaken(request: Request) -> Answer:
        odd.objects[request.path.removeprefix(f"/{BUCKET}/")] = object_of(
            f"{next(others)}".encode()
        )
        return error(412, "PreconditionFailed")

    fault = Fault(
        "PutObject", None, lambda one: one.path.endswith("/index.jsonl"), instead=overtaken
    )
    odd.add(fault)
    with caplog.at_level("WARNING", "archiver"):
        assert (await bring(emulator, archive_on(odd))).failures == []
    assert fault.met > 1
    assert "index.jsonl was not written" in caplog.text
    whole(odd, originals)


async def test_a_part_that_came_damaged_ends_the_upload(
    emulator: Emulator, odd: OddStore, originals: dict[str, bytes]
) -> None:
    """One file fails and starts again."""
    odd.become(PUBLIC["rclone serve s3"])
    archive = archive_on(odd)
    async with archive.store.exclusive(INSTANCE):
        pass  # the capabilities are known: the fault is for later
    fault = odd.add(flip_byte(kind="UploadPart"))
    await bring(emulator, archive)
    assert fault.met
    assert (await bring(emulator, archive_on(odd))).failures == []
    whole(odd, originals)


async def test_bytes_are_told_apart_without_etags(odd: OddStore) -> None:
    """The replacement arrived damaged, with the same size: the old object is restored."""
    odd.habits = Habits(etags="none", crc64nvme=False)
    place, old, new = place_in(odd), file_of(1000), file_of(1000, 1)
    async with place.writer() as store:
        stored = await commit_file(store, old)
        key = f"backups/redis/{stored.key}"
        fault = odd.add(flip_byte(kind="PutObject"))
        fault.wanted = lambda request: request.path.endswith(key)
        odd.habits = replace(odd.habits, md5=False)
        with pytest.raises(StoreError, match="is not what was sent"):
            await commit_file(store, new)
        assert fault.met
        assert odd.objects[key].data == old


async def test_an_overwrite_that_is_acknowledged_and_not_done(
    odd: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response proves what was sent, and the old object has the right size: it is looked at,
    and stays as it was."""
    place, old, new = place_in(odd), file_of(1000), file_of(1000, 1)
    keep = OddStore._keep

    def drop(store: OddStore, key: str, made: Object) -> None:
        if not key.endswith(".rdb") or key not in store.objects:
            keep(store, key, made)

    async with place.writer() as store:
        stored = await commit_file(store, old)
        key = f"backups/redis/{stored.key}"
        monkeypatch.setattr(OddStore, "_keep", drop)
        with pytest.raises(StoreError, match="is not what was sent"):
            await commit_file(store, new)
        assert odd.objects[key].data == old
        monkeypatch.undo()
        await commit_file(store, new)
    assert odd.objects[key].data == new
    assert not [key for key in odd.objects if "/.quarantine/" in key]


# What was asked for


LOCK = S3Lock(LockMode.GOVERNANCE, days=30)
ASKED: dict[str, dict[str, object]] = {
    "encryption": {"sse": "AES256"},
    "class": {"storage_class": "STANDARD_IA"},
    "lock": {"lock": LOCK},
}


@pytest.mark.parametrize("what", ASKED)
async def test_what_is_not_kept_as_asked_is_not_recorded(
    emulator: Emulator, odd: OddStore, few: dict[str, bytes], what: str
) -> None:
    """The store accepts the parameters, responds 200, and ignores them."""
    odd.habits = Habits(keeps=AWS.keeps - {what})
    with pytest.raises(
        StoreError, match=r"was requested, but the store reports (nothing|STANDARD)"
    ):
        await bring(emulator, archive_on(odd, **ASKED[what]))
    assert not [key for key in odd.objects if "r-bp" in key and key.endswith(".json")]
    assert f"{PREFIX}/archive.json" not in odd.objects or what != "encryption"


@pytest.mark.parametrize("name", ["AWS", "Ceph RGW 16", "Alibaba OSS"])
async def test_what_is_kept_as_asked(
    emulator: Emulator, odd: OddStore, originals: dict[str, bytes], name: str
) -> None:
    odd.become(PUBLIC[name])
    asked = {"sse": "aws:kms:abc-def", "storage_class": "STANDARD_IA", "lock": LOCK}
    assert (await bring(emulator, archive_on(odd, **asked))).failures == []
    whole(odd, originals)
    for key, found in odd.objects.items():
        assert found.fields["x-amz-server-side-encryption"] == "aws:kms"
        assert ("x-amz-storage-class" in found.fields) == key.endswith(".rdb")
        assert ("x-amz-object-lock-mode" in found.fields) == ("/.staging/" not in key)


async def test_a_lock_that_ends_too_early(odd: OddStore) -> None:
    asked = options(odd, lock=LOCK)
    bucket = Bucket(BUCKET, f"{PREFIX}/", asked)
    writer = VerifiedWriter(bucket, await to_thread.run_sync(probe, bucket))
    given = asked.for_objects()

    def shorten() -> None:
        writer.put("a.json", b"{}", **given)
        early = asked.for_objects(datetime.now(UTC) - timedelta(days=1))
        bucket.put("a.json", b"{}", **early)
        with pytest.raises(StoreError, match="ObjectLockRetainUntilDate"):
            writer._verify_attributes("a.json", given, bucket.put("a.json", b"{}", **early))

    await to_thread.run_sync(shorten)


async def test_a_key_is_compared_and_an_alias_is_not() -> None:
    for asked, found, is_kept in (
        ("abc", "arn:aws:kms:eu-west-1:1:key/abc", True),
        ("arn:aws:kms:eu-west-1:1:key/abc", "arn:aws:kms:eu-west-1:1:key/abc", True),
        ("alias/redis", "arn:aws:kms:eu-west-1:1:key/abc", True),
        ("abc", "arn:aws:kms:eu-west-1:1:key/other", False),
        ("abc", None, False),
    ):
        kept = {} if found is None else {"SSEKMSKeyId": found}
        assert (first_mismatch({"SSEKMSKeyId": asked}, kept) is None) == is_kept


async def test_an_upload_that_was_begun_otherwise_begins_again(odd: OddStore) -> None:
    """The options of an upload cannot be changed once it exists."""
    place, data = place_in(odd), file_of(12 * 2**20)
    await leave(place, data, kept={0})
    asked = S3Options(endpoint=odd.endpoint, sse="AES256")
    store = S3Store(odd.place("backups/redis"), asked)
    async with store.exclusive("r-x"):
        assert await offered(store, len(data)) is None
        assert not odd.open_uploads
        stored = await commit_file(store, data)
    found = odd.objects[f"backups/redis/{stored.key}"]
    assert found.fields["x-amz-server-side-encryption"] == "AES256"


async def test_an_object_of_an_earlier_run_that_is_kept_otherwise(odd: OddStore) -> None:
    """It has no record yet, and gets none that would claim the requested options."""
    place, data = place_in(odd), file_of(1000)
    async with place.writer() as store:
        await commit_file(store, data)
    asked = S3Options(endpoint=odd.endpoint, lock=LOCK)
    store = S3Store(odd.place("backups/redis"), asked)
    async with store.exclusive("r-x"):
        with pytest.raises(PlaceTaken, match="an earlier run wrote it"):
            await commit_file(store, data)


@pytest.mark.parametrize(
    "option",
    [("--s3-sse", "AES256"), ("--s3-lock-days", "3"), ("--s3-lock-until", "2099-01-01"),
     ("--s3-lock-mode", "compliance"), ("--s3-storage-class", "GLACIER")],
)  # fmt: skip
async def test_a_directory_keeps_nothing_so(
    run: Run, tmp_path: Path, option: tuple[str, str]
) -> None:
    place, other = str(tmp_path / "archive"), str(tmp_path / "other")
    for command in (
        ("pull", "--instance", "r-bp1zxszhcgatnx", "--to", place),
        ("copy", other, place),
        ("verify", place),
    ):
        result = await run(*command, *option)
        assert result.code == 2, result.err
        assert f"{option[0]} works only in a bucket" in result.err or "no archive" in result.err
    assert not Path(place).exists()


# Reading


async def test_a_cold_object_fails_alone(
    emulator: Emulator, odd: OddStore, few: dict[str, bytes], tmp_path: Path
) -> None:
    await bring(emulator, archive_on(odd))
    cold = min(key for key in odd.objects if key.endswith(".rdb"))
    odd.cold.add(cold)
    there = Archive(LocalStore(tmp_path / "copy"))
    summary = await copy(archive_on(odd), there, CopyOptions())
    assert (summary.archived, len(summary.failures)) == (len(few) - 1, 1)
    error = summary.failures[0].error
    assert isinstance(error, UnreadableObject)
    assert "restore-object" in str(error)
    odd.cold.clear()
    assert (await copy(archive_on(odd), there, CopyOptions())).failures == []


@pytest.mark.parametrize(
    "command",
    [
        ("copy", PLACE, "copy"),
        ("verify", PLACE),
        ("restore", PLACE, "--instance", INSTANCE, "--to", "x"),
        ("restore", PLACE, "--instance", INSTANCE, "--to", "x", "--skip-damaged"),
        ("drill", PLACE),
        ("verify", PLACE, "--repair-from", "whole"),
    ],
    ids=lambda words: (
        f"{words[0]}{'-and-more' * (len(words) > 5)}{'-repair' * (words[-1] == 'whole')}"
    ),
)
async def test_what_to_do_about_a_cold_object(
    emulator: Emulator, odd: OddStore, few: dict[str, bytes], run: Run, tmp_path: Path,
    command: tuple[str, ...],
) -> None:  # fmt: skip
    """Each command reports it for that object alone, and exits as for a store that refuses."""
    await bring(emulator, archive_on(odd))
    if "whole" in command:
        await copy(archive_on(odd), Archive(LocalStore(tmp_path / "whole")), CopyOptions())
    odd.cold.add(max(key for key in odd.objects if key.endswith(".rdb")))
    before = dict(odd.objects)
    result = await run(*command, "--s3-endpoint", odd.endpoint)
    assert result.code == 6, result.err
    assert "it is in an archive class; restore it first (aws s3api restore-object)" in result.err
    assert ("redis-server" in result.out) == ("--skip-damaged" in command)
    assert {key: odd.objects[key] for key in before if key.endswith(".rdb")} == {
        key: one for key, one in before.items() if key.endswith(".rdb")
    }


async def test_evidence_in_cold_storage_is_not_damage(
    emulator: Emulator, odd: OddStore, few: dict[str, bytes], run: Run
) -> None:
    await bring(emulator, archive_on(odd))
    assert (await run("drill", PLACE, "--s3-endpoint", odd.endpoint)).code == 0
    odd.cold.update(key for key in odd.objects if "/drills/" in key)
    result = await run("drill", PLACE, "--s3-endpoint", odd.endpoint)
    assert (result.code, "restore it first" in result.err) == (6, True)
    assert "find out what changed it" not in result.err


async def test_a_question_mark_in_a_prefix_is_not_a_query(odd: OddStore, run: Run) -> None:
    result = await run("ls", f"s3://{BUCKET}-none/why?not", "--s3-endpoint", odd.endpoint)
    assert result.code == 2
    assert f"s3://{BUCKET}-none/why?not" in result.err
    assert "GetObject: 404 NoSuchBucket" in result.err


async def test_ranges_that_are_ignored_are_named(odd: OddStore) -> None:
    place, data = place_in(odd), file_of(12 * 2**20)
    async with place.writer() as store:
        key = (await commit_file(store, data)).key
        odd.habits = Habits(ranges=False)
        with pytest.raises(StoreError, match="another range than requested"):
            await read_all(store, key)


FOREIGN = (
    "/tmp/a/b/c/x.json", "//x.json", "a/../../../b/c.json", "../r-x/2026/11/s/x.json",
    "r-x/2026/11/./x.json", "r-x/2026/11//x.json", "r-x/", "r-x_$folder$/", "a\nb/2026/11/s/x.json",
    "r-x/2026/11/20261124T021500Z-1/\x1b[2J.json", "r-x/2026/11/20261124T021500Z-1/..",
)  # fmt: skip


async def test_keys_of_a_foreign_bucket_stay_there(
    emulator: Emulator, odd: OddStore, few: dict[str, bytes], tmp_path: Path
) -> None:
    """No command treats them as part of the archive, and nothing is written outside of it."""
    await bring(emulator, archive_on(odd))
    record = next(
        one for key, one in odd.objects.items() if is_record(key.removeprefix(f"{PREFIX}/"))
    )
    for key in FOREIGN:
        odd.objects[f"{PREFIX}/{key}"] = record
    store = S3Store(PLACE, options(odd))
    shown = [entry.key async for entry in store.entries("")]
    assert not set(shown) & set(FOREIGN)
    assert all(is_key(key) for key in shown)
    outside = sorted(tmp_path.iterdir())
    there = tmp_path / "copy"
    summary = await copy(archive_on(odd), Archive(LocalStore(there)), CopyOptions())
    assert (summary.archived, summary.failures) == (len(few), [])
    assert sorted(tmp_path.iterdir()) == sorted([*outside, there])


def change(odd: OddStore, key: str) -> None:
    odd.objects[key] = object_of(odd.objects[key].data[:-8] + bytes(8))


def shorten(odd: OddStore, key: str) -> None:
    odd.objects[key] = object_of(odd.objects[key].data[:-8])


def remove(odd: OddStore, key: str) -> None:
    del odd.objects[key]


def spoil_record(odd: OddStore, key: str) -> None:
    odd.objects[key.replace(".rdb", ".json")] = object_of(b"rubbish")


def remove_record(odd: OddStore, key: str) -> None:
    del odd.objects[key.replace(".rdb", ".json")]


def spoil_sums(odd: OddStore, key: str) -> None:
    odd.objects[f"{key.rpartition('/')[0]}/SHA256SUMS"] = object_of(b"rubbish")


def rename(odd: OddStore, key: str) -> None:
    odd.objects[key.replace(".rdb", ".bin")] = odd.objects.pop(key)


DAMAGES = (change, shorten, remove, spoil_record, remove_record, spoil_sums, rename)


@pytest.mark.parametrize(
    ("name", "damage"),
    [*(("a small server", damage) for damage in DAMAGES), ("AWS", change), ("Ceph RGW 16", change)],
)
async def test_a_repair_with_a_key_that_may_only_add(
    emulator: Emulator, odd: OddStore, few: dict[str, bytes], name: str,
    damage: Callable[[OddStore, str], None], tmp_path: Path,
) -> None:  # fmt: skip
    """It replaces what is damaged, and so does the next one; emptied objects do no harm."""
    odd.become(replace(PUBLIC[name], forbids=frozenset(["DeleteObject"])))
    here = Archive(LocalStore(tmp_path / "archive"))
    await bring(emulator, here)
    await copy(here, archive_on(odd), CopyOptions())
    for _ in range(2):
        key = min(key for key in odd.objects if key.endswith(".rdb"))
        whole = odd.objects[key].data
        damage(odd, key)
        there = archive_on(odd)
        summary = await repair(there, await verify(there), ArchiveSupplier(here))
        assert (summary.findings, summary.not_repaired) == ([], [])
        assert odd.objects[key].data == whole
        assert (await verify(archive_on(odd))).findings == []


async def test_what_a_run_leaves_versions_of(odd: OddStore) -> None:
    """docs/buckets.md has the numbers: in a bucket with versions each of these stays."""
    for name in PUBLIC:
        odd.become(PUBLIC[name])
        async with archive_on(odd).store.exclusive(INSTANCE):
            pass
        counts = Counter(key.removeprefix(f"{PREFIX}/") for key in odd.puts)
        assert counts.pop(".staging/probe") <= 4, name
        assert counts == {f".staging/{INSTANCE}/lock": 1}, name
        assert odd.counts["DeleteObject"] == 1, name
