"""What a copy and a comparison find that no record tells of."""

import shutil
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver import Archive, LocalStore
from archiver.commands.copy.difference import Mismatch, mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions, Selection
from archiver.concurrency import in_thread
from archiver.stores.base import Entry
from archiver.times import TimeRange
from tests.archive.sample import remove_lines
from tests.conftest import INSTANCE
from tests.verify.conftest import CLUSTER, DAYS, NODES, Pulled, offsite, pulled, vendor

__all__ = ["offsite", "pulled", "vendor"]
FILES = len(DAYS) * (NODES + 1)


async def compared(
    one: Archive, other: Archive, selection: Selection | None = None
) -> list[Mismatch]:
    return [m async for m in mismatches(one, other, selection or Selection())]


def forgotten(path: Path) -> None:
    """Its record is gone; in a standard set, nothing else tells of it but SHA256SUMS."""
    path.with_suffix(".json").unlink()


def forgotten_and_unnamed(path: Path) -> None:
    """And SHA256SUMS names nothing of its set."""
    forgotten(path)
    remove_lines(path.parent if path.parent.name != "11" else path)


def gone(path: Path) -> None:
    forgotten(path)
    path.unlink()


LOSSES = [forgotten, forgotten_and_unnamed, gone]


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("lose", LOSSES)
async def test_a_backup_without_a_record_is_named(
    lose: Callable[[Path], None], instance: str, pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    path = pulled.objects(instance)[0]
    lose(path)
    target = Archive(LocalStore(tmp_path / "new"))
    for copied, held in ((FILES - 1, 0), (0, FILES - 1)):  # and again, with nothing to copy
        summary = await copy(pulled.archive, target)
        assert (summary.archived, summary.held) == (copied, held)
        [failed] = summary.failures
        assert failed.subject == pulled.key(path)
        assert "record" in str(failed.error)
        # What nothing says was recorded may be a pull's that was killed.
        assert summary.exit_code == (1 if lose is forgotten_and_unnamed else 3)
    # A set that is not whole got no lines in SHA256SUMS, which is a difference, too.
    named_twice = {pulled.key(path), pulled.set_key(path)}
    found = await compared(pulled.archive, target)
    assert {one.exit_code for one in found} == {3}
    has_lines = instance == CLUSTER and lose is not forgotten_and_unnamed
    assert {one.key for one in found} == (named_twice if has_lines else {pulled.key(path)})
    # Where the other one has it whole, it is named as well, whichever comes first.
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        keys = {found.key for found in await compared(one, other)}
        has_none = instance == CLUSTER and lose is forgotten_and_unnamed
        assert keys == (named_twice if has_none else {pulled.key(path)})


async def test_what_is_not_asked_for_is_not_named(pulled: Pulled, tmp_path: Path) -> None:
    forgotten(pulled.objects(INSTANCE)[0])
    for number, selection in enumerate((
        Selection(instances=(CLUSTER,)),
        Selection(range=TimeRange.parse("2026-11-24", datetime.now(UTC))),
        Selection(sets=frozenset({pulled.set_key(pulled.objects()[0])})),
        Selection(sets=frozenset({pulled.set_key(pulled.objects(INSTANCE, DAYS[2])[0])})),
    )):  # fmt: skip
        target = Archive(LocalStore(tmp_path / f"new {number}"))
        summary = await copy(pulled.archive, target, CopyOptions(selection))
        assert (summary.exit_code, summary.failures) == (0, [])
        assert summary.archived
        assert await compared(pulled.archive, target, selection) == []


async def test_a_sha256sums_that_cannot_be_read_is_named_each_time(
    pulled: Pulled, tmp_path: Path
) -> None:
    sums = pulled.sums()
    sums.write_bytes(b"?")
    target = Archive(LocalStore(tmp_path / "new"))
    for _ in range(2):
        summary = await copy(pulled.archive, target)
        assert [failed.subject for failed in summary.failures] == [pulled.key(sums)]
        assert summary.exit_code == 3
    assert [found.key for found in await compared(pulled.archive, target)] == [pulled.key(sums)]


class _Meanwhile(LocalStore):
    """A pull at work: a record comes once all was listed."""

    def __init__(self, root: Path, record: Path) -> None:
        super().__init__(root)
        self.record, self.data = record, record.read_bytes()
        record.unlink()

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async for entry in super().entries(prefix):
            yield entry
        await in_thread(self.record.write_bytes, self.data)


async def test_a_record_that_comes_meanwhile(pulled: Pulled, tmp_path: Path) -> None:
    record = pulled.objects(INSTANCE)[0].with_suffix(".json")
    target = Archive(LocalStore(tmp_path / "new"))
    summary = await copy(Archive(_Meanwhile(pulled.root, record)), target)
    assert (summary.exit_code, summary.archived) == (0, FILES)
    assert await compared(Archive(_Meanwhile(pulled.root, record)), target) == []


class _AfterTheFirstLook(LocalStore):
    """A pull at work: everything comes when the listings of the first look are over."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.instance, self.came = root / INSTANCE, False
        self.instance.rename(root.with_name("to come"))

    async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
        async for entry in super().entries(prefix):
            yield entry
        if not (prefix or self.came):
            self.came = True
            await in_thread(self.instance.parent.with_name("to come").rename, self.instance)


async def test_what_comes_after_the_look_is_not_copied_without_the_lock(
    pulled: Pulled, tmp_path: Path
) -> None:
    """No archive is begun for nothing, and so nothing may be written there either."""
    shutil.rmtree(pulled.root / CLUSTER)
    source = Archive(_AfterTheFirstLook(pulled.root))
    summary = await copy(source, Archive(LocalStore(tmp_path / "new")))
    assert not (tmp_path / "new").exists()
    assert (summary.exit_code, summary.archived) == (1, 0)
    assert (await copy(source, Archive(LocalStore(tmp_path / "new")))).exit_code == 0
