"""Translates what botocore raises into the errors of this package; nothing else does."""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from archiver.errors import (
    ArchiverError,
    InstanceForbidden,
    NoSpace,
    StoreError,
    StoreForbidden,
    UnreadableObject,
    UsageError,
)
from archiver.network import failure_in_words
from archiver.stores.s3.credentials import of_credentials
from archiver.stores.s3.responses import InvalidResponse
from archiver.stores.scope import is_of_instance

_FORBIDDEN = frozenset(
    (
        "AccessDenied", "AccessForbidden", "AllAccessDisabled", "AuthorizationHeaderMalformed",
        "ExpiredToken", "ExpiredTokenException", "Forbidden", "InvalidAccessKeyId",
        "InvalidSecurity", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
        "TokenRefreshRequired", "UnrecognizedClientException", "401", "403",
    )
)  # fmt: skip
_QUOTA_CODES = frozenset(
    (
        "EntityQuotaExceeded", "InsufficientStorage", "QuotaExceeded", "ServiceQuotaExceeded",
        "StorageLimitExceeded", "StorageQuotaExceeded", "XAmzBucketQuotaExceeded",
        "XMinioStorageFull", "507",
    )
)  # fmt: skip
# A server that cannot serve the request now.
_TRANSIENT_STATUS = frozenset((429, 500, 502, 503, 504))
_LOCAL_FAULTS = (ValueError, FileNotFoundError, IsADirectoryError, PermissionError, ssl.SSLError)
_TRANSIENT_CODES = frozenset(
    (
        # Another request about the same object is in progress: its condition was not tried.
        "ConditionalRequestConflict", "OperationAborted",
        "InternalError", "PriorRequestNotComplete", "RequestTimeout", "RequestTimeoutException",
        "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
    )
)  # fmt: skip
# Faults of one object: it is in an archive class, or its encryption key is disabled or deleted.
_IN_ARCHIVE_CLASS = "InvalidObjectState"
_KEY_UNUSABLE = frozenset(
    ("KMS.DisabledException", "KMS.KMSInvalidStateException", "KMS.NotFoundException")
)
_ABSENT = frozenset(("NoSuchKey", "NotFound", "404", "NoSuchUpload"))
_DAMAGED = frozenset(
    ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch")
)
_HINTS = {
    "AccessDenied": "docs/buckets.md lists the permissions that a key needs",
    "ExpiredToken": "get new temporary credentials",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID or the profile",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY, and --s3-endpoint",
}
# URLs without characters that need encoding.
_PLAIN_URL = re.compile(r"s3://[A-Za-z0-9/._~-]+")
_NOT_A_STORE = (
    "the response was ignored; check that the endpoint is an S3 store and that no proxy replied"
)


class BucketMissing(UsageError):
    """There is no such bucket."""

    ends_run = True


class NotFound(Exception):
    """There is no such object or upload."""


class ConditionFailed(Exception):
    """The condition of a request was not met (412)."""


class NoSuchUpload(Exception):
    """The multipart upload does not exist any more."""


class DamagedInTransit(Exception):
    """The store says that the body does not match its checksum."""


def code_of(error: ClientError) -> str:
    """The error code in the response, or its HTTP status when it has none."""
    found = error.response.get("Error", {}).get("Code")
    return str(found or status_of(error))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def transient_failure(
    response: tuple[Any, Mapping[str, Any]] | None, error: Exception | None
) -> str | None:
    """Why a request failed that may succeed when it is sent again; None for all others.

    botocore's hooks pass either a response, raw and parsed, or the exception raised instead.
    """
    if error is not None:
        return None if _is_permanent(error) else _in_words(error)
    if response is None:
        return None
    raw, parsed = response
    code = str(parsed.get("Error", {}).get("Code") or "")
    if code in _QUOTA_CODES or not (
        raw.status_code in _TRANSIENT_STATUS or code in _TRANSIENT_CODES
    ):
        return None
    return f"{raw.status_code} {code}".strip()


def _is_permanent(error: Exception) -> bool:
    """Whether the same exception must be expected again."""
    if isinstance(error, exceptions.SSLError):
        # All but a connection that was closed during the handshake.
        return "EOF" not in str(error)
    if isinstance(error, exceptions.HTTPClientError):
        # Such as an endpoint that is not a URL, or a missing file of certificates.
        return isinstance(error.kwargs.get("error"), _LOCAL_FAULTS)
    return not isinstance(error, exceptions.ConnectionError)


