"""Several processes fill one archive at the same time, each an instance of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from archiver import Archive, LocalStore
from archiver.commands.verify.run import verify
from archiver.stores.base import Store
from archiver.stores.s3 import S3Options, S3Store
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE
from tests.faults.test_two_hosts import namespaces_allowed
from tests.servers.seaweedfs import SeaweedFS

OTHER = "r-bp1other00000000"
HERE = Path(__file__).parents[2]
HOST = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "sh", "-c"]
# Its own name, its own processes, and a network with nothing but a loopback.
NAMED = 'hostname "$0" && ip link set lo up && exec "$@"'


@dataclass
class Place:
    """An archive that is to be, as processes and this test see it."""

    name: str
    endpoint: str
    store: Callable[[], Store]


@dataclass
class Child:
    process: "subprocess.Popen[str]"

    def says(self, expected: str) -> None:
        """Wait for a line."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said == f"{expected}\n", said

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ended(self) -> dict[str, Any]:
        """What it says at its end."""
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert self.process.wait(60) == 0
        return said

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        root = tmp_path / "archive"
        return Place(str(root), "-", lambda: LocalStore(root))
    seaweed: SeaweedFS = request.getfixturevalue("seaweed")
    request.getfixturevalue("s3_writer")
    name = f"s3://{request.getfixturevalue('bucket')}/redis"
    options = S3Options(endpoint=seaweed.endpoint)
    return Place(name, seaweed.endpoint, lambda: S3Store(name, options))


@pytest.fixture
def vendor(files: Path) -> dict[str, dict[str, bytes]]:
    """Files of two instances, one of several parts each."""
    (files / OTHER).mkdir()
    return {
        instance: {
            name: write_rdb(files / instance / f"{name}_202611{10 + n}021500.rdb", size, seed + n)
            for n, (name, size) in enumerate((("large", 900_000), ("small", 20_000)))
        }
        for seed, instance in enumerate((INSTANCE, OTHER))
    }


@contextmanager
def child(
    files: Path, place: Place, *instances: str, wait: float = 0.0, host: str | None = None
) -> Iterator[Child]:
    before: Sequence[str] = () if host is None else (*HOST, NAMED, host)
    with subprocess.Popen(
        [*before, sys.executable, "-m", "tests.writers.child", str(files), place.name,
         place.endpoint, str(wait), *instances],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    ) as process:  # fmt: skip
        try:
            yield Child(process)
        finally:
            process.kill()


async def assert_whole(place: Place, vendor: dict[str, dict[str, bytes]]) -> None:
    """All of it is there, as it is at the vendor, and nothing else is left."""
    store = place.store()
    keys = [entry.key async for entry in store.entries("")]
    for instance, originals in vendor.items():
        own = sorted(key for key in keys if key.startswith(instance) and key.endswith(".rdb"))
        assert len(own) == len(originals)
    summary = await verify(Archive(store))
    assert (summary.findings, summary.read) == ([], sum(map(len, vendor.values())))
    assert await store.leftovers() == []


def both_at_work(files: Path, place: Place, hosts: Sequence[str | None]) -> list[dict[str, Any]]:
    """Two processes are in the middle of their first file at the same moment; what they say."""
    with ExitStack() as stack:
        instances = (INSTANCE, OTHER)
        children = [
            stack.enter_context(child(files, place, instance, host=host))
            for instance, host in zip(instances, hosts, strict=True)
        ]
        for one in children:
            one.says("at work")
        for one in children:
            one.go_on()
        return [one.ended() for one in children]


async def test_two_processes(
    files: Path, place: Place, vendor: dict[str, dict[str, bytes]]
) -> None:
    """They begin the archive as well, and one of them does."""
    said = await to_thread.run_sync(both_at_work, files, place, (None, None))
    assert [(one["archived"], one["failed"]) for one in said] == [(2, {}), (2, {})]
    assert sum(one["begun"] for one in said) == 1
    await assert_whole(place, vendor)


@pytest.mark.skipif(not namespaces_allowed(), reason="NEEDS ROOT and iproute2 for namespaces")
async def test_two_hosts(files: Path, tmp_path: Path, vendor: dict[str, dict[str, bytes]]) -> None:
    """They share a disk, and see nothing of each other's processes."""
    root = tmp_path / "archive"
    place = Place(str(root), "-", lambda: LocalStore(root))
    said = await to_thread.run_sync(both_at_work, files, place, ("host-a", "host-b"))
    assert [(one["archived"], one["failed"]) for one in said] == [(2, {}), (2, {})]
    await assert_whole(place, vendor)


async def test_the_same_instance(
    files: Path, place: Place, vendor: dict[str, dict[str, bytes]]
) -> None:
    """One is told who holds it, and pulls the others; one waits, and fetches nothing again."""

    def in_turn() -> None:
        with child(files, place, INSTANCE) as first:
            first.says("at work")
            with child(files, place, INSTANCE, OTHER) as second:
                second.says("at work")  # with the other instance
                second.go_on()
                said = second.ended()
                assert said["archived"] == 2
                [(subject, (code, text))] = said["failed"].items()
                assert (subject, code) == (INSTANCE, 7)
                assert f"process {first.process.pid} on" in text
                assert f"is writing to {INSTANCE}" in text
            with child(files, place, INSTANCE, wait=600.0) as third:
                third.says("waiting")
                first.go_on()
                assert first.ended()["archived"] == 2
                assert third.ended() == {"archived": 0, "held": 2, "begun": 0, "failed": {}}

    await to_thread.run_sync(in_turn)
    await assert_whole(place, vendor)


async def test_a_writer_that_is_killed(
    files: Path, place: Place, vendor: dict[str, dict[str, bytes]]
) -> None:
    """The next one takes its instance over at once, while another goes on with its own."""

    def take_over() -> None:
        with child(files, place, OTHER) as other, child(files, place, INSTANCE) as first:
            other.says("at work")
            first.says("at work")
            first.kill()
            with child(files, place, INSTANCE) as second:
                second.says("at work")
                second.go_on()
                said = second.ended()
                assert (said["archived"] + said["held"], said["failed"]) == (2, {})
            other.go_on()
            assert other.ended()["archived"] == 2

    await to_thread.run_sync(take_over)
    await assert_whole(place, vendor)
