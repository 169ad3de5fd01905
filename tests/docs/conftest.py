"""The world that the pages' commands run in: a vendor, an archive, copies of it, a shell."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.cli.conftest import NAMES
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.servers.forks import Forks
from tests.servers.seaweedfs import WRITER, SeaweedFS

# What runs `archiver` for a shell, at once: a process that has imported everything is forked. Only
# what goes on in the background is a process of its own, so that it can be ended.
_ARCHIVER = """\
#!{python} -IS
import array, json, os, socket, sys
words = sys.argv[1:]
if words[:1] == ["emulate"]:
    os.execv({python!r}, [{python!r}, "-m", "archiver", *words])
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({forks!r})
asked = {{"words": words, "environ": dict(os.environ), "cwd": os.getcwd(), "kept_out": False}}
socket.send_fds(line, [json.dumps(asked).encode()], [0, 1, 2])
sys.exit(array.array("i", line.recv(4))[0])
"""


# Times, sizes and ids are not the same in two runs.
_NUMBER = re.compile(r"\d+([.,]\d+)*")


@dataclass
class World:
    """``places`` is what the pages name, and what stands in its place here."""

    path: Path
    environ: Mapping[str, str]
    places: Mapping[str, str]

    @property
    def home(self) -> Path:
        """Where a reader would type the commands."""
        return self.path / "home"

    def moved(self, text: str) -> str:
        """``text`` with the places of this world."""
        for name, here in self.places.items():
            text = text.replace(name, here)
        return text

    async def shell(self, text: str) -> tuple[int, str]:
        """Run a piece of shell that ends at the first failure: its exit code, and what it says on
        stdout and stderr. What it leaves in the background is ended."""
        said = self.path / "said"
        with said.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                "bash", "-euo", "pipefail", "-c", self.moved(text),
                cwd=self.home, env=self.environ, start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
            try:
                code = await process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return code, said.read_text()


@pytest.fixture
def world(
    tmp_path: Path, files: Path, emulator: Emulator, forked: Forks, seaweed: SeaweedFS, bucket: str
) -> World:
    """A vendor with three backups of one instance, the newest of an hour ago, and the keys of a
    reader who may use it and a bucket. There is no archive yet."""
    now = datetime.now(UTC)
    for n, start in enumerate((now - timedelta(days=400), now - timedelta(hours=25), now)):
        name = f"dump_{start - timedelta(hours=1):%Y%m%d%H%M%S}.rdb"
        write_rdb(files / INSTANCE / name, 5_000 if n < 2 else 5 * 2**19, n)
    for folder in ("home", "srv", "mnt", "bin"):
        (tmp_path / folder).mkdir()
    write_rdb(tmp_path / "home/dumps/r-rehearsal/dump_20261124021500.rdb", 5000)
    for name in ("dumps/dump-20261124.rdb", "shards/20261124/shard-1.rdb"):
        write_rdb(tmp_path / "srv" / name, 5000)
    program = tmp_path / "bin/archiver"
    program.write_text(_ARCHIVER.format(python=sys.executable, forks=forked.address))
    program.chmod(0o755)
    return World(
        tmp_path,
        {
            **os.environ,
            "HOME": str(tmp_path / "home"),
            "PATH": f"{program.parent}:/usr/bin:/bin",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
            **{f"ARCHIVER_{name}_ENDPOINT": emulator.endpoint for name in NAMES},
            "ARCHIVER_PULL_NETWORK": "public",
            "AWS_ENDPOINT_URL_S3": seaweed.endpoint,
            "AWS_ACCESS_KEY_ID": WRITER.key_id,
            "AWS_SECRET_ACCESS_KEY": WRITER.secret,
        },
        {
            "/srv/": f"{tmp_path}/srv/",
            "/mnt/": f"{tmp_path}/mnt/",
            "s3://offsite/": f"s3://{bucket}/",
            "s3://offsite-backups/": f"s3://{bucket}/production/",
            "8080": str(_free_port()),
            "r-kvstore.cn-hangzhou.aliyuncs.com": emulator.endpoint,
        },
    )


async def pulled_before(world: World, text: str) -> None:
    """The reader of ``text`` has pulled before, and copied to where it says."""
    places = [place for place in ("/mnt/offsite", "s3://offsite/redis") if place in text]
    pull = f"archiver pull --instance {INSTANCE} --to ./backups --quiet\n"
    copies = "".join(f"archiver copy ./backups {place} --quiet\n" for place in places)
    code, said = await world.shell(pull + copies)
    assert code == 0, said


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it says."""
    found: list[tuple[str, list[str]]] = []
    for line in re.sub(r"\\\n> ?", "", text).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def is_said(expected: list[str], said: str) -> bool:
    """Whether the lines are those that are expected, with numbers of their own. An ellipsis is any
    text within a line; alone in its line, any number of lines."""
    said, expected = _NUMBER.sub("0", said), [_NUMBER.sub("0", line) for line in expected]
    forms = ["(?:.*\n)*?" if line == "…" else _form(line) + "\n" for line in expected]
    return re.fullmatch("".join(forms), said) is not None


def _form(line: str) -> str:
    return ".*".join(map(re.escape, line.split("…")))
