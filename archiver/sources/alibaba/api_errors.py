"""Translates the vendor's error codes into errors with hints.

Codes: DescribeBackups (R-kvstore, 2015-01-01), *Error codes*, and those of the RPC gateway.
"""

from collections.abc import Callable
from dataclasses import dataclass

from archiver.errors import (
    ArchiverError,
    BackupRefused,
    BackupUnderWay,
    BadCredentials,
    ClockSkew,
    PermissionDenied,
    RequestRejected,
    SourceError,
    SourceUnavailable,
    Throttled,
    UnknownInstance,
)


@dataclass(frozen=True, slots=True)
class ApiFault:
    """An error response of the RPC gateway.

    ``subject`` is what the request was about, ``resource`` its name in RAM policies; ``service`` is
    the API's name in RAM actions.
    """

    status: int
    code: str
    message: str
    request_id: str
    action: str
    subject: str
    resource: str
    retry_after: float | None = None
    denied_action: str = ""
    denied_resource: str = ""
    service: str = "kvstore"


def translate(fault: ApiFault) -> ArchiverError:
    """The error for an error response; it names the code and what to do."""
    for prefix, make in _MEANINGS:
        if fault.code == prefix or fault.code.startswith(prefix + "."):
            return make(fault)
    if fault.status >= 500:
        return SourceUnavailable(_message(fault), retry_after=fault.retry_after)
    if fault.status == 429:
        return _throttled(fault)
    if fault.status == 403:
        return _denied(fault)
    return RequestRejected(_message(fault), hint="the API rejects this request")


def _message(fault: ApiFault) -> str:
    text = " ".join(fault.message.split())[:300]
    request = f", request {fault.request_id}" if fault.request_id else ""
    return f"{fault.subject}: {fault.code}: {text} [{fault.action}: {fault.status}{request}]"


def _denied(fault: ApiFault) -> ArchiverError:
    action = fault.denied_action or f"{fault.service}:{fault.action}"
    resource = fault.denied_resource or fault.resource
    return PermissionDenied(
        _message(fault), hint=f"grant the RAM action {action} on {resource} to this identity"
    )


def _throttled(fault: ApiFault) -> ArchiverError:
    return Throttled(
        _message(fault),
        hint="the API limits the rate of requests; try again later",
        retry_after=fault.retry_after,
    )


def _unavailable(fault: ApiFault) -> ArchiverError:
    return SourceUnavailable(_message(fault), retry_after=fault.retry_after)


def _as(kind: type[ArchiverError], hint: str) -> Callable[[ApiFault], ArchiverError]:
    return lambda fault: kind(_message(fault), hint=hint, retry_after=fault.retry_after)


# Codes and prefixes of codes. Where one is a prefix of another, the longer one comes first.
_MEANINGS: tuple[tuple[str, Callable[[ApiFault], ArchiverError]], ...] = (
    (
        "InvalidStartTimeAndEndTime.Malformed",
        _as(RequestRejected, "the range's end must be later than its start"),
    ),
    ("InvalidStartTime", _as(RequestRejected, "write the range's start as 2026-11-01T00:00Z")),
    ("InvalidEndTime", _as(RequestRejected, "write the range's end as 2026-11-02T00:00Z")),
    (
        "InvalidEngineVersion",
        _as(RequestRejected, "DescribeBackups does not serve this engine version"),
    ),
    ("InvalidPageSize", _as(RequestRejected, "page sizes are 30, 50, 100, 200 and 300")),
    (
        "InvalidInstanceId",
        _as(UnknownInstance, "check the instance id, --region and the account of the access key"),
    ),
    (
        "InvalidBackupRetentionPeriod",
        _as(RequestRejected, "a manual backup is kept for 7 to 730 days, or for ever"),
    ),
    ("BackupJobExists", _as(BackupUnderWay, "wait for the backup that is being made")),
    (
        "BackupTimesExceeded",
        _as(BackupRefused, "the vendor makes 30 manual backups a day of an instance at most"),
    ),
    (
        "IncorrectDBInstanceState",
        _as(BackupRefused, "try again when the instance is running and nothing is changing it"),
    ),
    (
        "InvalidInstanceType.NotSupported",
        _as(BackupRefused, "an instance without a replica cannot be backed up"),
    ),
    (
        "InvalidClusterInstance",
        _as(UnknownInstance, "it is no cloud-native cluster of this region"),
    ),
    ("MissingParameter", _as(RequestRejected, "the API requires a parameter that was not sent")),
    (
        "InvalidTimeStamp",
        _as(ClockSkew, "set the clock of this machine: it may be wrong by at most 15 minutes"),
    ),
    # Every request has a new nonce, so a retry helps.
    ("SignatureNonceUsed", _unavailable),
    (
        "SignatureDoesNotMatch",
        _as(BadCredentials, "the access key secret does not belong to this access key id"),
    ),
    ("IncompleteSignature", _as(BadCredentials, "check the access key id and secret")),
    (
        "InvalidAccessKeyId",
        _as(BadCredentials, "check the access key id, and that the key is not disabled"),
    ),
    ("InvalidSecurityToken", _as(BadCredentials, "the STS token is wrong or has expired")),
    ("Forbidden", _denied),
    ("NoPermission", _denied),
    ("Throttling", _throttled),
    ("ServiceUnavailable", _unavailable),
    ("InternalError", _unavailable),
    (
        "InvalidAction",
        _as(SourceError, "the endpoint does not know this action: check --endpoint"),
    ),
)
