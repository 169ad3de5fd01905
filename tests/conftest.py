"""What many tests share: an emulator over real files, a source that asks it, an archive."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

import archiver
from archiver import Archive, LocalStore, Query, TairSource, static_chain
from archiver.emulator import Emulator
from archiver.retry import RetryPolicy
from archiver.secret import Secret
from archiver.sources.alibaba.rpc import Credentials
from tests.servers import forks
from tests.servers.buckets import (  # noqa: F401
    bucket,
    bucket_tls,
    buckets,
    s3_writer,
    seaweed,
    seaweed_tls,
)
from tests.servers.forks import Forks
from tests.sweeps import (  # noqa: F401
    pytest_collection_modifyitems,
    pytest_report_header,
    pytest_runtest_setup,
)

pytest.register_assert_rewrite("tests.stores.conformance")

# No timed tests: a busy machine is no failure.
settings.register_profile("archiver", deadline=None, print_blob=True)
settings.load_profile("archiver")

DATA = Path(__file__).parent / "data" / "rdb"
PACKAGE = Path(archiver.__file__).parent
KEY_ID = "LTAI5tTestTestTestTest42"
KEY_SECRET = "kZ8mS3cr3tS3cr3tS3cr3tS3cr3t42"
INSTANCE = "r-bp1zxszhcgatnx"
QUICK = RetryPolicy(attempts=4, first_wait=0.001, max_wait=0.002)

EmulatorMaker = Callable[..., Awaitable[Emulator]]


@pytest.fixture(autouse=True)
def no_blocking_on_the_loop() -> Iterator[BlockBuster]:
    """A blocking call of ours on the event loop fails the test."""
    with blockbuster_ctx("archiver") as blockbuster:
        yield blockbuster


@pytest.fixture(autouse=True)
def no_credentials_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing of the environment gets in, and nothing asks a metadata service."""
    ours, proxy = ("ALIBABA_", "ARCHIVER_", "AWS_"), "_PROXY"
    for name in list(os.environ):
        if name.startswith(ours) or name.upper().endswith(proxy) or name == "SSL_CERT_FILE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def forked() -> Forks:
    return forks.shared()


@pytest.fixture(scope="session", autouse=True)
def forks_end() -> Iterator[None]:
    yield
    forks.end()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory for the emulator, with an instance that has no backups yet."""
    folder = tmp_path / "vendor"
    (folder / INSTANCE).mkdir(parents=True)
    return folder


@pytest.fixture
async def emulator_of() -> AsyncIterator[EmulatorMaker]:
    """Starts emulators, and stops them when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(directory: Path, **options: object) -> Emulator:
            given = {"access_key_id": KEY_ID, "access_key_secret": KEY_SECRET, **options}
            return await stack.enter_async_context(Emulator(directory, **given))  # type: ignore[arg-type]

        yield start


@pytest.fixture
async def emulator(files: Path, emulator_of: EmulatorMaker) -> Emulator:
    return await emulator_of(files)


@pytest.fixture
async def source(emulator: Emulator) -> AsyncIterator[TairSource]:
    async with source_of(emulator) as source:
        yield source


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(LocalStore(tmp_path / "archive"))


def credentials() -> Credentials:
    return Credentials(Secret(KEY_ID), Secret(KEY_SECRET))


def source_of(emulator: Emulator, **options: object) -> TairSource:
    """A source that asks ``emulator`` and does not wait long between tries."""
    given = {"retry": QUICK, **options}
    return TairSource(emulator.endpoint, static_chain(credentials()).get, **given)  # type: ignore[arg-type]


def everything(instance_id: str = INSTANCE, *, need_aof: bool = False) -> Query:
    return Query(instance_id, "2000-01-01T00:00Z", "2100-01-01T00:00Z", need_aof=need_aof)


def tasks_of_the_package(before: set["asyncio.Task[object]"]) -> list["asyncio.Task[object]"]:
    """Those that began after ``before`` and run code of ours, but not of the emulator. By the file
    of their code: a checkout, and what is installed below it, may be called archiver, too."""
    found = []
    for task in asyncio.all_tasks() - before:
        path = Path(getattr(getattr(task.get_coro(), "cr_code", None), "co_filename", ""))
        if path.is_relative_to(PACKAGE) and not path.is_relative_to(PACKAGE / "emulator"):
            found.append(task)
    return found
