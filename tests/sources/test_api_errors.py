"""Every code that the vendor documents, and codes that it does not."""

import pytest

from archiver.errors import (
    ArchiverError,
    BadCredentials,
    ClockSkew,
    PermissionDenied,
    RequestRejected,
    SourceError,
    SourceUnavailable,
    Throttled,
    UnknownInstance,
)
from archiver.sources.alibaba.api_errors import ApiFault, translate

RESOURCE = "acs:kvstore:*:*:instance/r-x"


def fault(status: int, code: str, **more: object) -> ApiFault:
    given = {
        "message": "some\n words",
        "request_id": "R-1",
        "subject": "r-x",
        "resource": RESOURCE,
        **more,
    }
    return ApiFault(status, code, action="DescribeBackups", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (400, "InvalidStartTime.Malformed", RequestRejected, "2026-11-01T00:00Z"),
        (400, "InvalidEndTime.Malformed", RequestRejected, "2026-11-02T00:00Z"),
        (400, "InvalidStartTimeAndEndTime.Malformed", RequestRejected, "later than its start"),
        (400, "InvalidEngineVersion.Malformed", RequestRejected, "engine version"),
        (400, "InvalidPageSize.Malformed", RequestRejected, "30, 50, 100, 200 and 300"),
        (400, "InvalidInstanceId.NotFound", UnknownInstance, "--region"),
        (404, "InvalidInstanceId.NotFound", UnknownInstance, "--region"),
        (400, "MissingParameter", RequestRejected, "parameter"),
        (400, "MissingParameter.StartTime", RequestRejected, "parameter"),
        (400, "InvalidTimeStamp.Expired", ClockSkew, "15 minutes"),
        (400, "SignatureNonceUsed", SourceUnavailable, ""),
        (400, "SignatureDoesNotMatch", BadCredentials, "secret"),
        (403, "SignatureDoesNotMatch", BadCredentials, "secret"),
        (400, "IncompleteSignature", BadCredentials, "access key"),
        (404, "InvalidAccessKeyId.NotFound", BadCredentials, "access key"),
        (400, "InvalidAccessKeyId.NotFound", BadCredentials, "access key"),
        (400, "InvalidSecurityToken.Expired", BadCredentials, "expired"),
        (403, "Forbidden.RAM", PermissionDenied, f"kvstore:DescribeBackups on {RESOURCE}"),
        (403, "NoPermission", PermissionDenied, f"kvstore:DescribeBackups on {RESOURCE}"),
        (400, "Throttling", Throttled, "later"),
        (400, "Throttling.User", Throttled, "later"),
        (400, "Throttling.Api", Throttled, "later"),
        (503, "ServiceUnavailable", SourceUnavailable, ""),
        (500, "InternalError", SourceUnavailable, ""),
        (404, "InvalidAction.NotFound", SourceError, "--endpoint"),
        # Codes that nobody has documented: the status decides.
        (400, "SomethingNew", RequestRejected, "rejects"),
        (403, "SomethingNew", PermissionDenied, "grant"),
        (429, "SomethingNew", Throttled, "later"),
        (502, "SomethingNew", SourceUnavailable, ""),
        # The beginning of a word is not the word.
        (400, "ForbiddenFruit", RequestRejected, "rejects"),
    ],
)
def test_every_code_has_its_error(
    status: int, code: str, kind: type[ArchiverError], hint: str
) -> None:
    error = translate(fault(status, code))
    assert type(error) is kind
    assert hint in (error.hint or "")
    assert error.message == (f"r-x: {code}: some words [DescribeBackups: {status}, request R-1]")


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "Throttling.User"), (429, "X"), (503, "ServiceUnavailable"), (500, "X")],
)
def test_what_may_be_tried_again_says_when(status: int, code: str) -> None:
    error = translate(fault(status, code, retry_after=7.0))
    assert error.retryable
    assert error.retry_after == 7.0
    assert error.exit_code == 5


@pytest.mark.parametrize(
    "code", ["InvalidPageSize.Malformed", "SignatureDoesNotMatch", "Forbidden.RAM", "New"]
)
def test_what_stays_refused_is_not_tried_again(code: str) -> None:
    assert not translate(fault(400, code)).retryable


def test_what_is_denied_is_named_as_the_vendor_names_it() -> None:
    said = translate(
        fault(403, "Forbidden.RAM", denied_action="kvstore:X", denied_resource="acs:y")
    )
    assert said.hint == "grant the RAM action kvstore:X on acs:y to this identity"
    of_sts = translate(fault(403, "NoPermission", service="sts"))
    assert of_sts.hint == f"grant the RAM action sts:DescribeBackups on {RESOURCE} to this identity"


def test_a_long_story_is_cut() -> None:
    error = translate(fault(400, "New", message="x" * 10_000, request_id=""))
    assert len(error.message) < 400
    assert error.message.endswith("x [DescribeBackups: 400]")
