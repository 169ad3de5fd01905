"""Which sets lack nodes, by the sets around them: a table of histories."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.archive.completeness import (
    GONE_AFTER,
    GONE_SETS,
    REACH,
    SetNodes,
    SetTally,
    incomplete,
    missing_nodes,
    parts_of_backups,
)
from archiver.archive.neighbours import listed_set
from archiver.model import NodesExpected

FIRST = datetime(2026, 8, 1, 2, 15, tzinfo=UTC)
NIGHT, WEEK, HOUR = timedelta(days=1), timedelta(days=7), timedelta(hours=1)


def history(nights: str, every: timedelta = NIGHT, *, first: datetime = FIRST) -> list[SetNodes]:
    """A set for each word, its letters being the nodes; ``-`` for a set of which no record is
    left, ``ab*20`` for twenty alike, ``!`` before one of logs."""
    words: list[str] = []
    for word in nights.split():
        nodes, _, times = word.partition("*")
        words += [nodes] * int(times or 1)
    return [
        SetNodes(
            f"{number:04}", first + number * every, frozenset(word.strip("-!")), word[0] != "!"
        )
        for number, word in enumerate(words)
    ]


def lacks(sets: list[SetNodes]) -> str:
    """What is missing, in the same notation; a point where nothing is."""
    missing = missing_nodes(sets)
    return " ".join("".join(missing[one.key].nodes) if one.key in missing else "." for one in sets)


def repeated(text: str) -> str:
    words = [word.partition("*") for word in text.split()]
    return " ".join(word for word, _, times in words for _ in range(int(times or 1)))


NIGHTLY = [
    # A cluster as it should be.
    ("abc abc abc", ". . ."),
    ("a a a", ". . ."),
    ("abc", "."),
    ("", ""),
    # Missing one night, two nights running, a week.
    ("abc ab abc", ". c ."),
    ("abc ab ab abc", ". c c ."),
    ("abc ab*6 abc", ". c*6 ."),
    ("abc ab*13 abc", ". c*13 ."),
    ("abc a ab abc", ". bc c ."),
    ("abc ab bc ac abc", ". c a b ."),
    ("abc ac ab abc", ". b c ."),
    ("abcd ab cd abcd", ". cd ab ."),
    # At the newest end: missing until a fortnight has passed.
    ("abc ab", ". c"),
    ("abc abc ab ab", ". . c c"),
    ("abc ab*13", ". c*13"),
    ("abc ab*14", ". .*14"),
    ("abc ab*90", ". .*90"),
    ("abc*3 a*5", ".*3 bc*5"),
    # Removed and, later, added again: the absence was long enough to be believed.
    ("abc ab*14 abc", ". .*14 ."),
    ("abcdef*20 abc*40 abcdef*20", ".*80"),
    # Added to the cluster: what is older lacks nothing.
    ("ab ab abc", ". . ."),
    ("ab ab abc abc", ". . . ."),
    ("ab ab abcd abc abcd", ". . . d ."),
    ("ab*3 abcd*3 abcdefgh*3", ".*9"),
    ("ab*70 abc*70", ".*140"),
    # The oldest set may have been cut: the very next one says what it lacks.
    ("ab abc", "c ."),
    ("ab abcd abcd", "cd . ."),
    ("b abc ab abc", "ac . c ."),
    # Replaced, renamed: as many came as went.
    ("abc def def", ". . ."),
    ("abc abd abd", ". . ."),
    ("abc abd abd abde abde", ". . . . ."),
    ("abc abd abc", ". . d"),  # and back again, which might as well be one lost in each
    ("abc def abc", ". . def"),
    ("abc defghi defghi", ". . ."),  # to another cluster, and a larger one
    ("abc abd ab abd", ". . d ."),
    ("abc de def", ". f ."),  # renamed, and one of the new ones missing
    ("abc ab abd", ". c ."),  # replaced, with a night in between
    ("abc ab ab abd abd", ". c c . ."),
    # Not replaced: fewer came than went, or others came beside it.
    ("abc abdef abdef", ". c c"),
    ("abc abd abcd", ". c ."),
    ("abc de", ". abc"),
    # A set of which nothing is left, and one that is no night of its own.
    ("abc - abc", ". abc ."),
    ("a -", ". a"),
    ("- a a", "a . ."),
    ("abc -*20 abc", ". abc*20 ."),
    ("abc - ab*14", ". ab .*14"),
    ("abc - ab abc", ". abc c ."),
    # Sets of logs are compared with sets of logs.
    ("abc !a abc !a", ". . . ."),
    ("abc !ab ab !abc abc !abc", ". c c . . ."),
]


@pytest.mark.parametrize(("nights", "expected"), NIGHTLY)
def test_nightly(nights: str, expected: str) -> None:
    assert lacks(history(nights)) == repeated(expected)


@pytest.mark.parametrize(
    ("nights", "every", "expected"),
    [
        # A week without a node is one set: it takes seven sets, whatever time that is.
        ("abc ab abc", WEEK, ". c ."),
        ("abc ab*6", WEEK, ". c*6"),
        ("abc ab*7", WEEK, ". .*7"),
        ("abc ab*6 abc", WEEK, ". c*6 ."),
        # Many sets a day: it takes a fortnight, however many sets that is.
        ("abc ab*30 abc", HOUR, ". c*30 ."),
        ("abc ab*300", HOUR, ". c*300"),
        # Seldom: it takes as long as sets are compared at all.
        ("abc ab", 30 * NIGHT, ". c"),
        ("abc ab ab", 30 * NIGHT, ". . ."),
        ("abc ab abc", 30 * NIGHT, ". c ."),
        # Too far apart to say anything of each other.
        ("abc ab abc", 61 * NIGHT, ". . ."),
    ],
)
def test_other_schedules(nights: str, every: timedelta, expected: str) -> None:
    assert lacks(history(nights, every)) == repeated(expected)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("a b c | a b c | a b c", ". . . | . . . | . . ."),
        ("a b c | a b | a b c", ". . . | c c | . . ."),
        ("a b c | a b | a b | a b c", ". . . | c c | c c | . . ."),
        ("a b c | a b", ". . . | c c"),
        ("a b c a b c | a b c", ". . . . . . | . . ."),  # by hand as well, within the hour
        ("a b c a b | a b c", ". . . c c | . . ."),
        ("a b c | abc | abc", ". . . | . | ."),  # from folders of shards to one for all
        ("a b c | ab | abc", ". . . | c | ."),
    ],
)
def test_a_folder_for_each_shard(folders: str, expected: str) -> None:
    """Clusters made before 2023-12-05, and answers without a BackupJobID."""
    sets = [
        SetNodes(f"{night:02}-{number}", one.started_at, one.nodes)
        for night, words in enumerate(folders.split("|"))
        for number, one in enumerate(
            history(words, timedelta(minutes=1), first=FIRST + night * NIGHT)
        )
    ]
    assert lacks(sets) == " ".join(expected.replace("|", "").split())


def parts(words: str, minutes: str) -> str:
    """The nodes of the folders that are one backup, of folders that began at these minutes."""
    sets = [
        SetNodes(f"{number:02}", FIRST + timedelta(minutes=float(minute)), frozenset(node))
        for number, (node, minute) in enumerate(zip(words.split(), minutes.split(), strict=True))
    ]
    by_key = {one.key: "".join(sorted(one.nodes)) for one in sets}
    found = parts_of_backups(sets)
    assert all(found[key] == keys for keys in found.values() for key in keys)
    assert parts_of_backups(reversed(sets)) == found
    groups = dict.fromkeys(found.get(key, (key,)) for key in by_key)
    return " ".join("".join(by_key[key] for key in keys) for keys in groups)


@pytest.mark.parametrize(
    ("words", "minutes", "expected"),
    [
        ("a b c", "0 0.1 0.2", "abc"),
        ("a b c", "0 30 60", "abc"),
        ("a b c", "0 30 61", "ab c"),  # too long for one
        ("a b c a b c", "0 0.1 0.2 30 30.1 30.2", "abc abc"),
        ("b c a b c", "0 0.1 30 30.1 30.2", "bc abc"),  # the first lacks its a
        ("a b c b c", "0 0.1 0.2 30 30.1", "abc bc"),
        ("a b a b a b", "0 1 20 21 40 41", "ab ab ab"),
        ("a b a b", "0 0 0 0", "ab ab"),
        ("a a a", "0 1 2", "a a a"),
        ("a bc d", "0 1 2", "ad bc"),  # a set of two nodes is one by itself
        ("ab cd", "0 1", "ab cd"),
        ("a b c a", "0 50 51 52", "a bca"),
    ],
)
def test_which_folders_are_one_backup(words: str, minutes: str, expected: str) -> None:
    assert parts(words, minutes) == expected


@pytest.mark.parametrize(
    ("nights", "expected"),
    [
        ("abc abc i i i", ". . . . ."),
        ("i i abc abc", ". . . ."),
        ("abc i i abc", ". . . ."),
        ("abc i ab i abc", ". . c . ."),
    ],
)
def test_an_instance_that_was_converted(nights: str, expected: str) -> None:
    """A backup from a time without nodes lacks none, and says nothing of a cluster's."""
    sets = [replace(one, key=f"i/{one.key}") for one in history(nights)]
    assert lacks(sets) == expected


