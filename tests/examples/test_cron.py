"""The crontabs, read as cron reads them, do what they say."""

from pathlib import Path

import pytest

from archiver.emulator import Emulator
from tests.examples import crontab
from tests.examples.commands import jobs_of, lines_of, parsed
from tests.examples.conftest import EXAMPLES, Offsite, Stage, run
from tests.examples.envfile import as_docker, as_sh, as_systemd

JOBS = sorted((EXAMPLES / "cron").iterdir())


def entries(job: str) -> list[crontab.Entry]:
    return crontab.read(EXAMPLES / "cron" / f"archiver-{job}")


async def run_entry(stage: Stage, entry: crontab.Entry, added: str = "") -> tuple[int, str]:
    """As cron does: a short environment, the command to a shell, and what is behind a % to it."""
    environ = {name: stage.moved(value) for name, value in entry.environ.items()}
    environ |= {"HOME": str(stage.path), "LOGNAME": entry.user}
    command = stage.moved(entry.command) + added
    return await run([environ["SHELL"], "-c", command], environ, entry.stdin)


def test_there_is_one_for_every_job() -> None:
    assert [path.name for path in JOBS] == [
        "archiver-copy", "archiver-drill", "archiver-pull", "archiver-run", "archiver-verify",
    ]  # fmt: skip


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_cron_finds_the_command_and_knows_whom_to_write_to(path: Path) -> None:
    """In a virtual environment of the machine, and where pipx puts it for the user."""
    for entry in crontab.read(path):
        folders = entry.environ["PATH"].split(":")
        for folder in ("/opt/archiver/bin", f"/home/{entry.user}/.local/bin", "/usr/local/bin"):
            assert folder in folders
        assert "@" in entry.environ["MAILTO"]
        assert entry.stdin == "", "a % ends the command"


async def test_pull(stage: Stage, at_vendor: str) -> None:
    [entry] = entries("pull")
    assert await run_entry(stage, entry, at_vendor) == (0, "")
    assert stage.archived() == 2


async def test_a_pull_that_fails_is_mailed(stage: Stage, at_vendor: str) -> None:
    """Cron looks at no exit code: it mails what was said."""
    (stage.archive / "archive.json").unlink()
    [entry] = entries("pull")
    code, said = await run_entry(stage, entry, at_vendor)
    assert code == 2
    assert "no archive" in said


async def test_copy(stage: Stage, pulled: None, offsite: Offsite) -> None:
    offsite.begin()
    [entry] = entries("copy")
    assert await run_entry(stage, entry) == (0, "")
    await offsite.check_copied(stage.archive)


async def test_verify(stage: Stage, pulled: None, offsite: Offsite) -> None:
    offsite.keep(stage.archive)
    here, there = entries("verify")
    assert await run_entry(stage, here) == (0, "")
    stage.check_results()
    assert await run_entry(stage, there) == (0, "")
    offsite.check_results()


async def test_drill(stage: Stage, pulled: None) -> None:
    [entry] = entries("drill")
    assert await run_entry(stage, entry) == (0, "")
    stage.check_evidence("archive", "evidence")


async def test_run(
    stage: Stage, vendor: Path, emulator: Emulator, offsite: Offsite, tmp_path: Path
) -> None:
    """One file for all jobs."""
    offsite.begin()
    path = tmp_path / "archiver.toml"
    text = stage.moved((EXAMPLES / "archiver.toml").read_text())
    path.write_text(text.replace('"pull"', f'"pull"\nendpoint = "{emulator.endpoint}"'))
    stage.places["/etc/archiver/archiver.toml"] = str(path)
    every_night, on_sundays = entries("run")
    assert await run_entry(stage, every_night) == (0, "")
    assert stage.archived() == 2
    await offsite.check_copied(stage.archive)
    stage.check_results()
    offsite.check_results()
    assert await run_entry(stage, on_sundays) == (0, "")
    stage.check_evidence("archive", "evidence")


def test_the_file_of_jobs_does_what_the_other_crontabs_do() -> None:
    for entry in entries("run"):
        [words] = lines_of(entry.command)
        for job, name in zip(jobs_of(parsed(words)), parsed(words).params["names"], strict=True):
            kind, _, place = name.partition("-")
            [same] = lines_of(entries(kind)[-1 if place else 0].command)
            apart = parsed(same).params
            # A verify of the file waits for other writers, as all its jobs do.
            assert job.params | {"lock_wait": None} == apart | {"lock_wait": None}, name


GOOD = "PATH=/bin\n15 4 * * *  archiver  echo a \\% b\n"


def test_a_percent_sign_that_is_escaped_is_one(tmp_path: Path) -> None:
    path = tmp_path / "job"
    path.write_text(GOOD)
    [entry] = crontab.read(path)
    assert (entry.command, entry.stdin, entry.environ["PATH"]) == ("echo a % b", "", "/bin")
    path.write_text(GOOD.replace("\\%", "%"))
    [entry] = crontab.read(path)
    assert (entry.command, entry.stdin) == ("echo a ", " b")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("job.cron", GOOD),
        ("job", GOOD.rstrip("\n")),
        ("job", GOOD.replace("echo", "\\\n echo")),
        ("job", GOOD.replace("15 4", "75 4")),
        ("job", GOOD.replace("  archiver  echo", "  /opt/archiver/bin/archiver  pull")),
        ("job", GOOD.replace("4 * *", "4 1 *").replace("*  archiver", "0  archiver")),
    ],
)
def test_what_cron_would_read_otherwise_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(crontab.BadCrontab):
        crontab.read(tmp_path / name)


def test_files_of_variables_are_the_same_to_all_who_read_them() -> None:
    """sh, systemd, docker and kubectl have rules of their own for quotes and blanks."""
    paths = sorted(EXAMPLES.glob("*.env"))
    assert [path.name for path in paths] == ["offsite.env", "vendor.env"]
    for path in paths:
        assert as_docker(path) == as_systemd(path) == as_sh(path) != {}
        assert f"/etc/archiver/{path.name}" in path.read_text()
