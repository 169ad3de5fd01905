"""A vendor with a large and some small files, and a bucket to bring them to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.sample_rdb import write_rdb
from tests.cli.conftest import environ, run  # noqa: F401
from tests.conftest import INSTANCE
from tests.servers.gateway import Gateway, gateway
from tests.servers.oddstore import AWS, OddStore, oddstore
from tests.servers.seaweedfs import SeaweedFS

MIB = 2**20
PREFIX = "redis"


@pytest.fixture
def originals(files: Path) -> dict[str, bytes]:
    """Two of several parts, one of a part, and a small one, by name."""
    return {
        name: write_rdb(files / INSTANCE / f"{name}_202611{day}021500.rdb", size, day)
        for day, (name, size) in enumerate(
            (("large", 23 * MIB), ("other", 16 * MIB), ("middle", 3 * MIB), ("small", 20_000)), 10
        )
    }


@pytest.fixture
def gate(seaweed: SeaweedFS, s3_writer: None) -> Iterator[Gateway]:
    with gateway(seaweed.port) as gate:
        yield gate


@pytest.fixture(scope="module")
def server() -> Iterator[OddStore]:
    with oddstore() as server:
        yield server


@pytest.fixture
def odd(server: OddStore, monkeypatch: pytest.MonkeyPatch) -> OddStore:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open")
    server.become(AWS)
    return server