def test_a_backup_without_nodes_is_not_a_shard() -> None:
    sets = [replace(one, key=f"i/{one.key}") for one in history("a i", timedelta(minutes=1))]
    assert parts_of_backups(sets) == {}


def test_why() -> None:
    missing = missing_nodes(history("abc a ab abc ab ab"))
    assert missing["0001"].why == (
        "node b is missing: the sets of 2026-08-01 02:15 and 2026-08-03 02:15 have it; "
        "node c is missing: the sets of 2026-08-01 02:15 and 2026-08-04 02:15 have it"
    )
    assert missing["0005"].why == (
        "node c is missing: the set of 2026-08-04 02:15 has it; it counts as removed from the "
        "cluster after 7 sets and 14 days without it, on 2026-08-18 at the earliest"
    )
    assert missing_nodes(history("a abc"))["0000"].why == (
        "nodes b, c are missing: the set after it, of 2026-08-02 02:15, has it, and no set before "
        "it shows it was added"
    )
    assert missing_nodes(history("abc de def"))["0001"].why == (
        "it has 2 nodes, and sets before and after it have 3"
    )


def tally(number: int, nodes: str, files: int, held: int) -> SetTally:
    return SetTally(FIRST + number * NIGHT, set(nodes), True, files, held)


def test_files_that_did_not_come() -> None:
    sets = {
        "1": tally(1, "ab", 2, 2),  # cut by the start of the range: the next has four
        "2": tally(2, "abcd", 4, 4),
        "3": tally(3, "abc", 3, 3),  # a node is missing
        "4": tally(4, "abcd", 4, 3),  # a file did not come
        "5": tally(5, "abcd", 4, 4),  # the last one before the cluster grew
        "6": tally(6, "abcdefgh", 8, 8),
        "7": tally(7, "abcdefgh", 8, 8),
    }
    assert set(incomplete(sets)) == {"1", "3", "4"}
    assert incomplete(sets)["4"] == "3 of 4 files are here"
    assert incomplete({"1": tally(1, "ab", 2, 2)}) == {}
    assert incomplete({}) == {}


