"""Names, addresses, and whom TLS trusts: for files and for the API."""

import asyncio
import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import pytest

from archiver import (
    Archive,
    PullOptions,
    TairSource,
    TransferOptions,
    network,
    pull,
    static_chain,
)
from archiver.emulator import Emulator
from archiver.errors import UntrustedSource, UsageError
from archiver.network import Address, connect, resolve, tls_context
from archiver.retry import RetryPolicy
from archiver.secret import SignedUrl
from archiver.sources.session import open_session
from archiver.stores.s3 import S3Options, S3Store
from archiver.transfer.http.client import open_fetcher
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Run
from tests.conftest import INSTANCE, EmulatorMaker, credentials, everything, source_of
from tests.network.conftest import Authority
from tests.servers.seaweedfs import SeaweedFS


def nobody_gives_up() -> None:
    pass


def at(host: str, port: int) -> Address:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = (host, port, 0, 0) if ":" in host else (host, port)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def full() -> Iterator[int]:
    """A port whose queue is full: nobody refuses, and nobody answers, as with a dead address."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_a_dead_address_costs_little(full: int, listening: int) -> None:
    """The next is tried beside it, not after the ten seconds that it may take."""
    opened, address = connect([at("127.0.0.1", full), at("127.0.0.1", listening)], nobody_gives_up)
    with opened:
        assert opened.getpeername()[1] == listening
    assert address == at("127.0.0.1", listening)


async def test_a_dead_address_of_the_vendor(
    files: Path,
    emulator: Emulator,
    archive: Archive,
    full: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first that its name stands for: files of both kinds and the listing come all the same."""
    asked = network._getaddrinfo

    def ask(host: str, port: int, flags: int = 0) -> Sequence[Address]:
        if host == "localhost":
            if flags:
                raise socket.gaierror
            return [at("127.0.0.1", full), at("127.0.0.1", emulator.port)]
        return asked(host, port, flags)

    for n, size in enumerate((20_000, 2_000_000)):
        write_rdb(files / INSTANCE / f"{n}.rdb", size, n)
    own = f"localhost:{emulator.port}"
    emulator._api.hosts = type(emulator._api.hosts)(own, own)
    monkeypatch.setattr(network, "_getaddrinfo", ask)
    chain = static_chain(credentials())
    never = RetryPolicy(give_up_after=0.0)
    options = PullOptions(transfer=TransferOptions(retry=never))
    async with TairSource(f"http://{own}", chain.get, retry=never) as source:
        summary = await pull(source, archive, [everything()], options)
    assert (summary.archived, summary.failures) == (2, [])


def test_one_that_refuses_costs_nothing(listening: int) -> None:
    opened, _ = connect([at("127.0.0.1", 1), at("127.0.0.1", listening)], nobody_gives_up, 0.2)
    opened.close()


def test_all_refuse() -> None:
    with pytest.raises(ConnectionRefusedError):
        connect([at("127.0.0.1", 1)] * 3, nobody_gives_up)
    with pytest.raises(OSError, match="no address"):
        connect([], nobody_gives_up)


def test_nobody_answers_in_time(full: int) -> None:
    with pytest.raises(TimeoutError):
        connect([at("127.0.0.1", full)], nobody_gives_up, 0.3)


def test_families_take_turns() -> None:
    six, four = [at(f"fd00::{n}", 1) for n in range(3)], [at(f"10.0.0.{n}", 1) for n in range(2)]
    turns = network._alternating([*six, *four])
    assert turns == [six[0], four[0], six[1], four[1], six[2]]


