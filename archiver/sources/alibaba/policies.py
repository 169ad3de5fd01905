"""Backup policies, as DescribeBackupPolicy (R-kvstore, 2015-01-01) tells them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from archiver.errors import SourceError

_DAYS: Final = re.compile(r"[0-9]{1,4}")
WEEK: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class BackupPolicy:
    """When the vendor makes backups, and for how many days it keeps them; None where it does not
    say. ``days`` are of :data:`WEEK`, ``time`` is a span of UTC as the vendor writes it:
    ``02:00Z-03:00Z``. ``has_log``: commands are logged between the dumps."""

    kept_days: int | None
    days: tuple[str, ...]
    time: str
    has_log: bool


def read_policy(instance_id: str, answer: Mapping[str, Any]) -> BackupPolicy:
    """The policy in an answer. Raises SourceError when it is none."""
    try:
        days = {day.strip() for day in str(answer["PreferredBackupPeriod"]).split(",")}
        kept = str(answer.get("BackupRetentionPeriod") or "")
        return BackupPolicy(
            kept_days=int(kept) if _DAYS.fullmatch(kept) else None,
            days=tuple(day for day in WEEK if day in days),
            time=str(answer["PreferredBackupTime"])[:20],
            has_log=str(answer.get("EnableBackupLog", 0)) == "1",
        )
    except KeyError as error:
        raise SourceError(
            f"{instance_id}: the answer to DescribeBackupPolicy has no {error.args[0]}"
        ) from None
