"""What docs/architecture.md says of the code: where things are, and what is tried how often."""

import ast
import re
from pathlib import Path

import pytest

from archiver.retry import RetryPolicy
from archiver.sources.alibaba import source
from archiver.stores.s3 import bucket, patience, reading, sending
from archiver.transfer import download, limits, part, route, small
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
    """The names of functions, classes and class attributes in a module."""
    if path.is_dir():
        return set()
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
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


def test_how_often_something_is_tried() -> None:
    text = PAGE.section("## Retries")
    policy = RetryPolicy()
    for said, is_so in {
        "from 0.5 s to 30 s": (policy.first, policy.longest) == (0.5, 30),
        "at most 300 s": policy.longest_asked == 300,
        "`--retry-for` (5 min)": policy.lasting == 300,
        "the same, for 30 s": source.FIRST_SECONDS == 30,
        "up to 20 readings": source.MOST_READINGS == 20,
        "8 KiB/s over 30 s": limits.LeastRate() == limits.LeastRate(8192, 30),
        "64 KiB of progress": part.LEAST_PROGRESS == 64 * 1024,
        "expire within 60 s": route.REFRESH_AHEAD.total_seconds() == 60,
        "after four 403s": route.MOST_REFUSALS == 4,
        "within 2 s": route._PROBE_SECONDS == 2,
        "four times slower": limits._TIMES_SLOWER == 4,
        "64 MiB and a twentieth": (limits._SPARE, limits._SHARE) == (64 * 2**20, 20),
        "each part again, up to 5 times": download.MOST_MENDINGS == 5,
        "up to 3 starts": download.MOST_STARTS == 3,
        "again up to 2 times": download.MOST_REWRITES == 2,
        "one try of 10 s": small._AT_ONCE_SECONDS == 10,
        "at most 10 s between tries": patience._LONGEST_SECONDS == 10,
        "30 s if it never answered": patience.FIRST_SECONDS == 30,
        "sent up to 4 times": sending._MOST_SENDINGS == 4,
        "opened up to 6 times": (reading._MOST_REOPENINGS, bucket._MOST_READINGS) == (6, 6),
    }.items():
        assert said in text
        assert is_so, said