def test_the_archive_knows_what_was_not_listed() -> None:
    before, after = history("abc abc")[0], history("abc*4")[3]
    listed = {"1": tally(1, "ab", 2, 2), "2": tally(2, "ab", 2, 1)}
    found = incomplete(listed, [before, after])
    assert "node c is missing" in found["1"]
    assert found["2"].startswith("1 of 2 files are here; node c is missing")
    assert incomplete({"0000": tally(0, "ab", 2, 2)}, [before, after]) == {}  # c was here before


@given(
    st.lists(st.frozensets(st.sampled_from("abcd"), max_size=4), max_size=40),
    st.integers(1, 5),
    st.data(),
)
def test_only_what_is_within_reach_counts(
    nodes: list[frozenset[str]], days: int, data: st.DataObject
) -> None:
    """Whoever asks with fewer sets gets the same answer, if those within reach are among them."""
    every = timedelta(days=days * 3)
    sets = [SetNodes(f"{n:04}", FIRST + n * every, one) for n, one in enumerate(nodes)]
    found = missing_nodes(sets)
    for one in sets:
        near = [other for other in sets if abs(other.started_at - one.started_at) <= REACH]
        shuffled = data.draw(st.permutations(near))
        assert missing_nodes(shuffled, {one.key}).get(one.key) == found.get(one.key)
    for missing in found.values():
        assert missing.nodes
        assert missing.why


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 60))
def test_the_return_of_a_node_makes_nothing_missing_that_was_not(
    before: int, without: int, after: int
) -> None:
    gone = lacks(history(f"abc*{before} ab*{without}"))
    back = lacks(history(f"abc*{before} ab*{without} abc*{after}"))
    assert back.split()[: before + without] == gone.split()
    assert ("c" in gone) is (without < max(GONE_SETS, GONE_AFTER.days))


