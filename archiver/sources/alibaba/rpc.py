"""Calls of the vendor's RPC-style API over an aiohttp session.

A call is ``POST /`` with every parameter in the query and an empty body, signed with
ACS3-HMAC-SHA256 (see :mod:`archiver.sources.alibaba.signing`).
"""

import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
from yarl import URL

from archiver.errors import (
    ArchiverError,
    BadCredentials,
    SourceError,
    SourceUnavailable,
    Throttled,
    UsageError,
)
from archiver.proxies import Proxies, denial, via
from archiver.retry import RETRIES, retry_after_seconds
from archiver.secret import Secret
from archiver.sources.alibaba.api_errors import ApiFault, translate
from archiver.sources.alibaba.signing import EMPTY_SHA256, acs3_authorization, canonical_query, pct
from archiver.sources.session import Response, no_response_error, send
from archiver.times import format_iso

# A page of 300 backups with signed URLs is about 0.5 MB; a larger response is not the API's.
MAX_RESPONSE_BYTES = 32 * 2**20
_TIMEOUT = aiohttp.ClientTimeout(total=RETRIES.api_call.timeout, connect=RETRIES.connect.timeout)

_KVSTORE: Final = "kvstore"
_REGION = re.compile(r"[a-z]{2,3}(-[a-z0-9]+){1,5}")
_HOST = re.compile(rf"r-kvstore(-vpc)?\.(?P<region>{_REGION.pattern})\.aliyuncs\.com")
# The vendor's SDK (7.0.0) sends these public regions to the central host. Older documentation
# names more; where both hosts respond, either will do, and --endpoint is there for the rest.
CENTRAL_HOST = "r-kvstore.aliyuncs.com"
_CENTRAL_REGIONS = frozenset({"cn-hangzhou", "cn-hangzhou-finance"})


def endpoint_of(region: str) -> str:
    """The host of the R-kvstore API in a region. Raises UsageError for an invalid region id."""
    if not _REGION.fullmatch(region):
        raise UsageError(
            f"{region!r} is not a region id", hint="they look like cn-hangzhou or ap-southeast-1"
        )
    if region in _CENTRAL_REGIONS:
        return CENTRAL_HOST
    return f"r-kvstore.{region}.aliyuncs.com"


def is_api_host(host: str) -> bool:
    """Whether this is a host of the R-kvstore API, by its name."""
    return host == CENTRAL_HOST or _HOST.fullmatch(host) is not None


