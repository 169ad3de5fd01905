"""Which sets a drill takes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.archive.contents import SetFiles
from archiver.archive.folders import Folder
from archiver.commands.drill import Wanted
from archiver.commands.drill.selection import choose_sets
from archiver.errors import NoSuchBackup, UsageError
from archiver.report.evidence import Mode
from archiver.stores.base import Entry

START = datetime(2026, 11, 1, 2, 15, tzinfo=UTC)


def folder(instance: str, day: int, *, is_log: bool = False) -> Folder:
    start = START + timedelta(days=day)
    key = f"{instance}/{start:%Y/%m}/{start:%Y%m%dT%H%M%SZ}-1"
    record = f"{key}/{instance}-1.json"
    entries = {name: Entry(name, 1) for name in (f"{key}/{instance}-1.bin", record)}
    logs = frozenset([record] if is_log else [])
    return Folder(key, instance, start, SetFiles(key, entries), logs)


FOLDERS = [folder(f"r-{name}", day) for name in "abc" for day in range(5)]


def keys(wanted: Wanted) -> list[str]:
    selection, chosen = choose_sets(FOLDERS, wanted)
    found = [one.key for one in chosen]
    assert selection.chosen == len(found) == len(set(found))
    return found


def test_latest_is_the_newest_of_each() -> None:
    assert keys(Wanted()) == [folder(f"r-{name}", 4).key for name in "abc"]
    at = START + timedelta(days=2, hours=1)
    assert keys(Wanted(mode=Mode.AT, at=at)) == [folder(f"r-{name}", 2).key for name in "abc"]


@given(st.integers(1, 20), st.text())
def test_a_draw_can_be_repeated(number: int, seed: str) -> None:
    for mode in (Mode.RANDOM, Mode.STRATIFIED):
        wanted = Wanted(mode=mode, number=number, seed=seed)
        drawn = keys(wanted)
        assert drawn == keys(wanted)
        assert len(drawn) == min(number, len(FOLDERS))
        if mode is Mode.STRATIFIED:
            counts = [sum(key.startswith(f"r-{name}/") for key in drawn) for name in "abc"]
            assert max(counts) - min(counts) <= 1


def test_seeds_draw_different_sets() -> None:
    draws = {tuple(keys(Wanted(mode=Mode.RANDOM, number=3, seed=str(n)))) for n in range(20)}
    assert len(draws) > 10


def test_named_sets_and_logs() -> None:
    log = folder("r-a", 9, is_log=True)
    assert choose_sets([*FOLDERS, log], Wanted())[1][0] == FOLDERS[4]
    named = Wanted(mode=Mode.NAMED, sets=(log.key, f"{FOLDERS[0].key}/", log.key))
    selection, chosen = choose_sets([*FOLDERS, log], named)
    assert chosen == [log, FOLDERS[0]]
    assert selection.available == len(FOLDERS) + 1


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(mode=Mode.NAMED, sets=("r-a/2026/11/20261124T021500Z-99",)),
        Wanted(instances=("r-a", "r-z")),
        Wanted(mode=Mode.AT, at=START - timedelta(days=1)),
    ],
)
def test_what_is_not_there_is_an_error(wanted: Wanted) -> None:
    with pytest.raises(NoSuchBackup):
        choose_sets(FOLDERS, wanted)


def test_what_no_set_is_called_is_a_wrong_option() -> None:
    with pytest.raises(UsageError, match="named by its key"):
        choose_sets(FOLDERS, Wanted(mode=Mode.NAMED, sets=("r-a/2026/11/x",)))
