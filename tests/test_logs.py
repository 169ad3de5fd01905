"""What users of the library see with a handler of their own."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest

from archiver import Archive, pull, verify, words
from archiver.commands.drill import events as drill_events
from archiver.commands.drill import words as drill_words
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import repair
from archiver.commands.verify import events as verify_events
from archiver.commands.verify import words as verify_words
from archiver.emulator import Emulator
from archiver.errors import SourceUnavailable
from archiver.events import Event, Retrying, Work, ignore
from archiver.logs import OF_RUNS, Request, instance_of, logged, record
from archiver.model import Network
from archiver.secret import SignedUrl
from archiver.sources.alibaba.credentials.context import Context
from archiver.sources.alibaba.credentials.metadata import from_uri
from archiver.transfer.http.burst import ReadObject
from archiver.transfer.http.client import open_fetcher
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, everything, source_of


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def named(self, event: str) -> list[Any]:
        return [one for one in self.records if one.event == event]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """A handler of ``archiver`` at DEBUG, as a user may install one."""
    handler, logger = Kept(), logging.getLogger("archiver")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_a_handler_sees_what_an_observer_does(
    files: Path, emulator: Emulator, archive: Archive, kept: Kept
) -> None:
    write_rdb(files / INSTANCE / "large.rdb", 500_000)
    write_rdb(files / INSTANCE / "small.rdb", 5000)
    seen = list[Event]()
    async with source_of(emulator, observer=seen.append) as source:
        await pull(source, archive, [everything()], observer=seen.append)
    told = [line[1] for event in seen if (line := words.line(event)) is not None]
    messages = [one.getMessage() for one in kept.records if one.name == "archiver"]
    assert messages == told
    archived = kept.named("archived")
    assert [one.levelno for one in archived] == [logging.INFO] * 2
    assert {one.instance for one in archived} == {INSTANCE}
    assert {one.fields["size"] for one in archived} == {500_000, 5000}
    requests = [one for one in kept.records if one.name == "archiver.requests"]
    got = [one.fields for one in requests if one.fields["method"] == "GET"]
    assert sum(fields["bytes"] for fields in got) == 505_000
    assert [one.fields["action"] for one in requests if one.fields["method"] == "POST"] == [
        "DescribeBackups"
    ]
    assert [one for one in requests if "?" in one.getMessage()] == []


async def test_a_repair_is_logged_once(
    files: Path, emulator: Emulator, archive: Archive, kept: Kept, tmp_path: Path
) -> None:
    """The pull and the verify within it are its own."""
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    async with source_of(emulator) as source:
        await pull(source, archive, [everything()])
        [dump] = (tmp_path / "archive").rglob("*.rdb")
        dump.write_bytes(bytes(5000))
        kept.records.clear()
        seen = list[verify_events.ScrubEvent]()
        found = await verify(archive, observer=seen.append)
        await repair(archive, found, SourceSupplier(source), observer=seen.append)
    told = [line[1] for event in seen if (line := verify_words.line(event)) is not None]
    messages = [one.getMessage() for one in kept.records if one.name == "archiver"]
    # What the source itself tells goes to its own observer.
    assert [one for one in messages if not one.startswith("listed: ")] == told
    [finding] = kept.named("found")
    assert (finding.levelno, finding.instance) == (logging.ERROR, INSTANCE)
    assert finding.fields["fault"] == "changed"
    assert len(kept.named("repaired")) == 1


UNHEARD = """
from archiver.errors import SourceUnavailable
from archiver.events import Retrying, ignore
from archiver.logs import OF_RUNS, logged
logged(ignore, OF_RUNS)(Retrying("a", SourceUnavailable("gone"), 1, 0.1))
"""


def test_nothing_is_printed_where_nobody_has_a_handler() -> None:
    """logging itself prints warnings of loggers that have no handler, but for pytest's own."""
    done = subprocess.run([sys.executable, "-c", UNHEARD], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


async def test_requests_over_one_connection(files: Path, emulator: Emulator, kept: Kept) -> None:
    """Each is logged when its answer has come."""
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    async with source_of(emulator) as source:
        [page] = [page async for page in source.pages(everything())]
    url = SignedUrl.parse(page.backups[0].urls[Network.PUBLIC].reveal())
    kept.records.clear()

    def read_all(reads: Iterator[ReadObject]) -> list[int]:
        block, before = memoryview(bytearray(5000)), list[int]()
        for read in reads:
            before.append(len(kept.records))
            read(block, 30.0)
        return before

    async with open_fetcher(1, max_ahead=1) as fetcher:
        assert await fetcher.burst([url] * 3, 30.0, read_all) == [0, 1, 2]
    assert [one.fields["bytes"] for one in kept.records] == [5000] * 3
    assert {one.fields["status"] for one in kept.records} == {200}


def test_nothing_is_written_at_a_level_that_nobody_listens_to() -> None:
    def never(_: object) -> str:
        raise AssertionError

    logged(ignore, type(OF_RUNS)(lambda _: logging.INFO, never, never))(  # type: ignore[arg-type]
        Retrying("a", SourceUnavailable("gone"), 1, 0.1)
    )
    assert Request.begun("GET", "host", "/path") is None


@pytest.mark.parametrize(
    ("every", "levels"),
    [
        (get_args(Event) + get_args(Work), words.LEVELS),
        (get_args(verify_events.ScrubEvent), verify_words.LEVELS),
        (
            {*get_args(drill_events.DrillEvent), *get_args(Work)}
            - {drill_events.FileTried, drill_events.SetJudged},  # by what became of them
            drill_words._LEVELS,
        ),
    ],
)
def test_every_event_has_a_level(every: Any, levels: Any) -> None:
    assert set(every) <= levels.keys()


@pytest.mark.parametrize(
    ("fields", "instance"),
    [
        ({"instance_id": "r-x"}, "r-x"),
        ({"key": "r-x/2026/11/20261124T021500Z-1/a-1.rdb"}, "r-x"),
        ({"key": "r-x/2026/11/20261124T021500Z-1"}, "r-x"),
        ({"key": "archive.json"}, None),
        ({"key": ".staging/r-x/2026"}, None),
        ({"subject": "r-x", "backup": None}, "r-x"),
        ({"subject": "r-x-1187423"}, None),  # a backup's name
    ],
)
def test_whose_it_is(fields: dict[str, Any], instance: str | None) -> None:
    assert instance_of(fields) == instance


async def test_requests_that_fail(kept: Kept, unused_port: int) -> None:
    """A connection that is refused is one, too; the address of a credentials URI is a secret."""
    place = f"127.0.0.1:{unused_port}"
    url = SignedUrl.parse(f"http://{place}/a.rdb?Signature=secret")
    async with open_fetcher(1) as fetcher:
        with pytest.raises(SourceUnavailable):
            async with fetcher.open(url, 0, 10, None):
                pass
    async with aiohttp.ClientSession() as session:
        context = Context(session, {}, None, "http://unused")
        with pytest.raises(SourceUnavailable):
            await from_uri(context, f"http://{place}/secret/path?token=secret", "the test")
    dialled, asked = kept.named("request")
    assert (dialled.fields["method"], dialled.fields["status"]) == ("CONNECT", None)
    assert dialled.fields["error"] == "ConnectionRefusedError"
    assert re.fullmatch(
        rf"request: GET {place}/\*\*\*: no answer, 0 B in \S+ s, ClientConnectorError",
        asked.getMessage(),
    )
    assert "secret" not in f"{dialled.__dict__} {asked.__dict__}"


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_requests_with_errors_of_the_server(
    files: Path, emulator: Emulator, tmp_path: Path, kept: Kept
) -> None:
    """A refusal has its status."""
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    async with source_of(emulator) as source:
        [page] = [page async for page in source.pages(everything())]
    (files / INSTANCE / "a.rdb").unlink()
    [backup] = page.backups
    url = SignedUrl.parse(backup.urls[Network.PUBLIC].reveal())
    async with open_fetcher(1) as fetcher:
        with pytest.raises(Exception, match="404"):
            async with fetcher.open(url, 0, 10, None):
                pass
    *_, gone = kept.named("request")
    assert (gone.fields["status"], gone.fields["method"]) == (404, "GET")


def test_what_no_encoding_has_is_escaped(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "archiver"):
        record(logging.INFO, "failed", "an id \udc80 in a listing", None, {})
    assert [one.getMessage() for one in caplog.records] == ["an id \\udc80 in a listing"]
