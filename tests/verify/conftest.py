"""Archives that were really pulled, and ways to damage them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastcrc import crc64

from archiver import Archive, LocalStore, TairSource, pull
from examples.sample_rdb import write_rdb
from tests.conftest import DATA, INSTANCE, everything

CLUSTER = "r-bp1cluster"
NODES = 3
DAYS = ("20261122", "20261123", "20261124")


@dataclass(frozen=True)
class Pulled:
    """An archive of a standard instance and of a cluster, three days each, and its files."""

    root: Path
    archive: Archive

    def objects(self, instance_id: str = CLUSTER, day: str = DAYS[1]) -> list[Path]:
        """The dumps of one set."""
        return sorted(self.root.glob(f"{instance_id}/*/*/{day}*/*.rdb"))

    def key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def sums(self, instance_id: str = CLUSTER, day: str = DAYS[1]) -> Path:
        [path] = self.root.glob(f"{instance_id}/*/*/{day}*/SHA256SUMS")
        return path


@pytest.fixture
def vendor(files: Path) -> Path:
    """What the emulator serves: real dumps, and made ones."""
    real = sorted((DATA).glob("rdb__*.rdb"))[: len(DAYS)]
    for number, day in enumerate(DAYS):
        shutil.copy(real[number], files / INSTANCE / f"d_{day}021500.rdb")
        for node in range(NODES):
            path = files / CLUSTER / f"{CLUSTER}-db-{node}" / f"d_{day}031500.rdb"
            write_rdb(path, 20_000 + 1000 * (node == 2), number * NODES + node)
    return files


@pytest.fixture
async def pulled(vendor: Path, source: TairSource, tmp_path: Path) -> Pulled:
    root = tmp_path / "archive"
    archive = Archive(LocalStore(root))
    summary = await pull(source, archive, [everything(), everything(CLUSTER)])
    assert summary.exit_code == 0
    assert summary.archived == len(DAYS) * (NODES + 1)
    return Pulled(root, archive)


@pytest.fixture
def offsite(pulled: Pulled, tmp_path: Path) -> Archive:
    """A copy, made before anything was damaged."""
    shutil.copytree(pulled.root, tmp_path / "offsite")
    return Archive(LocalStore(tmp_path / "offsite"))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record as an editor would."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2))


def forge(path: Path, data: bytes) -> None:
    """Change an object and its record together, so that they agree; SHA256SUMS is left alone."""
    path.write_bytes(data)

    def change(document: dict[str, Any]) -> None:
        document["sha256"] = hashlib.sha256(data).hexdigest()
        document["crc64ecma"] = document["crc64ecma_declared"] = str(crc64.xz(data))

    edit(path.with_suffix(".json"), change)


def flip(path: Path, at: int = -500) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
