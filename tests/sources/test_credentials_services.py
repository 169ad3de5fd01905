"""The vendor's services, played by a real server, for the tests beside; and what STS may say."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from archiver.errors import (
    ArchiverError,
    BadCredentials,
    NoCredentials,
    PermissionDenied,
    SourceUnavailable,
    UsageError,
)
from archiver.sources.alibaba.credentials import default_chain, roles
from archiver.sources.alibaba.credentials.context import Context, Profile
from archiver.sources.alibaba.rpc import Credentials
from archiver.sources.alibaba.signing import acs3_signature

NOW = 1_795_478_400.0  # 2026-11-24T00:00:00Z
TEMPORARY = {
    "AccessKeyId": "STS.temporary",
    "AccessKeySecret": "temporary-secret",
    "SecurityToken": "temporary-token",
    "Expiration": "2026-11-24T01:00:00Z",
}
STS = ("STS.temporary", "temporary-secret", "temporary-token")
ROLES = "/latest/meta-data/ram/security-credentials/"

Ask = Callable[..., Awaitable[Credentials]]


class Vendor:
    """On one port. ``asked`` tells what was asked for, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.tokens: list[str | None] = []
        self.secret_of = {"LTAIfile": "file-secret", "STS.temporary": "temporary-secret"}
        self.endpoint = ""
        self.role = "the-role"
        self.keys: dict[str, str | None] = {"Code": "Success", **TEMPORARY}
        self.refusal: tuple[int, str] | None = None
        self.metadata_status = 200

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Vendor"]:
        app = web.Application()
        app.router.add_post("/", self.sts)
        app.router.add_put("/latest/api/token", self.token)
        app.router.add_get(ROLES + "{role:.*}", self.metadata)
        app.router.add_get("/uri", self.uri)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def sts(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        action, query = headers["x-acs-action"], dict(request.query)
        self.asked.append((action, query))
        self.tokens.append(headers.get("x-acs-security-token"))
        if self.refusal is not None:
            status, code = self.refusal
            # For a wrong signature the vendor quotes the request that it received.
            message = f"no good:\n{query} {request.raw_path} {headers}"
            return web.json_response({"Code": code, "Message": message}, status=status)
        signed = self.signed(headers, query) if action == "AssumeRole" else True
        unsigned_oidc = "authorization" not in headers or action == "AssumeRole"
        if headers["x-acs-version"] != "2015-04-01" or not signed or not unsigned_oidc:
            return web.json_response({"Code": "SignatureDoesNotMatch"}, status=400)
        return web.json_response({"RequestId": "R-1", "Credentials": {**self.keys}})

    def signed(self, headers: dict[str, str], query: dict[str, str]) -> bool:
        given = dict(
            p.partition("=")[::2] for p in headers["authorization"].split(" ")[1].split(",")
        )
        names = given["SignedHeaders"].split(";")
        secret = self.secret_of[given["Credential"]]
        return given["Signature"] == acs3_signature(secret, "POST", query, headers, names)

    async def token(self, request: web.Request) -> web.Response:
        if self.metadata_status != 200:
            return web.Response(status=self.metadata_status)
        if "X-aliyun-ecs-metadata-token-ttl-seconds" not in request.headers:
            return web.Response(status=400)
        return web.Response(text="metadata-token\n")

    async def metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("X-aliyun-ecs-metadata-token") != "metadata-token":
            return web.Response(status=403)
        role = request.match_info["role"]
        self.asked.append(("metadata", {"role": role}))
        if not role:
            return web.Response(text=self.role) if self.role else web.Response(status=404)
        if self.role not in ("", role):
            return web.Response(status=404)
        return web.json_response(self.keys)

    async def uri(self, _: web.Request) -> web.Response:
        self.asked.append(("uri", {}))
        return web.json_response(self.keys)

    def asked_for(self) -> list[str]:
        return [action for action, _ in self.asked]


@asynccontextmanager
async def asking(vendor: Vendor, home: Path) -> AsyncIterator[Ask]:
    """Asks a fresh default chain with the given environment."""
    async with aiohttp.ClientSession() as session:

        async def ask(**environ: str) -> Credentials:
            chain = default_chain(
                session,
                environ,
                home,
                metadata_url=vendor.endpoint,
                sts_endpoint=vendor.endpoint,
                clock=lambda: NOW,
            )
            return await chain.get()

        yield ask


def revealed(credentials: Credentials) -> tuple[str, str, str | None]:
    token = credentials.security_token
    return (
        credentials.access_key_id.reveal(),
        credentials.access_key_secret.reveal(),
        token.reveal() if token else None,
    )


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor().serving() as vendor:
        yield vendor


@pytest.fixture
async def ask(vendor: Vendor, tmp_path: Path) -> AsyncIterator[Ask]:
    async with asking(vendor, tmp_path) as ask:
        yield ask


def oidc(token_file: Path) -> dict[str, str]:
    return {
        "ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/r",
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": "acs:ram::1:oidc-provider/p",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token_file),
    }


async def test_oidc(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    (tmp_path / "token").write_text("jwt\n")
    given = oidc(tmp_path / "token") | {"ALIBABA_CLOUD_ROLE_SESSION_NAME": "nightly"}
    credentials = await ask(**given)
    assert revealed(credentials) == STS
    assert credentials.expires_at == datetime(2026, 11, 24, 1, tzinfo=UTC)
    assert vendor.asked == [
        (
            "AssumeRoleWithOIDC",
            {
                "RoleArn": "acs:ram::1:role/r",
                "OIDCProviderArn": "acs:ram::1:oidc-provider/p",
                "OIDCToken": "jwt",
                "RoleSessionName": "nightly",
                "DurationSeconds": "3600",
            },
        )
    ]


@pytest.mark.parametrize("content", [None, "", " \n"])
async def test_an_oidc_token_file_without_token(
    ask: Ask, tmp_path: Path, vendor: Vendor, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(NoCredentials, match=r"OIDC token file .*token is missing or empty"):
        await ask(**oidc(tmp_path / "token"))
    assert vendor.asked == []


async def test_two_of_three_oidc_variables(ask: Ask, tmp_path: Path) -> None:
    given = oidc(tmp_path / "token")
    del given["ALIBABA_CLOUD_OIDC_PROVIDER_ARN"]
    with pytest.raises(UsageError, match=r"lacks ALIBABA_CLOUD_OIDC_PROVIDER_ARN$"):
        await ask(**given)
    # A role alone is a setting of other steps.
    assert revealed(await ask(ALIBABA_CLOUD_ROLE_ARN="acs:ram::1:role/r")) == STS


@pytest.mark.parametrize(
    ("status", "code", "kind", "match"),
    [
        (400, "AuthenticationFail.OIDCToken.Expired", BadCredentials, "the OIDC role in the env"),
        (404, "EntityNotExist.Role", BadCredentials, "check the role"),
        (403, "NoPermission", PermissionDenied, "sts:AssumeRoleWithOIDC on acs:ram::1:role/r"),
        (503, "ServiceUnavailable", SourceUnavailable, "ServiceUnavailable"),
    ],
)
async def test_what_sts_refuses(
    ask: Ask,
    tmp_path: Path,
    vendor: Vendor,
    status: int,
    code: str,
    kind: type[ArchiverError],
    match: str,
) -> None:
    (tmp_path / "token").write_text("jwt-of-the-pod")
    vendor.refusal = status, code
    with pytest.raises(kind, match=match) as caught:
        await ask(**oidc(tmp_path / "token"))
    assert "jwt-of-the-pod" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "settings", "host"),
    [
        ({}, {}, "sts.aliyuncs.com"),
        ({"VPC_ENDPOINT_ENABLED": "true"}, {}, "sts.aliyuncs.com"),
        ({"STS_REGION": "cn-beijing"}, {}, "sts.cn-beijing.aliyuncs.com"),
        (
            {"STS_REGION": "cn-beijing", "VPC_ENDPOINT_ENABLED": "True"},
            {},
            "sts-vpc.cn-beijing.aliyuncs.com",
        ),
        ({"STS_REGION": "cn-beijing"}, {"sts_region": "us-east-1"}, "sts.us-east-1.aliyuncs.com"),
        ({}, {"sts_region": "us-east-1", "enable_vpc": True}, "sts-vpc.us-east-1.aliyuncs.com"),
    ],
)
async def test_the_host_of_sts(
    tmp_path: Path, environ: dict[str, str], settings: dict[str, object], host: str
) -> None:
    full = {f"ALIBABA_CLOUD_{name}": value for name, value in environ.items()}
    async with aiohttp.ClientSession() as session:
        context = Context(session, full, tmp_path, "")
        assert roles._host(context, Profile("here", settings)) == host
        with pytest.raises(UsageError, match="not a region id"):
            roles._host(context, Profile("here", {"sts_region": "evil.example/"}))
