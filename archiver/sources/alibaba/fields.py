"""What DescribeBackups (R-kvstore, 2015-01-01) says of one backup, read. Pure.

A listing is read with it, and so are the fields that every record keeps as they were received
(``archiver/__init__`` names :func:`read_backup` for that): no command needs the network for it.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeVar

from archiver.documents import MAX_DIGITS, MAX_NUMBER, check_value
from archiver.errors import ArchiverError, UnsafeInput
from archiver.ids import safe
from archiver.model import (
    Backup,
    BackupMode,
    BackupType,
    Engine,
    Network,
    Refused,
    SourceName,
    Status,
)
from archiver.secret import Secret
from archiver.times import parse_document_time

SOURCE: Final = SourceName("alibaba", "DescribeBackups 2015-01-01")

_STATES = {"Success": Status.SUCCESS, "Failed": Status.FAILED}
_TYPES = {"FullBackup": BackupType.FULL, "IncrementalBackup": BackupType.INCREMENTAL}
MODES = {"Automated": BackupMode.AUTOMATED, "Manual": BackupMode.MANUAL}
_URL_FIELDS = {
    Network.PUBLIC: "BackupDownloadURL",
    Network.INTRANET: "BackupIntranetDownloadURL",
}

UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)

T = TypeVar("T")


def read_backup(instance_id: str, item: Mapping[str, Any]) -> Backup:
    """One entry of ``Backups.Backup``; raises UnsafeInput when what we need is not in it."""
    try:
        check_value(item)
        return Backup(
            source=SOURCE,
            instance_id=instance_id,
            node_id=str(item.get("NodeInstanceId") or instance_id),
            backup_id=id_text(item["BackupId"]),
            set_id=_job(item),
            started_at=parse_document_time(item["BackupStartTime"]),
            status=meaning(_STATES, item.get("BackupStatus")) or Status.UNFINISHED,
            type=meaning(_TYPES, item.get("BackupType")),
            mode=meaning(MODES, item.get("BackupMode")),
            ended_at=time_of(item.get("BackupEndTime")),
            expires_at=time_of(item.get("ExpectExpireTime")),
            engine=engine_of(item.get("EngineVersion")),
            size=size_of(item.get("BackupSize")),
            urls=urls_of(item),
            received={name: without_query(name, value) for name, value in item.items()},
        )
    except UNREADABLE as error:
        backup_id = str(dict(item).get("BackupId", "?"))[:40] if hasattr(item, "get") else "?"
        raise UnsafeInput(
            f"{instance_id}: the entry of backup {backup_id!r} cannot be read: {fault_of(error)}"
        ) from None


def fault_of(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    is_ours = isinstance(error, ValueError) and not isinstance(error, UnicodeError)
    return f"{error!s:.120}" if is_ours else "a field has another type than is documented"


def read_refused(item: Mapping[str, Any], error: ArchiverError) -> Refused:
    """What can be read of an entry that cannot be used."""
    set_id = started_at = None
    with suppress(*UNREADABLE, UnsafeInput):
        set_id = safe(_job(item) or "")
    with suppress(*UNREADABLE):
        started_at = parse_document_time(item["BackupStartTime"])
    return Refused(error, set_id, started_at)


def urls_of(item: Mapping[str, Any]) -> dict[Network, Secret]:
    """The URLs of a file. Raises ValueError."""
    return {
        network: Secret(_url_text(item[name]))
        for network, name in _URL_FIELDS.items()
        if item.get(name)
    }


def _url_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is not a URL")  # noqa: TRY004 - a value of the vendor's
    return value


def id_text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r:.40} is not an ID")  # noqa: TRY004 - likewise
    return str(value)


def _job(item: Mapping[str, Any]) -> str | None:
    # Spelled BackupJobID in answers and BackupJobId in requests; absent in older ones.
    job = item.get("BackupJobID", item.get("BackupJobId"))
    return None if job in (None, "", 0, "0") else str(job)


def meaning(words: Mapping[str, T], value: object) -> T | None:
    """What one of the vendor's words means; None for any other."""
    return words.get(value) if isinstance(value, str) else None


def engine_of(version: object) -> Engine | None:
    # It says nothing of Redis or Tair.
    return Engine(version=version) if version and isinstance(version, str) else None


def size_of(size: object) -> int | None:
    if size is None or size == "":
        return None
    if isinstance(size, str) and size.isascii() and size.isdecimal() and len(size) <= MAX_DIGITS:
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_NUMBER:
        raise ValueError(f"BackupSize is {size!r:.40}, which is no number of bytes")
    return size


def time_of(value: str | None) -> datetime | None:
    # Documented as UTC; some answers were seen without their Z.
    return parse_document_time(value) if value else None


def without_query(name: str, value: object) -> object:
    """Any URL loses what grants access, in fields that we do not know yet, too."""
    if isinstance(value, dict):
        return {key: without_query(key, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_query(name, inner) for inner in value]
    if isinstance(value, str) and ("://" in value or name.lower().endswith("url")):
        address = value.partition("?")[0].partition("#")[0]
        scheme, slashes, rest = address.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"
    return value
