"""A night that failed at the vendor for good, and somebody who has taken note of it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, events, pull
from archiver.archive import layout
from archiver.archive.acknowledged import (
    Acknowledged,
    Acknowledgement,
    acknowledge,
    check_subject,
    copy_acknowledged,
    withdraw,
)
from archiver.archive.archive import Beginning
from archiver.cli.ls_output import unchecked
from archiver.commands.copy.difference import mismatches
from archiver.commands.copy.run import copy
from archiver.commands.copy.selection import Selection
from archiver.commands.drill import DrillOptions, drill
from archiver.commands.ls.listing import Row, archived_rows, compared_rows, with_acknowledgements
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.run import verify
from archiver.errors import (
    BadDocument,
    IntegrityError,
    NewerAcknowledgement,
    NoSuchBackup,
    UsageError,
)
from archiver.stores.base import Store
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.scope import WHOLE
from examples.sample_rdb import write_rdb
from tests.archive.sample import remove_lines
from tests.archive.test_one_answer import CLUSTER, FIRST, listed, serve
from tests.conftest import INSTANCE, everything
from tests.drill.conftest import programs
from tests.servers.seaweedfs import SeaweedFS

WHY, BY = "ticket 4711", "sre@host"
NIGHTS = "ab ab ab"
NIGHT = FIRST + timedelta(days=1)
STAMP = f"{NIGHT:%Y%m%d%H%M%S}"
Stores = Callable[[str], Store]


@pytest.fixture(params=["directory", "bucket"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Makes stores of one kind."""
    if request.param == "directory":
        return lambda name: LocalStore(tmp_path / name)
    request.getfixturevalue("s3_writer")
    seaweed: SeaweedFS = request.getfixturevalue("seaweed")
    bucket = request.getfixturevalue("bucket")
    return lambda name: S3Store(f"s3://{bucket}/{name}", S3Options(seaweed.endpoint))


def fail_at_the_vendor(files: Path, instance: str, name: str) -> None:
    failed = {name: {"BackupStatus": "Failed"}}
    (files / instance / "backups.json").write_text(json.dumps(failed))


@pytest.fixture
async def archive(files: Path, source: TairSource, tmp_path: Path) -> Archive:
    """With a night that lacks a node for good."""
    serve(files, NIGHTS)
    fail_at_the_vendor(files, CLUSTER, f"{CLUSTER}-b/d_{STAMP}.rdb")
    archive = Archive(LocalStore(tmp_path / "archive"))
    assert (await pull(source, archive, [everything(CLUSTER)])).exit_code == 1
    return archive


async def record_keys(archive: Archive) -> list[str]:
    entries = archive.store.entries(f"{CLUSTER}/")
    return [one.key async for one in entries if layout.is_record(one.key)]


async def night(archive: Archive) -> str:
    """The folder of that night's set."""
    keys = await record_keys(archive)
    [folder] = {key.rpartition("/")[0] for key in keys if f"{NIGHT:%Y%m%dT}" in key}
    return folder


async def test_it_is_no_longer_a_failure(
    files: Path, source: TairSource, stores: Stores, tmp_path: Path
) -> None:
    """For any command, in a directory and in a bucket; and a copy says the same."""
    serve(files, NIGHTS)
    fail_at_the_vendor(files, CLUSTER, f"{CLUSTER}-b/d_{STAMP}.rdb")
    archive = Archive(stores("archive"))
    first = await pull(source, archive, [everything(CLUSTER)])
    assert (first.exit_code, len(first.failures), len(first.incomplete)) == (1, 1, 1)
    assert (await verify(archive)).exit_code == 1
    folder = await night(archive)
    async with archive.writing(WHOLE):
        one = await acknowledge(archive, folder, by=BY, reason=WHY)
    assert (one.missing, len(one.files)) == ((f"{CLUSTER}-b",), 1)

    async def assert_known(place: Archive) -> None:
        found = await verify(place)
        assert (found.exit_code, found.findings) == (0, [])
        [known] = found.acknowledged
        assert (known.subject, known.by, known.reason) == (folder, BY, WHY)
        assert f"node {CLUSTER}-b is missing" in known.why or "SHA256SUMS" in known.why
        acknowledged = Acknowledged(place)
        rows = await with_acknowledgements(await archived_rows(place), acknowledged)
        assert [row.set_key for row in rows if row.acknowledged] == [folder]
        assert [row.set_key for row in rows if row.set_note] == [folder]
        assert acknowledged.bad == {}

    await assert_known(archive)
    again = await pull(source, archive, [everything(CLUSTER)])
    assert (again.exit_code, again.failures, again.incomplete) == (0, [], [])
    assert {subject for subject, _ in again.acknowledged} == {folder}
    remote = await compared_rows(archive, await listed(source))
    rows = await with_acknowledgements(remote, Acknowledged(archive))
    assert {(row.node_id[-1], row.state) for row in rows if row.acknowledged} == {
        ("a", "archived"), ("b", "failed"),
    }  # fmt: skip

    other = Archive(stores("other"))
    assert (await copy(archive, other)).exit_code == 0
    assert [one async for one in mismatches(archive, other, Selection())] == []
    await assert_known(other)


