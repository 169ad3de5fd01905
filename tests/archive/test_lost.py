"""What is or was in an archive and cannot be used: each command names it, and none says that all is
well."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull, restore, verify
from archiver.archive.archive import Archive as Opened
from archiver.commands.copy.difference import Mismatch, mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import CopyOptions, Selection
from archiver.commands.ls.listing import State, archived_rows, compared_rows
from archiver.commands.restore.choice import DamagedSet
from archiver.errors import UsageError
from tests.conftest import INSTANCE, everything
from tests.verify.conftest import CLUSTER, DAYS, NODES, Pulled, edit, offsite, pulled, vendor

__all__ = ["offsite", "pulled", "vendor"]
NEWEST = DAYS[2]


def newest(root: Path, instance: str) -> Path:
    [folder] = root.glob(f"{instance}/*/*/{NEWEST}*")
    return folder


def record_gone(folder: Path) -> None:
    next(folder.glob("*.json")).unlink()


def record_and_line_gone(folder: Path) -> None:
    record_gone(folder)
    (folder / "SHA256SUMS").unlink()


def set_gone(folder: Path) -> None:
    shutil.rmtree(folder)


def file_in_its_place(folder: Path) -> None:
    set_gone(folder)
    folder.write_text("hi\n")


def folder_called_like_a_file(folder: Path) -> None:
    folder.rename(f"{folder}.json")


def line_too_many(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  bogus.rdb\n")


def wrong_digit(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    text = sums.read_text()
    sums.write_text(("1" if text[0] == "0" else "0") + text[1:])


def garbled(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(b"?")


def folder_for_an_object(folder: Path) -> None:
    path = next(folder.glob("*.rdb"))
    path.unlink()
    path.mkdir()


LOSSES = [
    record_gone, record_and_line_gone, set_gone, file_in_its_place, folder_called_like_a_file,
    line_too_many, wrong_digit, garbled, folder_for_an_object,
]  # fmt: skip


async def compared(one: Archive, other: Archive) -> list[Mismatch]:
    return [m async for m in mismatches(one, other, Selection())]


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("lose", LOSSES)
async def test_every_command_names_it(
    lose: Callable[[Path], None], instance: str, pulled: Pulled, offsite: Archive, tmp_path: Path
) -> None:
    await verify(pulled.archive)
    lose(newest(pulled.root, instance))
    assert (await verify(pulled.archive)).exit_code == 3

    damaged = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert damaged
    assert all(row.instance_id == instance and row.error is not None for row in damaged)

    with pytest.raises(DamagedSet) as raised:
        await restore(pulled.archive, tmp_path / "to", instance_id=instance)
    assert NEWEST in raised.value.damaged.key
    assert "counts as removed" not in str(raised.value)
    done = await restore(pulled.archive, tmp_path / "to", instance_id=instance, skip_damaged=True)
    assert (DAYS[1] in done.backup_set.key, done.exit_code) == (True, 3)

    assert (await copy(pulled.archive, Archive(LocalStore(tmp_path / "new")))).exit_code == 3
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        found = await compared(one, other)
        assert {mismatch.exit_code for mismatch in found} == {3}
        assert all(f" in {pulled.root}" in mismatch.what for mismatch in found)


@pytest.mark.parametrize("level", [1, 2, 3])
async def test_what_only_a_verify_knows_of(level: int, pulled: Pulled, tmp_path: Path) -> None:
    """A month, a year, an instance of which nothing is left."""
    await verify(pulled.archive)
    shutil.rmtree([*newest(pulled.root, CLUSTER).parents][level - 1])
    rows = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert len(rows) == len(DAYS) * NODES
    assert "verified on" in str(rows[0].error)
    named = await archived_rows(pulled.archive, [CLUSTER])
    assert [(row.set_key, row.backup_id) for row in named] == [
        (row.set_key, row.backup_id) for row in rows
    ]
    target = Archive(LocalStore(tmp_path / "new"))
    summary = await copy(pulled.archive, target)
    assert (len(summary.failures), summary.exit_code) == (len(DAYS) * NODES, 3)
    only = Selection(instances=(INSTANCE,))
    assert (await copy(pulled.archive, target, CopyOptions(only))).exit_code == 0
    with pytest.raises(DamagedSet):
        await restore(pulled.archive, tmp_path / "to", instance_id=CLUSTER)


async def test_what_a_verify_saw_and_is_hidden_is_named_once(pulled: Pulled) -> None:
    await verify(pulled.archive)
    file_in_its_place(newest(pulled.root, CLUSTER).parent)
    [row] = [row for row in await archived_rows(pulled.archive) if row.state is State.DAMAGED]
    assert (row.size, row.started_at, row.node_id, row.backup_id) == (None, None, "", "")


@pytest.mark.parametrize("above", [0, 1, 2, 3])
async def test_a_file_in_the_place_of_a_folder(above: int, pulled: Pulled, tmp_path: Path) -> None:
    folder = newest(pulled.root, INSTANCE)
    file_in_its_place([folder, *folder.parents][above])
    for options in ({"instance_id": INSTANCE}, {"set_key": pulled.key(folder)}):
        with pytest.raises(Exception, match="a file is in the place of a folder") as raised:
            await restore(pulled.archive, tmp_path / "to", **options)  # type: ignore[arg-type]
        assert raised.value.exit_code == 3  # type: ignore[attr-defined]
    rows = await archived_rows(pulled.archive, [INSTANCE])
    assert "a file is in the place of a folder" in str(rows[-1].error)
    selection = Selection(instances=(INSTANCE,))
    target = Archive(LocalStore(tmp_path / "new"))
    assert (await copy(pulled.archive, target, CopyOptions(selection))).exit_code == 3
    by_name = Selection(sets=frozenset({f"/{pulled.key(folder)}/"}))
    assert (await copy(pulled.archive, target, CopyOptions(by_name))).exit_code == 3


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
@pytest.mark.parametrize("wrong", [wrong_digit, garbled])
async def test_a_pull_holds_records_against_their_lines(
    wrong: Callable[[Path], None], instance: str, pulled: Pulled, source: TairSource
) -> None:
    folder = newest(pulled.root, instance)
    wrong(folder)
    before = (folder / "SHA256SUMS").read_bytes()
    summary = await pull(source, pulled.archive, [everything(instance)])
    assert (summary.exit_code, len(summary.failures), summary.archived) == (3, 1, 0)
    assert (folder / "SHA256SUMS").read_bytes() == before
    listed = [one async for page in source.pages(everything(instance)) for one in page.backups]
    rows = await compared_rows(pulled.archive, listed)
    assert {row.started_at for row in rows if row.state is State.DAMAGED} == {
        max(one.started_at for one in listed)
    }


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_pull_finds_an_edited_record(
    instance: str, pulled: Pulled, source: TairSource
) -> None:
    edit(
        next(newest(pulled.root, instance).glob("*.json")), lambda one: one.update(sha256="0" * 64)
    )
    assert (await pull(source, pulled.archive, [everything(instance)])).exit_code == 3


@pytest.mark.parametrize("instance", [INSTANCE, CLUSTER])
async def test_a_mirror_check_compares_sha256sums(
    instance: str, pulled: Pulled, offsite: Archive
) -> None:
    sums = newest(Path(str(offsite.store)), instance) / "SHA256SUMS"
    sums.unlink()
    key = f"{newest(pulled.root, instance).relative_to(pulled.root)}/SHA256SUMS"
    for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
        assert [str(m) for m in await compared(one, other)] == [
            f"missing in {offsite.store}: {key}"
        ]
    lines = (newest(pulled.root, instance) / "SHA256SUMS").read_text().splitlines(keepends=True)
    if instance == CLUSTER:
        sums.write_text("".join(lines[1:]))
        for one, other in ((pulled.archive, offsite), (offsite, pulled.archive)):
            [found] = await compared(one, other)
            assert found.why == "its line in SHA256SUMS is not there"


async def test_a_mirror_check_says_where_what_and_why(pulled: Pulled, offsite: Archive) -> None:
    there = Path(str(offsite.store))
    cut, gone = [there / pulled.key(path) for path in pulled.objects()[:2]]
    cut.write_bytes(b"x")
    gone.unlink()
    assert [str(one) for one in await compared(pulled.archive, offsite)] == [
        f"damaged in {there}: {cut.relative_to(there)}: it has 1 of 20,000 bytes",
        f"damaged in {there}: {gone.relative_to(there)}: it is missing",
    ]


async def test_a_copy_says_that_a_set_has_no_sha256sums(pulled: Pulled, tmp_path: Path) -> None:
    for instance in (INSTANCE, CLUSTER):
        (newest(pulled.root, instance) / "SHA256SUMS").unlink()
    told: list[object] = []
    target = Archive(LocalStore(tmp_path / "new"))
    assert (await copy(pulled.archive, target, None, told.append)).exit_code == 0
    keys = [one.key for one in told if type(one).__name__ == "SetUnsealed"]  # type: ignore[attr-defined]
    assert sorted(keys) == sorted(
        pulled.key(newest(pulled.root, instance)) for instance in (INSTANCE, CLUSTER)
    )


async def test_nothing_is_copied_onto_itself(pulled: Pulled, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(pulled.root)
    inside, around = pulled.root / "sub", pulled.root / CLUSTER
    for place, text in ((link, "same"), (inside, "in the other"), (around, "in the other")):
        with pytest.raises(UsageError, match=text):
            await copy(pulled.archive, Archive(LocalStore(place)))
        with pytest.raises(UsageError, match=text):
            await compared(pulled.archive, Archive(LocalStore(place)))
    assert not inside.exists()


@pytest.mark.parametrize(
    "selection",
    [Selection(instances=("r-nope",)), Selection(sets=frozenset({"r-nope/2026/11/x"}))],
)
async def test_nothing_is_begun_for_nothing(
    selection: Selection, pulled: Pulled, tmp_path: Path
) -> None:
    target = Opened(LocalStore(tmp_path / "new"))
    summary = await copy(pulled.archive, target, CopyOptions(selection))
    assert (summary.exit_code, len(summary.failures)) == (1, 1)
    assert not (tmp_path / "new").exists()
