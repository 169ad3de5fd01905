"""The chain: its order, when it asks again, and that nothing it holds gets out."""

import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import anyio
import pytest

from archiver.errors import (
    AccessError,
    ArchiverError,
    BadCredentials,
    NoCredentials,
    SourceUnavailable,
    UsageError,
)
from archiver.secret import Secret
from archiver.sources.alibaba.credentials import CredentialChain, default_chain, static_chain
from archiver.sources.alibaba.credentials.chain import RENEWAL_PAUSE, NamedStep
from archiver.sources.alibaba.rpc import Credentials
from tests.sources.test_credentials_cli_config import AK, ROLE, config, ini
from tests.sources.test_credentials_services import (
    NOW,
    STS,
    TEMPORARY,
    Ask,
    Vendor,
    asking,
    oidc,
    revealed,
)

KEY = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAIenv", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "env-secret"}


@pytest.fixture
async def vendor() -> AsyncIterator[Vendor]:
    async with Vendor().serving() as vendor:
        yield vendor


@pytest.fixture
async def ask(vendor: Vendor, tmp_path: Path) -> AsyncIterator[Ask]:
    async with asking(vendor, tmp_path) as ask:
        yield ask


async def test_the_order_of_the_steps(ask: Ask, tmp_path: Path, vendor: Vendor) -> None:
    (tmp_path / "token").write_text("jwt")
    path = config(tmp_path, AK)
    second = ini(tmp_path, "[default]\naccess_key_id = LTAIini\naccess_key_secret = s\n")
    uri = {"ALIBABA_CLOUD_CREDENTIALS_URI": f"{vendor.endpoint}/uri"}
    role = oidc(tmp_path / "token")

    assert (await ask(**KEY, **role, **uri)).origin == "the environment"
    assert (await ask(**role, **uri)).origin == "the OIDC role in the environment"
    assert (await ask(**uri)).origin == f"profile 'default' of {path}"
    path.unlink()
    assert (await ask(**uri)).origin == f"section [default] of {second}"
    second.unlink()
    assert vendor.asked_for() == ["AssumeRoleWithOIDC"]
    assert (await ask(**uri)).origin == "ALIBABA_CLOUD_CREDENTIALS_URI"
    assert vendor.asked_for() == ["AssumeRoleWithOIDC", "uri"]
    assert (await ask()).origin == "the RAM role of this ECS instance"


async def test_a_key_in_the_environment(ask: Ask) -> None:
    assert revealed(await ask(**KEY)) == ("LTAIenv", "env-secret", None)
    token = {"ALIBABA_CLOUD_SECURITY_TOKEN": "env-token"}
    assert revealed(await ask(**KEY, **token)) == ("LTAIenv", "env-secret", "env-token")
    # A mounted secret often ends in a line break.
    with_break = {name: f"{value}\n" for name, value in KEY.items()}
    assert revealed(await ask(**with_break)) == ("LTAIenv", "env-secret", None)


@pytest.mark.parametrize("half", list(KEY))
async def test_half_a_key_is_said(ask: Ask, half: str) -> None:
    [missing] = set(KEY) - {half}
    with pytest.raises(NoCredentials, match=f"{missing} is missing"):
        await ask(**{half: "x"})


async def test_nothing_at_all(ask: Ask, vendor: Vendor) -> None:
    vendor.role = ""
    with pytest.raises(NoCredentials) as caught:
        await ask()
    said = str(caught.value)
    for looked_at in ("ACCESS_KEY_ID", "OIDC", "config.json", "credentials.ini", "URI", "ECS"):
        assert looked_at in said
    assert "\n" not in said
    assert caught.value.exit_code == 4


async def test_a_broken_step_does_not_fall_through(ask: Ask, tmp_path: Path) -> None:
    config(tmp_path).write_text("{")
    ini(tmp_path, "[default]\naccess_key_id = LTAIini\naccess_key_secret = s\n")
    with pytest.raises(UsageError):
        await ask()


async def test_a_given_key() -> None:
    given = Credentials(Secret("a"), Secret("b"))
    chain = static_chain(given)
    assert await chain.get() is given
    assert await chain.get() is given


async def test_oidc_reads_its_token_anew(vendor: Vendor, tmp_path: Path) -> None:
    now = NOW
    async with aiohttp.ClientSession() as session:
        chain = default_chain(
            session,
            oidc(tmp_path / "token"),
            tmp_path,
            sts_endpoint=vendor.endpoint,
            clock=lambda: now,
        )
        for token, time in (("first", NOW), ("second", NOW + 3000)):
            now = time
            (tmp_path / "token").write_text(token)
            await chain.get()
            vendor.keys["Expiration"] = "2026-11-24T02:00:00Z"
        assert [params["OIDCToken"] for _, params in vendor.asked] == ["first", "second"]
        held = await chain.get()
        assert held.expires_at == datetime(2026, 11, 24, 2, tzinfo=UTC)


class Giver:
    """A step whose keys last as long as the test wants (seconds), numbered."""

    def __init__(self) -> None:
        self.asked = 0
        self.lasts = 3600.0
        self.answer: ArchiverError | None = None
        self.gone = False
        self.now = NOW
        self.later_step_asked = False
        self.chain = CredentialChain(
            [NamedStep("the giver", self), NamedStep("the next", self.next)], lambda: self.now
        )

    async def __call__(self) -> Credentials | None:
        await anyio.sleep(0.01)
        self.asked += 1
        if self.answer is not None:
            raise self.answer
        if self.gone:
            return None
        expires = datetime.fromtimestamp(self.now + self.lasts, UTC)
        return Credentials(Secret(str(self.asked)), Secret("s"), Secret("t"), expires)

    async def next(self) -> Credentials | None:
        self.later_step_asked = True
        return Credentials(Secret("next"), Secret("s"))

    async def get(self) -> str:
        return (await self.chain.get()).access_key_id.reveal()


