"""The configuration of the vendor's CLI."""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, BadCredentials, NoCredentials, UsageError
from tests.sources.test_credentials_services import NOW, STS, Ask, Vendor, asking, revealed

AK = {
    "name": "default",
    "mode": "AK",
    "access_key_id": "LTAIfile",
    "access_key_secret": "file-secret",
}
ROLE = {"mode": "RamRoleArn", "ram_role_arn": "acs:ram::1:role/r"}
FILE_KEY = ("LTAIfile", "file-secret", None)
LATER = int(NOW) + 3600
INI_KEY = "access_key_id = LTAIfile\naccess_key_secret = file-secret\n"


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor().serving() as vendor:
        yield vendor


@pytest.fixture
async def ask(vendor: Vendor, tmp_path: Path) -> AsyncIterator[Ask]:
    async with asking(vendor, tmp_path) as ask:
        yield ask


def config(home: Path, *profiles: Mapping[str, object], current: str = "default") -> Path:
    path = home / ".aliyun" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"current": current, "profiles": profiles}))
    return path


def ini(home: Path, text: str) -> Path:
    path = home / ".alibabacloud" / "credentials.ini"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("profile", "expected", "asked"),
    [
        ({}, FILE_KEY, []),
        ({"mode": ""}, FILE_KEY, []),
        ({"mode": "StsToken", "sts_token": "t"}, (*FILE_KEY[:2], "t"), []),
        (ROLE, STS, ["AssumeRole"]),
        ({"mode": "EcsRamRole"}, STS, ["metadata", "metadata"]),
        ({"mode": "EcsRamRole", "ram_role_name": "the-role"}, STS, ["metadata"]),
        ({"mode": "CredentialsURI", "credentials_uri": "<endpoint>/uri"}, STS, ["uri"]),
        (
            {
                "mode": "OIDC",
                "ram_role_arn": "a",
                "oidc_provider_arn": "b",
                "oidc_token_file": "~/token",
            },
            STS,
            ["AssumeRoleWithOIDC"],
        ),
    ],
    ids=lambda value: value.get("mode", "AK") if isinstance(value, dict) else None,
)
async def test_modes_of_the_cli(
    ask: Ask,
    tmp_path: Path,
    vendor: Vendor,
    profile: dict[str, str],
    expected: tuple[str, str, str | None],
    asked: list[str],
) -> None:
    (tmp_path / "token").write_text("jwt")
    filled = {name: value.replace("<endpoint>", vendor.endpoint) for name, value in profile.items()}
    config(tmp_path, {**AK, **filled})
    assert revealed(await ask()) == expected
    assert vendor.asked_for() == asked


async def test_everything_that_a_role_profile_may_say(
    ask: Ask, tmp_path: Path, vendor: Vendor
) -> None:
    more = {
        "ram_session_name": "night",
        "expired_seconds": 900,
        "policy": '{"Version": "1"}',
        "external_id": "e",
    }
    config(tmp_path, {**AK, **ROLE, **more})
    await ask()
    [(_, params)] = vendor.asked
    assert params == {
        "RoleArn": "acs:ram::1:role/r",
        "RoleSessionName": "night",
        "DurationSeconds": "900",
        "Policy": '{"Version": "1"}',
        "ExternalId": "e",
    }