async def test_a_backup_that_the_vendor_failed(
    files: Path, source: TairSource, tmp_path: Path
) -> None:
    """Of a standard instance, whose set is that file."""
    for day in (22, 23):
        write_rdb(files / INSTANCE / f"d_202611{day}021500.rdb", 3000, day)
    fail_at_the_vendor(files, INSTANCE, "d_20261123021500.rdb")
    archive = Archive(LocalStore(tmp_path / "archive"))
    [failure] = (await pull(source, archive, [everything()])).failures
    assert "archiver ack" in str(failure.error)
    async with archive.writing(WHOLE):
        await acknowledge(archive, failure.subject, by=BY, reason=WHY)
    again = await pull(source, archive, [everything()])
    assert (again.exit_code, {one for one, _ in again.acknowledged}) == (0, {failure.subject})
    async with archive.writing(WHOLE):
        await withdraw(archive, failure.subject, by=BY)
    assert (await pull(source, archive, [everything()])).exit_code == 1


async def test_it_ends_when_the_set_is_another(
    archive: Archive, files: Path, source: TairSource
) -> None:
    folder = await night(archive)
    async with archive.writing(WHOLE):
        await acknowledge(archive, folder, by=BY, reason=WHY)
    assert (await verify(archive)).exit_code == 0
    # A later night with a node more says of this one that it lacks nothing more than before.
    serve(files, "abc", NIGHT + timedelta(days=2))
    await pull(source, archive, [everything(CLUSTER)])
    assert [*await Acknowledged(archive).ended()] == []
    root = Path(str(archive.store))
    [record] = (root / folder).glob("*.json")
    kept = record.read_bytes()
    record.unlink()
    found = await verify(archive)
    assert found.acknowledged == []
    assert "no longer applies" in found.notes[0].text
    record.write_bytes(kept)
    # The node that was lacking comes, and another is found to lack.
    (files / CLUSTER / "backups.json").unlink()
    serve(files, "abc", NIGHT - timedelta(days=1))
    await pull(source, archive, [everything(CLUSTER)])
    [ended] = await Acknowledged(archive).ended()
    assert ended.subject == folder


async def test_more_nodes_that_are_missing_end_it(
    archive: Archive, files: Path, source: TairSource
) -> None:
    folder = await night(archive)
    async with archive.writing(WHOLE):
        await acknowledge(archive, folder, by=BY, reason=WHY)
    for other in (FIRST, NIGHT + timedelta(days=1)):
        serve(files, "c", other)
    summary = await pull(source, archive, [everything(CLUSTER)])
    assert [one.key for one in summary.incomplete] == [folder]
    assert (await verify(archive)).exit_code == 1


async def test_it_never_hides_damage(archive: Archive) -> None:
    folder = await night(archive)
    async with archive.writing(WHOLE):
        await acknowledge(archive, folder, by=BY, reason=WHY)
    [path] = (Path(str(archive.store)) / folder).glob("*.rdb")
    path.write_bytes(b"REDIS0009" + bytes(path.stat().st_size - 9))
    found = await verify(archive)
    assert (found.exit_code, [one.fault for one in found.findings]) == (3, [Fault.CHANGED])
    path.unlink()
    rows = await with_acknowledgements(await archived_rows(archive), Acknowledged(archive))
    assert [row.acknowledged for row in rows if row.error is not None] == [None]
    async with archive.writing(WHOLE):
        with pytest.raises(IntegrityError, match="damage cannot be acknowledged"):
            await acknowledge(archive, folder, by=BY, reason=WHY)


