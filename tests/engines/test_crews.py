"""Verify and drill by a dask cluster: the same findings, the same evidence, whoever dies."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import anyio
import pytest

from archiver import Archive, LocalStore
from archiver.commands.drill import find, process
from archiver.commands.drill.options import DrillOptions
from archiver.commands.drill.programs import check_programs
from archiver.commands.drill.run import drill as drill_sets
from archiver.commands.drill.set_trial import OpenSetTrial
from archiver.errors import ClusterLost, UnusableCluster
from archiver.jobs import Workplace
from tests.engines.conftest import FILES, Start
from tests.engines.test_dask import ask
from tests.servers.dask import DaskCluster
from tests.servers.seaweedfs import SeaweedFS

pytestmark = pytest.mark.timeout(300)

SETS = 12


@pytest.fixture
async def archive(originals: dict[str, str], start: Start, tmp_path: Path) -> Path:
    """An archive with all files of the vendor."""
    place = tmp_path / "archive"
    assert (await (await start(place)).end())[0] == 0
    return place


def files_of(place: Path) -> list[Path]:
    return sorted(place.glob("r-*/**/*.rdb"))


def said(lines: list[dict[str, Any]]) -> list[str]:
    """What a command wrote, in any order, without times and which finding came first."""
    varies = {"time", "seconds", "why"}
    bare = [{k: v for k, v in line.items() if k not in varies} for line in lines]
    return sorted(json.dumps(line, sort_keys=True) for line in bare)


async def test_a_verify_by_processes_of_its_own_finds_the_same(
    archive: Path, start_any: Start
) -> None:
    changed, cut, gone, *_ = files_of(archive)
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    cut.write_bytes(cut.read_bytes()[:-9])
    gone.unlink()
    inline = await start_any("verify", archive)
    code, _ = await inline.end()
    by_dask = await start_any("verify", archive, "--engine", "dask", "--processes", "2")
    other, err = await by_dask.end()
    assert code == other == 3, err
    assert said(by_dask.lines) == said(inline.lines)
    assert by_dask.lines[-1]["read"] == FILES - 1
    # What it noted: all of these are recent, and nothing is read but what was wrong.
    again = await start_any("verify", archive, "--since-verified", "1d")
    assert (await again.end())[0] == 3
    assert (again.lines[-1]["recent"], again.lines[-1]["read"]) == (FILES - 3, 2)


def evidence_of(place: Path) -> list[dict[str, Any]]:
    """The documents of all drills, in order, without what differs between two drills."""
    found = []
    for path in sorted(place.glob("drills/*/*/*.json")):
        document = json.loads(path.read_bytes())
        sets = document["sets"]
        for one in sets:
            for name in ("phases", "rto", "rpo", "comparison"):
                del one[name]
            for file in one["files"]:
                del file["peak_memory_bytes"]
        found.append({"sets": sets, "selection": document["selection"]})
    return found


async def test_a_drill_by_processes_of_its_own_makes_the_same_evidence(
    archive: Path, start_any: Start, tmp_path: Path
) -> None:
    wrong = files_of(archive)[3]
    wrong.write_bytes(wrong.read_bytes()[:-1] + b"x")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    drill = (
        "drill", archive, "--spread", str(FILES), "--seed", "any", "--scratch", scratch,
        "--assert", "dbsize >= 1",
    )  # fmt: skip
    inline = await start_any(*drill)
    code, _ = await inline.end()
    by_dask = await start_any(*drill, "--engine", "dask", "--processes", "4")
    other, err = await by_dask.end()
    assert code == other == 3, err
    one, two = evidence_of(archive)
    assert one == two
    assert [each["verdict"] for each in two["sets"]].count("pass") == FILES - 1
    assert list(scratch.iterdir()) == []


# What a preload of a worker makes of it: the first that comes to a certain key, or each, does this.
HARM = """
import os, time
from archiver.commands.drill import files
from archiver.commands.verify import reader

def harm(kind, name, key_of):
    harmless = getattr(kind, name)
    async def run(self, first, *rest):
        if "{key}" in key_of(first) and not os.path.exists("{once}"):
            open("{at}", "w").close()
            {harm}
        return await harmless(self, first, *rest)
    setattr(kind, name, run)

harm(reader.Reader, "__call__", lambda statements: statements.key)
harm(files.FileDrill, "try_file", lambda record: record.object_key)
"""
DIE = "os.kill(os.getpid(), 9)"
HANG = "time.sleep(600)"


class Harm:
    """Harm at one file of an archive: ``key`` is its object's."""

    def __init__(self, archive: Path, directory: Path, harm: str, *, once: bool = False) -> None:
        self.key = files_of(archive)[5].relative_to(archive).as_posix()
        self.at = directory / "at"
        self.preload = directory / "harm.py"
        never = self.at if once else directory / "never"
        self.preload.write_text(HARM.format(key=self.key, at=self.at, once=never, harm=harm))

    async def reached(self) -> None:
        while not self.at.exists():
            await anyio.sleep(0.05)


