"""The two signatures that only a server of this kind needs: the legacy RPC's, and OSS V1 URLs'."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote

from archiver.sources.alibaba.signing import canonical_query, pct


def legacy_signature(secret: str, method: str, params: Mapping[str, str]) -> str:
    """Base64 HMAC-SHA1 of an RPC request of signature version 1.0, sent by older SDKs.

    ``params`` are all that were sent but ``Signature``.
    """
    to_sign = f"{method}&{pct('/')}&{pct(canonical_query(params))}"
    return _hmac_sha1(f"{secret}&", to_sign)


def oss_v1_signature(secret: str, verb: str, expires: int, resource: str) -> str:
    """The signature in an OSS V1 URL; ``resource`` is ``/bucket/key``, decoded.

    Content-MD5, Content-Type and ``x-oss-*`` headers are part of what is signed, and empty here:
    a request that carries one does not match (OSS, *Add signatures to URLs*).
    """
    return _hmac_sha1(secret, f"{verb}\n\n\n{expires}\n{resource}")


def oss_v1_url(access_key_id: str, secret: str, resource: str, expires: int) -> str:
    """Path and query of a URL that may be read with GET until ``expires`` (epoch seconds)."""
    signature = oss_v1_signature(secret, "GET", expires, resource)
    return (
        f"{quote(resource)}?Expires={expires}&OSSAccessKeyId={pct(access_key_id)}"
        f"&Signature={pct(signature)}"
    )


def _hmac_sha1(secret: str, to_sign: str) -> str:
    return base64.b64encode(
        hmac.new(secret.encode(), to_sign.encode(), hashlib.sha1).digest()
    ).decode()