async def test_what_cannot_be_acknowledged(archive: Archive) -> None:
    keys = await record_keys(archive)
    whole = keys[0].rpartition("/")[0]
    async with archive.writing(WHOLE):
        with pytest.raises(UsageError, match="is complete"):
            await acknowledge(archive, whole, by=BY, reason=WHY)
        for reason in ("", " ", "a\nb", "a\x1b[2J", "x" * 501):
            with pytest.raises(UsageError, match="--reason: must be one line"):
                await acknowledge(archive, await night(archive), by=BY, reason=reason)
        with pytest.raises(NoSuchBackup, match="is not acknowledged"):
            await withdraw(archive, whole, by=BY)


@pytest.mark.parametrize(
    "text",
    ["", "r-x", "r-x/2026/11", "../2026/11/20261124T021500Z-1", "drills/2026/11/20261124T021500Z-1",
     "r-x/2026/10/20261124T021500Z-1", "a/../b-1", "r-x-1/..", "r-\x1b-1", "-r-1",
     "r-x/2026/11/20261124T021500Z-a/b"],
)  # fmt: skip
def test_names_of_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="neither a backup set nor a backup"):
        check_subject(text)


def test_the_keys_of_all_that_can_be_named_are_keys_of_acknowledgements() -> None:
    for subject in ("r-x/2026/11/20261124T021500Z-1.2", "r-x-db-0-17", "r-x-1"):
        check_subject(subject)
        assert layout.is_acknowledgement(layout.acknowledgement_key(subject))


NOW = datetime(2026, 11, 25, tzinfo=UTC)
ONE = Acknowledgement("r-x/2026/11/20261124T021500Z-1", NOW, BY, "café", {"r-x-1.rdb": "a" * 64})


def test_what_is_written_is_read() -> None:
    assert Acknowledgement.decode(ONE.key, ONE.encode()) == ONE


@pytest.mark.parametrize(
    ("field", "value"),
    [("format", 0), ("format", 2), ("subject", "r-x/2026/11/20261124T021500Z-2"), ("subject", ".."),
     ("at", "soon"), ("by", 1), ("reason", "a\nb"), ("files", []), ("files", {"../x": "a" * 64}),
     ("files", {"r-x-1.rdb": "no"}), ("missing", [1]), ("missing", ["a\x1bb"]), ("withdrawn", {}),
     ("withdrawn", True)],
)  # fmt: skip
def test_what_cannot_be_read(field: str, value: object) -> None:
    document = json.loads(ONE.encode()) | {field: value}
    with pytest.raises(BadDocument, match=ONE.key):
        Acknowledgement.decode(ONE.key, json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"{", b'{"format": 2}', b"{}"])
async def test_a_bad_one_fails_alone(archive: Archive, source: TairSource, data: bytes) -> None:
    folder = await night(archive)
    async with archive.writing(WHOLE):
        one = await acknowledge(archive, folder, by=BY, reason=WHY)
    path = Path(str(archive.store)) / one.key
    path.write_bytes(data)
    found = await verify(archive)
    by_key = {finding.key: finding for finding in found.findings}
    is_newer = data == b'{"format": 2}'
    assert by_key.keys() == {folder, one.key}
    code = 2 if is_newer else 1
    assert (by_key[one.key].exit_code, found.exit_code) == (code, code)
    summary = await pull(source, archive, [everything(CLUSTER)])
    assert (summary.exit_code, one.key in {f.subject for f in summary.failures}) == (code, True)
    acknowledged = await Acknowledged(archive).read()
    assert [error.exit_code for error in acknowledged.bad.values()] == [code]
    path.with_name("notes.txt").write_bytes(b"")
    strays = [f for f in (await verify(archive)).findings if f.fault is Fault.STRAY]
    assert [f.key.rpartition("/")[2] for f in strays] == ["notes.txt"]


async def test_the_later_word_counts(archive: Archive, tmp_path: Path) -> None:
    """A copy takes it, and brings no earlier one back."""
    folder, other = await night(archive), Archive(LocalStore(tmp_path / "other"))
    async with archive.writing(WHOLE):
        await acknowledge(archive, folder, by=BY, reason=WHY)
    elsewhere = Selection(instances=("r-elsewhere",))
    assert (await copy(archive, other)).exit_code == 0
    async with other.writing(WHOLE):
        await withdraw(other, folder, by="auditor")
    await copy(archive, other)
    assert await Acknowledged(other).of(folder) is None
    assert [one async for one in mismatches(archive, other, Selection())] == []
    [back] = [one async for one in mismatches(other, archive, Selection())]
    assert back.key == layout.acknowledgement_key(folder)
    assert [one async for one in mismatches(other, archive, elsewhere)] == []
    assert (await copy(other, archive)).exit_code == 0
    assert await Acknowledged(archive).of(folder) is None


