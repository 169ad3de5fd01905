"""The API's own rules: both signatures, their refusals, and what a directory becomes."""

import base64
import hashlib
import hmac
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp
import pytest

from archiver.emulator import Emulator, Faults
from archiver.errors import UsageError
from archiver.sources.signing import EMPTY_SHA256, acs3_authorization
from tests.conftest import DATA, INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker

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
        ({"SignatureNonce": ""}, 400, "MissingSignatureNonce"),
        ({"InstanceId": ""}, 400, "MissingInstanceId"),
        ({"PageNumber": "0"}, 400, "InvalidPageNumber.Malformed"),
        ({"PageSize": "x"}, 400, "InvalidPageSize.Malformed"),
    ],
)
async def test_legacy_refusals(
    emulator: Emulator, changed: dict[str, str], status: int, code: str
) -> None:
    seen, answer = await get(emulator, legacy("GET", **changed))
    assert (seen, answer["Code"]) == (status, code)
    assert {"RequestId", "HostId", "Message"} <= answer.keys()


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


async def test_what_a_directory_becomes(files: Path, emulator: Emulator) -> None:
    folder = files / INSTANCE
    (folder / "dump_20261124021500.rdb").write_bytes((DATA / "rdb__memory.rdb").read_bytes())
    (folder / ".hidden.rdb").write_bytes(b"x")
    (folder / "log.aof").write_bytes(b"*1\r\n")
    (folder / "node-1").mkdir()
    (folder / "node-1" / "dump_20261124021500.rdb").write_bytes(b"x")
    _, answer = await get(emulator, legacy("GET"))
    by_node = {b["NodeInstanceId"]: b for b in answer["Backups"]["Backup"]}  # type: ignore[index]
    assert set(by_node) == {INSTANCE, "node-1"}
    real = by_node[INSTANCE]
    assert real["BackupStartTime"] == "2026-11-24T02:15:00Z"
    assert real["ExpectExpireTime"] == "2026-12-01T02:15:00Z"
    assert (real["BackupSize"], real["EngineVersion"]) == (2413, "5.0")
    assert real["BackupJobID"] == by_node["node-1"]["BackupJobID"]
    _, answer = await get(emulator, legacy("GET", NeedAof="1"))
    assert answer["TotalCount"] == 3
    _, answer = await get(emulator, legacy("GET", BackupJobId=str(real["BackupJobID"])))
    assert answer["TotalCount"] == 2
    _, answer = await get(emulator, legacy("GET", StartTime="2026-11-24T02:16Z"))
    assert real["BackupId"] not in [b["BackupId"] for b in answer["Backups"]["Backup"]]  # type: ignore[index]


async def test_fields_laid_over(files: Path, emulator: Emulator) -> None:
    (files / INSTANCE / "a.rdb").write_bytes(b"x")
    (files / INSTANCE / "backups.json").write_text(
        json.dumps({"a.rdb": {"BackupStatus": "Failed", "New": 1}})
    )
    _, answer = await get(emulator, legacy("GET"))
    [backup] = answer["Backups"]["Backup"]  # type: ignore[index]
    assert (backup["BackupStatus"], backup["New"]) == ("Failed", 1)
    assert "BackupDownloadURL" not in backup


async def test_faults_of_the_api(files: Path, emulator_of: EmulatorMaker) -> None:
    emulator = await emulator_of(files, faults=Faults(throttle=1))
    assert (await acs3(emulator))[1]["Code"] == "Throttling.User"
    emulator.faults = Faults(server_errors=1)
    assert (await acs3(emulator))[0] == 503


@pytest.mark.parametrize(
    "broken", [{"drop": 2.0}, {"corrupt": -0.1}, {"rate": 0}, {"latency": -1.0}]
)
def test_faults_that_make_no_sense(broken: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Faults(**broken)  # type: ignore[arg-type]


async def test_a_directory_that_cannot_be_served(
    tmp_path: Path, files: Path, emulator: Emulator, emulator_of: EmulatorMaker
) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        await emulator_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no instance"):
        await emulator_of(tmp_path / "empty")
    with pytest.raises(UsageError, match="cannot listen"):
        await emulator_of(files, port=emulator.port)
