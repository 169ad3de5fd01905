"""Our signature against a plain reading of the specification, and against the vendor's own SDK."""

import hashlib
import hmac
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from archiver.sources.signing import (
    EMPTY_SHA256,
    acs3_authorization,
    acs3_signature,
    canonical_query,
    pct,
)

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
params = st.dictionaries(text.filter(bool), text, max_size=8)
SECRET = "secret"


def plain_signature(values: dict[str, str], headers: dict[str, str]) -> str:
    query = "&".join(
        f"{quote(k, safe='-_.~')}={quote(values[k], safe='-_.~')}" for k in sorted(values)
    )
    names = sorted(headers)
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in names)
    request = f"POST\n/\n{query}\n{lines}\n{';'.join(names)}\n{EMPTY_SHA256}"
    digest = hashlib.sha256(request.encode()).hexdigest()
    message = f"ACS3-HMAC-SHA256\n{digest}".encode()
    return hmac.new(SECRET.encode(), message, "sha256").hexdigest()


@given(params)
def test_against_a_plain_reading(values: dict[str, str]) -> None:
    headers = {"host": "h", "x-acs-action": "A", "x-acs-date": " 2026-11-24T00:00:00Z "}
    assert acs3_signature(SECRET, "POST", values, headers, headers) == plain_signature(
        values, headers
    )


# The SDK leaves parameter names as they are; the API's names are letters, digits and dots.
@given(st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9.]{0,20}", fullmatch=True), text))
def test_against_the_vendors_sdk(values: dict[str, str]) -> None:
    from alibabacloud_tea_openapi.utils import Utils
    from darabonba.request import DaraRequest

    request = DaraRequest()
    request.method, request.pathname, request.query = "POST", "/", dict(values)
    request.headers = {
        "host": "r-kvstore.aliyuncs.com",
        "x-acs-action": "DescribeBackups",
        "x-acs-version": "2015-01-01",
        "x-acs-date": "2026-11-24T00:00:00Z",
        "x-acs-signature-nonce": "nonce",
        "x-acs-content-sha256": EMPTY_SHA256,
    }
    theirs = Utils.get_authorization(request, "ACS3-HMAC-SHA256", EMPTY_SHA256, "LTAI", SECRET)
    assert acs3_authorization("LTAI", SECRET, "POST", values, request.headers) == theirs


def test_percent_encoding() -> None:
    assert pct("aZ09-_.~") == "aZ09-_.~"
    assert pct(" +/:*é") == "%20%2B%2F%3A%2A%C3%A9"
    assert canonical_query({"b": "2", "a": " "}) == "a=%20&b=2"
