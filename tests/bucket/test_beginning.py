"""Where in a bucket an archive may be created."""

import pytest
from anyio import to_thread

from archiver import Archive, Beginning
from archiver.errors import UsageError
from archiver.events import ArchiveBegun, Event
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.scope import WHOLE
from tests.bucket.conftest import PREFIX
from tests.servers.seaweedfs import SeaweedFS


async def begin(
    bucket: str, endpoint: str, beginning: Beginning = Beginning.IF_EMPTY, prefix: str = PREFIX
) -> list[Event]:
    seen: list[Event] = []
    store = S3Store(f"s3://{bucket}/{prefix}", S3Options(endpoint=endpoint))
    async with Archive(store, beginning=beginning).writing(WHOLE, seen.append):
        pass
    return seen


async def test_below_an_empty_prefix_and_below_no_other(
    seaweed: SeaweedFS, bucket: str, s3_writer: None
) -> None:
    client = seaweed.client()
    with pytest.raises(UsageError, match="one is required"):
        await begin(bucket, seaweed.endpoint, Beginning.NEVER)
    await to_thread.run_sync(
        lambda: client.put_object(Bucket=bucket, Key=f"{PREFIX}/notes.txt", Body=b"x")
    )
    with pytest.raises(UsageError, match=r"something else is: notes\.txt"):
        await begin(bucket, seaweed.endpoint)
    keys = await to_thread.run_sync(seaweed.objects, bucket, "")
    assert list(keys) == [f"{PREFIX}/notes.txt"]
    await to_thread.run_sync(lambda: client.delete_object(Bucket=bucket, Key=f"{PREFIX}/notes.txt"))
    assert await begin(bucket, seaweed.endpoint) == [ArchiveBegun(f"s3://{bucket}/{PREFIX}")]
    assert await begin(bucket, seaweed.endpoint, Beginning.NEVER) == []
    for beginning in (Beginning.IF_EMPTY, Beginning.ALWAYS):
        with pytest.raises(UsageError, match=f"inside another: s3://{bucket}/{PREFIX} is"):
            await begin(bucket, seaweed.endpoint, beginning, f"{PREFIX}/a/b")
    assert await begin(bucket, seaweed.endpoint, prefix=f"{PREFIX}-2/a") != []
