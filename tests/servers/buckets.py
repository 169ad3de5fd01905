"""S3 servers, one for each pytest worker and scheme, and a fresh bucket for each test."""

import contextlib
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.seaweedfs import WRITER, SeaweedFS, seaweedfs


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs-tls"), tls=True) as server:
        yield server


class Buckets:
    """Empty buckets of a server, each made while a test uses the one before.

    A bucket has had an object: the server takes a fifth of a second for the first.
    """

    def __init__(self, server: SeaweedFS) -> None:
        self._server: Final = server
        self._thread: Final = ThreadPoolExecutor(1)
        self._next: Future[str] = self._thread.submit(self._make)

    def take(self) -> str:
        try:
            name = self._next.result()
        except (BotoCoreError, ClientError):  # the last test had stopped the server
            name = self._make()
        self._next = self._thread.submit(self._make)
        return name

    def close(self) -> None:
        self._thread.shutdown()

    def _make(self) -> str:
        name, client = f"test-{secrets.token_hex(6)}", self._server.client()
        self._server.make_bucket(name)
        client.put_object(Bucket=name, Key="first", Body=b"1")
        client.delete_object(Bucket=name, Key="first")
        return name


@pytest.fixture(scope="session")
def buckets(seaweed: SeaweedFS) -> Iterator[Buckets]:
    with contextlib.closing(Buckets(seaweed)) as buckets:
        yield buckets


@pytest.fixture
def bucket(seaweed: SeaweedFS, buckets: Buckets) -> Iterator[str]:
    name = buckets.take()
    yield name
    with contextlib.suppress(ClientError):  # a test may have removed or locked it
        seaweed.remove_bucket(name)


@pytest.fixture
def bucket_tls(seaweed_tls: SeaweedFS) -> Iterator[str]:
    name = seaweed_tls.make_bucket(f"test-{secrets.token_hex(6)}")
    yield name
    with contextlib.suppress(ClientError):
        seaweed_tls.remove_bucket(name)


@pytest.fixture
def s3_writer(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The environment of somebody who may write to these servers."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", WRITER.key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRITER.secret)
    if "seaweed_tls" in request.fixturenames:
        server: SeaweedFS = request.getfixturevalue("seaweed_tls")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(server.ca))
