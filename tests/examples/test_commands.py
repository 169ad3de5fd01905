"""What the examples and the helps tell people to type, parsed by the command line itself."""

import re
import shlex

import click
import pytest

from tests.examples import crontab, units
from tests.examples.commands import command_of, lines_of, names, parsed
from tests.examples.conftest import EXAMPLES
from tests.examples.test_kubernetes import JOBS as KUBERNETES_JOBS
from tests.examples.test_kubernetes import args_of


def example_lines() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for path in sorted((EXAMPLES / "cron").iterdir()):
        text = "\n".join(entry.command for entry in crontab.read(path))
        found[f"cron/{path.name}"] = lines_of(text)
    for path in sorted((EXAMPLES / "systemd").glob("*.service")):
        words = units.read(path).command({})
        if words[0] == "/usr/bin/env":
            assert words[1] == "archiver"
            found[f"systemd/{path.name}"] = [words[2:]]
    for name, job in KUBERNETES_JOBS.items():
        found[f"kubernetes/{name}"] = [args_of(job)]
    behind_image = (EXAMPLES / "container/pull.sh").read_text().partition("archiver:0.1")[2]
    words = shlex.split(behind_image.replace("\\\n", ""))
    assert words.pop() == "$@"
    found["container/pull.sh"] = [words]
    return found


def help_lines() -> list[list[str]]:
    helps = "\n".join(command_of(name).help or "" for name in names())
    return lines_of("\n".join(re.findall(r"^\s*(archiver .*)$", helps, re.MULTILINE)))


@pytest.mark.parametrize("words", help_lines(), ids=" ".join)
def test_a_line_of_a_help(words: list[str]) -> None:
    parsed(words)


@pytest.mark.parametrize(("name", "lines"), example_lines().items(), ids=list(example_lines()))
def test_a_line_of_an_example(name: str, lines: list[list[str]]) -> None:
    assert lines
    for words in lines:
        assert str(parsed(words).info_name) in name


def test_there_are_lines_of_every_kind() -> None:
    assert {words[0] for words in help_lines()} >= set(names()) - {"emulate"}
    assert len(help_lines()) > 10


@pytest.mark.parametrize("line", ["pull --to a --instance r-1 --ranges x", "pulls", "pull"])
def test_a_line_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        parsed(line.split())


def test_what_a_shell_takes_for_itself_ends_a_command() -> None:
    text = "a; exec archiver copy a \\\n  'b c' && archiver verify b # c\n"
    assert lines_of(text) == [["copy", "a", "b c"], ["verify", "b"]]


def test_no_variable_of_ours_is_set() -> None:
    """What an example asks for is to be seen in its command line, which is parsed here."""
    for path in EXAMPLES.rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "evidence" not in path.parts:
            assert "ARCHIVER_" not in path.read_text(), path