def region_of(host: str) -> str:
    """The region of a host of the R-kvstore API; "" where its name does not say."""
    named = _HOST.fullmatch(host)
    return "" if named is None else named["region"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, with token and expiry if it is temporary. ``origin`` names, in errors, where
    it comes from."""

    access_key_id: Secret
    access_key_secret: Secret
    security_token: Secret | None = None
    expires_at: datetime | None = None
    origin: str = "given"


class RpcClient:
    """Calls actions of one API version at one endpoint.

    ``endpoint`` is a host with an optional port, or a URL (https by default); raises UsageError
    when it is neither. ``service`` is the API's name in RAM actions, for hints. Without
    ``proxies`` those of the environment are used.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        version: str,
        clock: Callable[[], float] = time.time,
        *,
        service: str = _KVSTORE,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
        proxies: Proxies | None = None,
    ) -> None:
        self._session: Final = session
        self._url: Final = _origin(endpoint)
        self._version: Final = version
        self._clock: Final = clock
        self._service: Final = service
        self._timeout: Final = timeout
        host = self._url.raw_host or ""
        proxies = proxies or Proxies.from_environment(os.environ)
        self._proxy: Final = proxies.between(self._url.scheme, host, self._url.port)
        # How far this clock was ahead of the endpoint's at its last response; NaN if unknown.
        self.seconds_ahead = math.nan

    @property
    def origin(self) -> URL:
        """Scheme, host and port of the endpoint."""
        return self._url

    @property
    def host(self) -> str:
        """The host of the endpoint, without its port."""
        return self._url.raw_host or ""

    async def call(
        self,
        action: str,
        params: Mapping[str, str | Secret],
        credentials: Credentials | None,
        *,
        subject: str,
        resource: str,
    ) -> dict[str, Any]:
        """Send one request, once, and return the decoded response.

        Without ``credentials`` it is not signed (AssumeRoleWithOIDC). ``subject`` names, in
        errors, what the request is about, ``resource`` names it in RAM policies. Raises the errors
        of :mod:`.api_errors`, SourceUnavailable when there is no response, SourceError when the
        response is not the API's, BadCredentials for a key with characters that no header may have.
        """
        plain = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in params.items()
        }
        headers = self._headers(action, plain, credentials)
        url = URL(f"{self._url}/?{canonical_query(plain)}", encoded=True)
        response = await self._send(action, url, headers)
        if isinstance(response, ArchiverError):
            response.message = f"{subject}: {response.message}"
            raise response
        self.seconds_ahead = self._clock() - _time_of(response.headers)
        decoded = _decode(response.body)
        if response.status == 200 and decoded is not None:
            return decoded
        error = self._error(
            action, subject, resource, response, decoded, _secrets_of(params, credentials)
        )
        if isinstance(error, BadCredentials) and credentials is not None:
            error.hint = _quotes_hint(credentials) or error.hint
        raise error

    async def _send(
        self, action: str, url: URL, headers: Mapping[str, str]
    ) -> Response | ArchiverError:
        """The response, or the error if there is none.

        The error is returned, not raised: raised here it would keep aiohttp's exception, which
        holds the request with its headers, as its context.
        """
        try:
            return await send(
                self._session,
                "POST",
                url,
                headers,
                self._proxy,
                timeout=self._timeout,
                read=_read_bounded,
                action=action,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            chosen_by = "--region and --endpoint" if self._service == _KVSTORE else ""
            return no_response_error(error, self._url, self._proxy, chosen_by)

    def _headers(
        self, action: str, params: Mapping[str, str], credentials: Credentials | None
    ) -> dict[str, str]:
        headers = {
            "accept": "application/json",
            "host": self._url.authority,
            "x-acs-action": action,
            "x-acs-version": self._version,
            "x-acs-date": format_iso(datetime.fromtimestamp(self._clock(), UTC)),
            "x-acs-signature-nonce": secrets.token_hex(16),
            "x-acs-content-sha256": EMPTY_SHA256,
        }
        if credentials is None:
            return headers
        key_id = credentials.access_key_id.reveal()
        if credentials.security_token is not None:
            headers["x-acs-accesskey-id"] = key_id
            headers["x-acs-security-token"] = credentials.security_token.reveal()
        if any(not value.isprintable() for value in headers.values()) or not key_id.isprintable():
            raise BadCredentials(
                f"the access key ({credentials.origin}) contains a control character"
            )
        headers["authorization"] = acs3_authorization(
            key_id, credentials.access_key_secret.reveal(), "POST", params, headers
        )
        return headers

    def _error(
        self,
        action: str,
        subject: str,
        resource: str,
        response: Response,
        decoded: dict[str, Any] | None,
        sent: Iterable[Secret],
    ) -> ArchiverError:
        status, retry_after = response.status, retry_after_seconds(response.headers)
        if decoded is not None and isinstance(decoded.get("Code"), str):
            denied = decoded.get("AccessDeniedDetail")
            denied = denied if isinstance(denied, dict) else {}
            return translate(
                ApiFault(
                    status=status,
                    code=decoded["Code"],
                    message=_redacted(sent, str(decoded.get("Message", ""))),
                    request_id=str(decoded.get("RequestId", "")),
                    action=action,
                    subject=subject,
                    resource=resource,
                    retry_after=retry_after,
                    denied_action=str(denied.get("AuthAction") or ""),
                    service=self._service,
                )
            )
        what = (
            f"{subject}: {self._url.authority}{via(self._proxy)} responded to {action} "
            f"with status {status} and no JSON"
        )
        if status == 407:
            return denial(f"{subject}: the proxy {self._proxy}")
        if status == 429:
            return Throttled(what, retry_after=retry_after)
        if status >= 500 or status == 408:
            return SourceUnavailable(what, retry_after=retry_after)
        return SourceError(what, hint="check that the endpoint is the API, and not a proxy's page")


def _origin(endpoint: str) -> URL:
    """Scheme, host and port of an endpoint, without anything else that a URL may hold."""
    try:
        origin = URL(endpoint if "://" in endpoint else f"https://{endpoint}").origin()
    except ValueError:
        origin = URL()
    if origin.scheme not in ("http", "https"):
        # Not quoted: an invalid URL may hold a password.
        raise UsageError("the endpoint is neither a host (with port) nor an http or https URL")
    return origin


def _secrets_of(
    params: Mapping[str, str | Secret], credentials: Credentials | None
) -> tuple[Secret, ...]:
    """The secrets that a request contains or was signed with."""
    held = [value for value in params.values() if isinstance(value, Secret)]
    if credentials is not None:
        token = credentials.security_token
        held += [credentials.access_key_id, credentials.access_key_secret]
        held += [] if token is None else [token]
    return tuple(held)


def _quotes_hint(credentials: Credentials) -> str | None:
    """A hint for a key with quotes around it; None if there are none."""
    named = {
        "access key id": credentials.access_key_id,
        "access key secret": credentials.access_key_secret,
    }
    found = [
        name
        for name, value in named.items()
        if value.reveal().startswith(("'", '"')) or value.reveal().endswith(("'", '"'))
    ]
    if not found:
        return None
    return (
        f"the {' and the '.join(found)} of {credentials.origin} has quotes around it: remove them; "
        "docker --env-file, for one, makes them part of the value"
    )


def _redacted(sent: Iterable[Secret], message: str) -> str:
    """The API's message without secrets: after a wrong signature it quotes the request."""
    for secret in sent:
        for shape in {secret.reveal(), pct(secret.reveal())} - {""}:
            message = message.replace(shape, "***")
    return message


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise SourceError(f"the API's response is larger than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)


def _time_of(headers: Mapping[str, str]) -> float:
    """The ``Date`` of a response in seconds since the epoch; NaN if it has none."""
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return math.nan


def _decode(body: bytes) -> dict[str, Any] | None:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return decoded if isinstance(decoded, dict) else None
