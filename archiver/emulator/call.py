"""What an action is called with, and the parameters it can have."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from archiver.emulator.catalogue import Catalogue
from archiver.emulator.gateway import ApiError, Key, read_time
from archiver.emulator.instances import Instance
from archiver.emulator.jobs import Jobs
from archiver.emulator.oss import oss_v1_url

_Item = TypeVar("_Item")

PAGE_SIZES = (30, 50, 100, 200, 300)
_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hosts:
    """The ``host:port`` of public and intranet download URLs, and their scheme."""

    public: str
    intranet: str
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class Call:
    """An authenticated and permitted request, with what the actions work on.

    ``found`` is the instance of its InstanceId, ``unknown`` the status where there is none.
    ``now`` and ``expires``, when signed URLs expire, are in epoch seconds; ``endpoint`` is the
    emulator's own ``host:port``.
    """

    params: Mapping[str, str]
    found: Instance | None
    catalogue: Catalogue
    jobs: Jobs
    key: Key
    hosts: Hosts
    endpoint: str
    now: float
    expires: int
    unknown: int

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    @property
    def instance(self) -> Instance:
        """The instance that the request names. Raises ApiError."""
        if self.found is None or self.params.get("RegionId", self.found.region) != (
            self.found.region
        ):
            raise ApiError(
                self.unknown, "InvalidInstanceId.NotFound", "Specified instance id does not exist."
            )
        return self.found

    def urls(self, resource: str, scheme: str | None = None) -> dict[str, str]:
        """The signed URLs of ``/bucket/key``."""
        signed = oss_v1_url(
            self.key.access_key_id, self.key.secret.reveal(), resource, self.expires
        )
        scheme = scheme or self.hosts.scheme
        return {
            "BackupDownloadURL": f"{scheme}://{self.hosts.public}{signed}",
            "BackupIntranetDownloadURL": f"{scheme}://{self.hosts.intranet}{signed}",
        }

    def span(self) -> tuple[datetime, datetime]:
        """StartTime and EndTime. Raises ApiError."""
        start, end = self._minute("StartTime"), self._minute("EndTime")
        if end <= start:
            raise ApiError(
                400,
                "InvalidStartTimeAndEndTime.Malformed",
                "The end time must be greater than the start time.",
            )
        return start, end

    def _minute(self, name: str) -> datetime:
        minute = read_time(self.params[name], _MINUTE, "%Y-%m-%dT%H:%MZ")
        if minute is None:
            raise malformed(name)
        return minute

    def number(self, name: str) -> int | None:
        """A positive integer; None when it is missing or empty, as some SDKs send it."""
        text = self.params.get(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
            raise malformed(name)
        return int(text)

    def one_of(self, name: str, allowed: Sequence[str]) -> str | None:
        """The value of an optional parameter that has few. Raises ApiError."""
        value = self.params.get(name) or None
        if value is not None and value not in allowed:
            raise malformed(name)
        return value

    def page(self, is_size: Callable[[int], bool]) -> "Page":
        """Which page is asked for. Raises ApiError."""
        size = self.number("PageSize") or PAGE_SIZES[0]
        if not is_size(size):
            raise malformed("PageSize")
        return Page(self.number("PageNumber") or 1, size)


@dataclass(frozen=True, slots=True)
class Page:
    number: int
    size: int

    def of(self, items: Sequence[_Item]) -> Sequence[_Item]:
        first = (self.number - 1) * self.size
        return items[first : first + self.size]

    def fields(self) -> dict[str, Any]:
        return {"PageNumber": self.number, "PageSize": self.size}


def malformed(name: str) -> ApiError:
    return ApiError(
        400, f"Invalid{name}.Malformed", f"The specified parameter {name} is not valid."
    )
