"""What comes from outside is shown on a terminal, and does nothing to it."""

import shutil
from pathlib import Path

import pytest

from archiver.cli.streams import show
from examples.sample_rdb import rdb
from tests.archive.sample import STARTS, put_standard
from tests.conftest import INSTANCE
from tests.faults import power

# Clears the screen, says that all is well, and turns the direction of writing.
NASTY = "\x1b[2J\narchiver: all is well\r\u202e\x9b1m"
SPELLED = r"\x1b[2J\narchiver: all is well\r\u202e\x9b1m"


@pytest.fixture
def no_blocking_on_the_loop() -> None:
    """The command line looks at places and standard streams before it begins."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("r-x/2026: Größe 4 KiB, 備份", "r-x/2026: Größe 4 KiB, 備份"),
        (NASTY, SPELLED),
        ("\udcff.rdb", r"\udcff.rdb"),
    ],
)
def test_what_is_shown_of_a_name(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(text)
    assert capsys.readouterr().out == f"{shown}\n"


def test_names_that_a_terminal_would_obey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stray file, of a folder in the place of a record, of an archive itself."""
    monkeypatch.chdir(tmp_path)
    held = put_standard(tmp_path / "archive", rdb(100), STARTS[-1])
    (held.parent / f"{NASTY}.rdb").write_text("stray")
    (held.parent / f"{NASTY}.json").mkdir()
    shutil.copytree("archive", f"there{NASTY}")
    for words in (
        ("verify", "archive"),
        ("verify", f"there{NASTY}"),
        ("ls", "archive"),
        ("copy", "archive", "other"),
        ("copy", "archive", f"there{NASTY}", "--diff"),
        ("restore", "archive", "--instance", INSTANCE, "--list"),
        ("verify", f"no{NASTY}where"),
    ):
        ended = power.command(*words)
        shown = ended.out + ended.err
        assert all(one.isprintable() or one == "\n" for one in shown), (words, shown)
        assert "\narchiver: all is well" not in shown
        if words[0] == "verify":
            assert SPELLED in shown
