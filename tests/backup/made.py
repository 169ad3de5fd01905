"""Jobs, backups, and time that passes when somebody waits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from archiver.commands.backup.waiting import Clock
from archiver.model import Backup, BackupMode, BackupType, SourceName, Status

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@dataclass
class Time:
    """Seconds that pass only by waiting; ``__call__`` is the time of day, from ``start`` on."""

    start: float = START.timestamp()
    passed: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.start + self.passed

    def now(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    @property
    def clock(self) -> Clock:
        return Clock(self.now, self.sleep)


def a_backup(
    node: str = "r-x",
    backup_id: str = "1",
    *,
    job: int | None = None,
    set_id: str | None = None,
    status: Status = Status.SUCCESS,
    started_at: datetime = START,
) -> Backup:
    received: Mapping[str, Any] = {} if job is None else {"BackupJobID": job}
    return Backup(
        SourceName("alibaba", "Test"), "r-x", node, backup_id, set_id, started_at, status,
        BackupType.FULL, BackupMode.MANUAL, size=10, received=received,
    )  # fmt: skip


def a_task(
    job: int = 1,
    node: str = "r-x",
    state: str = "Uploading",
    percent: object = "50",
    *,
    mode: str = "Manual",
    started: str | None = "2026-11-24T12:00:00Z",
) -> dict[str, Any]:
    """An entry of DescribeBackupTasks."""
    return {
        "BackupJobID": job,
        "NodeId": node,
        "BackupProgressStatus": state,
        "Progress": percent,
        "JobMode": mode,
        "TaskAction": "TempBackupTask" if mode == "Manual" else "NormalBackupTask",
        "StartTime": started,
    }
