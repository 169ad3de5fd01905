"""Every command says the same of the same archive: pull, ls, verify, restore and drill."""

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import Archive, LocalStore, TairSource, pull
from archiver.archive import layout
from archiver.archive.backupsets import newest_first
from archiver.archive.folders import list_folders
from archiver.commands.drill import DrillOptions, Wanted, drill
from archiver.commands.ls.listing import archived_rows, compared_rows
from archiver.commands.summary import Summary
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.run import verify
from archiver.model import Backup, Query
from archiver.report.evidence import Verdict
from archiver.stores.base import Entry
from examples.sample_rdb import write_rdb
from tests.archive import sample
from tests.archive.test_completeness import repeated
from tests.conftest import INSTANCE, everything
from tests.drill.conftest import programs

CLUSTER = "r-bp1cluster"
FIRST = datetime(2026, 10, 20, 3, 15, tzinfo=UTC)
HISTORIES = [
    ("abc abc abc", ". . ."),
    ("abc ab ab abc", ". c c ."),
    ("abc ab abc ac ab abc", ". c . b c ."),
    ("abc abc ab", ". . c"),
    ("abc ab ab", ". c c"),
    ("abc ab*14", ". .*14"),
    ("ab ab abc abc", ". . . ."),
    ("ab abc abc", "c . ."),
    ("abc abd abd", ". . ."),
    ("abc de def", ". f ."),
    ("abc abdef", ". c"),
]


def serve(files: Path, nights: str, first: datetime = FIRST) -> None:
    """Let the vendor have a set a night, its letters being the nodes."""
    for number, nodes in enumerate(repeated(nights).split()):
        stamp = f"{first + timedelta(days=number):%Y%m%d%H%M%S}"
        for node in nodes:
            write_rdb(files / CLUSTER / f"{CLUSTER}-{node}" / f"d_{stamp}.rdb", 3000, number)


def query(start: datetime, end: datetime) -> Query:
    return Query(CLUSTER, f"{start:%Y-%m-%dT%H:%MZ}", f"{end:%Y-%m-%dT%H:%MZ}")


async def listed(source: TairSource) -> list[Backup]:
    return [one async for page in source.pages(everything(CLUSTER)) for one in page.backups]


def night(key: str) -> str:
    return key.rpartition("/")[2][:8]


def named(why: str | None) -> str:
    """The letters of the nodes that a reason names; ``?`` when it names none."""
    words = (why or "").replace(",", " ").split()
    return "".join(w.rpartition("-")[2] for w in words if w.startswith(CLUSTER)) or "?"


async def answers(archive: Archive, source: TairSource, summary: Summary) -> dict[str, str]:
    """What each command says that the sets lack, night by night; a point where it is content."""
    folders = await list_folders(archive, [CLUSTER])
    nights = [night(folder.key) for folder in folders]

    def told(lacks: dict[str, str]) -> str:
        assert lacks.keys() <= set(nights)
        return " ".join(lacks.get(one, ".") for one in nights)

    found = (await verify(archive)).findings
    assert {finding.fault for finding in found} <= {Fault.INCOMPLETE}
    rows = [row for row in await archived_rows(archive) if row.set_note]
    remote = [row for row in await compared_rows(archive, await listed(source)) if row.set_note]
    sets = [one async for one in newest_first(archive, CLUSTER)]
    whole = folders.looking_complete(CLUSTER)
    return {
        "pull": told({night(one.key): named(one.why) for one in summary.incomplete}),
        "verify": told({night(one.key): named(one.text) for one in found}),
        "ls": told({night(row.set_key): named(row.set_note) for row in rows}),
        "ls --remote": told({night(row.set_key): named(row.set_note) for row in remote}),
        "restore": told({night(o.key): named(o.why_not) for o in sets if not o.is_complete}),
        "drill": told({night(o.key): "?" for o in folders if o not in whole}),
    }  # fmt: skip


