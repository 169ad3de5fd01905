"""``archiver drill`` as a command, and that it talks to nobody."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from examples.sample_rdb import rdb
from tests.archive.sample import CLUSTER, INSTANCE, put_cluster, put_standard, remove_node
from tests.cli.conftest import Run
from tests.drill.conftest import left_in, program
from tests.drill.made import make_dump
from tests.drill.test_what_it_says import SECRET, with_values


async def test_a_pass(run: Run, tmp_path: Path) -> None:
    put_cluster(tmp_path / "archive")
    (tmp_path / "scratch").mkdir()
    done = await run(
        "drill", "archive", "--instance", CLUSTER, "--assert", "dbsize>=3", "--rto", "15m",
        "--tolerance", "0.1%", "--evidence", "kept", "--junit", "junit.xml",
        "--scratch", "scratch", "--server-memory", "512M",
    )  # fmt: skip
    assert done.code == 0, done.err
    paths = [Path(line) for line in done.out.splitlines()]
    assert [path.exists() for path in paths] == [True, True]
    assert paths[1].is_relative_to(tmp_path / "kept")
    evidence = json.loads(paths[0].read_text())
    assert evidence["conclusion"]["passed"] is True
    assert evidence["targets"] == {
        "rto_seconds": 900.0,
        "rpo_seconds": None,
        "rpo_window_seconds": 2_592_000.0,
        "tolerance": 0.001,
    }
    suites = ET.parse(tmp_path / "junit.xml").getroot()
    assert suites.get("failures") == "0"
    assert done.err.endswith(
        "Pass: The backup set restored: 3 files, 3 keys counted. Within the targets.\n"
    )
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_quiet_is_silent_for_a_pass_alone(run: Run, tmp_path: Path) -> None:
    target = put_standard(tmp_path / "archive", rdb(5000))
    done = await run("drill", "archive", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    done = await run("drill", "archive", "--quiet", "--json")
    assert done.code == 3
    assert "fail: " in done.err
    last = json.loads(done.out.splitlines()[-1])
    assert (last["event"], last["passed"], last["exit_code"]) == ("drilled", False, 3)


async def test_exit_codes(run: Run, tmp_path: Path) -> None:
    made = put_cluster(tmp_path / "archive")
    for words, code in (
        (["--assert", "dbsize >= 4"], 1),
        (["--assert", "dbsize => 4"], 2),
        (["--random", "1", "--spread", "1"], 2),
        (["--random", "1", "--seed", "x"], 0),
        (["--at", "2026-11-22"], 1),
        (["--instance", "r-none"], 1),
        (["--instance", "../none"], 2),
        (["--set", "r-none/2026/11/20261124T021500Z-1"], 1),
        (["--set", "r-none"], 2),
        (["--server", sys.executable], 2),
        (["--rpo", "1s"], 1),
        (["--rto", "soon"], 2),
        (["--scratch", "nowhere"], 6),
    ):
        done = await run("drill", "archive", *words)
        assert done.code == code, (words, done.err)
    remove_node(made[2])
    done = await run("drill", "archive")
    assert done.code == 3
    assert f"fail: {CLUSTER}/" in done.err
    assert f"{CLUSTER}-db-2" in done.err
    assert (await run("drill", "none")).code == 2


async def test_evidence_that_nothing_takes_is_printed(run: Run, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    (tmp_path / "archive" / "drills").write_text("in the way of the folder")
    done = await run("drill", "archive", "-q")
    assert done.code == 6, done.err
    assert json.loads(done.out)["conclusion"]["passed"] is True
    assert "could not be stored" in done.err
    done = await run("drill", "archive", "-q", "--json")
    told, last = map(json.loads, done.out.splitlines())
    assert told["evidence"]["conclusion"]["passed"] is True
    assert (last["exit_code"], "could not be stored" in last["why"]) == (6, True)
    done = await run("drill", "archive", "-q", "--evidence", "kept")
    assert done.code == 0, done.err
    assert "stored only in " in done.err
    assert len(list((tmp_path / "kept").glob("*.json"))) == 1


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_without_any_network(tmp_path: Path) -> None:
    """No interface, not even loopback: neither vendor nor metadata service nor name server."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-n", "true"], check=False).returncode:
        pytest.skip("no right to a network namespace here")
    put_cluster(tmp_path / "archive")
    command = [unshare, "-n", sys.executable, "-m", "archiver", "drill", "archive"]
    done = subprocess.run(
        command, cwd=tmp_path, env=_environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_connects_to_its_own_servers_alone(tmp_path: Path) -> None:
    """Every connect and every datagram of the drill and its servers, as the kernel saw them."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace here: make setup-system")
    put_standard(tmp_path / "archive", rdb(5000))
    calls = tmp_path / "calls"
    command = [
        strace, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(calls),
        sys.executable, "-m", "archiver", "drill", "archive",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, env=_environ(), capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("no right to trace here")
    assert done.returncode == 0, done.stderr
    lines = calls.read_text().splitlines()
    connects = [line for line in lines if " connect(" in line]
    assert connects
    for line in connects:
        # nscd: libc asks it for the user's name, where there is one.
        socket = r'sa_family=AF_UNIX, sun_path="(/proc/self/fd/\d+/socket|/var/run/nscd/socket)"'
        assert re.search(socket, line), line
    assert not [line for line in lines if "AF_INET" in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_leaves_nothing(
    number: signal.Signals, environ: dict[str, str], tmp_path: Path
) -> None:
    data = await make_dump(await program("valkey", 9, 1), tmp_path / "made", 100_000, seconds=2)
    put_standard(tmp_path / "archive", data)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "drill", "archive", "--scratch", str(scratch), "-vv",
        cwd=tmp_path, env=environ, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    while b"restoring: " not in await process.stderr.readline():
        pass
    await asyncio.sleep(0.3)
    process.send_signal(number)
    said = (await process.communicate())[1].decode()
    assert process.returncode == 130, said
    assert "no evidence is written" in said
    assert left_in(scratch) == []
    assert not (tmp_path / "archive" / "drills").exists()


async def test_killed_it_is_swept_up_by_the_next(
    environ: dict[str, str], tmp_path: Path, run: Run
) -> None:
    data = await make_dump(await program("valkey", 9, 1), tmp_path / "made", 50_000, seconds=5)
    put_standard(tmp_path / "archive", data)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "drill", "archive", "--scratch", str(scratch), "-vv",
        cwd=tmp_path, env=environ, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    while b"restoring: " not in await process.stderr.readline():
        pass
    await asyncio.sleep(0.2)
    process.kill()
    await process.communicate()
    [left] = left_in(scratch)
    mine = [scratch / "archiver-drill-evidence", scratch / "archiver-drill-0123456789abcdef"]
    for directory in mine:
        directory.mkdir()
        (directory / "audit.pdf").write_bytes(b"%PDF")
        os.utime(directory, (0, 0))
    done = await run("drill", "archive", "--scratch", str(scratch))
    assert done.code == 0, done.err
    assert f"removed {left}, left behind by a killed drill" in done.err
    assert f"left alone: {mine[1]}: it has no mark of a drill" in done.err
    assert sorted(left_in(scratch)) == sorted(mine)
    assert all((directory / "audit.pdf").exists() for directory in mine)


async def test_an_environment_can_say_it_all(run: Run, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    done = await run(
        "drill",
        "archive",
        ARCHIVER_DRILL_INSTANCE=INSTANCE,
        ARCHIVER_DRILL_RPO="1s",
        ARCHIVER_DRILL_EVIDENCE="kept",
    )
    assert done.code == 1
    assert f"rpo: {INSTANCE}: the newest complete backup set started " in done.err
    assert (tmp_path / "kept" / "drills").exists()


async def test_a_missed_target_says_whose_and_why(run: Run, tmp_path: Path) -> None:
    """One line for an instance, loud or not, and the same in the JSON; a night that somebody knows
    of is named, and is a gap all the same."""
    archive = tmp_path / "archive"
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    starts = [f"{now - timedelta(hours=hours):%Y%m%dT%H%M%SZ}" for hours in (73, 49, 1)]
    for start in starts:
        put_standard(archive, rdb(3000), start)
    night = now - timedelta(hours=25)
    known = f"{INSTANCE}/{night:%Y/%m/%Y%m%dT%H%M%SZ}-42"
    why = ("--reason", "ticket 7")
    words = ("ack", "archive", known, f"{INSTANCE}-4711", *why)
    assert (await run(*words, "--nothing-came")).code == 0
    asserted = ("--assert", "dbsize >= 1000", "--assert", "missing k0")
    target = ("--rpo", "26h", "-q", "--json")
    done = await run("drill", "archive", "--random", "3", *asserted, *target)
    assert done.code == 1
    begun, ended = (f"{now - timedelta(hours=hours):%Y-%m-%d %H:%M}" for hours in (49, 1))
    line = f"rpo: {INSTANCE}: gap of 48 h between {begun} and {ended} UTC, target 26 h"
    line += f"; acknowledged: {known} (ticket 7)"
    line += f"; acknowledged since: {INSTANCE}-4711 (ticket 7)"
    lines = done.err.splitlines()
    assert lines.count(line) == 1, done.err
    *sets, drilled = map(json.loads, done.out.splitlines())
    assert {(one["rpo_met"], one["assertions"][0]["seen"]) for one in sets} == {(False, "1")}
    assert drilled["why"].startswith("Fail: 0 of 3 backup sets passed; 3 failed.")
    [gap] = [one for one in drilled["missed"] if one["target"] == "rpo"]
    assert (gap["text"], gap["seconds"], gap["target_seconds"]) == (line, 172_800, 93_600)
    assert "assertion failed: dbsize >= 1000 (dbsize is 1)" in done.err


async def test_a_value_that_was_asserted_is_printed_nowhere(run: Run, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", with_values(k=SECRET))
    words = ["drill", "archive", "--assert", f"get k != {SECRET}", "--assert", "get k == other",
             "--json", "-vv", "--junit", "junit.xml", "--evidence", "kept"]  # fmt: skip
    done = await run(*words)
    assert done.code == 1
    assert "assertion failed: get k != (withheld), get k == (withheld)" in done.err
    assert "\nFail: The backup set was restored, but an assertion does not hold.\n" in done.err
    written = [*tmp_path.glob("archive/drills/**/*.*"), *tmp_path.glob("kept/**/*.*")]
    everything = done.out + done.err + (tmp_path / "junit.xml").read_text()
    everything += "".join(path.read_text() for path in written if path.is_file())
    assert SECRET not in everything
    done = await run(*words, "--show-values")
    assert f"assertion failed: get k != {SECRET}" in done.err
