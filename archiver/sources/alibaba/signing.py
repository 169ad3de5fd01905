"""ACS3-HMAC-SHA256, the vendor's request signature. Pure.

Used by the client, which signs, and by the emulator, which verifies. Tests compare it with the
official SDK in both directions.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import quote

ACS3 = "ACS3-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def pct(text: str) -> str:
    """Percent-encode all but ``A-Za-z0-9-_.~`` (RFC 3986 unreserved)."""
    return quote(text, safe="-_.~")


def canonical_query(params: Mapping[str, str]) -> str:
    """The query string of decoded parameters: percent-encoded and sorted by name."""
    return "&".join(f"{pct(name)}={pct(params[name])}" for name in sorted(params))


def acs3_signature(
    secret: str,
    method: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    signed_names: Iterable[str],
    body_sha256: str = EMPTY_SHA256,
) -> str:
    """The signature, in hex, of a request to path ``/``.

    The names in ``headers`` and ``signed_names`` are in lower case; a verifier passes the client's
    SignedHeaders as ``signed_names``.
    """
    names = sorted(signed_names)
    canonical_headers = "".join(f"{name}:{headers[name].strip()}\n" for name in names)
    request = "\n".join(
        (method, "/", canonical_query(params), canonical_headers, ";".join(names), body_sha256)
    )
    to_sign = f"{ACS3}\n{hashlib.sha256(request.encode()).hexdigest()}"
    return hmac.new(secret.encode(), to_sign.encode(), hashlib.sha256).hexdigest()


def acs3_authorization(
    access_key_id: str,
    secret: str,
    method: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
) -> str:
    """The Authorization header of a request; it signs ``host`` and every ``x-acs-*`` header."""
    names = sorted(name for name in headers if name == "host" or name.startswith("x-acs-"))
    signature = acs3_signature(secret, method, params, headers, names)
    return (
        f"{ACS3} Credential={access_key_id},SignedHeaders={';'.join(names)},Signature={signature}"
    )
