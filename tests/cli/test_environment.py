"""Options in the environment, and values that a shell or an editor has spoilt."""

from pathlib import Path

import click
import pytest

from archiver.cli import environment
from archiver.cli.main import main
from archiver.stray_characters import stray_characters_in
from tests.archive.sample import INSTANCE, put_standard
from tests.faults.power import Ended, command


@pytest.fixture
def no_blocking_on_the_loop() -> None:
    """The command line looks at places before it begins."""


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put_standard(tmp_path / "archive", b"any bytes")
    return tmp_path / "archive"


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended.err
    [line] = [line for line in ended.err.splitlines() if line.startswith("archiver: ")]
    for word in words:
        assert word in line
    assert not list(Path().glob("[!a]*"))  # nothing was begun beside the archive


def test_each_command_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_PULL_RANGE", "2020-01-01")
    monkeypatch.setenv("ARCHIVER_COPY_INSTANCE", "r-none")
    assert "1 backup, " in command("ls", "archive").err
    assert "verified 1 file" in command("verify", "archive").err
    monkeypatch.setenv("ARCHIVER_VERIFY_RANGE", "2020-01-01")
    assert command("verify", "archive").code == 1
    assert "1 backup, " in command("ls", "archive").err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ARCHIVER_RANGE", ("use ARCHIVER_LS_RANGE",)),
        ("ARCHIVER_QUIET", ("use ARCHIVER_LS_QUIET",)),
        ("ARCHIVER_TO", ("ARCHIVER_PULL_TO or ARCHIVER_RESTORE_TO",)),
        ("ARCHIVER_LS_RANG", ("the nearest is ARCHIVER_LS_RANGE",)),
        ("ARCHIVER_PULL_INSTANCES", ("the nearest is ARCHIVER_PULL_INSTANCE",)),
        ("ARCHIVER_VERIFY_TO", ("no such variable",)),
        ("ARCHIVER_", ("no such variable",)),
        ("ARCHIVER_PORT", ("ARCHIVER_EMULATE_PORT",)),
    ],
)
def test_one_that_nobody_knows(
    monkeypatch: pytest.MonkeyPatch, name: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv(name, "8080x")
    refused(command("ls", "archive"), f"{name} is set", *words)
    assert command("ls", "--help").code == 0
    assert command("--version").code == 0


def test_an_old_name_is_reported_before_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_TO", "elsewhere")
    monkeypatch.setenv("ARCHIVER_INSTANCE", INSTANCE)
    refused(command("pull"), "use ARCHIVER_PULL_TO", "use ARCHIVER_PULL_INSTANCE")


def test_what_kubernetes_sets_for_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ARCHIVER_SERVICE_HOST": "10.0.0.11",
        "ARCHIVER_SERVICE_PORT_HTTP": "80",
        "ARCHIVER_PORT": "tcp://10.0.0.11:80",
        "ARCHIVER_PORT_80_TCP": "tcp://10.0.0.11:80",
        "ARCHIVER_PORT_80_TCP_PROTO": "tcp",
        "ARCHIVER_PORT_80_TCP_ADDR": "10.0.0.11",
        "ARCHIVER_DRILLS_SERVICE_HOST": "fd00::1",
    }.items():
        monkeypatch.setenv(name, value)
    assert command("ls", "archive").code == 0


def test_every_option_has_a_variable_of_its_own() -> None:
    context, seen = click.Context(main), set[str]()
    for name in main.list_commands(context):
        one = main.get_command(context, name)
        assert one is not None
        for param in one.params:
            if isinstance(param, click.Option) and "--help" not in param.opts:
                assert isinstance(param.envvar, str)
                if param.envvar == "ARCHIVER_CONFIG":
                    continue  # the file is the same for all
                assert param.envvar.startswith(environment.variable(name, ""))
                assert param.envvar not in seen
                seen.add(param.envvar)
    assert {"ARCHIVER_PULL_PROGRESS", "ARCHIVER_DRILL_RTO", "ARCHIVER_LS_MAX_AGE"} <= seen


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_COPY_WORKERS", "many")
    refused(command("copy", "archive", "b"), "ARCHIVER_COPY_WORKERS", "'many'")
    refused(command("copy", "archive", "b", "--workers", "x"), "--workers: 'x' is")


SPOILT = {
    "backups\r": "carriage return",
    '"/srv/backups"': "quotes",
    "'backups'": "quotes",
    'backups"': "quotes",
    "\u201cbackups\u201d": "quotes",
    " backups": "blanks",
    "backups ": "blanks",
    "backups\n": "blanks",
    "\u00a0backups": "blanks",
    "\ufeffbackups": "blanks",
    "back\x1bups": "control character",
    "back\nups": "control character",
}


@pytest.mark.parametrize("value", SPOILT, ids=ascii)
def test_a_spoilt_path(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """As a place on the command line, as another path there, and in the environment."""
    pull = ("pull", "--instance", INSTANCE, "--region", "cn-hangzhou")
    refused(command(*pull, "--to", value), SPOILT[value])
    refused(command("copy", "archive", value), SPOILT[value])
    refused(command("restore", "archive", "--instance", INSTANCE, "--to", value), SPOILT[value])
    refused(command("drill", "archive", "--scratch", value), SPOILT[value])
    monkeypatch.setenv("ARCHIVER_PULL_TO", value)
    refused(command(*pull), "ARCHIVER_PULL_TO", SPOILT[value])


def test_spoilt_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ARCHIVER_LS_INSTANCE": f'"{INSTANCE} r-2"',
        "ARCHIVER_LS_RANGE": "last-7d\r",
        "ARCHIVER_LS_MAX_AGE": " 26h",
        "ARCHIVER_LS_QUIET": "true\r",
    }.items():
        monkeypatch.setenv(name, value)
        refused(command("ls", "archive"), name)
        monkeypatch.delenv(name)


def test_what_is_not_spoilt(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    odd = archive.with_name("my 'old' backups \u00fc")
    archive.rename(odd)
    assert "1 backup, " in command("ls", str(odd)).err
    monkeypatch.setenv("ARCHIVER_LS_INSTANCE", f"{INSTANCE}\n\tr-2")
    assert "r-2" in command("ls", str(odd)).err
    assert stray_characters_in('get k == "x y"', quotes_at_end=True) is None
    assert stray_characters_in('"dbsize > 0"', quotes_at_end=True) is not None
    assert stray_characters_in("") is None
