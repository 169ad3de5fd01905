"""A drill of an archive with bad documents leaves its evidence."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, verify
from archiver.commands.drill import DrillOptions, drill
from archiver.commands.verify.findings import Fault as Wrong
from archiver.errors import UnreadableObject
from archiver.report.chain import Fault, check_chain
from archiver.report.document import decode
from archiver.report.evidence import Verdict
from examples.sample_rdb import rdb
from tests.archive.sample import INSTANCE, STARTS, put_standard
from tests.drill.conftest import programs
from tests.report.test_chain import chain

Damage = Callable[[Path], object]


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


FORMAT = re.compile(rb'("format": )\d')
BAD: dict[str, Damage] = {
    "a folder": folder,
    "a FIFO": fifo,
    "a loop of links": loop,
    "6 GiB": lambda path: os.truncate(path, 6 * 2**30),
    "deep": lambda path: path.write_bytes(b'{"a":' * 100_000),
    "format 3": lambda path: path.write_bytes(FORMAT.sub(b"\\g<1>3", path.read_bytes(), 1)),
}


@pytest.fixture
def options(place: Path) -> DrillOptions:
    return DrillOptions(scratch=place)


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
async def test_bad_documents(tmp_path: Path, options: DrillOptions, damage: Damage) -> None:
    """A record of the newest set, and the last evidence of the chain."""
    root, archive = tmp_path / "archive", Archive(LocalStore(tmp_path / "archive"))
    put_standard(root, rdb(3000), STARTS[0], job="1")
    record = put_standard(root, rdb(3001), STARTS[1], job="2").with_suffix(".json")
    before = [root / (await drill(archive, await programs(), options)).filed.key for _ in range(2)]
    damage(record)
    damage(before[-1])

    done = await drill(archive, await programs(), options)
    assert done.exit_code == 3
    [one] = done.evidence.sets
    assert one.verdict is Verdict.FAIL
    assert record.name in one.why
    stored = root / done.filed.key
    assert decode(stored.read_bytes()) == done.evidence
    assert stored.name > before[-1].name
    assert Fault.UNREADABLE in {finding.fault for finding in done.faults}
    found = (await verify(archive)).findings
    assert {finding.key for finding in found} >= {
        path.relative_to(root).as_posix() for path in (record, before[-1])
    }
    assert done.evidence.sets[0].instance_id == INSTANCE


def test_a_document_that_nobody_gives_is_one_fault() -> None:
    documents: list[tuple[str, bytes | UnreadableObject]] = list(chain())
    key = documents[2][0]
    documents[2] = (key, UnreadableObject(f"{key}: Input/output error"))
    [finding] = check_chain(documents)
    assert (finding.key, finding.fault) == (key, Fault.UNREADABLE)


async def test_a_page_that_is_a_folder_is_a_finding(tmp_path: Path, options: DrillOptions) -> None:
    root, archive = tmp_path / "archive", Archive(LocalStore(tmp_path / "archive"))
    put_standard(root, rdb(3000))
    done = await drill(archive, await programs(), options)
    page = (root / done.filed.key).with_suffix(".html")
    fifo(page)
    [finding] = (await verify(archive)).findings
    assert (finding.key, finding.fault) == (page.relative_to(root).as_posix(), Wrong.EVIDENCE)
