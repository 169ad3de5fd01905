"""DescribeBackups (R-kvstore, 2015-01-01) as the gateway and the service answer it."""

import hmac
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from archiver.emulator.catalogue import Catalogue, EmulatedBackup, bucket_of
from archiver.emulator.signatures import legacy_signature, oss_v1_signature
from archiver.sources.signing import ACS3, acs3_signature

PAGE_SIZES = (30, 50, 100, 200, 300, 1000)
VERSION = "2015-01-01"
_MOST_SKEW_SECONDS = 15 * 60
_MOST_NONCES = 100_000
_URL_FIELDS = ("BackupDownloadURL", "BackupIntranetDownloadURL")


@dataclass(frozen=True, slots=True)
class Request:
    """An RPC request, decoded. ``params`` are query and form together, header names lower-case."""

    method: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body_sha256: str


class ApiError(Exception):
    """An error answer with its HTTP status and code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Key:
    """The access key that the emulator accepts."""

    access_key_id: str
    secret: str
    security_token: str | None = None


@dataclass(frozen=True, slots=True)
class Hosts:
    """``host:port`` of the download URLs."""

    public: str
    intranet: str


def decode_query(text: str) -> dict[str, str]:
    """Parameters as sent; a space may be ``+`` or ``%20``, as SDKs differ."""
    return dict(parse_qsl(text, keep_blank_values=True))


class Authenticator:
    """Checks both signature schemes; remembers nonces so that none is used twice."""

    def __init__(self, key: Key, clock: Callable[[], float]) -> None:
        self._key: Final = key
        self._clock: Final = clock
        self._nonces: Final[OrderedDict[str, None]] = OrderedDict()

    def check(self, request: Request) -> None:
        """Raises ApiError as the gateway would."""
        if "authorization" in request.headers:
            self._check_acs3(request)
        elif "Signature" in request.params:
            self._check_legacy(request)
        else:
            raise ApiError(400, "MissingParameter", "AccessKeyId is mandatory for this action.")

    def _check_acs3(self, request: Request) -> None:
        scheme, _, rest = request.headers["authorization"].partition(" ")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        if scheme != ACS3 or not {"Credential", "SignedHeaders", "Signature"} <= parts.keys():
            raise ApiError(400, "IncompleteSignature", "The Authorization header is malformed.")
        token = request.headers.get("x-acs-security-token")
        self._check_key(parts["Credential"], token)
        self._check_time(request.headers.get("x-acs-date"))
        names = parts["SignedHeaders"].split(";")
        if any(name not in request.headers for name in names):
            raise ApiError(400, "IncompleteSignature", "A signed header was not sent.")
        sent_sha256 = request.headers.get("x-acs-content-sha256", request.body_sha256)
        signature = acs3_signature(
            self._key.secret,
            request.method,
            request.params,
            request.headers,
            names,
            sent_sha256,
        )
        if sent_sha256 != request.body_sha256:
            raise ApiError(400, "SignatureDoesNotMatch", "The body is not the one that was signed.")
        self._check_signature(signature, parts["Signature"])
        self._check_nonce(request.headers.get("x-acs-signature-nonce"))

    def _check_legacy(self, request: Request) -> None:
        params = request.params
        for name in ("AccessKeyId", "Timestamp", "SignatureNonce", "SignatureMethod"):
            if not params.get(name):
                raise ApiError(400, f"Missing{name}", f"{name} is mandatory for this action.")
        if params["SignatureMethod"] != "HMAC-SHA1":
            raise ApiError(400, "InvalidParameter.SignatureMethod", "HMAC-SHA1 is supported.")
        self._check_key(params["AccessKeyId"], params.get("SecurityToken"))
        self._check_time(params["Timestamp"])
        unsigned = {name: value for name, value in params.items() if name != "Signature"}
        signature = legacy_signature(self._key.secret, request.method, unsigned)
        self._check_signature(signature, params["Signature"])
        self._check_nonce(params["SignatureNonce"])

    def _check_key(self, access_key_id: str, token: str | None) -> None:
        if access_key_id != self._key.access_key_id:
            raise ApiError(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        if self._key.security_token is not None and token != self._key.security_token:
            raise ApiError(400, "InvalidSecurityToken.Malformed", "The SecurityToken is wrong.")

    def _check_time(self, text: str | None) -> None:
        try:
            sent = datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise ApiError(400, "InvalidTimeStamp.Format", "The timestamp is malformed.") from None
        if abs(sent.timestamp() - self._clock()) > _MOST_SKEW_SECONDS:
            raise ApiError(
                400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired."
            )

    def _check_signature(self, computed: str, sent: str) -> None:
        if not hmac.compare_digest(computed.encode(), sent.encode()):
            raise ApiError(
                400,
                "SignatureDoesNotMatch",
                "Specified signature is not matched with our calculation.",
            )

    def _check_nonce(self, nonce: str | None) -> None:
        if not nonce:
            raise ApiError(400, "MissingSignatureNonce", "SignatureNonce is mandatory.")
        if nonce in self._nonces:
            raise ApiError(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces[nonce] = None
        if len(self._nonces) > _MOST_NONCES:
            self._nonces.popitem(last=False)


class Api:
    """Answers actions from a catalogue."""

    def __init__(
        self, catalogue: Catalogue, key: Key, hosts: Hosts, clock: Callable[[], float]
    ) -> None:
        self._catalogue: Final = catalogue
        self._key: Final = key
        self._hosts: Final = hosts
        self._clock: Final = clock

    def answer(self, request: Request, expire_after: int) -> dict[str, Any]:
        """The answer to an authentic request; blocks. Raises ApiError."""
        action = request.headers.get("x-acs-action") or request.params.get("Action")
        version = request.headers.get("x-acs-version") or request.params.get("Version")
        if action is None:
            raise ApiError(400, "MissingAction", "Action is mandatory.")
        if action != "DescribeBackups":
            raise ApiError(404, "InvalidAction.NotFound", "Specified api is not found.")
        if version != VERSION:
            raise ApiError(400, "InvalidVersion", "Specified parameter Version is not valid.")
        return self._describe_backups(request.params, expire_after)

    def _describe_backups(self, params: Mapping[str, str], expire_after: int) -> dict[str, Any]:
        for name in ("InstanceId", "StartTime", "EndTime"):
            if not params.get(name):
                raise ApiError(400, f"Missing{name}", f"{name} is mandatory for this action.")
        start = _minute(params["StartTime"], "StartTime")
        end = _minute(params["EndTime"], "EndTime")
        if end <= start:
            raise ApiError(
                400,
                "InvalidStartTimeAndEndTime.Malformed",
                "The end time must be greater than the start time.",
            )
        size = _number(params.get("PageSize", "30"), "PageSize", PAGE_SIZES)
        number = _number(params.get("PageNumber", "1"), "PageNumber", None)
        if not self._catalogue.has(params["InstanceId"]):
            raise ApiError(
                400, "InvalidInstanceId.NotFound", "Specified instance id does not exist."
            )
        need_aof = params.get("NeedAof", "0") == "1"
        backups = [
            backup
            for backup in self._catalogue.backups(params["InstanceId"])
            if start <= backup.started_at <= end
            and (need_aof or not backup.incremental)
            and _matches(backup, params.get("BackupId"), "BackupId")
            and _matches(backup, params.get("BackupJobId"), "BackupJobID")
        ]
        page = backups[(number - 1) * size : number * size]
        stored = sum(backup.fields["BackupSize"] for backup in backups)
        return {
            "RequestId": str(uuid.uuid4()).upper(),
            "PageNumber": number,
            "PageSize": size,
            "TotalCount": len(backups),
            "FullStorageSize": stored,
            "LogStorageSize": 0,
            "FreeSize": 0,
            "Backups": {
                "Backup": [self._listed(b, params["InstanceId"], expire_after) for b in page]
            },
        }

    def _listed(
        self, backup: EmulatedBackup, instance_id: str, expire_after: int
    ) -> dict[str, Any]:
        fields = dict(backup.fields)
        if fields["BackupStatus"] != "Success":
            return fields
        bucket = bucket_of(instance_id)
        expires = int(self._clock()) + expire_after
        signature = oss_v1_signature(
            self._key.secret, "GET", expires, f"/{bucket}/{backup.object_key}"
        )
        query = (
            f"Expires={expires}&OSSAccessKeyId={quote(self._key.access_key_id, safe='')}"
            f"&Signature={quote(signature, safe='')}"
        )
        path = f"{bucket}/{quote(backup.object_key)}?{query}"
        for name, host in zip(_URL_FIELDS, (self._hosts.public, self._hosts.intranet), strict=True):
            fields.setdefault(name, f"http://{host}/{path}")
        return fields


def _minute(text: str, name: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
    except ValueError:
        raise ApiError(
            400, f"Invalid{name}.Malformed", f"The specified parameter {name} is not valid."
        ) from None


def _number(text: str, name: str, allowed: tuple[int, ...] | None) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if number < 1 or (allowed is not None and number not in allowed):
        raise ApiError(
            400, f"Invalid{name}.Malformed", f"The specified parameter {name} is not valid."
        )
    return number


def _matches(backup: EmulatedBackup, wanted: str | None, field: str) -> bool:
    return not wanted or str(backup.fields.get(field)) == wanted
