"""Exit code 3 is for bytes that are wrong. What a verify finds besides has another, or none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull
from archiver.archive.verified import results_key
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.commands.ls.listing import archived_rows
from archiver.commands.repair.from_source import SourceSupplier
from archiver.commands.repair.run import repair
from archiver.commands.verify import events
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.model import VerifySummary
from archiver.commands.verify.run import verify
from archiver.errors import UnsafeInput
from archiver.ids import safe
from archiver.ignored_names import is_ignored, is_listed
from archiver.stores.s3 import S3Options, S3Store
from examples.sample_rdb import write_rdb
from tests.archive.sample import remove_lines, remove_node
from tests.conftest import INSTANCE, everything
from tests.servers.seaweedfs import SeaweedFS
from tests.verify.conftest import CLUSTER, DAYS, Pulled, flip

IGNORED = (
    ".DS_Store", "._x.rdb", "Thumbs.db", "thumbs.db", "desktop.ini", ".directory", "SHA256SUMS~",
    "x-1.json~", "#x-1.json#", "SHA256SUMS.bak", "x-1.json.orig", ".x-1.json.swp", "x_$folder$",
)  # fmt: skip
IGNORED_FOLDERS = (
    "@eaDir", "lost+found", "#recycle", "$RECYCLE.BIN", "System Volume Information", ".Trash-1000",
)  # fmt: skip


@pytest.mark.parametrize("name", [*IGNORED, *IGNORED_FOLDERS, "Icon\r", "#snapshot", "@Recycle"])
def test_ignored_names_are_not_listed(name: str) -> None:
    assert not is_listed(name)


@pytest.mark.parametrize(
    "name",
    ["SHA256SUMS", "r-x-1.rdb", "r-x-1.json", "r-x", "20261124T021500Z-1", "notes.txt", "dump.rdb",
     "r-x-1.rdb.bak", "verified", "backup.tar"],
)  # fmt: skip
def test_other_names_are_listed(name: str) -> None:
    assert is_listed(name)
    assert not is_ignored(name)


@pytest.mark.parametrize("name", ["x.json.bak", "desktop.ini", "Thumbs.db"])
def test_no_id_is_taken_that_stores_ignore(name: str) -> None:
    with pytest.raises(UnsafeInput):
        safe(name)


async def test_ignored_names_are_nothing_to_any_command(pulled: Pulled, source: TairSource) -> None:
    """In every folder of a directory, and where nobody may look into it."""
    [path, *_] = pulled.objects()
    folders = [path.parent, *list(path.parents)[1:5], pulled.root / "verified"]
    (pulled.root / "verified").mkdir(exist_ok=True)
    assert folders[4] == pulled.root
    for folder in folders:
        for name in IGNORED:
            (folder / name).write_bytes(b"?")
        for name in IGNORED_FOLDERS:
            (folder / name).mkdir()
            (folder / name / "x.json").write_bytes(b"?")
    rows = await archived_rows(pulled.archive)
    found = await verify(pulled.archive)
    assert (found.exit_code, found.findings, found.files) == (0, [], 12)
    assert (len(rows), {row.error for row in rows}) == (12, {None})
    assert (await pull(source, pulled.archive, [everything(CLUSTER)])).held == 9
    other = Archive(LocalStore(pulled.root.with_name("other")))
    assert (await copy(pulled.archive, other)).exit_code == 0
    assert [one async for one in mismatches(pulled.archive, other, Selection())] == []
    assert not list(other.store.root.rglob("*~"))  # type: ignore[attr-defined]


async def test_markers_of_folders_in_a_bucket(
    files: Path, source: TairSource, seaweed: SeaweedFS, s3_writer: None, bucket: str
) -> None:
    """`x/` of 0 bytes, as consoles make them, and `x_$folder$`, as Hadoop does."""
    write_rdb(files / INSTANCE / "d_20261122021500.rdb", 3000, 1)
    store = S3Store(f"s3://{bucket}/redis", S3Options(seaweed.endpoint))
    client = seaweed.client()
    client.put_object(Bucket=bucket, Key="redis/old_$folder$", Body=b"")
    assert (await pull(source, Archive(store), [everything()])).exit_code == 0  # begun beside it
    [key] = [key for key in seaweed.objects(bucket, "redis/") if key.endswith(".rdb")]
    parts = key.split("/")
    for number in range(2, len(parts)):
        above = "/".join(parts[:number])
        client.put_object(Bucket=bucket, Key=f"{above}_$folder$", Body=b"")
        client.put_object(Bucket=bucket, Key=f"{above}/Thumbs.db", Body=b"?")
        client.put_object(Bucket=bucket, Key=f"{above}/", Body=b"")
    found = await verify(Archive(store))
    assert (found.exit_code, found.findings, found.files) == (0, [], 1)


def incomplete(pulled: Pulled) -> None:
    """A cluster's set that was never seen complete."""
    remove_lines(pulled.objects()[0].parent)