async def test_a_role_by_way_of_a_temporary_key(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    config(tmp_path, {**AK, **ROLE, "sts_token": "file-token"})
    assert revealed(await ask()) == STS
    config(tmp_path, {**AK, **ROLE})
    assert revealed(await ask()) == STS
    assert vendor.tokens == ["file-token", None]


async def test_the_expiry_of_a_token_is_in_seconds(ask: Ask, tmp_path: Path) -> None:
    sts = {**AK, "mode": "StsToken", "sts_token": "t"}
    for given, expected in (
        (LATER, datetime(2026, 11, 24, 1, tzinfo=UTC)),
        ("2026-11-24T01:00:00Z", datetime(2026, 11, 24, 1, tzinfo=UTC)),
        (0, None),
        (None, None),
    ):
        config(tmp_path, {**sts, "sts_expiration": given})
        assert (await ask()).expires_at == expected
    config(tmp_path, {**sts, "sts_expiration": int(NOW) - 1})
    with pytest.raises(BadCredentials, match=r"profile 'default' of .*expired at 2026-11-23T23:59"):
        await ask()


async def test_a_chain_of_roles(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    def chained(name: str, source: str) -> dict[str, object]:
        return {
            "name": name,
            "mode": "ChainableRamRoleArn",
            "source_profile": source,
            "ram_role_arn": f"acs:ram::1:role/{name}",
            "ram_session_name": f"session-{name}",
        }

    config(tmp_path, AK, chained("near", "default"), chained("far", "near"), current="far")
    assert revealed(await ask()) == STS
    assert [(p["RoleArn"][-4:], p["RoleSessionName"]) for _, p in vendor.asked] == [
        ("near", "session-near"),
        ("/far", "session-far"),
    ]
    for source, match in (("far", "refers back"), ("gone", "there is no source_profile 'gone'")):
        config(tmp_path, chained("far", "near"), chained("near", source), current="far")
        with pytest.raises(UsageError, match=match):
            await ask()


async def test_profiles_are_chosen(ask: Ask, tmp_path: Path) -> None:
    other = {**AK, "name": "other", "access_key_id": "LTAIother"}
    path = config(tmp_path, AK, other, current="other")
    assert revealed(await ask())[0] == "LTAIother"
    assert revealed(await ask(ALIBABA_CLOUD_PROFILE="default"))[0] == "LTAIfile"
    with pytest.raises(UsageError, match=rf"{path} has no profile 'none'"):
        await ask(ALIBABA_CLOUD_PROFILE="none")
    # The name may be meant for the other file.
    ini(tmp_path, "[none]\naccess_key_id = LTAIini\naccess_key_secret = s\n")
    assert revealed(await ask(ALIBABA_CLOUD_PROFILE="none"))[0] == "LTAIini"


async def test_a_configuration_elsewhere_or_none(ask: Ask, tmp_path: Path) -> None:
    config(tmp_path, AK).rename(tmp_path / "mine.json")
    assert revealed(await ask(ALIBABA_CLOUD_CONFIG_FILE="~/mine.json")) == FILE_KEY
    with pytest.raises(NoCredentials, match=r"ALIBABA_CLOUD_CONFIG_FILE: .* does not exist"):
        await ask(ALIBABA_CLOUD_CONFIG_FILE=str(tmp_path / "none.json"))
    config(tmp_path, AK)
    assert revealed(await ask(ALIBABA_CLOUD_CLI_PROFILE_DISABLED="true")) == STS


async def test_the_empty_profile_that_the_cli_writes_is_not_a_configuration(
    ask: Ask, tmp_path: Path
) -> None:
    config(tmp_path, {**AK, "access_key_id": "", "access_key_secret": ""})
    assert revealed(await ask()) == STS
    with pytest.raises(UsageError, match="access_key_id is missing"):
        await ask(ALIBABA_CLOUD_PROFILE="default")


async def test_a_file_from_windows(ask: Ask, tmp_path: Path) -> None:
    path = config(tmp_path, AK)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert revealed(await ask()) == FILE_KEY


HALF = '{"profiles": [{"name": "default", "mode": "AK", "access_key_id": "LTAI"}]}'


def hidden(mode: str, more: str) -> str:
    keys = '"access_key_id": "hunter2", "access_key_secret": "hunter2", "sts_token": "hunter2"'
    return f'{{"profiles": [{{"name": "default", "mode": "{mode}", {keys}, {more}}}]}}'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{not json hunter2", "is not a configuration of the vendor's CLI"),
        ('["hunter2"]', "is not a configuration"),
        ('{"profiles": ["hunter2"]}', "is not a configuration"),
        ('{"profiles": {"hunter2": 1}}', "is not a configuration"),
        ("[" * 100_000, "is not a configuration"),
        ('{"current": "x", "profiles": []}', "has no profile 'x'"),
        (HALF, "profile 'default' of .*: access_key_secret is missing"),
        (
            hidden("External", '"process_command": "hunter2"'),
            "config.json: mode 'External' is not supported .*AK, StsToken, RamRoleArn",
        ),
        (hidden("CloudSSO", '"access_token": "hunter2"'), "'CloudSSO'"),
        (
            hidden("StsToken", '"sts_expiration": "hunter2"'),
            "sts_expiration is not a time",
        ),
        (
            hidden("RamRoleArn", '"ram_role_arn": "r", "expired_seconds": 60'),
            "expired_seconds must be 900 or more",
        ),
    ],
)
async def test_broken_configurations_are_one_line_and_hold_nothing(
    ask: Ask, tmp_path: Path, text: str, match: str
) -> None:
    config(tmp_path).write_text(text)
    with pytest.raises(UsageError, match=match) as caught:
        await ask()
    holds_nothing(caught.value)


async def test_files_that_cannot_be_read(ask: Ask, tmp_path: Path) -> None:
    path = config(tmp_path)
    path.write_bytes(b"hunter2 \xff")
    with pytest.raises(UsageError, match=r"config.json cannot be read: it is not UTF-8") as c:
        await ask()
    holds_nothing(c.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=r"config.json cannot be read: Is a directory"):
        await ask()


def holds_nothing(error: ArchiverError) -> None:
    """One line, and nothing behind it: the parsers' errors hold the whole file."""
    assert "\n" not in str(error)
    assert "hunter2" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