def test_whoever_gives_up_need_not_wait(full: int) -> None:
    class GivenUp(Exception):
        pass

    looks = iter(range(3))

    def check() -> None:
        if next(looks, None) is None:
            raise GivenUp

    with pytest.raises(GivenUp):
        connect([at("127.0.0.1", full)], check, 60.0)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A resolver that does not answer before the event; how often it was asked is not counted."""
    answers = threading.Event()
    asked = network._getaddrinfo

    def ask(host: str, port: int, flags: int = 0) -> Sequence[Address]:
        if not flags:
            answers.wait(30.0)
        return asked(host, port, flags)

    monkeypatch.setattr(network, "_getaddrinfo", ask)
    yield answers
    answers.set()


def test_a_resolver_that_does_not_answer(stuck: threading.Event) -> None:
    with pytest.raises(TimeoutError, match="localhost was not resolved"):
        resolve("localhost", 80, nobody_gives_up, 0.2)
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            resolve("localhost", 80, nobody_gives_up, 0.01)
    assert threading.active_count() == before  # all wait for the same thread
    stuck.set()
    assert resolve("localhost", 80, nobody_gives_up)


async def test_a_cancellation_does_not_wait_for_a_resolver(stuck: threading.Event) -> None:
    """Of a download, and of a request to the API."""
    async with open_fetcher(2) as fetcher:
        url = SignedUrl.parse("http://localhost:1/k")
        with anyio.fail_after(10), anyio.move_on_after(0.2):
            async with fetcher.open(url, 0, 10, None):
                pass
    async with open_session() as session:
        with anyio.fail_after(10), anyio.move_on_after(0.2):
            await session.get("http://localhost:1/")
    assert not stuck.is_set()


async def test_ctrl_c_does_not_wait_for_a_resolver(environ: dict[str, str], tmp_path: Path) -> None:
    """Nor does the end of the process."""
    code = (
        "import socket, sys, time\n"
        "from archiver import network\n"
        "def ask(host, port, flags=0):\n"
        "    if flags: raise socket.gaierror\n"
        "    print('asked', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "network._getaddrinfo = ask\n"
        "from archiver.cli import main\n"
        "main()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "pull", "--instance", INSTANCE, "--to", "archive",
        "--endpoint", "api.example", env=environ, cwd=tmp_path, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    assert await process.stderr.readline() == b"asked\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        assert await process.wait() == 130
    assert time.monotonic() - began < 30


async def test_ctrl_c_ends_the_wait_for_a_vendor(environ: dict[str, str], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "pull", "--instance", INSTANCE, "--to", "archive", "-v",
        "--endpoint", "http://127.0.0.1:1", "--retry-for", "10h", env=environ, cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    assert (await process.stderr.readline()).startswith(b"retry 1 in ")
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):  # its first half minute is not over then
        assert await process.wait() == 130


async def test_the_api_of_an_authority_that_nobody_named(
    files: Path,
    emulator_of: EmulatorMaker,
    archive: Archive,
    authority: Authority,
) -> None:
    """It fails at once, with the right hint, and for all instances."""
    emulator = await emulator_of(files, tls=authority.context)
    waits: list[object] = []
    async with source_of(emulator, retry=RetryPolicy(), observer=waits.append) as source:
        summary = await pull(source, archive, [everything(), everything("r-other")])
    [failure] = summary.failures
    assert isinstance(failure.error, UntrustedSource)
    assert failure.error.hint == "set SSL_CERT_FILE to trust other authorities"
    assert "1 more" in str(failure.error)
    assert waits == []
    assert summary.exit_code == 5


async def test_files_of_an_authority_that_nobody_named(
    files: Path, emulator_of: EmulatorMaker, archive: Archive, authority: Authority
) -> None:
    for n, size in enumerate((20_000, 2_000_000)):
        write_rdb(files / INSTANCE / f"{n}.rdb", size, n)
    objects = await emulator_of(files, tls=authority.context)
    own = f"127.0.0.1:{objects.port}"
    emulator = await emulator_of(files, public_host=own, intranet_host=own)
    emulator._api.hosts = type(emulator._api.hosts)(own, own, "https")
    options = PullOptions(transfer=TransferOptions(retry=RetryPolicy()))
    async with source_of(emulator) as source:
        summary = await pull(source, archive, [everything()], options)
    assert {type(failure.error) for failure in summary.failures} == {UntrustedSource}
    assert len(summary.failures) == 2


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), ("no certificate", "it holds no certificates")]
)
async def test_authorities_that_cannot_be_read(
    emulator: Emulator, run: Run, tmp_path: Path, content: str | None, why: str
) -> None:
    """OpenSSL passes over them in silence."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    result = await run("pull", "--instance", INSTANCE, "--to", "archive", SSL_CERT_FILE=str(file))
    assert result.code == 2, result.err
    assert f"SSL_CERT_FILE: {file}: {why}" in result.err


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_authorities_of_a_spoilt_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/srv/authorities\r")
    with pytest.raises(UsageError, match=f"^{name} in the environment: .*carriage return"):
        tls_context()


@pytest.mark.usefixtures("s3_writer")
async def test_a_bucket_of_an_authority_that_the_environment_names(
    seaweed_tls: SeaweedFS, bucket_tls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("SSL_CERT_FILE", str(seaweed_tls.ca))
    store = S3Store(f"s3://{bucket_tls}/x", S3Options(endpoint=seaweed_tls.endpoint))
    assert [entry async for entry in store.entries("")] == []
