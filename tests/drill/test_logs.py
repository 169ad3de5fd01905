"""Logs of commands in a drill: they may end anywhere, and are none to fall back on."""

from dataclasses import replace
from pathlib import Path

import pytest

from archiver import Archive, LocalStore
from archiver.commands.drill import Drilled, DrillOptions, Wanted, drill
from archiver.model import BackupType
from archiver.report.evidence import Mode, Verdict
from examples.sample_rdb import rdb
from tests.archive.sample import STARTS, put_standard, set_key
from tests.drill.conftest import programs

LOG = BackupType.INCREMENTAL
COMMAND = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
PREAMBLE = rdb(3000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


async def drilled(root: Path, options: DrillOptions) -> Drilled:
    return await drill(Archive(LocalStore(root)), await programs(), options)


@pytest.mark.parametrize("log", [b"", b"encrypted" * 9, COMMAND, PREAMBLE + COMMAND])
async def test_the_newest_dump_is_drilled_whatever_log_came_after(
    log: bytes, root: Path, place: Path
) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    put_standard(root, log, STARTS[1], backup_type=LOG)
    done = await drilled(root, DrillOptions(scratch=place))
    [one] = done.evidence.sets
    assert (one.key[-20:-4], one.verdict) == (STARTS[0], Verdict.PASS), one.why
    assert done.exit_code == 0


@pytest.mark.parametrize("preamble", [b"", PREAMBLE], ids=["plain", "preamble"])
async def test_a_log_that_is_cut_short_loads_as_far_as_it_goes(
    preamble: bytes, root: Path, place: Path
) -> None:
    target = put_standard(root, preamble + COMMAND + COMMAND[:-3], backup_type=LOG)
    key = set_key(root, target)
    options = DrillOptions(scratch=place, wanted=Wanted(mode=Mode.NAMED, sets=(key,)))
    one = (await drilled(root, options)).evidence.sets[0]
    assert one.verdict is Verdict.PASS, one.why
    [file] = one.files
    assert f"the first {len(preamble + COMMAND)} bytes are good (1 commands)" in file.reason
    # A full backup that ends like this is damaged.
    target = put_standard(
        root,
        preamble + COMMAND + COMMAND[:-3],
        STARTS[0],
        backup_type=BackupType.FULL,
        suffix="aof",
    )
    key = set_key(root, target)
    done = await drilled(root, replace(options, wanted=Wanted(mode=Mode.NAMED, sets=(key,))))
    assert done.evidence.sets[0].verdict is Verdict.FAIL
    assert done.exit_code == 3


async def test_a_log_that_ends_within_its_preamble_is_refused(root: Path, place: Path) -> None:
    target = put_standard(root, PREAMBLE[:900], backup_type=LOG)
    key = set_key(root, target)
    options = DrillOptions(scratch=place, wanted=Wanted(mode=Mode.NAMED, sets=(key,)))
    done = await drilled(root, options)
    [one] = done.evidence.sets
    assert one.verdict is Verdict.FAIL
    assert "within its RDB preamble" in one.why
    assert done.exit_code == 1