async def test_a_drill_shows_auditors_what_stands(archive: Archive, tmp_path: Path) -> None:
    """Also where another set is drilled; names only where they are not withheld."""
    folder = await night(archive)
    async with archive.writing(WHOLE):
        await acknowledge(archive, folder, by=BY, reason=WHY)
        gone = f"{CLUSTER}/2025/01/20250101T000000Z-1"
        await acknowledge(archive, gone, by=BY, reason=WHY)
        await withdraw(archive, gone, by=BY)
    for withhold, by in ((False, BY), (True, None)):
        options = DrillOptions(scratch=tmp_path, withhold_identity=withhold)
        evidence = (await drill(archive, await programs(), options)).evidence
        [known] = evidence.acknowledged
        assert (known.subject, known.by, known.reason) == (folder, by, WHY)
        assert [one.key for one in evidence.sets] != [folder]
    assert (await verify(archive)).exit_code == 0


def at_the_vendor(files: Path, night: datetime, **statuses: str) -> None:
    """What became of the backup of each node."""
    said = {
        f"{CLUSTER}-{node}/d_{night:%Y%m%d%H%M%S}.rdb": {"BackupStatus": status}
        for node, status in statuses.items()
    }
    (files / CLUSTER / "backups.json").write_text(json.dumps(said))


async def test_a_node_that_fails_later_was_not_taken_note_of(
    files: Path, source: TairSource, tmp_path: Path
) -> None:
    """Where no set around it tells which nodes there should be, each backup has its own note."""
    serve(files, "abc")
    at_the_vendor(files, FIRST, a="Failed", b="Running", c="Running")
    archive = Archive(LocalStore(tmp_path / "archive"))
    first = await pull(source, archive, [everything(CLUSTER)])
    [folder] = [one.key for one in first.incomplete]
    async with archive.writing(WHOLE):
        one = await acknowledge(archive, folder, by=BY, reason=WHY)
    assert one.missing == ()
    at_the_vendor(files, FIRST, a="Failed", b="Failed", c="Failed")
    later = await pull(source, archive, [everything(CLUSTER)])
    assert (later.exit_code, len(later.failures), later.incomplete) == (1, 3, [])
    assert all("does not name this node" in str(failed.error) for failed in later.failures)
    async with archive.writing(WHOLE):
        for failed in later.failures:
            await acknowledge(archive, failed.subject, by=BY, reason=WHY)
    known = await pull(source, archive, [everything(CLUSTER)])
    assert (known.exit_code, len(known.acknowledged)) == (0, 4)
    # What comes later tells of nothing more that could be missing of a set that has nothing.
    serve(files, "abc", NIGHT)
    assert (await pull(source, archive, [everything(CLUSTER)])).exit_code == 0


async def test_a_night_of_which_nothing_came(
    files: Path, source: TairSource, tmp_path: Path
) -> None:
    """The sets around it tell which nodes it lacks, and it has a line for each."""
    serve(files, NIGHTS)
    at_the_vendor(files, NIGHT, a="Failed", b="Failed")
    archive = Archive(LocalStore(tmp_path / "archive"))
    first = await pull(source, archive, [everything(CLUSTER)])
    async with archive.writing(WHOLE):
        one = await acknowledge(archive, first.incomplete[0].key, by=BY, reason=WHY)
    assert (one.missing, one.files) == ((f"{CLUSTER}-a", f"{CLUSTER}-b"), {})
    again = await pull(source, archive, [everything(CLUSTER)])
    assert (again.exit_code, len(again.acknowledged)) == (0, 3)


