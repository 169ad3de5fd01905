"""DescribeBackups (R-kvstore, 2015-01-01), with the responses of the service."""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from archiver.emulator.backup import EmulatedBackup
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.gateway import ApiError, Key, Request, missing, read_time
from archiver.emulator.oss import oss_v1_url
from archiver.errors import UsageError

PAGE_SIZES = (30, 50, 100, 200, 300, 1000)  # the metadata lists 1000, the documentation does not
VERSION = "2015-01-01"
_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hosts:
    """The ``host:port`` of public and intranet download URLs, and their scheme."""

    public: str
    intranet: str
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class _Parameters:
    """The validated parameters of DescribeBackups."""

    instance_id: str
    start: datetime
    end: datetime
    page_size: int
    page_number: int
    backup_id: int | None
    job_id: int | None
    need_aof: bool

    def match(self, backup: EmulatedBackup) -> bool:
        fields = backup.fields
        return (
            self.start <= backup.started_at <= self.end
            and (self.need_aof or not backup.incremental)
            and (self.backup_id is None or fields.get("BackupId") == self.backup_id)
            and (self.job_id is None or fields.get("BackupJobID") == self.job_id)
        )


class Api:
    """Runs actions on a catalogue."""

    def __init__(
        self, catalogue: Catalogue, key: Key, hosts: Hosts, clock: Callable[[], float]
    ) -> None:
        self._catalogue: Final = catalogue
        self._key: Final = key
        self._hosts: Final = hosts
        self._clock: Final = clock

    def respond(self, request: Request, expire_after: int) -> dict[str, Any]:
        """The response to an authenticated request, with URLs that expire after so many seconds.
        Blocks. Raises ApiError."""
        if not request.action:
            raise missing("Action")
        if request.action != "DescribeBackups":
            raise ApiError(404, "InvalidAction.NotFound", "Specified api is not found.")
        if not request.version:
            raise missing("Version")
        if request.version != VERSION:
            raise ApiError(400, "InvalidVersion", "Specified parameter Version is not valid.")
        if request.params.get("Format", "JSON").upper() != "JSON":
            raise ApiError(400, "InvalidParameter.Format", "The emulator responds in JSON only.")
        return self._describe_backups(_read(request.params), expire_after)

    def _describe_backups(self, params: _Parameters, expire_after: int) -> dict[str, Any]:
        try:
            listed = self._catalogue.backups(params.instance_id)
        except UsageError as error:  # a backups.json was broken while the emulator is running
            # Not a 5xx: retries do not help.
            raise ApiError(400, "InvalidBackupsJson", error.message) from None
        if listed is None:
            raise ApiError(
                400, "InvalidInstanceId.NotFound", "Specified instance id does not exist."
            )
        backups = [backup for backup in listed if params.match(backup)]
        first = (params.page_number - 1) * params.page_size
        page = backups[first : first + params.page_size]
        expires = int(self._clock()) + expire_after
        return {
            "RequestId": str(uuid.uuid4()).upper(),
            "PageNumber": params.page_number,
            "PageSize": params.page_size,
            "TotalCount": len(backups),
            "FullStorageSize": sum(b.size for b in listed if not b.incremental),
            "LogStorageSize": sum(b.size for b in listed if b.incremental),
            "FreeSize": 0,
            "Backups": {"Backup": [self._fields(backup, expires) for backup in page]},
        }

    def _fields(self, backup: EmulatedBackup, expires: int) -> dict[str, Any]:
        """A backup's fields with its URLs, unless the backup failed or the URLs are overridden."""
        if backup.fields.get("BackupStatus") != "Success":
            return dict(backup.fields)
        key_id, secret = self._key.access_key_id, self._key.secret.reveal()
        signed = oss_v1_url(key_id, secret, backup.resource, expires)
        return {
            "BackupDownloadURL": f"{self._hosts.scheme}://{self._hosts.public}{signed}",
            "BackupIntranetDownloadURL": f"{self._hosts.scheme}://{self._hosts.intranet}{signed}",
            **backup.fields,
        }


def _read(params: Mapping[str, str]) -> _Parameters:
    for name in ("InstanceId", "StartTime", "EndTime"):
        if not params.get(name):
            raise missing(name)
    start, end = _minute(params, "StartTime"), _minute(params, "EndTime")
    if end <= start:
        raise ApiError(
            400,
            "InvalidStartTimeAndEndTime.Malformed",
            "The end time must be greater than the start time.",
        )
    need_aof = params.get("NeedAof") or "0"
    if need_aof not in ("0", "1"):
        raise _malformed("NeedAof")
    page_size = _number(params, "PageSize") or PAGE_SIZES[0]
    if page_size not in PAGE_SIZES:
        raise _malformed("PageSize")
    return _Parameters(
        instance_id=params["InstanceId"],
        start=start,
        end=end,
        page_size=page_size,
        page_number=_number(params, "PageNumber") or 1,
        backup_id=_number(params, "BackupId"),
        job_id=_number(params, "BackupJobId"),
        need_aof=need_aof == "1",
    )


def _minute(params: Mapping[str, str], name: str) -> datetime:
    minute = read_time(params[name], _MINUTE, "%Y-%m-%dT%H:%MZ")
    if minute is None:
        raise _malformed(name)
    return minute


def _number(params: Mapping[str, str], name: str) -> int | None:
    """A positive integer; None when it is missing or empty, as some SDKs send it."""
    text = params.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise _malformed(name)
    return int(text)


def _malformed(name: str) -> ApiError:
    return ApiError(
        400, f"Invalid{name}.Malformed", f"The specified parameter {name} is not valid."
    )
