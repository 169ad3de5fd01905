"""A repair into a bucket, and out of one: in parts, whatever the size of the file."""

from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull, verify
from archiver.commands.copy.run import copy
from archiver.commands.repair.from_archive import ArchiveSupplier
from archiver.commands.repair.run import repair
from archiver.model import Part
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3.upload import ResumableUpload
from archiver.transfer.parts import DEFAULT_PART_SIZE
from tests.bucket.conftest import PREFIX
from tests.conftest import everything
from tests.servers.seaweedfs import SeaweedFS
from tests.verify.conftest import flip


@pytest.fixture
async def both(
    originals: dict[str, bytes], source: TairSource, seaweed: SeaweedFS, s3_writer: None,
    bucket: str, tmp_path: Path,
) -> tuple[Archive, Archive]:  # fmt: skip
    """The same archive in a directory and in a bucket."""
    here = Archive(LocalStore(tmp_path / "archive"))
    there = Archive(S3Store(f"s3://{bucket}/{PREFIX}", S3Options(seaweed.endpoint)))
    await pull(source, here, [everything()])
    assert (await copy(here, there)).exit_code == 0
    return here, there


def largest(root: Path) -> Path:
    return max(root.rglob("*.rdb"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", ["changed", "missing", "shorter"])
async def test_into_a_bucket(
    both: tuple[Archive, Archive], seaweed: SeaweedFS, bucket: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, damage: str,
) -> None:  # fmt: skip
    here, there = both
    path = largest(tmp_path / "archive")
    whole = path.read_bytes()
    key = f"{PREFIX}/{path.relative_to(tmp_path / 'archive').as_posix()}"
    client = seaweed.client()
    if damage == "missing":
        client.delete_object(Bucket=bucket, Key=key)
    else:
        wrong = whole[:-8] + b"\1" * 8 if damage == "changed" else whole[:-8]
        client.put_object(Bucket=bucket, Key=key, Body=wrong)
    held: list[int] = []
    send = ResumableUpload.upload_part

    def counted(self: ResumableUpload, part: Part, crc: int, data: bytearray) -> None:
        held.append(len(data))
        send(self, part, crc, data)

    monkeypatch.setattr(ResumableUpload, "upload_part", counted)
    summary = await repair(there, await verify(there), ArchiveSupplier(here))
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert seaweed.content(bucket, key) == whole
    assert max(held) <= DEFAULT_PART_SIZE < len(whole)
    assert seaweed.uploads(bucket) == []
    names = seaweed.objects(bucket, f"{PREFIX}/")
    assert not [name for name in names if ".quarantine" in name]
    assert [name for name in names if ".staging" in name] == [f"{PREFIX}/.staging/probe"]
    assert (await verify(there)).findings == []


async def test_out_of_a_bucket(both: tuple[Archive, Archive], tmp_path: Path) -> None:
    here, there = both
    path = largest(tmp_path / "archive")
    whole = path.read_bytes()
    flip(path)
    summary = await repair(here, await verify(here), ArchiveSupplier(there))
    assert (summary.findings, summary.not_repaired) == ([], [])
    assert path.read_bytes() == whole
