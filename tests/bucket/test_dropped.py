"""A bucket that responds as if it had taken an object, and keeps something else."""

from typing import Any

import pytest

from archiver import verify
from archiver.emulator import Emulator
from archiver.errors import StoreError
from archiver.stores.s3.bucket import Bucket, Head
from tests.bucket.test_pull import archive_in, assert_whole, bring
from tests.conftest import INSTANCE
from tests.servers.seaweedfs import SeaweedFS


@pytest.mark.parametrize("suffix", [".rdb", ".json"])
@pytest.mark.parametrize("change", ["nothing", "half", "zeros"])
async def test_what_a_store_did_not_keep_is_reported_and_downloaded_again(
    emulator: Emulator, seaweed: SeaweedFS, bucket: str, s3_writer: None,
    originals: dict[str, bytes], change: str, suffix: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real, lost = Bucket.put, list[str]()

    def put(self: Bucket, key: str, data: bytes | bytearray, **given: Any) -> Head:
        head = real(self, key, data, **given)
        if key.startswith(f"{INSTANCE}/") and key.endswith(suffix) and not lost:
            lost.append(key)
            where = {"Bucket": bucket, "Key": f"{self.prefix}{key}"}
            kept = bytes(len(data)) if change == "zeros" else bytes(data[: len(data) // 2])
            if change == "nothing":
                seaweed.client().delete_object(**where)
            else:
                seaweed.client().put_object(**where, Body=kept)
        return head

    monkeypatch.setattr(Bucket, "put", put)
    first = await bring(emulator, archive_in(bucket, seaweed.endpoint))
    [failed] = first.failures
    assert isinstance(failed.error, StoreError)
    assert "does not have it as it was sent" in failed.error.message
    assert (first.exit_code, len(lost)) == (6, 1)
    again = await bring(emulator, archive_in(bucket, seaweed.endpoint))
    assert (again.archived, again.exit_code) == (1, 0)
    assert (await verify(archive_in(bucket, seaweed.endpoint))).exit_code == 0
    await assert_whole(seaweed, bucket, originals)
