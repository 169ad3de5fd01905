"""The rules of the API: both signatures, their refusals, and the listing of a directory."""

import asyncio
import base64
import hashlib
import hmac
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp
import pytest

from archiver.emulator import Emulator, Faults
from archiver.errors import UsageError
from archiver.sources.alibaba.signing import EMPTY_SHA256, acs3_authorization
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker

PARAMS = {
    "InstanceId": INSTANCE,
    "StartTime": "2000-01-01T00:00Z",
    "EndTime": "2100-01-01T00:00Z",
}


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def legacy(method: str, secret: str = KEY_SECRET, **changed: str) -> dict[str, str]:
    """An RPC request of signature version 1.0, after the vendor's *Request signatures* page."""
    params = PARAMS | {
        "Action": "DescribeBackups",
        "Format": "JSON",
        "Version": "2015-01-01",
        "Timestamp": now(),
        "SignatureNonce": str(uuid.uuid4()),
        "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0",
        "AccessKeyId": KEY_ID,
        **changed,
    }
    query = "&".join(f"{encoded(name)}={encoded(params[name])}" for name in sorted(params))
    to_sign = f"{method}&%2F&{encoded(query)}"
    digest = hmac.new(f"{secret}&".encode(), to_sign.encode(), hashlib.sha1).digest()
    return params | {"Signature": base64.b64encode(digest).decode()}


async def get(emulator: Emulator, params: dict[str, str]) -> tuple[int, dict[str, object]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{emulator.endpoint}/?{urlencode(params)}") as answer,
    ):
        return answer.status, await answer.json()


async def acs3(
    emulator: Emulator, secret: str = KEY_SECRET, key_id: str = KEY_ID, **changed: str
) -> tuple[int, dict[str, object]]:
    headers = {
        "host": f"127.0.0.1:{emulator.port}",
        "x-acs-action": "DescribeBackups",
        "x-acs-version": "2015-01-01",
        "x-acs-date": now(),
        "x-acs-signature-nonce": str(uuid.uuid4()),
        "x-acs-content-sha256": EMPTY_SHA256,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    headers["authorization"] = acs3_authorization(key_id, secret, "POST", PARAMS, headers)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{emulator.endpoint}/?{urlencode(PARAMS)}", headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def test_the_legacy_signature_over_get_and_post(emulator: Emulator) -> None:
    status, answer = await get(emulator, legacy("GET"))
    assert (status, answer["TotalCount"]) == (200, 0)
    async with aiohttp.ClientSession() as session:
        async with session.post(emulator.endpoint, data=legacy("POST")) as posted:
            assert posted.status == 200
        async with session.post(f"{emulator.endpoint}/?{urlencode(legacy('POST'))}") as posted:
            assert posted.status == 200


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"secret": "wrong"}, 400, "SignatureDoesNotMatch"),
        ({"AccessKeyId": "LTAInobody"}, 404, "InvalidAccessKeyId.NotFound"),
        ({"Timestamp": "2020-01-01T00:00:00Z"}, 400, "InvalidTimeStamp.Expired"),
        ({"Timestamp": "now"}, 400, "InvalidTimeStamp.Format"),
        ({"Version": "2014-01-01"}, 400, "InvalidVersion"),
        ({"Action": "DropEverything"}, 404, "InvalidAction.NotFound"),
        ({"SignatureNonce": ""}, 400, "MissingParameter.SignatureNonce"),
        ({"SignatureMethod": "HMAC-MD5"}, 400, "InvalidParameter.SignatureMethod"),
        ({"SignatureVersion": "2.0"}, 400, "InvalidParameter.SignatureVersion"),
        ({"Format": "XML"}, 400, "InvalidParameter.Format"),
        ({"Action": ""}, 400, "MissingParameter.Action"),
        ({"Version": ""}, 400, "MissingParameter.Version"),
        ({"InstanceId": ""}, 400, "MissingParameter.InstanceId"),
        ({"StartTime": ""}, 400, "MissingParameter.StartTime"),
        ({"EndTime": ""}, 400, "MissingParameter.EndTime"),
        # strptime would take these three.
        ({"StartTime": "2026-1-2T3:4Z"}, 400, "InvalidStartTime.Malformed"),
        ({"EndTime": "2099-01-01T00:00Z "}, 400, "InvalidEndTime.Malformed"),
        ({"EndTime": "٢٠٩٩-01-01T00:00Z"}, 400, "InvalidEndTime.Malformed"),
        ({"EndTime": "2099-02-31T00:00Z"}, 400, "InvalidEndTime.Malformed"),
        ({"EndTime": "1999-01-01T00:00Z"}, 400, "InvalidStartTimeAndEndTime.Malformed"),
        ({"NeedAof": "yes"}, 400, "InvalidNeedAof.Malformed"),
        ({"BackupId": "x"}, 400, "InvalidBackupId.Malformed"),
        ({"BackupJobId": "-1"}, 400, "InvalidBackupJobId.Malformed"),
        ({"InstanceId": "r-unknown"}, 400, "InvalidInstanceId.NotFound"),
        ({"InstanceId": ".."}, 400, "InvalidInstanceId.NotFound"),
        ({"PageNumber": "0"}, 400, "InvalidPageNumber.Malformed"),
        ({"PageSize": "x"}, 400, "InvalidPageSize.Malformed"),
    ],
)
async def test_legacy_refusals(
    emulator: Emulator, changed: dict[str, str], status: int, code: str
) -> None:
    seen, answer = await get(emulator, legacy("GET", **changed))
    assert (seen, answer["Code"]) == (status, code)
    assert {"RequestId", "HostId", "Message", "Recommend"} <= answer.keys()
    assert emulator.tally.refused == {code: 1}


