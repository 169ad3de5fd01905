"""The vendor's own SDK as an independent client of the emulator."""

import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_r_kvstore20150101 import models
from alibabacloud_r_kvstore20150101.client import Client
from alibabacloud_tea_openapi.utils_models import Config
from anyio import to_thread
from blockbuster import BlockBuster

from archiver.emulator import Emulator
from tests.conftest import DATA, INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker

pytestmark = [
    # The SDK leaves its sessions and connectors to the garbage collector.
    pytest.mark.filterwarnings("ignore:.*[Uu]nclosed.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Body = Any  # the SDK's types are its own affair
Ask = Callable[..., Awaitable[Body]]


def client(emulator: Emulator, secret: str = KEY_SECRET) -> Client:
    return Client(
        Config(
            access_key_id=KEY_ID,
            access_key_secret=secret,
            endpoint=f"127.0.0.1:{emulator.port}",
            protocol="http",
            connect_timeout=5000,
            read_timeout=5000,
        )
    )


def request(**fields: object) -> models.DescribeBackupsRequest:
    given = {
        "instance_id": INSTANCE,
        "start_time": "2000-01-01T00:00Z",
        "end_time": "2100-01-01T00:00Z",
        "page_size": 30,
        "page_number": 1,
        **fields,
    }
    return models.DescribeBackupsRequest(**given)


@pytest.fixture(autouse=True)
def garbage_stays_here() -> Iterator[None]:
    """What the SDK left open is collected now, and not blamed on a later test. What was there
    before is not looked at again: that took most of the time."""
    gc.freeze()
    yield
    for _ in range(3):
        gc.collect()
    gc.unfreeze()


@pytest.fixture
async def emulator(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    for number in range(70):
        (files / INSTANCE / f"{number:03d}.rdb").write_bytes(b"REDIS0003\xff%d" % number)
    (files / INSTANCE / "real.rdb").write_bytes((DATA / "rdb__memory.rdb").read_bytes())
    return await emulator_of(files)


async def sync_ask(
    emulator: Emulator, secret: str = KEY_SECRET, **fields: object
) -> models.DescribeBackupsResponseBody:
    sdk = client(emulator, secret)
    return (await to_thread.run_sync(sdk.describe_backups, request(**fields))).body


async def async_ask(
    emulator: Emulator, secret: str = KEY_SECRET, **fields: object
) -> models.DescribeBackupsResponseBody:
    return (await client(emulator, secret).describe_backups_async(request(**fields))).body


@pytest.fixture(params=[sync_ask, async_ask], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest, no_blocking_on_the_loop: BlockBuster) -> Ask:
    no_blocking_on_the_loop.deactivate()  # the SDK blocks in its async calls, too
    return request.param  # type: ignore[no-any-return]


async def test_page_by_page(emulator: Emulator, ask: Ask) -> None:
    seen: dict[int, models.DescribeBackupsResponseBodyBackupsBackup] = {}
    for number in (1, 2, 3):
        body = await ask(emulator, page_number=number)
        assert (body.total_count, body.page_number, body.page_size) == (71, number, 30)
        assert body.request_id
        seen |= {backup.backup_id: backup for backup in body.backups.backup}
    assert len(seen) == 71
    for backup in seen.values():
        assert backup.backup_status == "Success"
        assert backup.node_instance_id == INSTANCE
        assert backup.backup_download_url.startswith("http://127.0.0.1")
        assert backup.backup_intranet_download_url.startswith("http://127.0.0.1")
        assert backup.backup_type == "FullBackup"
        assert backup.backup_mode == "Automated"
        assert backup.backup_size > 0
        assert backup.backup_job_id
        assert backup.backup_start_time < backup.backup_end_time


async def test_one_backup_by_its_id(emulator: Emulator, ask: Ask) -> None:
    all_of_them = await ask(emulator)
    wanted = all_of_them.backups.backup[7].backup_id
    body = await ask(emulator, backup_id=wanted)
    assert [backup.backup_id for backup in body.backups.backup] == [wanted]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"page_size": 31}, "InvalidPageSize.Malformed"),
        ({"start_time": "2026-11-24"}, "InvalidStartTime.Malformed"),
        ({"start_time": "2026-11-24T00:00:00Z"}, "InvalidStartTime.Malformed"),
        ({"end_time": "never"}, "InvalidEndTime.Malformed"),
        ({"end_time": "1999-01-01T00:00Z"}, "InvalidStartTimeAndEndTime.Malformed"),
        ({"end_time": "2000-01-01T00:00Z"}, "InvalidStartTimeAndEndTime.Malformed"),
        ({"instance_id": "r-unknown"}, "InvalidInstanceId.NotFound"),
        ({"secret": "wrong"}, "SignatureDoesNotMatch"),
    ],
)
async def test_the_vendors_error_codes(
    emulator: Emulator, ask: Ask, fields: dict[str, object], code: str
) -> None:
    with pytest.raises(Exception, match=code) as caught:
        await ask(emulator, **fields)
    assert caught.value.code == code  # type: ignore[attr-defined]
