"""What an archive keeps of an instance, by what DescribeInstances and DescribeBackupPolicy say."""

import re
from datetime import datetime
from typing import Final

from archiver.model import Engine, InstanceDescription, Schedule
from archiver.sources.alibaba.fields import SOURCE
from archiver.sources.alibaba.instances import Instance
from archiver.sources.alibaba.policies import WEEK, BackupPolicy

# PreferredBackupTime: 02:00Z-03:00Z.
_BEGIN: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])Z")


def describe(
    instance: Instance, policy: BackupPolicy | None, seen_at: datetime
) -> InstanceDescription:
    """The description of an instance; without a ``policy`` its schedule is unknown. Pure."""
    return InstanceDescription(
        instance_id=instance.instance_id,
        seen_at=seen_at,
        source=SOURCE.kind,
        region=instance.region,
        name=instance.name,
        architecture=instance.architecture,
        shards=instance.shards,
        engine=Engine(instance.engine or None, instance.engine_version or None),
        tags=instance.tags,
        created_at=instance.created_at,
        ends_at=instance.ends_at,
        deleted_at=instance.destroyed_at,
        schedule=None if policy is None else _schedule(policy),
        no_backups=instance.why_no_backups,
    )


def _schedule(policy: BackupPolicy) -> Schedule | None:
    begin = _BEGIN.match(policy.time)
    if begin is None or not policy.days:
        return None
    minute = 60 * int(begin[1]) + int(begin[2])
    return Schedule(tuple(WEEK.index(day) for day in policy.days), minute, policy.kept_days)