def test_a_set_by_its_names() -> None:
    folder = "r-1/2026/08/20260801T021500Z-7"
    names = ("r-1-db-0-5.json", "r-1-db-0-5.rdb", "r-1-db-0-6.json", "r-1-db-0-6.aof",
             "r-1-db-1-5.json", "r-1-db-2-5.rdb", "SHA256SUMS")  # fmt: skip
    nodes = frozenset({"r-1-db-0", "r-1-db-1"})
    assert listed_set(folder, [f"{folder}/{name}" for name in names]) == SetNodes(
        folder, FIRST, nodes
    )
    beside = [f"{folder}.json", f"{folder}.rdb", *(f"{folder}/{name}" for name in names)]
    assert listed_set(folder, beside) == SetNodes(folder, FIRST, nodes)
    standard = listed_set(folder, [f"{folder}.json", f"{folder}.rdb"])
    assert standard == SetNodes(folder, FIRST, frozenset({"r-1"}))
    log = listed_set(folder, [f"{folder}.aof", f"{folder}.json"])
    assert log == SetNodes(folder, FIRST, frozenset({"r-1"}), is_full=False)
    assert listed_set("r-1/notes", ["r-1/notes/a.json"]) is None


@pytest.mark.parametrize(
    ("nights", "counts", "lacking"),
    [
        ("ab", "3", "+"),  # by itself
        ("abc ab abc", "- 3 -", ". c ."),  # the sets around it give the name
        ("abc ab abc", "3 2 3", ". . ."),  # and no more than that: a shard was taken away
        ("abc abd abc", "3 3 3", ". . ."),  # or replaced
        ("a ab", "2 2", "b ."),  # a night that was cut
        ("abcd ab abcd", "- 3 -", ". + ."),  # two names for one node tell nothing
        ("abc", "2", "."),
    ],
)
def test_a_number_that_is_known_beats_the_sets_around(
    nights: str, counts: str, lacking: str
) -> None:
    sets = [
        replace(one, expected=None if count == "-" else NodesExpected(int(count), "the shards"))
        for one, count in zip(history(nights), counts.split(), strict=True)
    ]
    missing = missing_nodes(sets)
    found = []
    for one in sets:
        lacks = missing.get(one.key)
        if lacks is not None:
            assert not lacks.is_made_up_by(one.nodes)
            assert lacks.is_made_up_by(one.nodes | set(lacks.nodes) | {"x", "y"})
        found.append("." if lacks is None else "".join(lacks.nodes) or "+")
    assert " ".join(found) == lacking


def test_the_number_of_nodes_is_reported() -> None:
    tally = SetTally(FIRST, {"a", "b"}, True, 2, 2, NodesExpected(3, "DescribeClusters"))
    assert incomplete({"s": tally}) == {"s": "it has 2 of 3 nodes, by DescribeClusters"}