async def test_a_legacy_mismatch_tells_what_was_signed(emulator: Emulator) -> None:
    """Older SDKs take the text after the first colon, and say that the secret is wrong if it is
    what they have signed."""
    params = legacy("GET", secret="wrong")
    _, answer = await get(emulator, params)
    told, _, signed = str(answer["Message"]).partition(":")
    assert told.endswith("calculation. server string to sign is")
    digest = hmac.new(b"wrong&", signed.encode(), hashlib.sha1).digest()
    assert base64.b64encode(digest).decode() == params["Signature"]
    assert ":" not in signed


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({}, 200, None),
        ({"secret": "wrong"}, 400, "SignatureDoesNotMatch"),
        ({"key_id": "LTAInobody"}, 404, "InvalidAccessKeyId.NotFound"),
        ({"x_acs_date": "2020-01-01T00:00:00Z"}, 400, "InvalidTimeStamp.Expired"),
        ({"x_acs_version": "2014-01-01"}, 400, "InvalidVersion"),
        ({"x_acs_content_sha256": "0" * 64}, 400, "SignatureDoesNotMatch"),
    ],
)
async def test_acs3(
    emulator: Emulator, changed: dict[str, str], status: int, code: str | None
) -> None:
    seen, answer = await acs3(emulator, **changed)
    assert (seen, answer.get("Code")) == (status, code)


async def test_a_nonce_is_good_once(emulator: Emulator) -> None:
    params = legacy("GET")
    assert (await get(emulator, params))[0] == 200
    assert (await get(emulator, params))[1]["Code"] == "SignatureNonceUsed"


async def test_unsigned(emulator: Emulator) -> None:
    assert (await get(emulator, PARAMS))[0] == 400


async def test_a_token_is_asked_for(files: Path, emulator_of: EmulatorMaker) -> None:
    emulator = await emulator_of(files, security_token="token")
    assert (await acs3(emulator))[1]["Code"] == "InvalidSecurityToken.Malformed"
    assert (await acs3(emulator, x_acs_security_token="token"))[0] == 200


async def test_clock_skew_by_the_emulators_clock(files: Path, emulator_of: EmulatorMaker) -> None:
    emulator = await emulator_of(files, clock=lambda: 0.0)
    assert (await acs3(emulator))[1]["Code"] == "InvalidTimeStamp.Expired"


@pytest.mark.parametrize("size", [30, 50, 100, 200, 300, 1000])
async def test_page_sizes(emulator: Emulator, size: int) -> None:
    status, answer = await get(emulator, legacy("GET", PageSize=str(size), PageNumber="2"))
    assert status == 200
    assert (answer["PageSize"], answer["PageNumber"], answer["TotalCount"]) == (size, 2, 0)
    assert answer["Backups"] == {"Backup": []}


