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
from archiver.archive import layout
from archiver.archive.contents import results_below, view_month
from archiver.archive.indexing import write_index
from archiver.errors import InstanceForbidden
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
        """The dumps of one day: of a cluster's set, or the one of a standard instance."""
        pattern = f"{day}*/*.rdb" if instance_id == CLUSTER else f"{day}*.rdb"
        return sorted(self.root.glob(f"{instance_id}/*/*/{pattern}"))

    def key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def set_key(self, path: Path) -> str:
        """Of the set that a file belongs to."""
        return layout.set_of(self.key(path))

    def sums(self, instance_id: str = CLUSTER) -> Path:
        """Of the month."""
        [path] = self.root.glob(f"{instance_id}/*/*/SHA256SUMS")
        return path

    def name(self, path: Path) -> str:
        """What SHA256SUMS calls a file."""
        return "/".join(path.relative_to(self.root).parts[3:])


class DenyingOne(LocalStore):
    """The results of one instance, the first, belong to somebody else."""

    async def put(self, key: str, data: bytes) -> str:
        if key.startswith(f"verified/{CLUSTER}/"):
            raise InstanceForbidden(f"{key}: Permission denied")
        return await super().put(key, data)


@pytest.fixture
def vendor(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the emulator serves: real dumps, and made ones. Copied with the times of the files,
    which the emulator's catalogue has."""
    made = tmp_path_factory.getbasetemp() / "vendor-made-once"
    if not made.exists():
        _make(made)
    return shutil.copytree(made, files, dirs_exist_ok=True)


def _make(folder: Path) -> None:
    (folder / INSTANCE).mkdir(parents=True)
    real = sorted((DATA).glob("rdb__*.rdb"))[: len(DAYS)]
    for number, day in enumerate(DAYS):
        shutil.copy(real[number], folder / INSTANCE / f"d_{day}021500.rdb")
        for node in range(NODES):
            path = folder / CLUSTER / f"{CLUSTER}-db-{node}" / f"d_{day}031500.rdb"
            write_rdb(path, 20_000 + 1000 * (node == 2), number * NODES + node)


@pytest.fixture
async def just_pulled(vendor: Path, source: TairSource, tmp_path: Path) -> Pulled:
    """As a pull leaves it, catalogues included."""
    return await _pull(source, tmp_path / "archive")


@pytest.fixture
async def pulled(
    vendor: Path, source: TairSource, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pulled:
    """A copy of what the first test that needs it pulls: to pull takes half of the time of a test.
    The catalogues know the inodes of the records, so a copy has its own."""
    once = tmp_path_factory.getbasetemp() / "archive-pulled-once"
    if not once.exists():
        pulled = await _pull(source, tmp_path / "archive")
        shutil.copytree(pulled.root, once)
        return pulled
    root = shutil.copytree(once, tmp_path / "archive")
    for index in list(root.rglob(layout.INDEX_NAME)):
        index.unlink()
        month, store = index.parent.relative_to(root).as_posix(), LocalStore(root)
        await write_index(store, await view_month(store, month, await results_below(store, "")))
    return Pulled(root, Archive(LocalStore(root)))


async def _pull(source: TairSource, root: Path) -> Pulled:
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
