"""How many requests commands make to a bucket, by kind."""

from dataclasses import replace
from pathlib import Path

from archiver import Archive, LocalStore
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.stores.s3 import S3Options, S3Store
from examples.sample_rdb import rdb
from tests.archive.sample import put_backup, put_sums
from tests.bucket.conftest import PREFIX
from tests.servers.oddstore import BUCKET, OddStore

INSTANCES = ("r-bp1aaaaaaaaaaaaa", "r-bp1bbbbbbbbbbbbb")
MONTHS = ("202609", "202610", "202611")
DAYS = ("10", "11", "12", "13")
BACKUPS = len(INSTANCES) * len(MONTHS) * len(DAYS)


def archive_of(root: Path) -> Archive:
    data = rdb(300)
    for instance in INSTANCES:
        for month in MONTHS:
            for number, day in enumerate(DAYS, 100):
                start = f"{month}{day}T021500Z"
                put_backup(root, start, data, instance=instance, backup_id=f"{number}")
            put_sums(root / instance / month[:4] / month[4:])
    return Archive(LocalStore(root))


def archive_on(odd: OddStore) -> Archive:
    return Archive(S3Store(f"s3://{BUCKET}/{PREFIX}", S3Options(endpoint=odd.endpoint)))


async def test_what_a_copy_asks(odd: OddStore, tmp_path: Path) -> None:
    """Of each backup its two objects; the rest is of the run, of each instance and each month."""
    source, instances, months = archive_of(tmp_path), len(INSTANCES), len(INSTANCES) * len(MONTHS)
    odd.habits = replace(odd.habits, page=1000)
    odd.counts.clear()
    assert (await copy(source, archive_on(odd))).failures == []
    assert dict(odd.counts) == {
        # The backups; SHA256SUMS and the catalogue; the leases; archive.json, five probes.
        "PutObject": 2 * BACKUPS + 2 * months + (instances + 1) + 6,
        # Whether SHA256SUMS is there, and whether it was kept; archive.json and the lease; the same
        # of the whole archive, archive.json above it, and the probe.
        "GetObject": 2 * months + 4 * instances + 2 + 3 + 1 + 1,
        # Before and after the lease is taken, and when all is written; what was left, and what
        # verifies saw, twice; whether the place is empty, the probe, and what is left in the end,
        # twice.
        "ListObjectsV2": 7 * instances + 4,
        "DeleteObject": instances + 1,
        "CreateMultipartUpload": 2,
        "UploadPart": 2,
        "AbortMultipartUpload": 2,
        "ListMultipartUploads": 2,
    }


async def test_what_is_asked_where_all_is_held(odd: OddStore, tmp_path: Path) -> None:
    """Nothing of a backup: the catalogue of each month, a listing of each instance."""
    source, instances, months = archive_of(tmp_path), len(INSTANCES), len(INSTANCES) * len(MONTHS)
    odd.habits = replace(odd.habits, page=1000)
    await copy(source, archive_on(odd))
    odd.counts.clear()
    again = await copy(source, archive_on(odd))
    assert (again.held, again.failures) == (BACKUPS, [])
    # Of each instance also what verifies saw; and in the end, what earlier runs left.
    assert dict(odd.counts) == {"GetObject": 1 + months, "ListObjectsV2": 2 * instances + 2}
    odd.counts.clear()
    assert [one async for one in mismatches(source, archive_on(odd), Selection())] == []
    # Once for what the source has, and once for what the bucket has, all of it in one listing.
    assert dict(odd.counts) == {"GetObject": 2 * months, "ListObjectsV2": 2 * instances + 2}
