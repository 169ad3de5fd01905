"""The legacy signature against the vendor's own; OSS V1 against a value worked out by hand."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.emulator.gateway import legacy_signature
from archiver.emulator.oss import oss_v1_signature, oss_v1_url

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
# The SDK leaves out parameters without a value.
params = st.dictionaries(text.filter(bool), text.filter(bool), max_size=8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(params, st.sampled_from(["GET", "POST"]))
def test_the_legacy_signature_is_the_sdks(values: dict[str, str], method: str) -> None:
    from alibabacloud_tea_openapi.utils import Utils

    theirs = Utils.get_rpcsignature(dict(values), method, "secret")
    assert legacy_signature("secret", method, values) == theirs


def test_oss_v1() -> None:
    message = b"GET\n\n\n1141889120\n/bucket/key a"
    by_hand = base64.b64encode(hmac.new(b"secret", message, hashlib.sha1).digest()).decode()
    assert oss_v1_signature("secret", "GET", 1141889120, "/bucket/key a") == by_hand
    url = oss_v1_url("id", "secret", "/bucket/key a", 1141889120)
    path, _, query = url.partition("?")
    assert path == "/bucket/key%20a"
    assert query.startswith("Expires=1141889120&OSSAccessKeyId=id&Signature=")
    assert "+" not in query
