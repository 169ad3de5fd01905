"""The vendor's own SDK as an independent client of the emulator."""

from pathlib import Path

import pytest
from alibabacloud_r_kvstore20150101 import models

from archiver.emulator import Emulator
from tests.conftest import DATA, INSTANCE, EmulatorMaker
from tests.emulator.sdk import SDK_WARNINGS, Ask, refused

pytestmark = SDK_WARNINGS

ASKED = {
    "instance_id": INSTANCE,
    "start_time": "2000-01-01T00:00Z",
    "end_time": "2100-01-01T00:00Z",
    "page_size": 30,
    "page_number": 1,
}


@pytest.fixture
async def emulator(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    for number in range(70):
        (files / INSTANCE / f"{number:03d}.rdb").write_bytes(b"REDIS0003\xff%d" % number)
    (files / INSTANCE / "real.rdb").write_bytes((DATA / "rdb__memory.rdb").read_bytes())
    return await emulator_of(files)


async def test_page_by_page(emulator: Emulator, ask: Ask) -> None:
    seen: dict[int, models.DescribeBackupsResponseBodyBackupsBackup] = {}
    for number in (1, 2, 3):
        body = await ask(emulator, "DescribeBackups", **{**ASKED, "page_number": number})
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
    all_of_them = await ask(emulator, "DescribeBackups", **ASKED)
    wanted = all_of_them.backups.backup[7].backup_id
    body = await ask(emulator, "DescribeBackups", **ASKED, backup_id=wanted)
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
    error = await refused(ask(emulator, "DescribeBackups", **{**ASKED, **fields}))
    assert error.code == code
