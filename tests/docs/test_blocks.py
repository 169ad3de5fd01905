"""Every block of commands in the pages is run, from the top of its section to the end."""

import ast
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.conftest import World, is_said, pulled_before, steps
from tests.docs.pages import BLOCKS, DOCS, README, Block, Page

SHELL = {"console", "sh"}


def runnable(page: Page) -> list[Block]:
    return [one for one in page.blocks if one.language in SHELL and one.not_run is None]


async def run_block(block: Block, world: World) -> None:
    if block.language == "sh":
        code, said = await world.shell(block.text)
        assert code == 0, f"{block}: {said}"
        return
    for command, expected in steps(block.text):
        code, said = await world.shell(command)
        assert code == 0, f"{block}: {command}: {said}"
        assert is_said(expected, said), f"{block}: {command}: {said}"


async def test_the_readme(world: World) -> None:
    """From nothing: its first command makes the archive."""
    for block in runnable(README):
        await run_block(block, world)


def sections() -> dict[str, list[Block]]:
    """What the pages in docs/ have the reader run, by page and section."""
    found = dict[str, list[Block]]()
    for page in DOCS.values():
        for block in runnable(page):
            found.setdefault(f"{page}: {block.section}", []).append(block)
    return found


@pytest.mark.parametrize("blocks", sections().values(), ids=list(sections()))
async def test_a_section(blocks: list[Block], world: World) -> None:
    await pulled_before(world, "".join(block.text for block in blocks))
    for block in blocks:
        await run_block(block, world)


@pytest.fixture
def levels_of_logs() -> Iterator[None]:
    """Whatever a block sets, it is not for longer than its test."""
    loggers = [logging.getLogger(name) for name in ("archiver", "archiver.requests")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("levels_of_logs")
async def test_the_library(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks are what somebody types into ``python -m asyncio``."""
    blocks = [block for block in BLOCKS if block.language == "python"]
    assert {block.page for block in blocks} == {"docs/library.md"}
    await pulled_before(world, "")
    for name, value in world.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(world.home)
    for block in blocks:
        code = compile(world.moved(block.text), str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        names: dict[str, object] = {}
        if inspect.isawaitable(running := eval(code, names)):
            await running
    assert (Path("restored") / "r-bp1zxszhcgatnx" / "dump.rdb").exists()


@pytest.mark.parametrize(
    ("expected", "said", "is_right"),
    [
        (["a … c"], "a b c\n", True),
        (["a … c"], "a b d\n", False),
        (["a 1.5 MiB"], "a 17 MiB\n", True),
        (["a 1.5 MiB"], "a 17 KiB\n", False),
        (["a", "…", "c"], "a\nb\nb\nc\n", True),
        (["a", "c"], "a\nb\nc\n", False),
        ([], "", True),
        ([], "a\n", False),
    ],
)
def test_what_is_expected(expected: list[str], said: str, is_right: bool) -> None:
    assert is_said(expected, said) is is_right


def test_a_block_that_fails_is_found() -> None:
    assert steps("$ a \\\n> b\nc\n$ d\n") == [("a b", ["c"]), ("d", [])]