@pytest.mark.parametrize(("nights", "expected"), HISTORIES)
async def test_they_agree(
    nights: str, expected: str, files: Path, source: TairSource, archive: Archive
) -> None:
    serve(files, nights)
    summary = await pull(source, archive, [everything(CLUSTER)])
    said = await answers(archive, source, summary)
    by_number = "d" in nights and "de " in nights  # a node of unknown name is named by no reason
    wanted = repeated(expected) if not by_number else repeated(expected).replace("f", "?")
    assert said.pop("drill") == " ".join("?" if x != "." else x for x in wanted.split())
    assert said == dict.fromkeys(said, wanted)
    assert summary.exit_code == (0 if set(wanted) <= {".", " "} else 1)
    # All that was listed is here, so every set is sealed; what it lacks is found out each time.
    assert all(folder.is_sealed for folder in await list_folders(archive))


async def test_a_pull_of_a_short_range_asks_the_archive(
    files: Path, source: TairSource, archive: Archive
) -> None:
    serve(files, "abc abc ab ab abc")
    await pull(source, archive, [query(FIRST, FIRST + timedelta(days=1, hours=1))])
    third = FIRST + timedelta(days=2)
    short = query(third - timedelta(hours=1), third + timedelta(hours=1))
    summary = await pull(source, archive, [short])
    [incomplete] = summary.incomplete
    assert "-c is missing" in incomplete.why
    assert "counts as removed" in incomplete.why
    # Sets that came later say more of it, whatever is pulled.
    await pull(source, archive, [query(third + timedelta(days=1), third + timedelta(days=3))])
    [incomplete] = (await pull(source, archive, [short])).incomplete
    assert "of 2026-10-21 03:15 and 2026-10-24 03:15 have it" in incomplete.why
    # So does a comparison with what is listed of that night alone.
    alone = [one async for page in source.pages(short) for one in page.backups]
    notes = {row.set_note for row in await compared_rows(archive, alone)}
    assert notes == {incomplete.why}


async def test_a_range_that_cuts_a_set_in_two(
    files: Path, source: TairSource, archive: Archive
) -> None:
    serve(files, "abc abc")
    second = FIRST + timedelta(days=1)
    late = {
        f"{CLUSTER}-c/d_{second:%Y%m%d%H%M%S}.rdb": {
            "BackupStartTime": f"{second:%Y-%m-%d}T03:17:09Z"
        }
    }
    (files / CLUSTER / "backups.json").write_text(json.dumps(late))
    first = query(FIRST - timedelta(hours=1), FIRST + timedelta(hours=1))
    cut = query(second - timedelta(hours=1), second + timedelta(minutes=1))
    assert (await pull(source, archive, [first])).exit_code == 0
    summary = await pull(source, archive, [cut])
    assert [named(one.why) for one in summary.incomplete] == ["c"]
    assert (await verify(archive)).exit_code == 1
    summary = await pull(source, archive, [everything(CLUSTER)])
    assert (summary.archived, summary.exit_code) == (1, 0)
    assert (await verify(archive)).exit_code == 0


async def test_a_cluster_that_was_scaled_in_is_reported_for_a_fortnight(
    files: Path, source: TairSource, archive: Archive
) -> None:
    """Night after night with the range of a week: no set has to be listed again later."""
    serve(files, "abc*3 ab*15")
    codes = []
    for number in range(18):
        now = FIRST + timedelta(days=number, hours=1)
        summary = await pull(source, archive, [query(now - timedelta(days=7), now)])
        codes.append(summary.exit_code)
    assert codes == [0] * 3 + [1] * 13 + [0] * 2
    summary = await pull(source, archive, [everything(CLUSTER)])
    said = await answers(archive, source, summary)
    assert said == dict.fromkeys(said, " ".join("." * 18))