async def test_what_the_vendor_has_is_missing_whatever_is_acknowledged(
    archive: Archive, files: Path, source: TairSource
) -> None:
    folder = await night(archive)
    async with archive.writing(WHOLE):
        await acknowledge(archive, folder, by=BY, reason=WHY)

    async def rows() -> dict[str, Row]:
        remote = await compared_rows(archive, await listed(source))
        found = await with_acknowledgements(remote, Acknowledged(archive))
        return {row.node_id[-1]: row for row in found if row.set_key == folder}

    failed = (await rows())["b"]
    assert (failed.state, failed.set_acknowledged) == ("failed", True)
    assert [*unchecked([failed])] == []
    at_the_vendor(files, NIGHT, b="Success")
    missing = (await rows())["b"]
    assert (missing.state, missing.acknowledged) == ("missing", None)
    assert [line.partition(":")[0] for line in unchecked([missing])] == ["missing", "incomplete"]
    # A node that nobody missed fails, too.
    write_rdb(files / CLUSTER / f"{CLUSTER}-c" / f"d_{STAMP}.rdb", 3000, 1)
    at_the_vendor(files, NIGHT, b="Failed", c="Failed")
    both = await rows()
    [line] = unchecked([*both.values()])
    assert line.startswith(f"failed: {CLUSTER}-c-")
    # What pull is still to record is nobody's to acknowledge either.
    [record] = (Path(str(archive.store)) / folder).glob("*.json")
    at = record.with_name(f"{CLUSTER}-d-1.rdb")
    at.write_bytes(b"REDIS0009")
    found = await with_acknowledgements(await archived_rows(archive), Acknowledged(archive))
    assert [row.acknowledged for row in found if row.state == "unrecorded"] == [None]


async def test_a_set_that_loses_its_lines_ends_it(
    files: Path, source: TairSource, tmp_path: Path
) -> None:
    """The vendor never listed the node that lacks."""
    serve(files, "ab a ab")
    archive = Archive(LocalStore(tmp_path / "archive"))
    [short] = (await pull(source, archive, [everything(CLUSTER)])).incomplete
    async with archive.writing(WHOLE):
        one = await acknowledge(archive, short.key, by=BY, reason=WHY)
    assert one.sealed
    assert Acknowledgement.decode(one.key, one.encode()) == one
    remove_lines(tmp_path / "archive" / short.key)
    found = await verify(archive)
    assert (found.exit_code, found.acknowledged) == (1, [])
    assert [finding.fault for finding in found.findings] == [Fault.INCOMPLETE]
    assert "pull never" not in found.findings[0].text


def test_one_of_the_first_versions_says_nothing_of_sha256sums() -> None:
    document = json.loads(ONE.encode())
    del document["sealed"]
    assert Acknowledgement.decode(ONE.key, json.dumps(document).encode()) == ONE


async def test_one_of_a_newer_version_stays(archive: Archive, tmp_path: Path) -> None:
    """Whoever would write another one is told, a copy as well."""
    folder, other = await night(archive), Archive(LocalStore(tmp_path / "other"))
    async with archive.writing(WHOLE):
        one = await acknowledge(archive, folder, by=BY, reason=WHY)
    assert (await copy(archive, other)).exit_code == 0
    path = tmp_path / "other" / one.key
    path.write_bytes(newer := json.dumps(json.loads(path.read_bytes()) | {"format": 2}).encode())
    async with other.writing(WHOLE):
        for write in (
            acknowledge(other, folder, by=BY, reason=WHY), withdraw(other, folder, by=BY)
        ):  # fmt: skip
            with pytest.raises(NewerAcknowledgement, match="newer archiver") as told:
                await write
            assert told.value.exit_code == 2
    copied = await copy(archive, other)
    assert (copied.exit_code, [f.subject for f in copied.failures]) == (2, [one.key])
    [differs] = [one async for one in mismatches(archive, other, Selection())]
    assert (differs.key, str(other.store) in differs.what) == (one.key, True)
    assert path.read_bytes() == newer


async def test_one_that_cannot_be_read_is_kept_in_quarantine(stores: Stores) -> None:
    """By a new one, and by a copy; in a directory and in a bucket."""
    archive, other = (
        Archive(stores(name), beginning=Beginning.ALWAYS) for name in ("archive", "other")
    )
    kept = list[events.Event]()
    async with other.writing(WHOLE):
        key = (await acknowledge(other, "r-x-1", by=BY, reason=WHY)).key
    async with archive.writing(WHOLE):
        await archive.store.put(key, b"{")
        await acknowledge(archive, "r-x-1", by=BY, reason=WHY, observer=kept.append)
    async with other.writing(WHOLE):
        await other.store.put(key, b"{}")
        found = [one async for one in copy_acknowledged(archive, other, (), (), kept.append)]
    assert [(one.key, one.bad) for one in found] == [(key, None)]
    assert await Acknowledged(other).of("r-x-1") is not None
    for place, event, data in zip((archive, other), kept, (b"{", b"{}"), strict=True):
        assert isinstance(event, events.Cleared)
        assert (event.key, await place.store.read(event.kept)) == (key, data)
