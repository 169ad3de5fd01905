"""What botocore raises, said in our words; here, and only here."""

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
    NoSpace,
    StoreError,
    StoreForbidden,
    UnreadableObject,
    UsageError,
)
from archiver.stores.s3.access import of_credentials
from archiver.stores.s3.answers import NoAnswer

_FORBIDDEN = frozenset(
    (
        "AccessDenied", "AccessForbidden", "AllAccessDisabled", "AuthorizationHeaderMalformed",
        "ExpiredToken", "ExpiredTokenException", "Forbidden", "InvalidAccessKeyId",
        "InvalidSecurity", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
        "TokenRefreshRequired", "UnrecognizedClientException", "401", "403",
    )
)  # fmt: skip
_FULL = frozenset(
    (
        "EntityQuotaExceeded", "InsufficientStorage", "QuotaExceeded", "ServiceQuotaExceeded",
        "StorageLimitExceeded", "StorageQuotaExceeded", "XAmzBucketQuotaExceeded",
        "XMinioStorageFull", "507",
    )
)  # fmt: skip
# What is answered by who cannot do it now.
_PASSING_STATUS = frozenset((429, 500, 502, 503, 504))
_OF_OURS = (ValueError, FileNotFoundError, IsADirectoryError, PermissionError, ssl.SSLError)
_PASSING = frozenset(
    (
        "InternalError", "PriorRequestNotComplete", "RequestTimeout", "RequestTimeoutException",
        "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
    )
)  # fmt: skip
# Of one object alone: in an archive class, or encrypted with a key that is disabled or gone.
_COLD = "InvalidObjectState"
_KEPT_BACK = frozenset(
    ("KMS.DisabledException", "KMS.KMSInvalidStateException", "KMS.NotFoundException")
)
_HINTS = {
    "AccessDenied": "README, Buckets, lists the permissions that a key needs",
    "ExpiredToken": "get new temporary credentials",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID or the profile",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY, and --s3-endpoint",
}
# What is encoded in a URL in one way only.
_PLAIN = re.compile(r"s3://[A-Za-z0-9/._~-]+")
_NO_STORE = (
    "nothing of it is believed; is the endpoint an S3 store, with no page of a proxy before it?"
)


class BucketMissing(UsageError):
    """There is no such bucket."""

    ends_run = True


def code_of(error: ClientError) -> str:
    """The code in the answer, or its status where there is none."""
    found = error.response.get("Error", {}).get("Code")
    return str(found or status_of(error))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def outage(response: tuple[Any, Mapping[str, Any]] | None, error: Exception | None) -> str | None:
    """Why a request came to nothing that may come to something the next time; None for all else.
    As botocore's hooks have it: an answer, raw and parsed, or what was raised instead."""
    if error is not None:
        return None if _is_for_ever(error) else type(error).__name__
    if response is None:
        return None
    raw, parsed = response
    code = str(parsed.get("Error", {}).get("Code") or "")
    if code in _FULL or not (raw.status_code in _PASSING_STATUS or code in _PASSING):
        return None
    return f"{raw.status_code} {code}".strip()


def _is_for_ever(error: Exception) -> bool:
    """Whether what kept an answer from coming will do so again."""
    if isinstance(error, exceptions.SSLError):
        # All but a connection that ended in the middle of the greeting.
        return "EOF" not in str(error)
    if isinstance(error, exceptions.HTTPClientError):
        # An endpoint that is no URL, a file of certificates that is not there.
        return isinstance(error.kwargs.get("error"), _OF_OURS)
    return not isinstance(error, exceptions.ConnectionError)


@contextmanager
def bucket_errors(what: str) -> Iterator[None]:
    """Translate what is raised while ``what`` (``s3://bucket/key``) is worked on."""
    try:
        yield
    except ClientError as error:
        raise of_credentials(what, error) or _refused(what, error) from None
    except exceptions.SSLError:
        raise StoreError(
            f"{what}: the server's certificate is not good",
            hint="AWS_CA_BUNDLE, or SSL_CERT_FILE, names other authorities to trust",
        ) from None
    except (
        exceptions.InvalidEndpointConfigurationError,
        exceptions.ParamValidationError,
    ) as error:
        raise UsageError(f"{what}: {error}") from None
    except (BotoCoreError, OSError) as error:
        raise of_credentials(what, error) or _unanswered(what, error) from None
    except NoAnswer as error:
        raise StoreError(f"{what}: {error}", hint=_NO_STORE) from None
    except (ResponseParserError, ValueError) as error:
        said = " ".join(str(error).split())
        raise StoreError(f"{what}: an answer cannot be read: {said:.200}", hint=_NO_STORE) from None


@contextmanager
def endpoint_errors(what: str) -> Iterator[None]:
    """Translate what is raised while a client is made."""
    try:
        yield
    except ValueError as error:
        # What botocore says of an endpoint that is no URL.
        raise UsageError(f"{what}: {error}") from None


def _unanswered(what: str, error: Exception) -> StoreError:
    asked = getattr(error, "kwargs", {}).get("endpoint_url")
    host = urlsplit(asked).netloc.rpartition("@")[2] if isinstance(asked, str) else ""
    said = f"{type(error).__name__} ({host})" if host else type(error).__name__
    return StoreError(f"{what}: {said}", hint="is the endpoint right, and does it answer?")


def _refused(what: str, error: ClientError) -> ArchiverError:
    code, status = code_of(error), status_of(error)
    answer = f"{status} {code}" if code != str(status) else f"{status}"
    said = f"{what}: {error.operation_name}: {answer}"
    if code == "NoSuchBucket":
        return BucketMissing(said, hint="make the bucket first; it is not made here")
    if code == _COLD:
        return UnreadableObject(
            f"{said}: it is in an archive class; bring it back first (aws s3api restore-object)",
            hint="then run this again",
        )
    if code in _KEPT_BACK:
        return UnreadableObject(said, hint="look after the key that it is encrypted with")
    if code in _FULL or status == 507:
        return NoSpace(said, hint="free some space; what is uploaded so far is kept")
    if code in _FORBIDDEN or status in (401, 403):
        hint = _HINTS.get(code, _HINTS["AccessDenied"])
        if code == "SignatureDoesNotMatch" and not _PLAIN.fullmatch(what):
            hint += ", and take a prefix of plain letters: some stores sign others in another way"
        return StoreForbidden(said, hint=hint)
    return StoreError(said)