@contextmanager
def bucket_errors(url: str, key: str = "") -> Iterator[None]:
    """Translate what botocore raises about ``url`` (``s3://bucket/key``), and the ``key`` in the
    archive, if it is about one. Raises ArchiverError."""
    try:
        yield
    except ClientError as error:
        raise of_credentials(url, error) or _error_response(url, key, error) from None
    except exceptions.SSLError:
        raise StoreError(
            f"{url}: the server's certificate cannot be verified",
            hint="set AWS_CA_BUNDLE or SSL_CERT_FILE to trust other certificate authorities",
        ) from None
    except (
        exceptions.InvalidEndpointConfigurationError,
        exceptions.ParamValidationError,
    ) as error:
        raise UsageError(f"{url}: {' '.join(str(error).split())}") from None
    except (BotoCoreError, OSError) as error:
        raise of_credentials(url, error) or _no_response(url, error) from None
    except InvalidResponse as error:
        raise StoreError(f"{url}: {error}", hint=_NOT_A_STORE) from None
    except (ResponseParserError, ValueError) as error:
        text = " ".join(str(error).split())
        raise StoreError(f"{url}: invalid response: {text:.200}", hint=_NOT_A_STORE) from None


@contextmanager
def endpoint_errors(url: str) -> Iterator[None]:
    """Translate what botocore raises when a client is created. Raises UsageError."""
    try:
        yield
    except ValueError as error:
        # What botocore raises for an endpoint that is not a URL.
        raise UsageError(f"{url}: {error}") from None


def _no_response(url: str, error: Exception) -> StoreError:
    endpoint = getattr(error, "kwargs", {}).get("endpoint_url")
    host = urlsplit(endpoint).netloc.rpartition("@")[2] if isinstance(endpoint, str) else ""
    text = f"no response from {host}: {_in_words(error)}" if host else _in_words(error)
    return StoreError(f"{url}: {text}", hint="check the endpoint and whether it is reachable")


def _in_words(error: Exception) -> str:
    """Why a request got no response."""
    match error:
        case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
            return "it did not answer in time"
        case exceptions.ProxyConnectionError():
            return "the proxy cannot be connected to"
        case exceptions.EndpointConnectionError():
            return "it cannot be connected to"
        case exceptions.HTTPClientError() if isinstance(error.kwargs.get("error"), OSError):
            return failure_in_words(error.kwargs["error"])
    return failure_in_words(error)


def _error_response(url: str, key: str, error: ClientError) -> ArchiverError:
    code, status = code_of(error), status_of(error)
    result = f"{status} {code}" if code != str(status) else f"{status}"
    message = f"{url}: {error.operation_name}: {result}"
    if code == "NoSuchBucket":
        return BucketMissing(message, hint="create the bucket first; archiver does not")
    if code == _IN_ARCHIVE_CLASS:
        return UnreadableObject(
            f"{message}: it is in an archive class; restore it first (aws s3api restore-object)",
            hint="then run the command again",
        )
    if code in _KEY_UNUSABLE:
        return UnreadableObject(message, hint="check the KMS key that it is encrypted with")
    if code in _QUOTA_CODES or status == 507:
        return NoSpace(
            message, hint="free some space and run the command again; uploaded parts are kept"
        )
    if code in _FORBIDDEN or status in (401, 403):
        hint = _HINTS.get(code, _HINTS["AccessDenied"])
        if code == "SignatureDoesNotMatch" and not _PLAIN_URL.fullmatch(url):
            hint += (
                ", and use a prefix of plain letters: some stores sign other characters differently"
            )
        is_of_instance_alone = code == "AccessDenied" and is_of_instance(key)
        return (InstanceForbidden if is_of_instance_alone else StoreForbidden)(message, hint=hint)
    return StoreError(message)


@contextmanager
def not_found() -> Iterator[None]:
    """Raise NotFound for an object or an upload that does not exist."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code in _ABSENT or (status_of(error) == 404 and code != "NoSuchBucket"):
            raise NotFound from None
        raise


@contextmanager
def conditional_errors() -> Iterator[None]:
    """Raise ConditionFailed, NoSuchUpload and DamagedInTransit, which callers handle."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if status_of(error) == 412 or code == "PreconditionFailed":
            raise ConditionFailed(code) from None
        if code == "NoSuchUpload":
            raise NoSuchUpload from None
        if code in _DAMAGED:
            raise DamagedInTransit(code) from None
        raise