async def test_renewed_in_time() -> None:
    giver = Giver()
    assert await giver.get() == "1"
    giver.now = NOW + 3600 - 15 * 60 - 1
    assert await giver.get() == "1"
    giver.now += 1
    assert await giver.get() == "2"
    assert not giver.later_step_asked


async def test_many_tasks_share_one_request() -> None:
    giver = Giver()
    got: list[str] = []

    async def one() -> None:
        got.append(await giver.get())

    for wanted in ("1", "2"):
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(one)
        assert (set(got), len(got)) == ({wanted}, 50)
        got.clear()
        giver.now += 3000
    assert giver.asked == 2


async def test_a_task_that_is_cancelled_leaves_the_others_theirs() -> None:
    giver = Giver()
    with anyio.move_on_after(0.001):
        await giver.get()
    assert await giver.get() == "1"


async def test_a_failed_renewal_keeps_what_still_works() -> None:
    giver = Giver()
    await giver.get()
    giver.answer, giver.now = SourceUnavailable("down"), NOW + 3000
    for _ in range(5):
        assert await giver.get() == "1"
    assert giver.asked == 2  # not once a call: every try may take its whole timeout
    giver.now += RENEWAL_PAUSE
    assert await giver.get() == "1"
    assert giver.asked == 3
    giver.now = NOW + 3600
    with pytest.raises(SourceUnavailable, match="down"):
        await giver.get()
    giver.answer = None
    assert await giver.get() == "5"


async def test_keys_that_live_for_15_minutes_are_not_renewed_at_every_call() -> None:
    giver = Giver()
    giver.lasts = 900
    for _ in range(5):
        assert await giver.get() == "1"
    giver.now += RENEWAL_PAUSE
    assert await giver.get() == "2"


async def test_a_giver_that_stops_giving_is_not_replaced_by_the_next() -> None:
    giver = Giver()
    await giver.get()
    giver.gone, giver.now = True, NOW + 3600
    with pytest.raises(SourceUnavailable, match="the giver no longer gives an access key"):
        await giver.get()
    assert not giver.later_step_asked


async def test_a_key_that_is_given_too_late() -> None:
    giver = Giver()
    giver.lasts = -1
    with pytest.raises(BadCredentials, match="given: the access key expired at 2026-11-23T23:59"):
        await giver.get()
    giver.lasts = 3600
    assert await giver.get() == "2"


def everything_behind(error: BaseException) -> str:
    """All that a log or a crash reporter could find: the texts, the fields and the chain."""
    shown, todo = "", [error]
    while todo:
        one = todo.pop()
        shown += f"{one!r} {one} {one.args!r} {vars(one)!r}"
        shown += "".join(traceback.format_exception(one))
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
    return shown


@pytest.mark.parametrize(
    "refusal",
    [None, (400, "SignatureDoesNotMatch"), (400, "InvalidParameter"), (500, "InternalError")],
)
async def test_nothing_that_is_held_gets_out(
    vendor: Vendor, tmp_path: Path, refusal: tuple[int, str] | None
) -> None:
    (tmp_path / "token").write_text("jwt/hunter2")
    keys = {"access_key_secret": "file-hunter2", "sts_token": "sts/hunter2=="}
    config(tmp_path, {**AK, **ROLE, **keys})
    vendor.secret_of["LTAIfile"] = "file-hunter2"
    # Without a refusal, what goes wrong is an expiry that is no time.
    vendor.keys = {name: f"{value}-hunter2" for name, value in TEMPORARY.items()}
    vendor.refusal = refusal
    async with aiohttp.ClientSession() as session:
        for environ in (oidc(tmp_path / "token"), {}):
            for endpoint in (vendor.endpoint, "http://127.0.0.1:1"):
                chain = default_chain(session, environ, tmp_path, sts_endpoint=endpoint)
                with pytest.raises(ArchiverError) as caught:
                    await chain.get()
                assert "hunter2" not in everything_behind(caught.value)
    assert vendor.asked_for() == ["AssumeRoleWithOIDC", "AssumeRole"]


async def test_keys_do_not_print(ask: Ask) -> None:
    vendors_key = await ask()
    assert revealed(vendors_key) == STS
    for shown in (repr(vendors_key), str(vendors_key), f"{vendors_key}", "%s" % vendors_key):
        assert "STS.temporary" not in shown
        assert "temporary-" not in shown


@pytest.mark.parametrize("part", ["ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "SECURITY_TOKEN"])
@pytest.mark.parametrize("value", ["hunter2\nx", "hunter2\rx", "'hunter2'", "hunter 2"])
async def test_a_key_that_no_header_can_carry(ask: Ask, part: str, value: str) -> None:
    name = f"ALIBABA_CLOUD_{part}"
    with pytest.raises(AccessError, match=f"the environment: {name}: ") as caught:
        await ask(**KEY | {name: value})
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("name", ["CREDENTIALS_FILE", "CONFIG_FILE", "CREDENTIALS_URI"])
async def test_another_spoilt_variable(ask: Ask, name: str) -> None:
    name = f"ALIBABA_CLOUD_{name}"
    with pytest.raises(UsageError, match=f"^{name} in the environment: .*quotes"):
        await ask(**{name: '"/srv/x"'})
