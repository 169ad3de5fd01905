"""The units, read as systemd reads them, do what they say."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples import crontab, envfile, units
from tests.examples.commands import parsed, writes_to
from tests.examples.conftest import EXAMPLES, run

FOLDER = EXAMPLES / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
JOBS = [path for path in SERVICES if "@" not in path.name]
TIMERS = sorted(FOLDER.glob("*.timer"))
LOUD = ("--quiet", "--verbose", "--no-progress")
ANALYZE = shutil.which("systemd-analyze")


def test_there_is_a_service_and_a_timer_for_every_job() -> None:
    assert [path.stem for path in JOBS] == [path.stem for path in TIMERS]
    jobs = {path.stem.removeprefix("archiver-").split("-")[0] for path in JOBS}
    assert jobs == {"copy", "drill", "pull", "run", "verify"}


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here (apt install systemd)")
def test_systemd_finds_nothing_wrong() -> None:
    assert ANALYZE is not None
    paths = [str(path) for path in FOLDER.iterdir()]
    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *paths], check=False, capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if "archiver" in line]
    assert (done.returncode, said) == (0, [])
    for path in TIMERS:
        when = units.read(path).one("Timer", "OnCalendar")
        subprocess.run([ANALYZE, "calendar", when], check=True, capture_output=True)


@pytest.mark.parametrize("path", TIMERS, ids=lambda path: path.name)
def test_a_timer_makes_up_for_a_night_without_power(path: Path) -> None:
    timer = units.read(path)
    assert timer.one("Timer", "Persistent") == "yes"
    assert timer.one("Timer", "OnCalendar").endswith(":00")
    assert timer.one("Install", "WantedBy") == "timers.target"


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_service_finds_the_command_and_somebody_hears_of_a_failure(path: Path) -> None:
    """Nor is one started at every boot: that is the timer's affair."""
    unit = units.read(path)
    folders = unit.environ()["PATH"].split(":")
    user = unit.one("Service", "User")
    for folder in ("/opt/archiver/bin", f"/home/{user}/.local/bin", "/usr/local/bin"):
        assert folder in folders
    assert unit.one("Service", "Type") == "oneshot"
    assert unit.one("Unit", "OnFailure") == "archiver-failed@%n.service"
    assert unit.all("Install", "WantedBy") == []


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_service_may_write_to_what_its_command_writes_to(path: Path) -> None:
    """And to nothing else; a bucket is no path. One that is missing is left to the command."""
    unit = units.read(path)
    words = unit.command({})
    assert words[:2] == ["/usr/bin/env", "archiver"]
    listed = [word for line in unit.all("Service", "ReadWritePaths") for word in line.split()]
    written = {place for place in writes_to(parsed(words[2:])) if place != "/var/tmp"}
    assert unit.one("Service", "ProtectSystem") == "strict"
    assert unit.one("Service", "PrivateTmp") == "yes"
    assert sorted(listed) == sorted(f"-{place}" for place in written)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_only_an_interrupted_run_that_the_next_goes_on_with_is_a_success(path: Path) -> None:
    goes_on = any(job in path.name for job in ("-pull", "-copy", "-run"))
    said = units.read(path).all("Service", "SuccessExitStatus")
    assert said == (["130"] if goes_on else [])


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
async def test_a_service_gives_the_command_what_cron_gives_it(path: Path, tmp_path: Path) -> None:
    """Which is shown to work. The command here says what it was given, and what it can see."""
    for name in ("vendor", "offsite"):
        (tmp_path / f"{name}.env").write_text((EXAMPLES / f"{name}.env").read_text())
    (tmp_path / "archiver").write_text('#!/bin/sh\nprintf "%s\\0" "$@"; echo; env -0\n')
    (tmp_path / "archiver").chmod(0o755)

    def moved(text: str) -> str:
        return text.replace("/etc/archiver", str(tmp_path)).replace(
            "/opt/archiver/bin", str(tmp_path)
        )

    unit = units.read(path)
    environ = {name: moved(value) for name, value in unit.environ().items()}
    for file in unit.all("Service", "EnvironmentFile"):
        environ |= envfile.as_systemd(Path(moved(file)))
    by_systemd = await run([moved(word) for word in unit.command(environ)], environ)
    entry = entry_of(path.stem.removeprefix("archiver-"))
    by_cron = await run(
        ["/bin/sh", "-c", moved(entry.command)],
        {name: moved(value) for name, value in entry.environ.items()},
    )
    assert told(by_systemd) == told(by_cron)


def entry_of(job: str) -> crontab.Entry:
    name, _, place = job.partition("-")
    entries = crontab.read(EXAMPLES / "cron" / f"archiver-{name}")
    return entries[-1 if place else 0]


def told(said: tuple[int, str]) -> tuple[list[str], dict[str, str]]:
    """The words that were given, but for how loud; the credentials that were seen."""
    code, out = said
    assert code == 0, out
    words, _, environ = out.partition("\n")
    variables = dict(one.split("=", 1) for one in environ.split("\0") if one)
    return (
        [word for word in words.split("\0") if word not in LOUD],
        {name: value for name, value in variables.items() if name.startswith(("AWS_", "ALIBABA_"))},
    )


async def test_the_mail_of_a_failure(tmp_path: Path) -> None:
    """Its sendmail and systemctl are ours, and say what they are given."""
    unit = units.read(FOLDER / "archiver-failed@.service")
    for name, text in (("systemctl", 'echo "$@"; exit 3'), ("sendmail", 'echo "to $1"; cat')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{unit.environ()['PATH']}"
    code, sent = await run(unit.command({}), {"PATH": path})
    assert code == 0
    assert sent.splitlines() == [
        "to oncall@example.com",
        "Subject: archiver-pull.service failed on host",
        "",
        "status --full --lines=50 archiver-pull.service",
    ]


GOOD = "[Service]\nExecStart=/bin/echo a%%b \\\n# between\n    'c d'\nPrivateTmp=yes\n"


def test_lines_that_go_on_and_percent_signs(tmp_path: Path) -> None:
    path = tmp_path / "a.service"
    path.write_text(GOOD)
    assert units.read(path).command({}) == ["/bin/echo", "a%b", "c d"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("%%b", "%b"), ("[Service]", "[Services]"), ("PrivateTmp", "PrivateTemp"),
        ("yes", "ja"), ("'c d'", "'c d"), ("/bin/echo", "echo"), ("yes", "yes \\"),
    ],
)  # fmt: skip
def test_what_systemd_would_ignore_is_refused(tmp_path: Path, right: str, wrong: str) -> None:
    path = tmp_path / "a.service"
    assert right in GOOD
    path.write_text(GOOD.replace(right, wrong))
    with pytest.raises(units.BadUnit):
        units.read(path).command({})
