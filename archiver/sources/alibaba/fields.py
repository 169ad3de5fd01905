"""What DescribeBackups (R-kvstore, 2015-01-01) says of one backup, read.

A listing is read with it, and so are the fields that every record keeps as they were received.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from archiver.documents import MAX_DIGITS, MAX_NUMBER, check_value
from archiver.errors import UnsafeInput
from archiver.model import Backup, Network, Status
from archiver.secret import Secret
from archiver.times import parse_document_time

_URL_FIELDS = {
    Network.PUBLIC: "BackupDownloadURL",
    Network.INTRANET: "BackupIntranetDownloadURL",
}


def read_backup(instance_id: str, item: Mapping[str, Any]) -> Backup:
    """One entry of ``Backups.Backup``; raises UnsafeInput when what we need is not in it."""
    try:
        check_value(item)
        return Backup(
            instance_id=instance_id,
            backup_id=_id(item["BackupId"]),
            node_id=str(item.get("NodeInstanceId") or instance_id),
            job_id=_job(item),
            status=_status(item.get("BackupStatus")),
            type=str(item.get("BackupType", "")),
            mode=str(item.get("BackupMode", "")),
            started_at=_time(item["BackupStartTime"]),
            ended_at=_time(item["BackupEndTime"]) if item.get("BackupEndTime") else None,
            size=_size(item),
            expires_at=_time(item["ExpectExpireTime"]) if item.get("ExpectExpireTime") else None,
            urls={
                network: Secret(_text(item[name]))
                for network, name in _URL_FIELDS.items()
                if item.get(name)
            },
            fields={name: _without_query(name, value) for name, value in item.items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        backup_id = str(dict(item).get("BackupId", "?"))[:40] if hasattr(item, "get") else "?"
        raise UnsafeInput(
            f"{instance_id}: the entry of backup {backup_id!r} cannot be read ({error!r:.120})"
        ) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no URL")
    return value


def _id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r:.40} is no id")
    return str(value)


def _job(item: Mapping[str, Any]) -> str | None:
    # Spelled BackupJobID in answers and BackupJobId in requests; absent in older ones.
    job = item.get("BackupJobID", item.get("BackupJobId"))
    return None if job in (None, "", 0, "0") else str(job)


def _status(value: object) -> Status:
    if value == "Success":
        return Status.SUCCESS
    return Status.FAILED if value == "Failed" else Status.UNFINISHED


def _size(item: Mapping[str, Any]) -> int:
    size = item.get("BackupSize") or 0
    if isinstance(size, str) and size.isascii() and size.isdecimal() and len(size) <= MAX_DIGITS:
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_NUMBER:
        raise ValueError(f"BackupSize {size!r:.40}")
    return size


def _time(value: str) -> datetime:
    # Documented as UTC; some answers were seen without their Z.
    return parse_document_time(value)


def _without_query(name: str, value: object) -> object:
    """Any URL loses what grants access, in fields that we do not know yet, too."""
    if isinstance(value, dict):
        return {key: _without_query(key, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_query(name, inner) for inner in value]
    if isinstance(value, str) and ("://" in value or name.lower().endswith("url")):
        address = value.partition("?")[0].partition("#")[0]
        scheme, slashes, rest = address.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"
    return value
