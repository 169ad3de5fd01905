"""What must not print itself does not, in any of the ways things get printed."""

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from archiver.errors import UnsafeInput
from archiver.secret import Secret, SignedUrl
from archiver.sources.alibaba.rpc import Credentials

URL = (
    "https://u.oss.aliyuncs.com/b/k%20y.rdb?Expires=1795478400&OSSAccessKeyId=LTAI&Signature=s%2Fg"
)


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, lambda v: f"{v}", lambda v: "%s %r" % (v, v)]
)
def test_a_secret_does_not_print(show: Callable[[object], str]) -> None:
    assert show(Secret("hunter2")) in ("***", "*** ***")
    assert "hunter2" not in show([Secret("hunter2")])
    shown = show(SignedUrl.parse(URL))
    assert "Signature" not in shown
    assert "LTAI" not in shown


KEY = Credentials(Secret("hunter2"), Secret("hunter2"), Secret("hunter2"))


@pytest.mark.parametrize("held", [Secret("hunter2"), KEY, SignedUrl.parse(URL + "hunter2")])
@pytest.mark.parametrize(
    "door",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        vars,
        dataclasses.asdict,
        dataclasses.astuple,
        "{:>40}".format,
        "%d".__mod__,
    ],
)
def test_nor_through_other_doors(held: object, door: Callable[[object], object]) -> None:
    """Refused, or opened and nothing to be seen."""
    try:
        opened = repr(door(held))
    except (TypeError, AttributeError) as error:
        opened = f"{error!r} {error.args!r}"
    assert "hunter2" not in opened


def test_a_secret_refuses_to_be_packed() -> None:
    for pack in (pickle.dumps, copy.copy, json.dumps, vars):
        with pytest.raises(TypeError):
            pack(Secret("hunter2"))


def test_secrets_compare_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a").reveal() == "a"


def test_parts_of_a_signed_url() -> None:
    url = SignedUrl.parse(URL)
    assert (url.scheme, url.host, url.path) == ("https", "u.oss.aliyuncs.com", "b/k y.rdb")
    assert url.expires_at == datetime(2026, 11, 24, tzinfo=UTC)
    assert url.reveal() == URL
    assert str(url) == "https://u.oss.aliyuncs.com/b/k y.rdb"
    assert str(SignedUrl.parse("http://[::1]:8080/k?s")) == "http://[::1]:8080/k"
    assert str(SignedUrl.parse("http://someone:hunter2@h/k")) == "http://h/k"


@pytest.mark.parametrize(
    ("query", "expires"),
    [
        ("x-oss-date=20261124T000000Z&x-oss-expires=60", datetime(2026, 11, 24, 0, 1, tzinfo=UTC)),
        ("x-oss-date=rubbish&x-oss-expires=60", None),
        ("Expires=1795478400", datetime(2026, 11, 24, tzinfo=UTC)),
        (
            "X-Oss-Date=20261124T000000Z&X-Oss-Expires=1",
            datetime(2026, 11, 24, 0, 0, 1, tzinfo=UTC),
        ),
        ("x-oss-expires=60", None),
        ("x-oss-date=20261124T000000Z&x-oss-expires=99999999999999", None),
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
    with pytest.raises(UnsafeInput) as caught:
        SignedUrl.parse(url)
    assert caught.value.__context__ is None


def test_a_url_that_is_not_fetched_is_not_shown() -> None:
    with pytest.raises(UnsafeInput) as caught:
        SignedUrl.parse("ftp://h/k?Signature=hunter2")
    assert "hunter2" not in str(caught.value)
