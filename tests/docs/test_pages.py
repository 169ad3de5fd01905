"""What the pages say of options, exit codes, files and each other is so."""

import inspect
import json
import re
from pathlib import Path

import click
import pytest

from archiver import errors
from archiver.cli.config_file import read
from archiver.cli.config_keys import job_commands
from archiver.cli.main import main
from tests.docs.pages import BLOCKS, CHECKOUT, DOCS, PAGES, README, Block, Page, rows
from tests.examples.commands import command_of, lines_of, names, options_of, parsed
from tests.examples.conftest import EXAMPLES

# Of other programs that the pages name.
FOREIGN = {
    "redis-server": {"--port", "--databases", "--save", "--dir", "--dbfilename"}
    | {"--aof-load-truncated"},
    "sha256sum": {"--quiet"},
    "useradd": {"--system", "--create-home"},
    "systemctl": {"--now"},
    "mount": {"--bind"},
    "kubectl": {"--from-env-file"},
    "dask": {"--host", "--nthreads"},
}
# Why a block may not be run here. Its commands are parsed all the same.
NOT_RUN = {"builds an environment", "needs root", "needs systemd", "needs Kubernetes"}
NOT_RUN |= {"needs a cluster"}
# What a table of docs/commands.md explains once, for all commands.
OUTPUT = {"--json", "--quiet", "--verbose", "--progress", "--no-progress", "--help"}
OUTPUT |= {"--log-file", "--log-format", "--metrics-file"}
TOP = ("archiver", "examples", "tests", "benchmarks", "docs", ".ci")


def options_in_help(name: str) -> set[str]:
    """As ``--help`` shows them."""
    command = command_of(name)
    shown = command.get_help(click.Context(command, info_name=name, parent=click.Context(main)))
    return set(re.findall(r"^ +(?:-\w, )?(--[a-z][a-z0-9-]*)", shown, re.MULTILINE)) | set(
        re.findall(r" / (--[a-z][a-z0-9-]*)", shown)
    )


def test_the_readme_is_one_page() -> None:
    assert README.text.count("\n") <= 150


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links:
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists(), link
        if anchor:
            assert anchor in Page(path).anchors, link


def test_every_page_can_be_reached() -> None:
    linked = {link.partition("#")[0] for link in README.links}
    assert {f"docs/{name}.md" for name in DOCS} <= linked


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_options_that_a_page_names_are_in_a_help(page: Page) -> None:
    known = {option for name in names() for option in options_in_help(name)}
    known |= {option for options in FOREIGN.values() for option in options}
    assert sorted(page.options - known) == []


def test_every_option_in_a_help_is_in_a_page() -> None:
    named = {option for page in PAGES for option in page.options}
    shown = {(name, option) for name in names() for option in options_in_help(name)}
    assert len(shown) > 100
    assert sorted((name, one) for name, one in shown if one not in named | {"--help"}) == []


@pytest.mark.parametrize("name", sorted(set(names()) - {"completion"}))
def test_every_option_has_a_row_at_its_command(name: str) -> None:
    """Those of buckets and of output have theirs once, for all commands."""
    section = DOCS["commands"].section(f"## archiver {name}")
    cells = [row[0] for row in rows(section)]
    listed = {option for cell in cells for option in re.findall(r"`(--[a-z0-9-]+)", cell)}
    assert listed
    assert sorted(listed - options_of(name)) == []
    buckets = {option for option in options_of(name) if option.startswith("--s3-")}
    explained = set(re.findall(r"--[a-z0-9-]+", section))
    missing = {one for one in options_of(name) if one.startswith("--")}
    missing -= explained | buckets | OUTPUT | {"--retry-for"}
    assert sorted(missing) == []
    for option in buckets:
        assert f"`{option}" in DOCS["buckets"].section("## Options"), option


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_variables_that_a_page_names_are_known(page: Page) -> None:
    known = {param.envvar for name in names() for param in command_of(name).params}
    assert set(re.findall(r"ARCHIVER_[A-Z0-9_]+", page.text)) <= known


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.language in {"console", "sh", "python", "json", "text", "toml"}
    assert block.not_run in NOT_RUN | {None}
    if block.language == "json":
        json.loads(block.text)
    if block.language == "text":
        assert not re.search(r"^(\$ )?archiver ", block.text, re.MULTILINE)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "toml"], ids=str)
def test_a_file_of_jobs_has_no_mistakes(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "archiver.toml"
    path.write_text(block.text)
    read(path, job_commands(click.Context(main)))


def test_targets_of_make_are_there() -> None:
    known = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    named = {
        name for page in PAGES for name in re.findall(r"\bmake ([a-z-]+)(?=`|\s+#)", page.text)
    }
    assert {"test", "check", "demo"} <= named <= set(known)


@pytest.mark.parametrize(
    "words",
    [
        words
        for block in BLOCKS
        if block.language in {"console", "sh"}
        for words in lines_of(block.text)
    ],
    ids=" ".join,
)
def test_a_command_is_understood(words: list[str]) -> None:
    parsed(words)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_command_within_a_sentence_has_known_options(page: Page) -> None:
    """Its other words may stand for others, as ARCHIVE and a|b do."""
    for span in page.spans:
        if span.startswith("archiver ") and not span.startswith("archiver COMMAND"):
            name, *rest = span.split()[1:]
            options = {word.split("=")[0] for word in rest if word.startswith("-")}
            assert options <= options_of(name), span


def test_the_readme_has_one_example_a_command() -> None:
    table = {row[0].strip("`"): row[2].strip("`") for row in rows(README.section("## Commands"))}
    assert list(table) == sorted(table, key=list(table).index)
    assert set(table) == set(names())
    for name, example in table.items():
        [words] = lines_of(example)
        assert words[0] == name
        parsed(words)


@pytest.mark.parametrize("page", [README, DOCS["commands"]], ids=str)
def test_the_exit_codes_are_those_of_the_errors(page: Page) -> None:
    told = {int(row[0]) for row in rows(page.section("## Exit codes"))}
    classes = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.ArchiverError)
    ]
    assert told == {kind.exit_code for kind in classes} | {0, 130, 141}
    assert set(errors.EXIT_PRECEDENCE) == {kind.exit_code for kind in classes}


def test_the_order_of_exit_codes_is_documented() -> None:
    order = ", ".join(map(str, errors.EXIT_PRECEDENCE))
    assert f"in the order {order}." in DOCS["commands"].section("## Exit codes")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_a_page_names_are_there(page: Page) -> None:
    named = {span for span in page.spans if re.fullmatch(r"[\w./-]+", span)}
    named = {span for span in named if span.split("/")[0] in TOP and "/" in span}
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []


def test_files_that_an_example_names_are_there() -> None:
    paths = [*EXAMPLES.rglob("*.*"), *(EXAMPLES / "cron").iterdir()]
    named = {
        name
        for path in paths
        if path.is_file() and "evidence" not in path.parts and path.suffix != ".pyc"
        for name in re.findall(r"examples/[\w./-]*\w", path.read_text())
    }
    assert named
    assert [name for name in sorted(named) if not (CHECKOUT / name).exists()] == []


def test_every_example_is_named() -> None:
    """A table says where each is."""
    page = DOCS["production"].text
    named = set(
        re.findall(r"`((?:cron|systemd|kubernetes|container)/[\w@.-]+|\w+\.(?:env|toml))`", page)
    )
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
    assert "python3 -m venv /opt/archiver &&" in page
