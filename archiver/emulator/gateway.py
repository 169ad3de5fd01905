"""The RPC gateway: decodes a request and authenticates it.

It checks both signatures that the vendor's SDKs send: ACS3-HMAC-SHA256 in a header, and the legacy
HMAC-SHA1 (signature version 1.0) in the parameters. Error codes and statuses are the gateway's.
"""

import base64
import dataclasses
import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

from archiver.emulator.ram import Policy
from archiver.secret import Secret
from archiver.sources.alibaba.signing import ACS3, acs3_signature, canonical_query, pct

_FORM = "application/x-www-form-urlencoded"
_MAX_SKEW_SECONDS = 15 * 60
_MAX_NONCES = 100_000
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_LEGACY_REQUIRED = ("AccessKeyId", "Timestamp", "SignatureNonce", "SignatureMethod")
_NO_MATCH = "Specified signature is not matched with our calculation."
_LEGACY_VALUES = {"SignatureMethod": "HMAC-SHA1", "SignatureVersion": "1.0"}


class ApiError(Exception):
    """An error response with its HTTP status and code, further fields of its body, and the seconds
    after which it tells the client to come back."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields or {}
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Key:
    """An access key that the emulator accepts, and what it may do: anything without a policy."""

    access_key_id: str
    secret: Secret
    security_token: Secret | None = None
    policy: Policy | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A decoded RPC request. Header names are lower-case; ``form`` has the body's parameters.
    ``policy`` is that of the access key, once it is authenticated."""

    method: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]
    body_sha256: str
    policy: Policy | None = None

    @property
    def params(self) -> Mapping[str, str]:
        return {**self.query, **self.form}

    @property
    def action(self) -> str | None:
        return self.headers.get("x-acs-action") or self.params.get("Action")

    @property
    def version(self) -> str | None:
        return self.headers.get("x-acs-version") or self.params.get("Version")


def decode_query(text: str) -> dict[str, str]:
    """The parameters in a query. SDKs encode a space as ``+`` or ``%20``."""
    return dict(parse_qsl(text, keep_blank_values=True))