def lacking_a_node(pulled: Pulled) -> None:
    [path, *_] = pulled.objects()
    remove_node(path)
    remove_lines(path.parent)


def unsealed(pulled: Pulled) -> None:
    remove_lines(pulled.objects(INSTANCE)[0])


def without_sums(pulled: Pulled) -> None:
    """As an interrupted pull leaves a month: nothing tells that it had one."""
    sums = pulled.sums(INSTANCE)
    sums.unlink()
    sums.with_name("index.jsonl").unlink(missing_ok=True)


def half_sealed(pulled: Pulled) -> None:
    sums = pulled.sums()
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-1]))


def unrecorded(pulled: Pulled) -> None:
    """A pull was killed between object and record."""
    [path, *_] = pulled.objects()
    remove_lines(path.parent)
    path.with_suffix(".json").unlink()


def stray(pulled: Pulled) -> None:
    (pulled.objects()[0].parent / "notes.txt").write_text("?")


def damaged_and_incomplete(pulled: Pulled) -> None:
    incomplete(pulled)
    flip(pulled.objects(day=DAYS[0])[0])


def record_gone(pulled: Pulled) -> None:
    pulled.objects()[0].with_suffix(".json").unlink()


def sums_twice(pulled: Pulled) -> None:
    """Readers would differ in which line they believe."""
    sums = pulled.sums()
    line = sums.read_text().splitlines(keepends=True)[0]
    sums.write_text(sums.read_text() + line)


def sums_twice_at_odds(pulled: Pulled) -> None:
    sums = pulled.sums()
    name = sums.read_text().splitlines()[0].split()[1]
    sums.write_text(f"{sums.read_text()}{'0' * 64}  {name}\n")


@pytest.mark.parametrize(
    ("change", "code", "fault"),
    [
        (incomplete, 1, Fault.INCOMPLETE),
        (lacking_a_node, 1, Fault.INCOMPLETE),
        (unsealed, 1, Fault.SUMS),
        (without_sums, 1, Fault.SUMS),
        (half_sealed, 1, Fault.SUMS),
        (unrecorded, 1, Fault.UNRECORDED),
        (stray, 1, Fault.STRAY),
        (damaged_and_incomplete, 3, Fault.CHANGED),
        (record_gone, 3, Fault.UNRECORDED),
        (sums_twice, 3, Fault.SUMS),
        (sums_twice_at_odds, 3, Fault.SUMS),
    ],
)
async def test_only_wrong_bytes_are_3(
    change: Callable[[Pulled], None], code: int, fault: Fault, pulled: Pulled
) -> None:
    change(pulled)
    found = await verify(pulled.archive)
    assert fault in {finding.fault for finding in found.findings}
    assert found.exit_code == code, found.findings
    if change is unrecorded:  # to a copy it is the same
        other = Archive(LocalStore(pulled.root.with_name("other")))
        assert (await copy(pulled.archive, other)).exit_code == 1


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([Fault.UNREADABLE, Fault.INCOMPLETE], 6),
        ([Fault.UNREADABLE, Fault.NEWER], 6),
        ([Fault.UNREADABLE, Fault.CHANGED, Fault.STRAY], 3),
        ([Fault.NEWER, Fault.INCOMPLETE], 2),
        ([Fault.STRAY, Fault.INCOMPLETE], 1),
    ],
)
def test_the_worst_counts(faults: list[Fault], code: int) -> None:
    """And what a store did not give proves nothing against bytes that it gave."""
    found = VerifySummary(findings=[Finding("x", fault, "?") for fault in faults])
    assert found.exit_code == code


