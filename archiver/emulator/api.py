"""The table of actions (R-kvstore, 2015-01-01), and what every request goes through."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from archiver.emulator import fleet, listing, ondemand
from archiver.emulator.call import Call, Hosts
from archiver.emulator.catalogue import Catalogue
from archiver.emulator.gateway import ApiError, Key, Request, missing
from archiver.emulator.instances import DEFAULT_REGION, Instance
from archiver.emulator.jobs import Jobs
from archiver.emulator.quotas import Meter
from archiver.emulator.ram import ACCOUNT
from archiver.errors import UsageError

VERSION = "2015-01-01"


@dataclass(frozen=True, slots=True)
class Action:
    """``is_scoped`` says whether a RAM policy can narrow it to instances; ``unknown`` is the status
    for an instance that does not exist."""

    run: Callable[[Call], dict[str, Any]]
    required: tuple[str, ...] = ("InstanceId",)
    is_scoped: bool = True
    unknown: int = 400


_SPAN = ("InstanceId", "StartTime", "EndTime")
ACTIONS = {
    "DescribeBackups": Action(listing.describe_backups, _SPAN),
    "DescribeClusterBackupList": Action(listing.describe_cluster_backup_list, ("RegionId", *_SPAN)),
    "DescribeInstances": Action(fleet.describe_instances, ()),
    "DescribeRegions": Action(fleet.describe_regions, (), is_scoped=False),
    "DescribeBackupPolicy": Action(fleet.describe_backup_policy),
    "DescribeLogicInstanceTopology": Action(
        fleet.describe_logic_instance_topology, is_scoped=False
    ),
    "DescribeInstanceTDEStatus": Action(fleet.describe_tde_status, unknown=404),
    "CreateBackup": Action(ondemand.create_backup),
    "DescribeBackupTasks": Action(ondemand.describe_backup_tasks, is_scoped=False),
}


class Api:
    """Runs actions. ``key`` signs the URLs, ``endpoint`` is the emulator's own ``host:port``."""

    def __init__(
        self,
        catalogue: Catalogue,
        jobs: Jobs,
        meter: Meter,
        key: Key,
        hosts: Hosts,
        endpoint: str,
        clock: Callable[[], float],
    ) -> None:
        self.hosts = hosts
        self._catalogue: Final = catalogue
        self._jobs: Final = jobs
        self._meter: Final = meter
        self._key: Final = key
        self._endpoint: Final = endpoint
        self._clock: Final = clock

    def respond(self, request: Request, expire_after: int) -> dict[str, Any]:
        """The response to an authenticated request, with URLs that expire after so many seconds.
        Blocks. Raises ApiError."""
        action = _action(request)
        try:
            self._jobs.finish_due()
            found = self._catalogue.instance(request.params.get("InstanceId", ""))
            self._admit(request, action, found)
            now = self._clock()
            call = Call(
                params=request.params,
                found=found,
                catalogue=self._catalogue,
                jobs=self._jobs,
                key=self._key,
                hosts=self.hosts,
                endpoint=self._endpoint,
                now=now,
                expires=int(now) + expire_after,
                unknown=action.unknown,
            )
            body = action.run(call)
        except UsageError as error:  # a file was broken while the emulator is running
            # Not a 5xx: retries do not help.
            raise ApiError(400, "InvalidEmulatorFile", error.message) from None
        return {"RequestId": str(uuid.uuid4()).upper(), **body}

    def _admit(self, request: Request, action: Action, found: Instance | None) -> None:
        """Raises ApiError for a call beyond its quota, and for one that is not permitted."""
        named = request.params.get("RegionId") or DEFAULT_REGION
        region = found.region if found else named
        over = self._meter.take(region, request.action or "")
        if over is not None:
            quota, wait = over
            raise ApiError(
                400,
                quota.code,
                "Request was denied due to user flow control.",
                retry_after=wait if quota.tells_wait else None,
            )
        resources = _resources(request, action, region)
        what = f"kvstore:{request.action}"
        reason = request.policy and request.policy.denial(what, resources)
        if reason:
            raise _forbidden(what, reason)


def _action(request: Request) -> Action:
    """What to run. Raises ApiError for a request that lacks what every one has, or what its
    action requires."""
    if not request.action:
        raise missing("Action")
    action = ACTIONS.get(request.action)
    if action is None:
        raise ApiError(404, "InvalidAction.NotFound", "Specified api is not found.")
    if not request.version:
        raise missing("Version")
    if request.version != VERSION:
        raise ApiError(400, "InvalidVersion", "Specified parameter Version is not valid.")
    if request.params.get("Format", "JSON").upper() != "JSON":
        raise ApiError(400, "InvalidParameter.Format", "The emulator responds in JSON only.")
    for name in action.required:
        if not request.params.get(name):
            raise missing(name)
    return action


def _resources(request: Request, action: Action, region: str) -> list[str]:
    """What the caller needs a permission for."""
    if not action.is_scoped:
        return ["*"]
    one = request.params.get("InstanceId")
    several = fleet.instance_ids(request.params.get("InstanceIds", ""))
    return [
        f"acs:kvstore:{region}:{ACCOUNT}:instance/{instance_id}"
        for instance_id in ([one] if one else several or ["*"])
    ]


def _forbidden(what: str, reason: str) -> ApiError:
    detail = {
        "AuthAction": what,
        "AuthPrincipalDisplayName": "emulated",
        "AuthPrincipalOwnerId": ACCOUNT,
        "AuthPrincipalType": "SubUser",
        "NoPermissionType": reason,
        "PolicyType": "AccountLevelIdentityBasedPolicy",
        "EncodedDiagnosticMessage": "",
    }
    message = "User not authorized to operate on the specified resource."
    return ApiError(403, "Forbidden.RAM", message, fields={"AccessDeniedDetail": detail})
