"""What must not print itself does not, in any of the ways things get printed."""

import copy
import dataclasses
import json
import pickle
from datetime import UTC, datetime

import pytest

from archiver.errors import UnsafeInput
from archiver.secret import Secret, SignedUrl

URL = (
    "https://u.oss.aliyuncs.com/b/k%20y.rdb?Expires=1795478400&OSSAccessKeyId=LTAI&Signature=s%2Fg"
)


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, lambda v: f"{v}", lambda v: "%s %r" % (v, v)]
)
def test_a_secret_does_not_print(show: object) -> None:
    assert "hunter2" not in show(Secret("hunter2"))  # type: ignore[operator]
    assert "hunter2" not in show([Secret("hunter2")])  # type: ignore[operator]
    shown = show(SignedUrl.parse(URL))  # type: ignore[operator]
    assert "Signature" not in shown
    assert "LTAI" not in shown


def test_nor_through_other_doors() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("hunter2"))
    with pytest.raises(TypeError):
        copy.copy(Secret("hunter2"))
    with pytest.raises(TypeError):
        json.dumps(Secret("hunter2"))
    with pytest.raises(TypeError):
        vars(Secret("hunter2"))
    assert dataclasses.fields(SignedUrl)[-1].repr is False


def test_parts_of_a_signed_url() -> None:
    url = SignedUrl.parse(URL)
    assert (url.scheme, url.host, url.path) == ("https", "u.oss.aliyuncs.com", "b/k y.rdb")
    assert url.expires_at == datetime(2026, 11, 24, tzinfo=UTC)
    assert url.reveal() == URL
    assert str(url) == "https://u.oss.aliyuncs.com/b/k y.rdb"


@pytest.mark.parametrize(
    ("query", "expires"),
    [
        ("x-oss-date=20261124T000000Z&x-oss-expires=60", datetime(2026, 11, 24, 0, 1, tzinfo=UTC)),
        ("x-oss-date=rubbish&x-oss-expires=60", None),
        ("Expires=never", None),
        ("Expires=99999999999999999999", None),
        ("", None),
    ],
)
def test_expiry(query: str, expires: datetime | None) -> None:
    assert SignedUrl.parse(f"http://h/k?{query}").expires_at == expires


@pytest.mark.parametrize(
    "url",
    ["ftp://h/k", "file:///etc/passwd", "//h/k", "http:///k", "http://h:x/k", "http://[::1", ""],
)
def test_what_is_not_fetched(url: str) -> None:
    with pytest.raises(UnsafeInput):
        SignedUrl.parse(url)
