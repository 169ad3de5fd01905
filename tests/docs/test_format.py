"""What docs/archive-format.md and docs/commands.md say of documents is what a pull leaves."""

import json
import re
from pathlib import Path

from archiver.archive import layout
from tests.docs.conftest import World, pulled_before
from tests.docs.pages import DOCS, rows

PAGE = DOCS["archive-format"]


def fields_of(section: str) -> set[str]:
    """What the first column of its tables names."""
    return {name for row in rows(section) for name in re.findall(r"`(\w+)`", row[0])}


async def test_an_archive_is_as_the_page_says(world: World) -> None:
    await pulled_before(world, "")
    root = world.home / "backups"
    records = [
        json.loads(path.read_text()) for path in root.glob(f"*/*/*/*Z-*{layout.RECORD_SUFFIX}")
    ]
    assert len(records) == 3
    named = fields_of(PAGE.section("## The record")) - {"repairs"}
    assert {name for record in records for name in record} == named
    assert all(record.keys() == named for record in records)
    [block] = [block for block in PAGE.blocks if block.language == "json"]
    assert json.loads(block.text)["format"] == records[0]["format"] == layout.FORMAT
    assert json.loads((root / layout.FORMAT_KEY).read_text())["format"] == layout.FORMAT
    assert f"This is format {layout.FORMAT}." in PAGE.section("## Layout")
    await check_catalogues(world, root)


async def check_catalogues(world: World, root: Path) -> None:
    """One a month, which may be deleted, and which a pull or a verify makes anew."""
    indexes = sorted(root.glob(f"*/*/*/{layout.INDEX_NAME}"))
    assert indexes
    before = {path: path.read_bytes() for path in indexes}
    head, *sets = before[indexes[0]].decode().splitlines()
    assert {"format", "tool", "month", "sha256", "sums"} == json.loads(head).keys()
    assert all(len(json.loads(line)) == 2 for line in sets)
    assert all(len(record) == 14 for line in sets for record in json.loads(line)[1])
    code, listed = await world.shell("archiver ls ./backups")
    assert code == 0, listed
    for makes_anew in ("pull --instance r-bp1zxszhcgatnx --to", "verify"):
        for path in indexes:
            path.unlink()
        assert await world.shell("archiver ls ./backups") == (0, listed)
        assert not any(path.exists() for path in indexes)
        code, said = await world.shell(f"archiver {makes_anew} ./backups")
        assert code == 0, said
        assert all(path.exists() for path in indexes)


async def test_an_archive_of_format_1_gets_one_line(world: World) -> None:
    await pulled_before(world, "")
    (world.home / "backups" / layout.FORMAT_KEY).write_text('{"format": 1}\n')
    code, said = await world.shell("archiver ls ./backups")
    assert (code, said.count("\n")) == (2, 1)
    assert "format 1, which was never released" in said


async def test_json_has_the_fields_that_the_page_names(world: World) -> None:
    section = DOCS["commands"].section("## JSON output")
    _, of_backup, of_row = re.split(r"`backup` has|A row of `ls` has", section)
    code, said = await world.shell(
        "archiver pull --instance r-bp1zxszhcgatnx --to ./backups --json 2>/dev/null"
    )
    assert code == 0
    backups = [one["backup"] for one in map(json.loads, said.splitlines()) if "backup" in one]
    assert backups
    named = set(re.findall(r"`(\w+)`", of_backup))
    assert all(backup.keys() == named for backup in backups)
    assert {(backup["type"], backup["mode"]) for backup in backups} <= {("full", "automated")}
    code, said = await world.shell("archiver ls ./backups --json")
    listed = [json.loads(line) for line in said.splitlines()]
    named = set(re.findall(r"`(\w+)`", of_row.partition(". `type` is")[0]))
    assert listed
    assert all(row.keys() == named for row in listed)