def commands(archive: Path, cluster: DaskCluster) -> dict[str, tuple[str | Path, ...]]:
    of_cluster = ("--engine", "dask", "--scheduler", cluster.address)
    return {
        "verify": ("verify", archive, *of_cluster),
        "drill": ("drill", archive, "--spread", str(SETS), "--seed", "2", *of_cluster),
    }


def all_sets(archive: Path, cluster: DaskCluster) -> tuple[str | Path, ...]:
    """A drill of so many sets that the one with a harmful file is among them."""
    return (*commands(archive, cluster)["drill"], "--spread", str(FILES))


async def test_a_file_that_kills_workers_is_a_finding_and_the_others_are_read(
    archive: Path, start_any: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    harm = Harm(archive, tmp_path, DIE)
    for _ in range(2):  # nannies start them again
        cluster.start_worker("--preload", str(harm.preload))
    verify = await start_any(*commands(archive, cluster)["verify"])
    code, err = await verify.end()
    assert code == 6, err + cluster.log
    [found] = [line for line in verify.lines if line["event"] == "finding"]
    assert (found["key"], found["fault"]) == (harm.key, "unreadable")
    assert "3 workers died while they worked on it" in found["text"]
    assert verify.lines[-1]["read"] == FILES - 1


async def test_a_set_that_kills_workers_did_not_pass_and_the_others_are_drilled(
    archive: Path, start_any: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    harm, scratch = Harm(archive, tmp_path, DIE), tmp_path / "scratch"
    scratch.mkdir()
    for _ in range(2):
        cluster.start_worker("--preload", str(harm.preload))
    drill = await start_any(*all_sets(archive, cluster), "--scratch", scratch)
    code, err = await drill.end()
    assert code == 1, err + cluster.log
    [evidence] = evidence_of(archive)
    [bad] = [one for one in evidence["sets"] if one["verdict"] != "pass"]
    [file] = bad["files"]
    assert (file["object_key"], file["outcome"]) == (harm.key, "untried")
    assert "3 workers died while they worked on it" in file["reason"]
    assert not bad["teardown"]["proven"]  # nobody was left to look
    assert len(evidence["sets"]) == FILES
    assert list(scratch.iterdir()) == []  # what the dead left is removed


@pytest.mark.parametrize("command", ["verify", "drill"])
async def test_a_worker_that_is_killed_costs_a_retry(
    command: str, archive: Path, start_any: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    harm = Harm(archive, tmp_path, DIE, once=True)
    for _ in range(2):
        cluster.start_worker("--no-nanny", "--preload", str(harm.preload))
    args = all_sets(archive, cluster) if command == "drill" else commands(archive, cluster)[command]
    run = await start_any(*args, "-v")
    code, err = await run.end()
    assert code == 0, err + cluster.log
    assert harm.at.exists()
    if command == "drill":
        assert "its worker died" in err
        [evidence] = evidence_of(archive)
        assert len(evidence["sets"]) == FILES
    else:  # it was one of a batch, and whose fault it was is not known yet
        assert run.lines[-1]["read"] == FILES


@pytest.mark.parametrize(
    ("command", "harm", "why"),
    [
        ("verify", "raise ValueError('unforeseen')", "ValueError: unforeseen"),
        ("drill", "raise ValueError('unforeseen')", "ValueError: unforeseen"),
        ("verify", "(lambda f: f(f))(lambda f: f(f))", "RecursionError: maximum"),
        ("verify", "raise SystemExit(3)", "SystemExit: 3"),
    ],
)
async def test_an_unforeseen_error_in_a_worker_ends_the_run(
    command: str,
    harm: str,
    why: str,
    archive: Path,
    start_any: Start,
    cluster: DaskCluster,
    tmp_path: Path,
) -> None:
    harmful = Harm(archive, tmp_path, harm)
    cluster.start_worker("--no-nanny", "--preload", str(harmful.preload))
    args = all_sets(archive, cluster) if command == "drill" else commands(archive, cluster)[command]
    run = await start_any(*args)
    code, err = await run.end()
    assert code == 1, err
    assert why in err
    assert why not in cluster.log  # it may quote secrets
    assert evidence_of(archive) == []


@pytest.mark.parametrize("command", ["verify", "drill"])
async def test_a_lost_scheduler_ends_the_run_and_the_next_goes_on(
    command: str, archive: Path, start_any: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    harm = Harm(archive, tmp_path, HANG, once=True)
    cluster.start_worker("--no-nanny", "--preload", str(harm.preload))
    args = all_sets(archive, cluster) if command == "drill" else commands(archive, cluster)[command]
    run = await start_any(*args)
    await harm.reached()
    assert cluster.scheduler is not None
    cluster.scheduler.kill()
    code, err = await run.end()
    assert code == 5, err
    assert "the connection to the scheduler was lost" in err
    assert evidence_of(archive) == []
    rest = await start_any("verify", archive, "--since-verified", "1d")
    assert (await rest.end())[0] == 0
    assert rest.lines[-1]["recent"] + rest.lines[-1]["read"] == FILES


# The servers of a drill hang in their count of keys.
HANGING_COUNT = """
import asyncio
from archiver.commands.drill import trial

async def hang(*_, **__):
    open({at!r}, "w").close()
    await asyncio.sleep(600)

trial.take_census = hang
"""


def servers_in(scratch: Path) -> list[Path]:
    """The processes that work below a directory."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (one / "cwd").readlink().is_relative_to(scratch):
                found.append(one)
    return found


async def test_an_interrupt_ends_the_servers_of_a_drill_in_its_workers(
    archive: Path, start_any: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    at, scratch, preload = tmp_path / "at", tmp_path / "scratch", tmp_path / "hanging.py"
    scratch.mkdir()
    preload.write_text(HANGING_COUNT.format(at=str(at)))
    cluster.start_worker("--no-nanny", "--preload", str(preload))
    drill = await start_any(*commands(archive, cluster)["drill"], "--scratch", scratch)
    while not at.exists():
        await anyio.sleep(0.05)
    assert servers_in(scratch)
    drill.process.send_signal(signal.SIGINT)
    code, err = await drill.end()
    assert code == 130, err
    assert list(scratch.iterdir()) == []
    assert not servers_in(scratch)
    assert evidence_of(archive) == []


COUNTING = """
from archiver.commands.drill import set_trial

class Counted(set_trial.SetTrial):
    async def __call__(self, job):
        with open({at!r}, "a") as log:
            log.write("begin\\n")
        tried = await super().__call__(job)
        with open({at!r}, "a") as log:
            log.write("end\\n")
        return tried

if set_trial.SetTrial.__module__ == set_trial.__name__:
    set_trial.SetTrial = Counted
"""


async def test_each_process_drills_one_set_at_a_time(
    archive: Path, start_any: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    at, preload = tmp_path / "at", tmp_path / "counting.py"
    preload.write_text(COUNTING.format(at=str(at)))
    cluster.start_worker("--no-nanny", "--preload", str(preload), threads=4)
    drill = await start_any(*commands(archive, cluster)["drill"])
    code, err = await drill.end()
    assert code == 0, err + cluster.log
    assert at.read_text().split() == ["begin", "end"] * SETS


def test_servers_share_the_memory_of_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "available_memory", lambda: 1000)
    server = SimpleNamespace(memory=lambda: 0)
    guard = process.MemoryGuard(server, None, share=4)  # type: ignore[arg-type]
    guard.stop()
    assert guard.limit == 200


_WHAT_THE_SCHEDULER_KNOWS = """
import sys
from distributed import Client
client = Client(sys.argv[1])
client.dump_cluster_state(sys.argv[2], format="yaml")
print(client.run_on_scheduler(
    lambda dask_scheduler: [(key, task.run_spec) for key, task in dask_scheduler.tasks.items()]
))
print(client.get_events())
"""


async def test_values_of_a_backup_are_in_no_task_and_no_log(
    archive: Path, start_any: Start, cluster: DaskCluster, tmp_path: Path
) -> None:
    at, preload, dump = tmp_path / "at", tmp_path / "hanging.py", tmp_path / "dump"
    preload.write_text(HANGING_COUNT.format(at=str(at)))
    cluster.start_worker("--no-nanny", "--preload", str(preload))
    secret = "the-expected-password"
    drill = await start_any(
        *commands(archive, cluster)["drill"], "--assert", f"get key:00000000 == {secret}"
    )
    while not at.exists():
        await anyio.sleep(0.05)
    known = await ask(cluster, _WHAT_THE_SCHEDULER_KNOWS, str(dump))
    drill.process.send_signal(signal.SIGINT)
    await drill.end()
    assert b"archiver-r-" in known  # the name of the task
    seen = known + dump.with_suffix(".yaml").read_bytes() + cluster.log.encode()
    assert secret.encode() not in seen


async def test_what_killed_drills_left_on_the_machine_of_a_worker_is_removed(
    tmp_path: Path,
) -> None:
    place, scratch = tmp_path / "archive", tmp_path / "scratch"
    place.mkdir()
    scratch.mkdir()
    (place / "archive.json").write_text('{"format": 2}')
    archive, programs = Archive(LocalStore(place)), await find()
    await archive.expect()
    killed = "from pathlib import Path; from archiver.commands.drill.workdir import open_workdir; "
    killed += f"open_workdir(Path({str(scratch)!r}))"
    subprocess.run([sys.executable, "-c", killed], check=True)
    assert len(list(scratch.iterdir())) == 1
    opened = OpenSetTrial(archive, tuple(programs[:1]), DrillOptions(scratch=scratch))
    async with opened(Workplace(lambda _: None, is_elsewhere=True)):
        assert list(scratch.iterdir()) == []


async def test_what_processes_left_is_removed_though_the_drill_failed(
    archive: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    killed = "from pathlib import Path; from archiver.commands.drill.workdir import open_workdir; "
    killed += f"open_workdir(Path({str(scratch)!r}))"

    async def lost(_: object) -> NoReturn:
        raise ClusterLost("lost")

    @asynccontextmanager
    async def dying(*_: object) -> AsyncIterator[Any]:
        await anyio.to_thread.run_sync(subprocess.run, [sys.executable, "-c", killed])
        assert await anyio.to_thread.run_sync(os.listdir, scratch)
        yield SimpleNamespace(at_once=1, do=lost)

    with pytest.raises(ClusterLost):
        await drill_sets(
            Archive(LocalStore(archive)),
            await find(),
            DrillOptions(scratch=scratch),
            open_crew=dying,  # type: ignore[arg-type]
        )
    assert list(scratch.iterdir()) == []


async def test_another_archive_of_that_name_is_not_read(tmp_path: Path) -> None:
    place = tmp_path / "archive"
    place.mkdir()
    (place / "archive.json").write_text('{"format": 2, "created_at": "2026-11-01T00:00:00Z"}')
    archive = Archive(LocalStore(place))
    await archive.expect()
    there: Archive = pickle.loads(pickle.dumps(archive))
    await there.check_same()
    (place / "archive.json").write_text('{"format": 2, "created_at": "2026-11-02T00:00:00Z"}')
    with pytest.raises(UnusableCluster, match="finds another archive"):
        await there.check_same()


async def test_other_servers_of_that_name_are_not_used() -> None:
    [program, *_] = await find()
    await check_programs([program])
    with pytest.raises(UnusableCluster, match="is not"):
        await check_programs([replace(program, version=(1, 2, 3))])


@pytest.mark.parametrize("command", ["verify", "drill"])
@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("--engine", "dask"), 2, "needs either --scheduler or --processes"),
        (("--processes", "2"), 2, "need --engine dask"),
        (("--engine", "dask", "--scheduler", "tcp://127.0.0.1:9"), 5, "no scheduler answers"),
    ],
)
async def test_what_cannot_be_used(
    command: str, args: tuple[str, ...], code: int, why: str, archive: Path, start_any: Start
) -> None:
    run = await start_any(command, archive, *args)
    ended, err = await run.end()
    assert (ended, "Traceback" in err) == (code, False)
    assert why in err
    assert evidence_of(archive) == []


async def test_a_bucket_is_verified_and_drilled(
    originals: dict[str, str], seaweed: SeaweedFS, bucket: str, s3_writer: None, start: Start,
    start_any: Start, tmp_path: Path,
) -> None:  # fmt: skip
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    place = f"s3://{bucket}/redis", "--s3-endpoint", seaweed.endpoint
    by_dask = "--engine", "dask", "--processes", "2"
    assert (await (await start(*place)).end())[0] == 0
    verify = await start_any("verify", *place, *by_dask)
    code, err = await verify.end()
    assert (code, verify.lines[-1]["read"]) == (0, FILES), err
    drill = ("drill", *place, "--spread", str(SETS), "--scratch", scratch, *by_dask)
    run = await start_any(*drill)
    code, err = await run.end()
    assert (code, run.count("set_drilled")) == (0, SETS), err
    killed = await start_any(*drill)
    while not servers_in(scratch):
        await anyio.sleep(0.01)
    killed.process.kill()
    await killed.process.wait()
    with anyio.fail_after(60):
        while servers_in(scratch):
            await anyio.sleep(0.05)
    next_one = await start_any(*drill)
    code, err = await next_one.end()
    assert code == 0, err
    assert list(scratch.iterdir()) == []
