"""The credential chain against real local servers, files and environments."""

import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web

from archiver.errors import (
    ArchiverError,
    BadCredentials,
    NoCredentials,
    SourceUnavailable,
    UsageError,
)
from archiver.secret import Secret
from archiver.sources.credentials import CredentialChain, default_chain
from archiver.sources.credentials.chain import NamedStep
from archiver.sources.rpc import Credentials
from archiver.sources.signing import acs3_signature

NOW = 1_795_478_400.0  # 2026-11-24T00:00:00Z
KEY = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAIenv", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "env-secret"}
TEMPORARY = {
    "AccessKeyId": "STS.temporary",
    "AccessKeySecret": "temporary-secret",
    "SecurityToken": "temporary-token",
    "Expiration": "2026-11-24T01:00:00Z",
}


class Vendor:
    """STS, the metadata service and a credentials URI, on one port."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.secret_of = {"LTAIfile": "file-secret", "STS.temporary": "temporary-secret"}
        self.endpoint = ""
        self.broken = False
        self.role = "the-role"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self.sts)
        app.router.add_put("/latest/api/token", self.token)
        app.router.add_get("/latest/meta-data/ram/security-credentials/{role:.*}", self.metadata)
        app.router.add_get("/uri", self.uri)
        return app

    async def sts(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        action = headers["x-acs-action"]
        self.asked.append((action, dict(request.query)))
        if self.broken:
            return web.json_response({"Code": "NoPermission", "Message": "no"}, status=403)
        if action == "AssumeRole":
            parts = dict(
                p.partition("=")[::2] for p in headers["authorization"].split(" ")[1].split(",")
            )
            secret = self.secret_of[parts["Credential"]]
            names = parts["SignedHeaders"].split(";")
            assert parts["Signature"] == acs3_signature(
                secret, "POST", dict(request.query), headers, names
            )
        else:
            assert "authorization" not in headers
        return web.json_response({"Credentials": TEMPORARY})

    async def token(self, request: web.Request) -> web.Response:
        assert "X-aliyun-ecs-metadata-token-ttl-seconds" in request.headers
        return web.Response(text="metadata-token")

    async def metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("X-aliyun-ecs-metadata-token") != "metadata-token":
            return web.Response(status=403)
        self.asked.append(("metadata", {"role": request.match_info["role"]}))
        if not request.match_info["role"]:
            return web.Response(text=self.role) if self.role else web.Response(status=404)
        return web.json_response({"Code": "Success", **TEMPORARY})

    async def uri(self, _: web.Request) -> web.Response:
        self.asked.append(("uri", {}))
        return web.json_response({"Code": "Failed"} if self.broken else {**TEMPORARY})


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    vendor = Vendor()
    runner = web.AppRunner(vendor.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    vendor.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield vendor
    await runner.cleanup()


Ask = Callable[..., Awaitable[Credentials]]


@pytest.fixture
async def ask(vendor: Vendor, tmp_path: Path) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        async def given(**environ: str) -> Credentials:
            chain = default_chain(
                session,
                environ,
                tmp_path,
                metadata_url=vendor.endpoint,
                sts_endpoint=vendor.endpoint,
                clock=lambda: NOW,
            )
            return await chain.get()

        yield given


def config(home: Path, *profiles: dict[str, str], current: str = "default") -> Path:
    path = home / ".aliyun" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"current": current, "profiles": profiles}))
    return path


def ini(home: Path, text: str) -> Path:
    path = home / ".alibabacloud" / "credentials.ini"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def revealed(credentials: Credentials) -> tuple[str, str, str | None]:
    token = credentials.security_token
    return (
        credentials.access_key_id.reveal(),
        credentials.access_key_secret.reveal(),
        token.reveal() if token else None,
    )


STS = ("STS.temporary", "temporary-secret", "temporary-token")
AK = {
    "name": "default",
    "mode": "AK",
    "access_key_id": "LTAIfile",
    "access_key_secret": "file-secret",
}


async def test_the_environment_comes_first(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    config(tmp_path, AK)
    assert revealed(await ask(**KEY)) == ("LTAIenv", "env-secret", None)
    token = {"ALIBABA_CLOUD_SECURITY_TOKEN": "env-token"}
    assert revealed(await ask(**KEY, **token)) == ("LTAIenv", "env-secret", "env-token")
    assert vendor.asked == []


async def test_half_a_key_is_said(ask: Ask) -> None:
    with pytest.raises(NoCredentials, match="ALIBABA_CLOUD_ACCESS_KEY_SECRET is missing"):
        await ask(ALIBABA_CLOUD_ACCESS_KEY_ID="LTAI")


async def test_oidc(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    (tmp_path / "token").write_text("jwt\n")
    given = {
        "ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/r",
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/p",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(tmp_path / "token"),
        "ALIBABA_CLOUD_ROLE_SESSION_NAME": "nightly",
    }
    credentials = await ask(**given)
    assert revealed(credentials) == STS
    assert credentials.expires_at == datetime(2026, 11, 24, 1, tzinfo=UTC)
    [(action, params)] = vendor.asked
    assert (action, params["OIDCToken"], params["RoleSessionName"]) == (
        "AssumeRoleWithOIDC",
        "jwt",
        "nightly",
    )
    (tmp_path / "token").unlink()
    with pytest.raises(NoCredentials, match="cannot read the OIDC token file"):
        await ask(**given)


@pytest.mark.parametrize(
    ("profile", "expected", "asked"),
    [
        ({}, ("LTAIfile", "file-secret", None), []),
        ({"mode": "StsToken", "sts_token": "t"}, ("LTAIfile", "file-secret", "t"), []),
        ({"mode": "RamRoleArn", "ram_role_arn": "acs:ram::1:role/r"}, STS, ["AssumeRole"]),
        ({"mode": "EcsRamRole"}, STS, ["metadata", "metadata"]),
        ({"mode": "EcsRamRole", "ram_role_name": "named"}, STS, ["metadata"]),
        ({"mode": "CredentialsURI", "credentials_uri": "<endpoint>/uri"}, STS, ["uri"]),
        (
            {
                "mode": "OIDC",
                "ram_role_arn": "a",
                "oidc_provider_arn": "b",
                "oidc_token_file": "<home>/token",
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
    filled = {
        name: value.replace("<endpoint>", vendor.endpoint).replace("<home>", str(tmp_path))
        for name, value in profile.items()
    }
    config(tmp_path, AK | filled)
    assert revealed(await ask()) == expected
    assert [action for action, _ in vendor.asked] == asked


async def test_a_chained_role(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    chained = {
        "name": "far",
        "mode": "ChainableRamRoleArn",
        "source_profile": "default",
        "ram_role_arn": "acs:ram::1:role/far",
    }
    config(tmp_path, AK, chained, current="far")
    assert revealed(await ask()) == STS
    assert vendor.asked[0][1]["RoleArn"] == "acs:ram::1:role/far"
    config(tmp_path, AK, chained | {"source_profile": "far"}, current="far")
    with pytest.raises(UsageError, match="source_profile"):
        await ask()


async def test_profiles_are_chosen(ask: Ask, tmp_path: Path) -> None:
    config(tmp_path, AK, AK | {"name": "other", "access_key_id": "LTAIother"}, current="other")
    assert revealed(await ask())[0] == "LTAIother"
    assert revealed(await ask(ALIBABA_CLOUD_PROFILE="default"))[0] == "LTAIfile"
    with pytest.raises(UsageError, match="no profile 'none'"):
        await ask(ALIBABA_CLOUD_PROFILE="none")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            "access_key_id = LTAIini\naccess_key_secret = ini-secret",
            ("LTAIini", "ini-secret", None),
        ),
        (
            "type = sts\naccess_key_id = a\naccess_key_secret = b\nsecurity_token = c",
            ("a", "b", "c"),
        ),
        (
            """type = ram_role_arn
            access_key_id = LTAIfile
            access_key_secret = file-secret
            role_arn = acs:ram::1:role/r""".replace("    ", ""),
            STS,
        ),
        ("type = ecs_ram_role\nrole_name = named", STS),
    ],
)
async def test_types_of_the_ini_file(
    ask: Ask, tmp_path: Path, section: str, expected: tuple[str, str, str | None]
) -> None:
    ini(tmp_path, f"[default]\n{section}\n")
    assert revealed(await ask()) == expected


async def test_an_ini_file_elsewhere(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "mine.ini"
    with pytest.raises(NoCredentials, match="does not exist"):
        await ask(ALIBABA_CLOUD_CREDENTIALS_FILE=str(path))
    path.write_text("[night]\naccess_key_id = a\naccess_key_secret = 'b'\n")
    given = {"ALIBABA_CLOUD_CREDENTIALS_FILE": str(path), "ALIBABA_CLOUD_PROFILE": "night"}
    assert revealed(await ask(**given)) == ("a", "b", None)


async def test_the_metadata_service_is_last(ask: Ask, vendor: Vendor) -> None:
    assert revealed(await ask()) == STS
    assert [params["role"] for _, params in vendor.asked] == ["", "the-role"]
    vendor.asked.clear()
    assert revealed(await ask(ALIBABA_CLOUD_CREDENTIALS_URI=f"{vendor.endpoint}/uri")) == STS
    assert [action for action, _ in vendor.asked] == ["uri"]


async def test_nothing_at_all(ask: Ask, vendor: Vendor) -> None:
    vendor.role = ""
    for environ in ({}, {"ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true"}):
        with pytest.raises(NoCredentials) as caught:
            await ask(**environ)
        assert "~/.aliyun/config.json" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 4


async def test_a_named_role_that_is_not_there(vendor: Vendor, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        chain = default_chain(
            session,
            {"ALIBABA_CLOUD_ECS_METADATA": "named"},
            tmp_path,
            metadata_url="http://127.0.0.1:1",
        )
        with pytest.raises(SourceUnavailable):
            await chain.get()


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("{not json SECRET", UsageError, "not a configuration"),
        ("[]", UsageError, "not a configuration"),
        ('{"current": "x", "profiles": []}', UsageError, "no profile 'x'"),
        ('{"profiles": [{"name": "default", "mode": "External"}]}', UsageError, "'External'"),
        (
            '{"profiles": [{"name": "default", "mode": "AK"}]}',
            UsageError,
            "access_key_id is missing",
        ),
        (
            """{"profiles": [{"name": "default", "mode": "StsToken", "access_key_id": "a",
            "access_key_secret": "SECRET", "sts_token": "SECRET", "sts_expiration": "SOON"}]}""",
            UsageError,
            "is not a time",
        ),
    ],
)
async def test_broken_files_are_one_line_and_leak_nothing(
    ask: Ask, tmp_path: Path, text: str, kind: type[ArchiverError], match: str
) -> None:
    config(tmp_path).write_text(text)
    with pytest.raises(kind, match=match) as caught:
        await ask()
    assert "\n" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in shown


async def test_a_broken_ini_file_leaks_nothing(ask: Ask, tmp_path: Path) -> None:
    ini(tmp_path, "access_key_secret = SECRET")
    with pytest.raises(UsageError, match="not an ini file") as caught:
        await ask()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


async def test_broken_answers(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    vendor.broken = True
    with pytest.raises(BadCredentials):
        await ask(ALIBABA_CLOUD_CREDENTIALS_URI=f"{vendor.endpoint}/uri")
    config(tmp_path, AK | {"mode": "RamRoleArn", "ram_role_arn": "acs:ram::1:role/r"})
    with pytest.raises(ArchiverError) as caught:
        await ask()
    assert caught.value.exit_code == 4


class Counter:
    """A step whose keys last as long as the test wants."""

    def __init__(self) -> None:
        self.asked = 0
        self.lasts = 3600.0
        self.broken = False
        self.now = NOW

    async def __call__(self) -> Credentials:
        await anyio.sleep(0.01)
        self.asked += 1
        if self.broken:
            raise SourceUnavailable("broken")
        expires = datetime.fromtimestamp(self.now + self.lasts, UTC)
        return Credentials(Secret(str(self.asked)), Secret("s"), Secret("t"), expires)


async def test_refreshed_in_time_and_once() -> None:
    step = Counter()
    chain = CredentialChain([NamedStep("x", step)], lambda: step.now)
    got: list[str] = []

    async def one() -> None:
        got.append((await chain.get()).access_key_id.reveal())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
    assert (set(got), step.asked) == ({"1"}, 1)
    step.now += 3600 - 15 * 60 - 1
    assert (await chain.get()).access_key_id.reveal() == "1"
    step.now += 2
    assert (await chain.get()).access_key_id.reveal() == "2"


async def test_a_failed_refresh_keeps_what_still_works() -> None:
    step = Counter()
    chain = CredentialChain([NamedStep("x", step)], lambda: step.now)
    await chain.get()
    step.broken, step.now = True, NOW + 3000
    assert (await chain.get()).access_key_id.reveal() == "1"
    step.now = NOW + 3601
    with pytest.raises(SourceUnavailable):
        await chain.get()
    step.broken = False
    assert (await chain.get()).access_key_id.reveal() == "4"


async def test_keys_do_not_print(ask: Ask) -> None:
    shown = repr(await ask(**KEY))
    assert "LTAIenv" not in shown
    assert "env-secret" not in shown
