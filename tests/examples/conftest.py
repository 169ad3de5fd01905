"""The places that the examples name, where these tests have them."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from anyio import to_thread

from archiver.archive.layout import FORMAT, FORMAT_KEY
from archiver.emulator import Emulator
from examples.sample_rdb import write_rdb
from tests.archive.sample import put_cluster
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.servers.seaweedfs import WRITER, SeaweedFS

EXAMPLES = Path(__file__).parents[2] / "examples"
INSTANCES = (INSTANCE, "r-bp1yyyyyyyyyyyyy")
VENDOR_KEY = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
}
# What the first run, by hand, leaves: the examples begin no archive.
BEGUN = json.dumps({"format": FORMAT}).encode()


@dataclass
class Stage:
    """``places`` is what the examples name, and what stands in its place here."""

    path: Path
    places: dict[str, str] = field(default_factory=dict)

    @property
    def archive(self) -> Path:
        return self.path / "archive"

    def moved(self, text: str) -> str:
        """``text`` with the places of these tests."""
        for name, here in self.places.items():
            text = text.replace(name, here)
        return text

    def archived(self) -> int:
        return len(list(self.archive.rglob("*.rdb")))

    def check_evidence(self, *places: str) -> None:
        for place in places:
            [path] = (self.path / place / "drills").rglob("*.json")
            assert json.loads(path.read_text())["conclusion"]["passed"] is True
        assert list((self.path / "scratch").iterdir()) == []

    def check_results(self) -> None:
        assert list((self.archive / "verified").rglob("*.json"))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """The directories of the examples."""
    stage = Stage(tmp_path)
    for name, folder in (
        ("/srv/redis-backups", "archive"),
        ("/srv/drill-evidence", "evidence"),
        ("/var/tmp", "scratch"),
    ):
        (tmp_path / folder).mkdir()
        stage.places[name] = str(tmp_path / folder)
    stage.places["/opt/archiver/bin"] = str(Path(sys.executable).parent)
    return stage


@pytest.fixture
def vendor(stage: Stage, files: Path) -> Path:
    """A vendor with a backup of each instance in the examples, the key for it, an archive begun."""
    for n, instance in enumerate(INSTANCES):
        write_rdb(files / instance / f"{n}_{datetime.now(UTC):%Y%m%d%H%M%S}.rdb", 50_000, n)
    stage.archive.joinpath(FORMAT_KEY).write_bytes(BEGUN)
    given = _filled(stage, "vendor.env", VENDOR_KEY)
    stage.places[f"/etc/archiver/{given.name}"] = str(given)
    return files


@pytest.fixture
def at_vendor(vendor: Path, emulator: Emulator) -> str:
    """What is added to a pull, so that it asks the emulator."""
    return f" --endpoint {emulator.endpoint}"


@pytest.fixture
def pulled(stage: Stage) -> None:
    """An archive with a set of a cluster, from a moment ago."""
    put_cluster(stage.archive, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")


@dataclass(frozen=True)
class Offsite:
    server: SeaweedFS
    bucket: str

    def begin(self) -> None:
        self.server.client().put_object(Bucket=self.bucket, Key=f"redis/{FORMAT_KEY}", Body=BEGUN)

    def keep(self, archive: Path) -> None:
        for path in archive.rglob("*"):
            if path.is_file():
                key = f"redis/{path.relative_to(archive).as_posix()}"
                self.server.client().put_object(Bucket=self.bucket, Key=key, Body=path.read_bytes())

    async def check_copied(self, archive: Path) -> None:
        """The bucket has every file of the archive, byte for byte."""
        dumps = list(archive.rglob("*.rdb"))
        assert dumps
        for path in dumps:
            key = f"redis/{path.relative_to(archive).as_posix()}"
            kept = await to_thread.run_sync(self.server.content, self.bucket, key)
            assert kept == path.read_bytes()

    def check_results(self) -> None:
        listed = self.server.client().list_objects_v2(Bucket=self.bucket, Prefix="redis/verified/")
        assert listed["KeyCount"] > 0


@pytest.fixture
def offsite(stage: Stage, seaweed: SeaweedFS, bucket: str) -> Offsite:
    """A bucket, and the key for it."""
    given = _filled(
        stage,
        "offsite.env",
        {
            "AWS_ENDPOINT_URL_S3": seaweed.endpoint,
            "AWS_ACCESS_KEY_ID": WRITER.key_id,
            "AWS_SECRET_ACCESS_KEY": WRITER.secret,
        },
    )
    stage.places[f"/etc/archiver/{given.name}"] = str(given)
    stage.places["s3://offsite-backups/redis"] = f"s3://{bucket}/redis"
    return Offsite(seaweed, bucket)


def _filled(stage: Stage, name: str, values: Mapping[str, str]) -> Path:
    """The example's file, as somebody fills it in."""
    lines = (EXAMPLES / name).read_text().splitlines()
    for variable, value in values.items():
        [at] = [n for n, line in enumerate(lines) if line.startswith(f"{variable}=")]
        lines[at] = f"{variable}={value}"
    path = stage.path / name
    path.write_text("\n".join([*lines, ""]))
    return path


async def run(command: list[str], environ: Mapping[str, str], stdin: str = "") -> tuple[int, str]:
    """With nothing else in the environment than this, and where this code lies."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        cwd="/",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(stdin.encode())
    return process.returncode or 0, out.decode()
