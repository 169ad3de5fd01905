"""What README and the examples tell people to type, parsed by the command line itself."""

import re
import shlex

import click
import pytest

from tests.examples import crontab, units
from tests.examples.commands import command_of, lines_of, names, options_of, parsed
from tests.examples.conftest import EXAMPLES
from tests.examples.test_kubernetes import JOBS as KUBERNETES_JOBS
from tests.examples.test_kubernetes import pod_of

CHECKOUT = EXAMPLES.parent
README = (CHECKOUT / "README.md").read_text()
TOP = ("archiver", "examples", "tests", "benchmarks", "docs", ".ci")


def readme_lines() -> list[list[str]]:
    """Of its code blocks: indented, or between fences."""
    indented = re.findall(r"^    (archiver .*)$", README, re.MULTILINE)
    fenced = re.findall(r"^```.*?\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return lines_of("\n".join([*indented, *fenced]))


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
        found[f"kubernetes/{name}"] = [pod_of(job)["containers"][0]["args"]]
    behind_image = (EXAMPLES / "container/pull.sh").read_text().partition("archiver:0.1")[2]
    words = shlex.split(behind_image.replace("\\\n", ""))
    assert words.pop() == "$@"
    found["container/pull.sh"] = [words]
    return found


def help_lines() -> list[list[str]]:
    helps = "\n".join(command_of(name).help or "" for name in names())
    return lines_of("\n".join(re.findall(r"^\s*(archiver .*)$", helps, re.MULTILINE)))


@pytest.mark.parametrize("words", readme_lines(), ids=" ".join)
def test_a_line_of_the_readme(words: list[str]) -> None:
    parsed(words)


@pytest.mark.parametrize("words", help_lines(), ids=" ".join)
def test_a_line_of_a_help(words: list[str]) -> None:
    parsed(words)


@pytest.mark.parametrize(("name", "lines"), example_lines().items(), ids=list(example_lines()))
def test_a_line_of_an_example(name: str, lines: list[list[str]]) -> None:
    assert lines
    for words in lines:
        assert str(parsed(words).info_name) in name


def test_there_are_lines_of_every_kind() -> None:
    assert {words[0] for words in readme_lines()} >= set(names()) - {"completion", "uploads"}
    assert len(help_lines()) > 10


@pytest.mark.parametrize("text", sorted(set(re.findall(r"`archiver ([^`]+)`", README))))
def test_a_command_within_a_sentence(text: str) -> None:
    """Its words may stand for others, as ARCHIVE and a|b do; its options may not."""
    name, *rest = text.split()
    known = options_of(name)
    assert [word for word in rest if word.startswith("-") and word.split("=")[0] not in known] == []


@pytest.mark.parametrize("line", ["pull --to a --instance r-1 --ranges x", "pulls", "pull"])
def test_a_line_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        parsed(line.split())


def test_what_a_shell_takes_for_itself_ends_a_command() -> None:
    text = "a; exec archiver copy a \\\n  'b c' && archiver verify b # c\n"
    assert lines_of(text) == [["copy", "a", "b c"], ["verify", "b"]]


def test_every_file_that_is_named_is_there() -> None:
    spans = {span for span in re.findall(r"`([\w./-]+)`", README) if span.split("/")[0] in TOP}
    links = set(re.findall(r"\]\((?!https?:|#)([^)]+)\)", README))
    packages = README.partition("| package |")[2].partition("\n\n")[0]
    modules = {f"archiver/{name}" for name in re.findall(r"^\| `([^`]+)`", packages, re.MULTILINE)}
    by_examples = {
        name
        for path in (*EXAMPLES.rglob("*.*"), *(EXAMPLES / "cron").iterdir())
        if path.is_file() and "evidence" not in path.parts and path.suffix != ".pyc"
        for name in re.findall(r"examples/[\w./-]*\w", path.read_text())
    }
    assert modules
    assert by_examples
    named = {name for name in spans if "/" in name} | links | modules | by_examples
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []


def test_every_example_is_named() -> None:
    """A table of the README says where each is."""
    table = README.partition("## Every night")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:cron|systemd|kubernetes|container)/[\w@.-]+|\w+\.env)`", table))
    folders = ("", "cron", "systemd", "kubernetes", "container")
    paths = [path for folder in folders for path in (EXAMPLES / folder).iterdir()]
    there = {
        path.relative_to(EXAMPLES).as_posix()
        for path in paths
        if path.is_file() and path.suffix != ".py"
    }
    timers = {name for name in there if name.endswith(".timer")}
    assert {name.replace(".timer", ".service") for name in timers} <= there
    assert named == there - timers
    assert "python3 -m venv /opt/archiver &&" in table


def test_no_variable_of_ours_is_set() -> None:
    """What an example asks for is to be seen in its command line, which is parsed here."""
    for path in EXAMPLES.rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "evidence" not in path.parts:
            assert "ARCHIVER_" not in path.read_text(), path
