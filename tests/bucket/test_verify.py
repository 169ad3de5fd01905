"""A verify of a bucket with a key that may only read it."""

import pytest

from archiver import Archive, TairSource, VerifyOptions, pull, verify
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault
from archiver.stores.s3 import S3Options, S3Store
from tests.bucket.conftest import PREFIX
from tests.conftest import everything
from tests.servers.seaweedfs import READER, SeaweedFS


async def test_with_a_key_that_may_only_read(
    originals: dict[str, bytes], source: TairSource, seaweed: SeaweedFS, s3_writer: None,
    bucket: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It finishes, reports its findings, and says that no results were saved."""
    options = S3Options(seaweed.endpoint)
    await pull(source, Archive(S3Store(f"s3://{bucket}/{PREFIX}", options)), [everything()])
    [key] = [
        key for key in seaweed.objects(bucket, f"{PREFIX}/")
        if key.endswith(".rdb") and len(seaweed.content(bucket, key)) == 20_000
    ]  # fmt: skip
    seaweed.client().put_object(Bucket=bucket, Key=key, Body=b"?" * 20_000)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER.key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER.secret)
    told: list[events.ScrubEvent] = []
    place = Archive(S3Store(f"s3://{bucket}/{PREFIX}", options))
    summary = await verify(place, VerifyOptions(keep_every=0), told.append)
    assert [finding.fault for finding in summary.findings] == [Fault.CHANGED]
    assert summary.read == len(originals)
    assert summary.results_not_kept is not None
    assert len([event for event in told if isinstance(event, events.ResultsNotKept)]) == 1
    assert not [key for key in seaweed.objects(bucket, f"{PREFIX}/") if "verified/" in key]
