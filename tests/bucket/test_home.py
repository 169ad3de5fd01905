"""An object without a record is read, never changed, and uploaded again if it is damaged."""

import anyio
import pytest
from anyio import to_thread

from archiver.commands.verify.run import verify
from archiver.emulator import Emulator
from archiver.errors import StoreError
from archiver.stores.scope import WHOLE
from tests.bucket.conftest import MIB
from tests.bucket.test_pull import (
    STORES,
    archive_in,
    assert_whole,
    bring,
    whenever_a_backup_is_sent,
)
from tests.servers import gateway as gates
from tests.servers.gateway import Gateway
from tests.servers.seaweedfs import SeaweedFS


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", ["UploadPart", "PutObject"])
async def test_a_damaged_one_is_sent_anew(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes], kind: str,
) -> None:  # fmt: skip
    """A store that verifies nothing stored other bytes, and the run ended there."""
    gate.add(*STORES["checks nothing"][0]())
    archive = archive_in(bucket, gate.endpoint)
    async with archive.writing(WHOLE):
        pass  # the dialect is known
    gate.add(whenever_a_backup_is_sent(gates.flip_byte(1000, kind=kind)))
    with pytest.raises(StoreError, match="is not what was sent"):
        await bring(emulator, archive)
    gate.faults.clear()
    gate.add(*STORES["checks nothing"][0]())
    again = archive_in(bucket, gate.endpoint)
    assert (await bring(emulator, again)).failures == []
    await assert_whole(seaweed, bucket, originals)
    assert (await verify(again)).exit_code == 0


async def test_a_whole_one_is_recorded_where_it_is(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes],
) -> None:  # fmt: skip
    archive = archive_in(bucket, gate.endpoint)
    assert (await bring(emulator, archive)).failures == []

    def remove_records() -> None:
        for key in seaweed.objects(bucket, ""):
            if key.endswith(".json") and "/2026/" in key:
                seaweed.client().delete_object(Bucket=bucket, Key=key)

    await to_thread.run_sync(remove_records)
    gate.forget()
    before = emulator.tally.object_bytes
    assert (await bring(emulator, archive_in(bucket, gate.endpoint))).failures == []
    assert gate.bytes_up["UploadPart"] < 100  # to learn what the store can do
    assert emulator.tally.object_bytes - before < MIB  # small ones, and a byte of each other
    await assert_whole(seaweed, bucket, originals)


async def test_a_key_that_may_not_delete(
    emulator: Emulator, seaweed: SeaweedFS, gate: Gateway, bucket: str,
    originals: dict[str, bytes],
) -> None:  # fmt: skip
    """As offsite keys should be: everything is copied, and a second run finds it."""
    gate.add(gates.refuse(403, "AccessDenied", kind="DeleteObject", times=None))
    assert (await bring(emulator, archive_in(bucket, gate.endpoint))).failures == []
    with anyio.fail_after(20):
        again = await bring(emulator, archive_in(bucket, gate.endpoint))
    assert (again.held, again.exit_code) == (len(originals), 0)
