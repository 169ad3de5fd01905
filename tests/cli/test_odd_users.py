"""A user that only has a number, and names that are no text: what containers and old disks have."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.commands.restore.instructions import shell_line
from archiver.errors import UsageError
from archiver.stores.local import disk
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import put_standard
from tests.cli.test_pull import PULL
from tests.conftest import INSTANCE

UID = 54_321  # of nobody here
# "Chinese" in GBK.
GBK = os.fsdecode(b"\xd6\xd0\xce\xc4")
NAMES = (
    b"\xd6\xd0 'x' %s %% \\ $HOME `id` \"q\"", b"a\x1b[2J\nb", b"\xff5", "中文".encode(), b"plain",
    b"a b",
)  # fmt: skip


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
async def test_a_user_without_a_name_or_a_home(
    files: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    write_rdb(files / INSTANCE / "a_20261124021500.rdb", 50_000)
    os.chown(tmp_path, UID, UID)
    kept = {name: environ[name] for name in environ if name.startswith(("ALIBABA_", "ARCHIVER_"))}
    kept["ALIBABA_CLOUD_ECS_METADATA_DISABLED"] = "true"

    async def run(*words: str, **given: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
            # To read what is installed where only root may look.
            "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
            sys.executable, "-m", "archiver", *words, cwd=tmp_path,
            env={"PYTHONPATH": os.getcwd(), "PATH": os.environ["PATH"], **given},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        return process.returncode or 0, said

    code, said = await run(*PULL, **kept)
    assert code == 0, said
    assert (tmp_path / "archive" / "archive.json").stat().st_uid == UID
    code, said = await run("drill", "archive", "--json")
    assert code == 0, said
    evidence = next(p for p in (tmp_path / "archive" / "drills").rglob("*.json"))
    assert json.loads(evidence.read_text())["who"]["user"] == str(UID)
    code, said = await run("ls", "~/archive")
    assert code == 2
    assert said.startswith("archiver: ~/archive: this home folder is unknown (set HOME")
    assert len(said.splitlines()) == 1
    del kept["ALIBABA_CLOUD_ACCESS_KEY_ID"]
    code, said = await run(*PULL, **kept)
    assert code == 4, said


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="the current folder was removed"):
        disk.absolute("archive")


async def test_a_restore_into_a_folder_whose_name_is_not_text(
    environ: dict[str, str], tmp_path: Path
) -> None:
    put_standard(tmp_path / "archive", rdb(5000))
    out = b""
    for _ in range(2):  # and again, over what is there
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "archiver", "restore", "archive", "--instance", INSTANCE,
            "--to", f"{GBK}/restored", env=environ, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode == 0, err
    folder = tmp_path / GBK / "restored" / INSTANCE
    shown = subprocess.run(
        ["sh", "-c", out.replace(b"redis-server", b"printf '%s|'")], capture_output=True, check=True
    ).stdout
    assert b"|--dir|" + os.fsencode(folder) + b"|" in shown
    assert out.decode("ascii").strip() in (folder / "RESTORE.txt").read_text()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_command_means_what_it_says_in_any_shell(shell: str) -> None:
    for name in NAMES:
        line = shell_line(["printf", "%s", os.fsdecode(name)])
        assert line.isprintable()
        assert subprocess.run([shell, "-c", line], capture_output=True, check=True).stdout == name