@pytest.mark.parametrize("nights", ["abc abc abc", "abc ab ab abc", "abc ab"])
async def test_a_folder_for_each_shard(
    nights: str, files: Path, source: TairSource, archive: Archive
) -> None:
    """What is complete, and restored whole, is the night."""
    serve(files, nights)
    jobs = {
        f"{path.parent.name}/{path.name}": {"BackupJobID": number + 1}
        for number, path in enumerate(sorted((files / CLUSTER).rglob("*.rdb")))
    }
    (files / CLUSTER / "backups.json").write_text(json.dumps(jobs))
    summary = await pull(source, archive, [everything(CLUSTER)])
    short = {
        f"{FIRST + timedelta(days=n):%Y%m%d}" for n, x in enumerate(nights.split()) if "c" not in x
    }
    assert {night(one.key) for one in summary.incomplete} == short
    assert {night(one.key) for one in (await verify(archive)).findings} == short
    assert {night(row.set_key) for row in await archived_rows(archive) if row.set_note} == short
    assert len(await list_folders(archive)) == len("".join(nights.split()))
    sets = [one async for one in newest_first(archive, CLUSTER)]
    assert [len(one.nodes) for one in sets] == [len(x) for x in reversed(nights.split())]
    assert {night(one.key) for one in sets if not one.is_complete} == short
    assert all("c is missing" in one.why_not for one in sets if not one.is_complete)
    whole = (await list_folders(archive)).looking_complete(CLUSTER)
    assert [one.key for one in sets if one.is_complete] == [one.key for one in reversed(whole)]


async def test_a_drill_of_a_set_without_a_node(
    files: Path, source: TairSource, archive: Archive, tmp_path: Path
) -> None:
    serve(files, "abc ab ab")
    await pull(source, archive, [everything(CLUSTER)])
    options = DrillOptions(wanted=Wanted(instances=(CLUSTER,)), scratch=tmp_path)
    [one] = (await drill(archive, await programs(), options)).evidence.sets
    assert one.verdict is Verdict.PARTIAL
    assert one.nodes.missing == (f"{CLUSTER}-c",)
    assert "on 2026-11-03 at the earliest" in one.why


async def test_few_listings(files: Path, source: TairSource, tmp_path: Path) -> None:
    """However long the archive: the months around, once each, and only of clusters; and that of
    what is to come a second time, under the lock."""
    prefixes: list[str] = []

    class Counting(LocalStore):
        async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
            if prefix.count("/") < 4:  # not of a single set
                prefixes.append(prefix)
            async for entry in super().entries(prefix):
                yield entry

    serve(files, "abc ab", datetime(2025, 3, 10, 3, 15, tzinfo=UTC))
    write_rdb(files / INSTANCE / "d_20250310021500.rdb", 3000)
    archive = Archive(Counting(tmp_path / "archive"))
    await pull(source, archive, [everything(CLUSTER), everything()])
    around = [f"{CLUSTER}/2025/{month:02}/" for month in range(1, 6)]
    # Before and under the lock, and for their SHA256SUMS and catalogue.
    own = [f"{CLUSTER}/2025/03/", f"{INSTANCE}/2025/03/"] * 3
    verified = [f"verified/{one}/" for one in (CLUSTER, INSTANCE)] * 2
    listed = [*around, *own, *verified, layout.ACKNOWLEDGED]
    assert sorted(prefixes) == sorted(listed)


@pytest.mark.parametrize("days", [("99991225", "99991226"), ("00010105", "00010106")])
async def test_a_time_that_no_backup_can_have_ends_no_command(
    days: tuple[str, str], tmp_path: Path
) -> None:
    """Nothing can be added to it, or subtracted, to tell which sets are around it."""
    for day, nodes in ((days[0], 3), (days[1], 2), ("20261124", 3)):
        sample.put_cluster(tmp_path, f"{day}T000000Z", nodes)
    archive = Archive(LocalStore(tmp_path))
    rows = await archived_rows(archive)
    assert sorted(row.state for row in rows) == ["archived"] * 3 + ["damaged"] * 5
    [only] = [one async for one in newest_first(archive, sample.CLUSTER)]
    assert (night(only.key), only.is_complete) == ("20261124", True)
    faults = [finding.fault for finding in (await verify(archive)).findings]
    assert faults == [Fault.BAD_RECORD] * 5
