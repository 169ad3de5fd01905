"""S3 servers, one for each pytest worker and scheme, and a fresh bucket for each test."""

import contextlib
import secrets
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from tests.servers.seaweedfs import WRITER, SeaweedFS, seaweedfs


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs-tls"), tls=True) as server:
        yield server


@pytest.fixture
def bucket(seaweed: SeaweedFS) -> Iterator[str]:
    name = seaweed.make_bucket(f"test-{secrets.token_hex(6)}")
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
