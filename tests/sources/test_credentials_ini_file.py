"""The credentials file of the vendor's SDKs."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archiver.errors import NoCredentials, UsageError
from tests.sources.test_credentials_cli_config import INI_KEY, holds_nothing, ini
from tests.sources.test_credentials_services import STS, Ask, Vendor, asking, revealed


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor().serving() as vendor:
        yield vendor


@pytest.fixture
async def ask(vendor: Vendor, tmp_path: Path) -> AsyncIterator[Ask]:
    async with asking(vendor, tmp_path) as ask:
        yield ask


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            "access_key_id = LTAIini # of the night\naccess_key_secret = 'ini-secret'",
            ("LTAIini", "ini-secret", None),
        ),
        (
            "type = sts\naccess_key_id = a\naccess_key_secret = b%%c\nsecurity_token = c",
            ("a", "b%%c", "c"),
        ),
        (
            f"type = ram_role_arn\n{INI_KEY}role_arn = acs:ram::1:role/r",
            STS,
        ),
        ("type = ecs_ram_role\nrole_name = the-role", STS),
        (
            """type = oidc_role_arn
role_arn = a
oidc_provider_arn = b
oidc_token_file_path = ~/token""",
            STS,
        ),
    ],
)
async def test_types_of_the_ini_file(
    ask: Ask, tmp_path: Path, section: str, expected: tuple[str, str, str | None]
) -> None:
    (tmp_path / "token").write_text("jwt")
    ini(tmp_path, f"[default]\n{section}\n")
    assert revealed(await ask()) == expected


async def test_what_an_ini_role_may_say(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    ini(
        tmp_path,
        f"[default]\ntype = ram_role_arn\n{INI_KEY}"
        'role_arn = r\nrole_session_name = night\npolicy = {"Version": "1"}\n',
    )
    await ask()
    [(_, params)] = vendor.asked
    assert (params["RoleSessionName"], params["Policy"]) == ("night", '{"Version": "1"}')


async def test_an_ini_file_elsewhere(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "mine.ini"
    with pytest.raises(NoCredentials, match=r"ALIBABA_CLOUD_CREDENTIALS_FILE: .* does not exist"):
        await ask(ALIBABA_CLOUD_CREDENTIALS_FILE=str(path))
    path.write_text("[night]\naccess_key_id = a\naccess_key_secret = 'b'\n")
    given = {"ALIBABA_CLOUD_CREDENTIALS_FILE": str(path), "ALIBABA_CLOUD_PROFILE": "night"}
    assert revealed(await ask(**given)) == ("a", "b", None)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("access_key_secret = hunter2", "is not an ini file"),
        ("[default]\nhunter2\n", "is not an ini file"),
        ("[default]\na = hunter2\na = hunter2\n", "is not an ini file"),
        ("[other]\naccess_key_secret = hunter2\n", r"has no section \[default\]"),
        (
            "[default]\naccess_key_secret = hunter2\n",
            r"section \[default\] of .*: access_key_id is",
        ),
        ("[default]\ntype = rsa_key_pair\nprivate_key = hunter2\n", "type 'rsa_key_pair' is not"),
    ],
)
async def test_broken_ini_files_are_one_line_and_hold_nothing(
    ask: Ask, tmp_path: Path, text: str, match: str
) -> None:
    ini(tmp_path, text)
    with pytest.raises(UsageError, match=match) as caught:
        await ask()
    holds_nothing(caught.value)