async def test_what_is_signed_covers_what_counts(emulator: Emulator) -> None:
    """Anybody could have added an x-acs- header that is not signed."""
    headers = {
        "host": f"127.0.0.1:{emulator.port}",
        "x-acs-action": "DescribeBackups",
        "x-acs-date": now(),
        "x-acs-signature-nonce": str(uuid.uuid4()),
    }
    headers["authorization"] = acs3_authorization(KEY_ID, KEY_SECRET, "GET", PARAMS, headers)
    headers["x-acs-version"] = "2015-01-01"
    url = f"{emulator.endpoint}/?{urlencode(PARAMS)}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert (await answer.json())["Code"] == "IncompleteSignature"


async def test_a_refused_request_uses_no_nonce_up(emulator: Emulator) -> None:
    params = legacy("GET")
    assert (await get(emulator, params | {"PageSize": "31"}))[1]["Code"] == "SignatureDoesNotMatch"
    assert (await get(emulator, params))[0] == 200


async def test_other_methods(emulator: Emulator) -> None:
    async with aiohttp.ClientSession() as session, session.delete(emulator.endpoint) as answer:
        assert (answer.status, (await answer.json())["Code"]) == (405, "UnsupportedHTTPMethod")


async def test_headers_that_are_not_text(emulator: Emulator) -> None:
    """Any bytes are refused without an internal error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    head = (
        f"GET / HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\nx-acs-date: {now()}\r\n"
        f"Authorization: ACS3-HMAC-SHA256 Credential={KEY_ID},"
        "SignedHeaders=host;x-acs-date,Signature=\xff\r\n\r\n"
    )
    writer.write(head.encode("latin-1"))
    answer = await reader.read()
    assert b" 400 " in answer.splitlines()[0]
    assert b"SignatureDoesNotMatch" in answer
    writer.close()
    await writer.wait_closed()


async def test_the_tally(files: Path, emulator: Emulator) -> None:
    await get(emulator, legacy("GET"))
    await get(emulator, legacy("GET", secret="wrong"))
    assert emulator.tally.api_calls == 2
    assert emulator.tally.calls_by_action == {"DescribeBackups": 1}
    assert emulator.tally.refused == {"SignatureDoesNotMatch": 1}


async def test_hosts_of_the_urls(files: Path, emulator_of: EmulatorMaker) -> None:
    (files / INSTANCE / "a.rdb").write_bytes(b"x")
    emulator = await emulator_of(files, public_host="oss.example:1", intranet_host="in.example")
    _, answer = await get(emulator, legacy("GET"))
    [backup] = answer["Backups"]["Backup"]  # type: ignore[index]
    assert re.fullmatch(
        r"http://oss\.example:1/custins\d+/hins\d+_data_\d{14}_\d+\.rdb"
        r"\?Expires=\d+&OSSAccessKeyId=\w+&Signature=[\w%]+",
        backup["BackupDownloadURL"],
    )
    assert backup["BackupIntranetDownloadURL"].startswith("http://in.example/custins")


async def test_faults_of_the_api(files: Path, emulator_of: EmulatorMaker) -> None:
    emulator = await emulator_of(files, faults=Faults(throttle=1))
    assert (await acs3(emulator))[1]["Code"] == "Throttling.User"
    emulator.faults = Faults(server_errors=1)
    assert (await acs3(emulator))[0] == 503


async def test_a_directory_that_cannot_be_served(
    tmp_path: Path, files: Path, emulator: Emulator, emulator_of: EmulatorMaker
) -> None:
    with pytest.raises(UsageError, match="none does not exist"):
        await emulator_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="contains no instance"):
        await emulator_of(tmp_path / "empty")
    for port, why in ((emulator.port, "in use"), (70_000, "")):
        with pytest.raises(UsageError, match=f"^cannot listen on 127.0.0.1:{port}: .*{why}") as bad:
            await emulator_of(files, port=port)
        assert "\n" not in str(bad.value)
    (files / INSTANCE / "backups.json").write_text("[]")
    with pytest.raises(UsageError, match=r"backups\.json must be"):
        await emulator_of(files)