def read_time(text: str, pattern: re.Pattern[str], layout: str) -> datetime | None:
    """A UTC time in exactly this form, else None. strptime alone accepts ``2026-1-2T3:4Z``."""
    if not pattern.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, layout).replace(tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None


def headers_of(request: web.BaseRequest) -> dict[str, str]:
    """The headers, with names in lower case. Bytes that are not UTF-8 become ``�``, and match
    nothing."""
    return {
        name.lower(): value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for name, value in request.headers.items()
    }


async def decode_request(request: web.Request) -> Request:
    """The RPC request in an HTTP request. Older SDKs send their parameters as a form."""
    body = await request.read()
    form = decode_query(body.decode("utf-8", "replace")) if request.content_type == _FORM else {}
    return Request(
        method=request.method,
        query=decode_query(request.rel_url.raw_query_string),
        form=form,
        headers=headers_of(request),
        body_sha256=hashlib.sha256(body).hexdigest(),
    )


def missing(name: str) -> ApiError:
    return ApiError(400, f"MissingParameter.{name}", f"{name} is mandatory for this action.")


class Authenticator:
    """Accepts or refuses requests. It remembers nonces, so that none is used twice."""

    def __init__(self, keys: Iterable[Key], clock: Callable[[], float]) -> None:
        self._keys: Final = {key.access_key_id: key for key in keys}
        self._clock: Final = clock
        self._nonces: Final[OrderedDict[str, None]] = OrderedDict()

    def check(self, request: Request) -> Request:
        """The request with the policy of its key. Raises ApiError as the gateway would."""
        if request.method not in ("GET", "POST"):
            raise ApiError(405, "UnsupportedHTTPMethod", "This http method is not supported.")
        if "authorization" in request.headers:
            key = self._check_acs3(request)
        elif "Signature" in request.params:
            key = self._check_legacy(request)
        else:
            raise missing("AccessKeyId")
        return dataclasses.replace(request, policy=key.policy)

    def _check_acs3(self, request: Request) -> Key:
        headers = request.headers
        scheme, _, rest = headers["authorization"].partition(" ")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        if scheme != ACS3 or not {"Credential", "SignedHeaders", "Signature"} <= parts.keys():
            raise ApiError(400, "IncompleteSignature", "The Authorization header is malformed.")
        key = self._key(parts["Credential"], headers.get("x-acs-security-token"))
        self._check_time(headers.get("x-acs-date"))
        names = parts["SignedHeaders"].split(";")
        _check_signed_names(names, headers)
        sent_sha256 = headers.get("x-acs-content-sha256", request.body_sha256)
        if sent_sha256 != request.body_sha256:
            raise ApiError(400, "SignatureDoesNotMatch", "The body is not the one that was signed.")
        signature = acs3_signature(
            key.secret.reveal(), request.method, request.query, headers, names, sent_sha256
        )
        if not _same(signature, parts["Signature"]):
            raise ApiError(400, "SignatureDoesNotMatch", _NO_MATCH)
        self._check_nonce(headers.get("x-acs-signature-nonce"))
        return key

    def _check_legacy(self, request: Request) -> Key:
        params = request.params
        for name in _LEGACY_REQUIRED:
            if not params.get(name):
                raise missing(name)
        for name, only in _LEGACY_VALUES.items():
            if params.get(name, only) != only:
                raise ApiError(400, f"InvalidParameter.{name}", f"{name} must be {only}.")
        key = self._key(params["AccessKeyId"], params.get("SecurityToken"))
        self._check_time(params["Timestamp"])
        unsigned = {name: value for name, value in params.items() if name != "Signature"}
        signature = legacy_signature(key.secret.reveal(), request.method, unsigned)
        if not _same(signature, params["Signature"]):
            # Older SDKs compare what follows the colon with what they signed.
            to_sign = _legacy_to_sign(request.method, unsigned)
            message = f"{_NO_MATCH} server string to sign is:{to_sign}"
            raise ApiError(400, "SignatureDoesNotMatch", message)
        self._check_nonce(params["SignatureNonce"])
        return key

    def _key(self, access_key_id: str, token: str | None) -> Key:
        key = self._keys.get(access_key_id)
        if key is None:
            raise ApiError(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        wanted = key.security_token
        if wanted is not None and not _same(wanted.reveal(), token or ""):
            raise ApiError(400, "InvalidSecurityToken.Malformed", "The SecurityToken is wrong.")
        return key

    def _check_time(self, text: str | None) -> None:
        sent = read_time(text or "", _TIMESTAMP, "%Y-%m-%dT%H:%M:%SZ")
        if sent is None:
            raise ApiError(400, "InvalidTimeStamp.Format", "The timestamp is malformed.")
        if abs(sent.timestamp() - self._clock()) > _MAX_SKEW_SECONDS:
            raise ApiError(
                400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired."
            )

    def _check_nonce(self, nonce: str | None) -> None:
        """Checked last, so that nobody without the secret can use up a nonce."""
        if not nonce:
            raise missing("SignatureNonce")
        if nonce in self._nonces:
            raise ApiError(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces[nonce] = None
        if len(self._nonces) > _MAX_NONCES:
            self._nonces.popitem(last=False)


def _check_signed_names(names: list[str], headers: Mapping[str, str]) -> None:
    if any(name not in headers for name in names):
        raise ApiError(400, "IncompleteSignature", "A signed header was not sent.")
    # The signature must cover the action and the token.
    must = {name for name in headers if name.startswith("x-acs-")} | {"host"}
    if not must <= set(names):
        raise ApiError(400, "IncompleteSignature", "Sign host and every x-acs- header.")


def legacy_signature(secret: str, method: str, params: Mapping[str, str]) -> str:
    """The signature of an RPC request of signature version 1.0, as older SDKs send it: base64 of an
    HMAC-SHA1. ``params`` are all parameters but ``Signature``."""
    to_sign = _legacy_to_sign(method, params)
    digest = hmac.new(f"{secret}&".encode(), to_sign.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def _legacy_to_sign(method: str, params: Mapping[str, str]) -> str:
    return f"{method}&{pct('/')}&{pct(canonical_query(params))}"


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
