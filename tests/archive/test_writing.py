"""Becoming the one writer: waiting for others, and beginning an archive where there is none."""

import asyncio
from pathlib import Path

import anyio
import pytest

from archiver import Archive, LocalStore
from archiver.archive.archive import Beginning
from archiver.errors import ArchiveBusy, UsageError
from archiver.events import ArchiveBegun, Event, WaitingForLock
from archiver.stores.local import mounts
from archiver.stores.s3 import S3Store
from archiver.stores.scope import WHOLE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


async def begin(root: Path, beginning: Beginning = Beginning.IF_EMPTY) -> list[Event]:
    seen: list[Event] = []
    async with Archive(LocalStore(root), beginning=beginning).writing(WHOLE, seen.append):
        pass
    return seen


async def test_a_new_archive_is_announced_once(root: Path) -> None:
    assert await begin(root) == [ArchiveBegun(str(root))]
    assert await begin(root) == []
    assert await begin(root, Beginning.NEVER) == []


@pytest.mark.parametrize("name", [".lock", ".staging", "lost+found"])
async def test_what_a_killed_run_or_mkfs_leaves_is_empty(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True) if name != ".lock" else root.mkdir()
    if name == ".lock":
        (root / name).touch()
    assert await begin(root) == [ArchiveBegun(str(root))]


@pytest.mark.parametrize("name", ["notes.txt", ".ssh", "r-bp1zxszhcgatnx"])
async def test_beside_something_else_none_is_begun_unless_it_is_insisted(
    root: Path, name: str
) -> None:
    (root / name).mkdir(parents=True)
    with pytest.raises(UsageError, match=name):
        await begin(root)
    assert [path.name for path in root.iterdir()] == [name]
    assert await begin(root, Beginning.ALWAYS) == [ArchiveBegun(str(root))]


async def test_where_one_is_required_none_is_begun(root: Path) -> None:
    with pytest.raises(UsageError, match="no archive here, and one is required"):
        await begin(root, Beginning.NEVER)
    assert not root.exists()


@pytest.mark.parametrize("below", ["", "redis/backups"])
@pytest.mark.parametrize("by", ["fstab", "unit"])
async def test_where_a_disk_is_missing_none_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, below: str
) -> None:
    point = tmp_path / "mount point"
    point.mkdir()
    fstab, units = tmp_path / "fstab", tmp_path / "units"
    units.mkdir()
    if by == "fstab":
        name = str(point).replace(" ", "\\040")
        fstab.write_text(f"# a disk\nUUID=1 / ext4 defaults 0 1\nUUID=2 {name}/ ext4 noauto 0 2\n")
    else:
        (units / "x.mount").write_text(f"[Mount]\nWhat=/dev/vdb\nWhere={point}\n")
    monkeypatch.setattr(mounts, "_FSTAB", fstab)
    monkeypatch.setattr(mounts, "_UNITS", (units,))
    with pytest.raises(UsageError, match="nothing is mounted there"):
        await begin(point / below)
    assert list(point.iterdir()) == []
    assert await begin(tmp_path / "beside") != []
    assert await begin(point / below, Beginning.ALWAYS) != []


async def test_it_waits_for_the_other_and_says_so_once(root: Path) -> None:
    seen: list[Event] = []
    inside, over = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with Archive(LocalStore(root)).writing(WHOLE):
            inside.set()
            await over.wait()

    async def second() -> None:
        async with Archive(LocalStore(root), lock_wait=600).writing(WHOLE, seen.append):
            seen.append(ArchiveBegun("in"))

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await inside.wait()
        waiting = group.create_task(second())
        while not seen:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2.2)  # more looks than one
        [told] = seen
        assert isinstance(told, WaitingForLock)
        assert "is writing to this archive" in told.error.message
        over.set()
        await waiting
    assert len(seen) == 2


async def test_it_waits_no_longer_than_it_was_told_to(root: Path) -> None:
    async with Archive(LocalStore(root)).writing(WHOLE):
        for seconds in (0.0, 0.3):
            with pytest.raises(ArchiveBusy) as caught:
                async with Archive(LocalStore(root), lock_wait=seconds).writing(WHOLE):
                    pass
            assert caught.value.exit_code == 7


async def test_waiting_ends_with_a_cancellation(root: Path) -> None:
    async with Archive(LocalStore(root)).writing(WHOLE):
        with anyio.move_on_after(0.3) as scope:
            async with Archive(LocalStore(root), lock_wait=600).writing(WHOLE):
                pass
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with asyncio.timeout(0.3):
                async with Archive(LocalStore(root), lock_wait=600).writing(WHOLE):
                    pass


class EmptyBucket(S3Store):
    async def read(self, key: str) -> bytes | None:
        return None

    async def obstacle(self) -> str | None:
        return None


async def test_a_bucket_is_on_no_disk() -> None:
    archive = Archive(EmptyBucket("s3://bucket/redis"), beginning=Beginning.NEVER)
    with pytest.raises(
        UsageError, match=r"check the bucket and the prefix, or leave out --require"
    ) as one:
        await archive.check_place()
    with pytest.raises(UsageError, match="check the bucket and the prefix") as other:
        await archive.expect()
    assert "mounted" not in f"{one.value} {other.value}"
