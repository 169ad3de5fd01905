"""stdout and stderr that are full, closed or gone: said where it can be, and no night is lost."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import put_standard
from tests.cli.conftest import Result
from tests.cli.test_pull import PULL
from tests.conftest import INSTANCE

FILES = 3
LOST = "archiver: cannot write to stdout: "
Shell = Callable[..., Awaitable[Result]]


@pytest.fixture
def shell(environ: dict[str, str], tmp_path: Path) -> Shell:
    """Run ``archiver`` with what a shell does to its streams."""

    async def start(streams: str, *words: str, python: str | None = None) -> Result:
        what = ["-c", python] if python is not None else ["-m", "archiver"]
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f'"$@" {streams}', "sh", sys.executable, *what, *words, env=environ,
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return Result(process.returncode or 0, out.decode(), err.decode())

    return start


@pytest.fixture
def vendor(files: Path) -> None:
    for n in range(FILES):
        write_rdb(files / INSTANCE / f"{n}_20261124021500.rdb", 50_000, n)


@pytest.mark.parametrize("words", [("ls", "archive"), ("ls", "archive", "--json"),
                                   ("restore", "archive", "--instance", INSTANCE, "--list"),
                                   ("drill", "archive"), ("verify", "archive", "--json"),
                                   ("--help",), ("completion", "bash")])  # fmt: skip
async def test_a_full_stdout_is_named(words: tuple[str, ...], shell: Shell, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    result = await shell(">/dev/full", *words)
    assert result.code == 6
    assert result.err.count(LOST) == 1
    assert "unexpected" not in result.err
    assert "Exception" not in result.err


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize(
    ("streams", "code"),
    [(">/dev/full", 6), (">&-", 6), ("2>&-", 0), ("<&- >&- 2>&-", 6), ("2>/dev/full", 0),
     (">/dev/full 2>/dev/full", 6)],
)  # fmt: skip
async def test_no_night_is_lost(streams: str, code: int, shell: Shell, tmp_path: Path) -> None:
    result = await shell(streams, *PULL, "--json")
    assert result.code == code, result.err
    assert result.err.count(LOST) == (streams in (">/dev/full", ">&-"))
    for word in ("unexpected", "Traceback", "Exception"):
        assert word not in result.err
    assert len(list((tmp_path / "archive").rglob("*.rdb"))) == FILES
    if not streams.startswith((">", "<")):
        assert json.loads(result.out.splitlines()[-1])["archived"] == FILES
    assert (await shell("", "verify", "archive", "-q")).code == 0


async def test_a_failure_is_its_own_code_where_nothing_can_be_said(shell: Shell) -> None:
    for streams in ("2>&-", "2>/dev/full", ">&- 2>&-"):
        assert (await shell(streams, "ls", "none")).code == 2


async def test_no_file_gets_the_number_of_a_closed_stream(shell: Shell) -> None:
    code = (
        "import os\nfrom archiver.cli import streams\nstreams.guard()\n"
        "with open('got', 'w') as file:\n    file.write(str(os.open('opened', 65)))"
    )
    result = await shell("<&- >&- 2>&- ; cat got", python=code)
    assert int(result.out) > 2


async def test_a_stdout_that_nobody_waits_for_is_waited_for(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """Whoever has the other end of a terminal or a pipe may have made it so."""
    source, target = os.pipe()
    os.set_blocking(target, False)
    code = (
        "import sys\nfrom archiver.cli import streams\nstreams.guard()\n"
        "print('begun', file=sys.stderr, flush=True)\nfor _ in range(20):\n"
        "    assert streams.write('x' * 9999 + chr(10))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environ, cwd=tmp_path, stdout=target,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(target)
    assert process.stderr is not None
    await process.stderr.readline()

    def read() -> bytes:
        with open(source, "rb") as file:
            return file.read()

    data = await asyncio.to_thread(read)
    assert (await process.communicate())[1] == b""
    assert (process.returncode, data) == (0, (b"x" * 9999 + b"\n") * 20)


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "| true"])
@pytest.mark.parametrize("how", [(), ("--json",)])
async def test_evidence_that_not_even_stdout_takes(
    streams: str, how: tuple[str, ...], shell: Shell, tmp_path: Path
) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    (tmp_path / "archive" / "drills").write_text("in the way of the folder")
    result = await shell(streams, "drill", "archive", "-q", *how)
    assert result.code == (0 if streams == "| true" else 6)
    at = result.err.index("{\n")
    evidence, _ = json.JSONDecoder().raw_decode(result.err, at)
    assert evidence["conclusion"]["passed"] is True
    assert "could not be stored" in result.err
