"""One RPC-style call to the vendor's API over a kept session. Sole place that speaks this wire.

Wire form: ``POST /`` with every parameter in the query and an empty body, signed with
ACS3-HMAC-SHA256 (see :mod:`archiver.sources.alibaba.signing`).
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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
from archiver.retry import wait_asked
from archiver.secret import Secret
from archiver.sources.alibaba.api_errors import ApiFault, translate
from archiver.sources.alibaba.signing import EMPTY_SHA256, acs3_authorization, canonical_query, pct
from archiver.sources.session import no_answer, through

# A page of 300 backups with signed URLs is about 0.5 MB; an answer beyond this is none of ours.
MOST_ANSWER_BYTES = 32 * 2**20
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, and for STS its token and expiry. ``origin`` names the step that gave it."""

    access_key_id: Secret
    access_key_secret: Secret
    security_token: Secret | None = None
    expires_at: datetime | None = None
    origin: str = "given"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class RpcClient:
    """Calls actions of one API version at one endpoint.

    ``endpoint`` is a host, with port if needed, or a URL with its scheme (https by default);
    UsageError when it is neither. ``service`` is the API's name in RAM actions, for hints;
    ``proxies`` None are those of the environment.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        version: str,
        clock: Callable[[], float] = time.time,
        *,
        service: str = "kvstore",
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
        proxies = proxies or Proxies.of(os.environ)
        self._proxy: Final = proxies.between(self._url.scheme, host, self._url.port)

    @property
    def host(self) -> str:
        """The endpoint's own, without its port."""
        return self._url.raw_host or ""

    async def call(
        self,
        action: str,
        params: Mapping[str, str | Secret],
        credentials: Credentials | None,
        *,
        resource: str,
    ) -> dict[str, Any]:
        """The decoded answer to one request; one try.

        ``credentials`` None sends it unsigned (AssumeRoleWithOIDC). ``resource`` names, in
        errors, what the request is about. Raises the typed errors of
        :mod:`.api_errors`, SourceUnavailable when no answer came, SourceError
        when what came is not the API's, BadCredentials for a key that no header can carry.
        """
        plain = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in params.items()
        }
        headers = self._headers(action, plain, credentials)
        answer = await self._exchange(
            URL(f"{self._url}/?{canonical_query(plain)}", encoded=True), headers
        )
        if isinstance(answer, ArchiverError):
            answer.message = f"{action} for {resource}: {answer.message}"
            raise answer
        decoded = _decode(answer.body)
        if answer.status == 200 and decoded is not None:
            return decoded
        error = self._error(action, resource, answer, decoded, _sent(params, credentials))
        if isinstance(error, BadCredentials) and credentials is not None:
            error.hint = _quoted(credentials) or error.hint
        raise error

    async def _exchange(self, url: URL, headers: Mapping[str, str]) -> _Answer | ArchiverError:
        """The answer, or why there is none.

        Not raised: the library's exceptions hold the request with its headers, and would stay on
        ours as its context.
        """
        try:
            async with self._session.post(
                url,
                allow_redirects=False,
                timeout=self._timeout,
                **through(self._proxy, url, headers),
            ) as answer:
                return _Answer(answer.status, answer.headers, await _bounded(answer))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return no_answer(error, self._url, self._proxy)

    def _headers(
        self, action: str, params: Mapping[str, str], credentials: Credentials | None
    ) -> dict[str, str]:
        headers = {
            "accept": "application/json",
            "host": self._url.authority,
            "x-acs-action": action,
            "x-acs-version": self._version,
            "x-acs-date": f"{datetime.fromtimestamp(self._clock(), UTC):%Y-%m-%dT%H:%M:%SZ}",
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
            raise BadCredentials(f"the access key ({credentials.origin}) holds a control character")
        headers["authorization"] = acs3_authorization(
            key_id, credentials.access_key_secret.reveal(), "POST", params, headers
        )
        return headers

    def _error(
        self,
        action: str,
        resource: str,
        answer: _Answer,
        decoded: dict[str, Any] | None,
        sent: Iterable[Secret],
    ) -> ArchiverError:
        status, retry_after = answer.status, wait_asked(answer.headers)
        if decoded is not None and isinstance(decoded.get("Code"), str):
            denied = decoded.get("AccessDeniedDetail")
            denied = denied if isinstance(denied, dict) else {}
            return translate(
                ApiFault(
                    status=status,
                    code=decoded["Code"],
                    message=_without(sent, str(decoded.get("Message", ""))),
                    request_id=str(decoded.get("RequestId", "")),
                    action=action,
                    resource=resource,
                    retry_after=retry_after,
                    denied_action=str(denied.get("AuthAction") or ""),
                    service=self._service,
                )
            )
        what = (
            f"{action} for {resource}: {self._url.authority}{via(self._proxy)} "
            f"answered {status} without JSON"
        )
        if status == 407:
            return denial(f"{action} for {resource}: the proxy {self._proxy}")
        if status == 429:
            return Throttled(what, retry_after=retry_after)
        if status >= 500 or status == 408:
            return SourceUnavailable(what, retry_after=retry_after)
        return SourceError(what, hint="is the endpoint the API, or a proxy's page?")


def _origin(endpoint: str) -> URL:
    """Scheme, host and port; what else a URL may hold (a password, too) stays behind."""
    try:
        origin = URL(endpoint if "://" in endpoint else f"https://{endpoint}").origin()
    except ValueError:
        origin = URL()
    if origin.scheme not in ("http", "https"):
        # Not quoted: what cannot be read may hold a password.
        raise UsageError("the endpoint is neither a host (with port) nor an http or https URL")
    return origin


def _sent(
    params: Mapping[str, str | Secret], credentials: Credentials | None
) -> tuple[Secret, ...]:
    """The secrets that a request carried or was made with."""
    held = [value for value in params.values() if isinstance(value, Secret)]
    if credentials is not None:
        token = credentials.security_token
        held += [credentials.access_key_id, credentials.access_key_secret]
        held += [] if token is None else [token]
    return tuple(held)


def _quoted(credentials: Credentials) -> str | None:
    """What to do about quotes that are part of a key, and were not meant to be."""
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
        f"the {' and the '.join(found)} of {credentials.origin} has quotes around it: leave them "
        "out, since docker --env-file, for one, takes them for part of the value"
    )


def _without(sent: Iterable[Secret], message: str) -> str:
    """The API's message without our secrets: for a wrong signature it quotes the request."""
    for secret in sent:
        for shape in {secret.reveal(), pct(secret.reveal())} - {""}:
            message = message.replace(shape, "***")
    return message


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MOST_ANSWER_BYTES:
            raise SourceError(f"the API's answer is larger than {MOST_ANSWER_BYTES} bytes")
    return bytes(body)


def _decode(body: bytes) -> dict[str, Any] | None:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return decoded if isinstance(decoded, dict) else None
