"""Manual pages, and completion that is installed."""

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from archiver.cli.main import main
from tests.cli.conftest import Run

PULL = "archiver-pull.1"


async def test_a_page_for_each_command_without_a_fault(run: Run, tmp_path: Path) -> None:
    assert (await run("man", "--to", "man1")).code == 0
    pages = {path.name: path for path in (tmp_path / "man1").iterdir()}
    names = main.list_commands(click.Context(main))
    assert pages.keys() == {"archiver.1", *(f"archiver-{name}.1" for name in names)}
    text = pages[PULL].read_text()
    assert "\\fB\\-\\-retry\\-for" in text
    assert "  archiver pull \\-\\-instance" in text  # examples keep their lines
    for path in pages.values():
        sections = [line for line in path.read_text().splitlines() if line.startswith(".SH")]
        assert sections[:2] == [".SH NAME", ".SH SYNOPSIS"]
    if (groff := shutil.which("groff")) is None:
        pytest.skip("there is no groff")
    for path in pages.values():
        given = [groff, "-man", "-ww", "-z", "-K", "utf8", str(path)]
        done = subprocess.run(given, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), path.name


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("/bin/bash", ".local/share/bash-completion/completions/archiver"),
        ("/usr/bin/fish", ".config/fish/completions/archiver.fish"),
        ("zsh", ".zfunc/_archiver"),
    ],
)
async def test_completion_is_installed(shell: str, place: str, run: Run, tmp_path: Path) -> None:
    given = {"HOME": str(tmp_path), "SHELL": shell}
    first = await run("completion", "install", **given)
    assert first.code == 0, first.err
    assert f"wrote {tmp_path / place}" in first.out
    printed = await run("completion", Path(shell).name, **given)
    assert (tmp_path / place).read_text() == printed.out
    assert "is up to date" in (await run("completion", "install", **given)).out


async def test_completion_of_another_shell(run: Run) -> None:
    result = await run("completion", "install", SHELL="/bin/dash")
    assert result.code == 2
    assert "none of bash, zsh, fish" in result.err
