"""Our signature against a plain reading of the specification, and against the vendor's own SDK."""

import hashlib
import hmac
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from archiver.sources.alibaba.signing import (
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


VECTOR_HEADERS = {
    "host": "r-kvstore.aliyuncs.com",
    "x-acs-action": "DescribeBackups",
    "x-acs-version": "2015-01-01",
    "x-acs-date": "2026-11-24T00:00:00Z",
    "x-acs-signature-nonce": "0123456789abcdef",
    "x-acs-content-sha256": EMPTY_SHA256,
}
VECTOR_PARAMS = {"StartTime": "2026-11-01T00:00Z", "InstanceId": "r-x", "Text": "a b+c/*~é"}


def test_a_known_vector() -> None:
    """Made with ``openssl dgst`` from a request that was written by hand."""
    signature = acs3_signature(SECRET, "POST", VECTOR_PARAMS, VECTOR_HEADERS, VECTOR_HEADERS)
    assert signature == "dae14799bdee7f9dcbb990468054c44b5c92ca976e65f60010fe45b175c961ea"


def test_the_header_and_what_it_signs() -> None:
    headers = {**VECTOR_HEADERS, "accept": "application/json", "user-agent": "x"}
    made = acs3_authorization("LTAI", SECRET, "POST", VECTOR_PARAMS, headers)
    assert made == (
        "ACS3-HMAC-SHA256 Credential=LTAI,SignedHeaders=host;x-acs-action;x-acs-content-sha256;"
        "x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=dae14799bdee7f9dcbb990468054c44b5c92ca976e65f60010fe45b175c961ea"
    )


@given(params, st.sampled_from(sorted(VECTOR_HEADERS)))
def test_whatever_changes_the_signature_changes(values: dict[str, str], name: str) -> None:
    def sign(**changed: str) -> str:
        headers = {**VECTOR_HEADERS, **changed}
        return acs3_signature(SECRET, "POST", values, headers, headers)

    assert sign() == sign()
    assert sign(**{name: "changed"}) != sign()
    more = acs3_signature(SECRET, "POST", {**values, "new": ""}, VECTOR_HEADERS, VECTOR_HEADERS)
    assert more != sign() or "new" in values
    other = acs3_signature("other", "POST", values, VECTOR_HEADERS, VECTOR_HEADERS)
    assert other != sign()


def test_a_verifier_takes_the_clients_choice_in_any_order() -> None:
    names = list(VECTOR_HEADERS)
    one = acs3_signature(SECRET, "POST", {}, VECTOR_HEADERS, names)
    assert acs3_signature(SECRET, "POST", {}, VECTOR_HEADERS, reversed(names)) == one
    assert acs3_signature(SECRET, "POST", {}, VECTOR_HEADERS, names[:-1]) != one
    assert acs3_signature(SECRET, "GET", {}, VECTOR_HEADERS, names) != one
    assert acs3_signature(SECRET, "POST", {}, VECTOR_HEADERS, names, "0" * 64) != one


def test_percent_encoding() -> None:
    assert pct("aZ09-_.~") == "aZ09-_.~"
    assert pct(" +/:*é") == "%20%2B%2F%3A%2A%C3%A9"
    assert canonical_query({"b": "2", "a": " "}) == "a=%20&b=2"
