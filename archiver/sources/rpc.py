"""One RPC-style call to the vendor's API over a kept session. Sole place that speaks this wire.

Wire form: ``POST /`` with every parameter in the query and an empty body, signed with
ACS3-HMAC-SHA256 (see :mod:`archiver.sources.signing`).
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from yarl import URL

from archiver.errors import ArchiverError, SourceError, SourceUnavailable
from archiver.secret import Secret
from archiver.sources.api_errors import ApiFault, translate
from archiver.sources.signing import EMPTY_SHA256, acs3_authorization, canonical_query
from archiver.wait import wait_asked

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


class RpcClient:
    """Calls actions of one API version at one endpoint.

    ``endpoint`` is a host, with port if needed, or a URL with its scheme (https by default).
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        version: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session: Final = session
        self._url: Final = URL(endpoint if "://" in endpoint else f"https://{endpoint}")
        self._version: Final = version
        self._clock: Final = clock

    async def call(
        self,
        action: str,
        params: Mapping[str, str],
        credentials: Credentials | None,
        *,
        resource: str,
    ) -> dict[str, Any]:
        """The decoded answer to one request; one try.

        ``credentials`` None sends it unsigned (AssumeRoleWithOIDC). ``resource`` names, in
        errors, what the request is about. Raises the typed errors of
        :mod:`archiver.sources.api_errors`, SourceUnavailable when no answer came, SourceError
        when what came is not the API's.
        """
        headers = self._headers(action, params, credentials)
        url = URL(f"{self._url.origin()}/?{canonical_query(params)}", encoded=True)
        try:
            async with self._session.post(
                url, headers=headers, allow_redirects=False, timeout=_TIMEOUT
            ) as answer:
                body = await _bounded(answer)
                status, answer_headers = answer.status, answer.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The library's message may quote the URL, and with it the request: name the kind only.
            why = type(error).__name__
            if isinstance(error, aiohttp.ClientConnectorError):
                why = f"{why}: {error.os_error.strerror or error.os_error}"
            raise SourceUnavailable(
                f"{action} for {resource}: no answer from {self._url.authority} ({why})",
                hint="check the network, --region and --endpoint",
            ) from None
        decoded = _decode(body)
        if status == 200 and decoded is not None:
            return decoded
        raise self._error(action, resource, status, decoded, wait_asked(answer_headers))

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
        headers["authorization"] = acs3_authorization(
            key_id, credentials.access_key_secret.reveal(), "POST", params, headers
        )
        return headers

    def _error(
        self,
        action: str,
        resource: str,
        status: int,
        decoded: dict[str, Any] | None,
        retry_after: float | None,
    ) -> ArchiverError:
        if decoded is not None and isinstance(decoded.get("Code"), str):
            denied = decoded.get("AccessDeniedDetail")
            denied = denied if isinstance(denied, dict) else {}
            return translate(
                ApiFault(
                    status=status,
                    code=decoded["Code"],
                    message=str(decoded.get("Message", "")),
                    request_id=str(decoded.get("RequestId", "")),
                    action=action,
                    resource=resource,
                    retry_after=retry_after,
                    denied_action=str(denied.get("AuthAction") or ""),
                )
            )
        what = f"{action} for {resource}: {self._url.authority} answered {status} without JSON"
        if status >= 500 or status == 429:
            return SourceUnavailable(what, retry_after=retry_after)
        return SourceError(what, hint="is --endpoint the API, or a proxy's page?")


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