async def test_results_under_another_name(pulled: Pulled) -> None:
    """A file manager's copy is what it is."""
    await verify(pulled.archive)
    [path, *_] = sorted((pulled.root / "verified").rglob("*.json"))
    for name in ("2026-11 (1).json", "2026-11.json.old", "2026-11 (conflicted copy).json"):
        shutil.copy(path, path.with_name(name))
    path.with_name("2026-11.json.new").write_bytes(b"{}")
    found = await verify(pulled.archive)
    assert [one.key.rpartition("/")[2] for one in found.findings] == ["2026-11.json.new"]
    assert len(found.notes) == 3
    assert {note.text for note in found.notes} == {
        "results of a verify under another name: nothing reads them"
    }


async def test_results_of_a_newer_format_are_left_as_they_are(pulled: Pulled) -> None:
    await verify(pulled.archive)
    [month] = {"/".join(pulled.key(path).split("/")[:3]) for path in pulled.objects()}
    path = pulled.root / results_key(month)
    newer = json.dumps(json.loads(path.read_bytes()) | {"format": 2}).encode()
    path.write_bytes(newer)
    told: list[events.ScrubEvent] = []
    found = await verify(pulled.archive, None, told.append)
    [finding] = found.findings
    assert (finding.key, finding.fault, found.exit_code) == (results_key(month), Fault.NEWER, 2)
    assert path.read_bytes() == newer
    assert not list((pulled.root / ".quarantine").rglob("*.cleared"))
    [kept] = [event for event in told if isinstance(event, events.ResultsKept)]
    assert kept.files == len(DAYS)  # of the other instance
    path.write_bytes(b'{"format": 0, "files": {}}')  # of none: it is damaged, and written anew
    assert (await verify(pulled.archive)).exit_code == 1
    assert (await verify(pulled.archive)).exit_code == 0


@pytest.mark.parametrize("was_verified", [False, True])
@pytest.mark.parametrize("lost", ["line", "lines of a set", "line of one file", "document"])
async def test_what_named_its_files_once_was_lost(
    pulled: Pulled, source: TairSource, lost: str, was_verified: bool
) -> None:
    """A SHA256SUMS, or a line of it, is a pull's to write, unless an earlier verify saw it; which
    no later one forgets that did not find it."""
    if was_verified:
        assert (await verify(pulled.archive)).exit_code == 0
    instance_id = CLUSTER if lost in ("line", "lines of a set") else INSTANCE
    sums, path = pulled.sums(instance_id), pulled.objects(instance_id)[0]
    whole = sums.read_bytes()
    sums.with_name("index.jsonl").unlink(missing_ok=True)  # the catalogue would know, too
    if lost == "document":
        sums.unlink()
    else:
        remove_lines(path.parent if lost == "lines of a set" else path)
    await verify(pulled.archive)
    summary = await verify(pulled.archive)
    [finding] = summary.findings
    assert summary.exit_code == (3 if was_verified else 1)
    assert ("at an earlier verify" in finding.text) == was_verified
    assert (finding.fault is Fault.INCOMPLETE) == (lost == "lines of a set" and not was_verified)
    mended = await repair(pulled.archive, summary, SourceSupplier(source))
    assert (mended.findings, sums.read_bytes()) == ([], whole)


async def test_a_line_that_a_pull_is_still_to_write(pulled: Pulled) -> None:
    """That its set was sealed says nothing of a node that came later."""
    remove_lines(pulled.objects()[0])
    assert (await verify(pulled.archive)).exit_code == 1
    assert (await verify(pulled.archive)).exit_code == 1
    remove_lines(pulled.objects()[2])
    found = await verify(pulled.archive)
    [finding] = found.findings
    assert (found.exit_code, pulled.objects()[2].name in finding.text) == (3, True)
