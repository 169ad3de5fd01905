"""``archiver run``: jobs of a file, against an emulator."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.emulator import Emulator, Faults
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Result, Run
from tests.cli.test_pull import STAMP, until_bytes_move
from tests.conftest import INSTANCE

JOBS = f"""
[archives]
main = "./archive"
offsite = "./copy"

[fleets.one]
instance = "{INSTANCE}"

[jobs.pull]
run = "pull"
fleet = "one"
to = "main"

[jobs.verify]
run = "verify"
archive = "main"

[jobs.copy]
run = "copy"
src = "main"
dst = "offsite"

[jobs.list]
run = "ls"
archive = "main"
range = "2020-01-01"
json = true
"""


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, files: Path, environ: dict[str, str]) -> Path:
    """The file, and two backups at the vendor."""
    path = tmp_path / "archiver.toml"
    path.write_text(JOBS)
    environ["ARCHIVER_CONFIG"] = str(path)
    for n in range(2):
        write_rdb(files / INSTANCE / f"{n}_{STAMP}.rdb", 5000, n)
    return path


async def test_pull_verify_and_copy(run: Run, tmp_path: Path) -> None:
    done = await run("run", "pull", "verify", "copy")
    assert done.code == 0, done.err
    told = [line for line in done.err.splitlines() if line.startswith("job ")]
    assert told == [
        "job pull: archiver pull", "job verify: archiver verify", "job copy: archiver copy",
    ]  # fmt: skip
    assert "archived 2 backups" in done.err
    assert "verified 2 files" in done.err
    assert len(list((tmp_path / "copy").rglob("*.rdb"))) == 2


async def test_a_job_is_the_command_that_one_would_type(run: Run) -> None:
    """The same output and the same exit code, whether it fails or not."""
    for words in (("verify", "archive"), ("ls", "archive", "--range", "2020-01-01", "--json")):
        name = {"verify": "verify", "ls": "list"}[words[0]]
        typed = await run(*words)
        assert without_times(await run("run", name)) == without_times(typed)
        assert typed.code == 2
        assert typed.err.startswith("archiver: ")
    assert (await run("run", "pull")).code == 0
    job, typed = await run("run", "list"), await run("ls", "archive", "--json")
    assert job.out == typed.out != ""
    assert (job.code, job.err) == (typed.code, typed.err)


def without_times(result: Result) -> Result:
    return replace(result, out=re.sub(r'"time": "[^"]*"', "", result.out))


async def test_the_first_failure_ends_the_run(run: Run, tmp_path: Path) -> None:
    done = await run("run", "pull", "--quiet")
    assert (done.code, done.out) == (0, "")
    [path, _] = (tmp_path / "archive").rglob("*.rdb")
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    stopped = await run("run", "verify", "copy")
    assert stopped.code == 3
    last = "archiver: 1 of 2 jobs failed: verify (exit code 3)"
    assert stopped.err.splitlines()[-1] == f"{last}; not run: copy"
    assert not (tmp_path / "copy").exists()


async def test_other_jobs_run_after_a_failure_if_asked_for(
    run: Run, jobs: Path, tmp_path: Path
) -> None:
    bad = "[jobs.bad]\nrun = 'verify'\narchive = './none'\n"
    late = "[jobs.late]\nrun = 'ls'\narchive = 'main'\nmax_age = '1s'\nquiet = true\n"
    jobs.write_text(f"{JOBS}{bad}{late}")
    done = await run("run", "bad", "pull", "late", "copy", "--continue", "--quiet")
    assert done.code == 2, "the worse of 2 and 1"
    assert len(list((tmp_path / "copy").rglob("*.rdb"))) == 2
    last = done.err.splitlines()[-1]
    assert last == "archiver: 2 of 4 jobs failed: bad (exit code 2), late (exit code 1)"
    assert "job " not in done.err.replace(last, "")


async def test_options_beat_the_environment_and_that_beats_the_file(run: Run, jobs: Path) -> None:
    """Each layer sets a range: the day of the backups, or one long before them."""
    day, before, unset = "2026-11-24", "2020-01-01", {"ARCHIVER_LS_RANGE": None}
    assert (await run("run", "pull")).code == 0
    job = "[jobs.a]\nrun = 'ls'\narchive = './archive'\n"
    of_command, of_all = "[defaults.ls]\nrange = '{}'\n", "[defaults]\nrange = '{}'\n"

    async def is_listed(text: str, *words: str, **changed: str | None) -> bool:
        jobs.write_text(text)
        return "2026-11-24" in (await run("run", "a", *words, **changed)).out

    assert await is_listed(job, **unset)
    assert not await is_listed(job + of_all.format(before), **unset)
    defaults = of_all.format(before) + of_command.format(day)
    assert await is_listed(job + defaults, **unset)
    own = f"{job}range = '{before}'\n{of_command.format(day)}"
    assert not await is_listed(own, **unset)
    assert await is_listed(own, ARCHIVER_LS_RANGE=day)
    assert not await is_listed(own, "--", "--range", before, ARCHIVER_LS_RANGE=day)
    assert await is_listed(own, "--", "--range", day, ARCHIVER_LS_RANGE=before)


async def test_options_of_a_job_for_once(run: Run, tmp_path: Path) -> None:
    done = await run("run", "pull", "--", "--dry-run")
    assert done.code == 0
    assert not (tmp_path / "archive").exists()
    several = await run("run", "pull", "verify", "--", "--quiet")
    assert (several.code, "for a single job" in several.err) == (2, True)
    wrong = await run("run", "pull", "--", "--dry-rn")
    assert (wrong.code, "did you mean --dry-run?" in wrong.err) == (2, True)


async def test_nothing_runs_with_a_mistake_in_the_file(
    run: Run, jobs: Path, tmp_path: Path
) -> None:
    jobs.write_text(f"{JOBS}[jobs.other]\nrun = 'pul'\n[job]\n")
    done = await run("run", "pull")
    assert done.code == 2
    assert len(done.err.splitlines()) == 2
    assert not (tmp_path / "archive").exists()
    jobs.write_text(JOBS)
    wrong = await run("run", "pull", "verfy")
    assert (wrong.code, "did you mean verify?" in wrong.err) == (2, True)
    assert not (tmp_path / "archive").exists()


async def test_a_usage_error_goes_to_the_log_of_the_job(
    run: Run, jobs: Path, tmp_path: Path
) -> None:
    jobs.write_text(f"{JOBS}log_file = 'log'\n")
    assert (await run("run", "list", "--", "--rang", "x")).code == 2
    assert "ended with exit code 2" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("kill", "number"),
    [
        (os.kill, signal.SIGTERM),
        (os.kill, signal.SIGHUP),
        (os.killpg, signal.SIGINT),  # as a terminal does; the job gets it twice
        (os.killpg, signal.SIGTERM),  # as systemd does
    ],
)
async def test_a_signal_stops_the_job_and_those_after_it(
    kill: Callable[[int, int], None],
    number: signal.Signals,
    environ: dict[str, str],
    files: Path,
    emulator: Emulator,
    tmp_path: Path,
) -> None:
    write_rdb(files / INSTANCE / f"c_{STAMP}.rdb", 8_000_000)
    emulator.faults = Faults(rate=100_000)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "run", "pull", "verify", "--continue",
        cwd=tmp_path, env=environ, stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    await until_bytes_move(emulator)
    kill(process.pid, number)
    _, said = await process.communicate()
    assert process.returncode == 130, said
    assert b"run the same command again to resume" in said
    assert b"pull (exit code 130); not run: verify" in said
