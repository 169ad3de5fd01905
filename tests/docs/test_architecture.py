"""What docs/architecture.md says of the code: where things are, and what is tried how often."""

import ast
import dataclasses
import math
import re
from pathlib import Path

import pytest

from archiver.retry import RETRIES, UNLIMITED, RetryPolicy, RetryRule
from archiver.transfer import download_url, limits, part
from tests.docs.pages import CHECKOUT, DOCS, rows

PAGE = DOCS["architecture"]
ERRANDS = {row[0]: row for row in rows(PAGE.section("## Where to change what"))}


def test_the_errands() -> None:
    assert set(ERRANDS) == {
        "add an action of the API", "add a vendor", "add a store", "change what is skipped",
        "change what is retried", "see more in the logs", "add a command that deletes",
    }  # fmt: skip


@pytest.mark.parametrize("errand", sorted(ERRANDS))
def test_an_errand_names_what_is_there(errand: str) -> None:
    """Each name that a file is opened for is defined in that file."""
    for cell in ERRANDS[errand][1:]:
        for clause in cell.split(";"):
            spans = re.findall(r"`([^`]+)`", clause)
            paths = [span for span in spans if "/" in span]
            defined = {name for path in paths for name in _defined(CHECKOUT / path)}
            wanted = {span for span in spans if span.isidentifier()} if paths else set()
            assert wanted <= defined, clause
    assert ERRANDS[errand][1].startswith("`archiver/")


def _defined(path: Path) -> set[str]:
    """The names of functions, classes, and of what is assigned to in a module."""
    if path.is_dir():
        return set()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_every_package_has_its_line() -> None:
    cells = [row[0] for row in rows(PAGE.section("## The tree"))]
    listed = [path for cell in cells for path in re.findall(r"`(archiver/[\w/.]+)`", cell)]
    package = CHECKOUT / "archiver"
    folders = {path.parent for path in package.rglob("__init__.py")} - {package}
    there = {f"{path.relative_to(CHECKOUT)}/" for path in folders} - {"archiver/commands/"}
    there |= {f"archiver/{path.name}" for path in package.glob("[!_]*.py")}
    there |= {f"archiver/commands/{p.name}" for p in (package / "commands").glob("[!_]*.py")}
    assert sorted(listed) == sorted(there)


ROWS = list(rows(PAGE.section("## Retries")))


def test_every_row_of_the_retry_table_is_in_the_page() -> None:
    assert [row[0] for row in ROWS] == [f"`{field.name}`" for field in dataclasses.fields(RETRIES)]


@pytest.mark.parametrize("row", ROWS, ids=[row[0].strip("`") for row in ROWS])
def test_a_row_says_what_the_table_does(row: list[str]) -> None:
    name, _, *numbers, files = row
    rule: RetryRule = getattr(RETRIES, name.strip("`"))
    total = "" if rule.total == math.inf else f"{rule.total:g} s"
    assert numbers == [
        "" if rule.attempts == UNLIMITED else str(rule.attempts),
        f"{rule.wait:g} s, {rule.max_wait:g} s" if rule.max_wait else _seconds(rule.wait),
        _seconds(rule.timeout),
        total if rule.option is None else f"`{rule.option}` ({total})",
    ]
    assert re.findall(r"`([^`]+)`", files) == sorted(
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "archiver").rglob("*.py")
        if f"RETRIES.{name.strip('`')}." in path.read_text()
    )


def _seconds(value: float) -> str:
    return "" if value in (0, math.inf) else f"{value:g} s"


def test_what_else_decides_about_a_connection() -> None:
    text = PAGE.section("## Retries")
    for said, is_so in {
        "at most 300 s": RetryPolicy().max_retry_after == 300,
        "`part.py`: 64 KiB": part.MIN_PROGRESS_BYTES == 64 * 1024,
        "below 8 KiB/s": limits.MinimumRate().bytes_per_second == 8192,
        "4 times slower": limits._TIMES_SLOWER == 4,
        "64 MiB and a 20th": (limits._HEDGE_BYTES, limits._HEDGE_SHARE) == (64 * 2**20, 20),
        "expires within 60 s": download_url.REFRESH_AHEAD.total_seconds() == 60,
    }.items():
        assert said in text
        assert is_so, said
