"""A vendor with a large file and some small ones, and a bucket to pull them into."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.retry import RetryPolicy
from examples.sample_rdb import rdb
from tests.cli.conftest import environ, run  # noqa: F401
from tests.conftest import INSTANCE
from tests.servers.gateway import Gateway, gateway
from tests.servers.oddstore import AWS, OddStore, oddstore
from tests.servers.seaweedfs import SeaweedFS

MIB = 2**20
PREFIX = "redis"


@pytest.fixture(autouse=True)
def no_wait_before_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long to wait is for tests/test_retry.py and the tests of outages."""
    soon = functools.partial(RetryPolicy, first_wait=0.01)
    monkeypatch.setattr("archiver.stores.s3.outages.RetryPolicy", soon)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes a lease here: where a store has no conditions, none is waited for."""
    monkeypatch.setattr("archiver.stores.s3.lease._SETTLE_MOST_BEATS", 0.0)


@pytest.fixture
def originals(files: Path) -> dict[str, bytes]:
    """Of three parts and of two, of one, and a small one, by name."""
    return write_all(files, large=11 * MIB, other=6 * MIB, middle=MIB, small=20_000)


@pytest.fixture
def large_originals(files: Path) -> dict[str, bytes]:
    """Of five parts and of four, for what is to happen in the middle of them."""
    return write_all(files, large=23 * MIB, other=16 * MIB, middle=3 * MIB, small=20_000)


def write_all(files: Path, **sizes: int) -> dict[str, bytes]:
    made = {name: _dump(size, day) for day, (name, size) in enumerate(sizes.items(), 10)}
    for day, (name, data) in enumerate(made.items(), 10):
        (files / INSTANCE / f"{name}_202611{day}021500.rdb").write_bytes(data)
    return made


# Many tests have the same ones, and to make them takes as long as to pull them.
_dump = functools.lru_cache(maxsize=8)(rdb)


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
