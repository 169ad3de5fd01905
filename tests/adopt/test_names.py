"""What a name says."""

from datetime import UTC, datetime

import pytest

from archiver.errors import UsageError
from archiver.sources.files.names import Left, Pattern, Said, read_name

DAY = datetime(2026, 11, 1, tzinfo=UTC)
NIGHT = datetime(2026, 11, 1, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dump.rdb", Said()),
        ("appendonly.aof", Said()),
        ("DUMP.RDB", Said()),
        ("below/dump.rdb", Said()),
        ("dump-20261101.rdb", Said(began=DAY)),
        ("20261101.rdb", Said(began=DAY)),
        ("redis_2026-11-01.rdb", Said(began=DAY)),
        ("dump-202611010300.rdb", Said(began=NIGHT)),
        ("dump-20261101-0300.rdb", Said(began=NIGHT)),
        ("dump_20261101T030000Z.rdb", Said(began=NIGHT)),
        ("dump-2026-11-01-03-00.rdb", Said(began=NIGHT)),
        ("dump-2026-11-01T03:00:00.rdb", Said(began=NIGHT)),
        ("shop-6379-20261101.rdb", Said(began=DAY)),
        # The last one counts.
        ("20251231-dump-20261101.rdb", Said(began=DAY)),
        # Numbers that are no times.
        ("dump-1764558000.rdb", Said()),
        ("dump-20261399.rdb", Said()),
        ("dump-00000000.rdb", Said()),
        ("dump-2026.rdb", Said()),
        # ElastiCache: one file for each shard of a snapshot.
        ("prod-0001.rdb", Said("0001", "prod")),
        ("prod-2026-11-01-0002.rdb", Said("0002", "prod-2026-11-01")),
        (
            "automatic.prod-2026-11-01-03-00-0012.rdb",
            Said("0012", "automatic.prod-2026-11-01-03-00"),
        ),
        # A time of day looks the same.
        ("prod-20261101-0300.rdb", Said(began=NIGHT)),
        # Times that cron and logrotate append.
        ("dump.rdb.20261101", Said(began=DAY)),
        ("dump.rdb-20261101", Said(began=DAY)),
        ("dump.rdb_2026-11-01", Said(began=DAY)),
        ("dump.rdb.20261101-0300", Said(began=NIGHT)),
        ("dump.rdb-20261101T030000Z", Said(began=NIGHT)),
        ("appendonly.aof-20261101", Said(began=DAY)),
        ("dump-20251231.rdb-20261101", Said(began=DAY)),
        ("dump-20261101T0300.rdb", Said(began=NIGHT)),
        ("dump.rdb-20261101.part", Said(began=DAY, is_unfinished=True)),
        ("prod-0001.rdb-20261101", Said("0001", "prod-20261101T000000Z", DAY)),
        ("dump.rdb.20261399", None),
        ("dump.rdb.1764558000", None),
        ("dump.rdb.bak", None),
        ("README.md", None),
        ("dump.rdb.sha256", None),
        ("rdb", None),
    ],
)
def test_usual_names(name: str, said: Said | None) -> None:
    assert read_name(name, ()) == said


@pytest.mark.parametrize("patterns", [(), (Pattern("*"),)])
@pytest.mark.parametrize(
    ("name", "why", "is_folder"),
    [
        ("dump.rdb.gz", "compressed", False),
        ("x/appendonly.aof.1.base.rdb", "multi-part AOF", True),
        ("x/appendonly.aof.1.incr.aof", "multi-part AOF", True),
    ],
)
def test_what_is_left(name: str, why: str, is_folder: bool, patterns: tuple[Pattern, ...]) -> None:
    left = read_name(name, patterns)
    assert isinstance(left, Left)
    assert why in left.why
    assert left.is_folder == is_folder


@pytest.mark.parametrize(
    "name", ["dump.rdb.1", "dump-20261101.rdb.12", "prod-0001.rdb.1", "x.aof.2", "dump.rdb.3.gz"]
)
def test_a_name_that_each_rotation_changes(name: str) -> None:
    left = read_name(name, ())
    assert isinstance(left, Left)
    assert (left.is_harmless, left.why.partition(":")[0]) == (
        True,
        "its number is another one after each rotation, so that it would be taken again and again",
    )
    assert read_name(name, (Pattern(name),)) == Said() or name.endswith(".gz")


def test_a_compressed_file_with_a_date_after_its_name() -> None:
    left = read_name("dump.rdb-20261101.gz", ())
    assert left == Left("compressed files are not supported: decompress it first")


@pytest.mark.parametrize("patterns", [(), (Pattern("*.rdb"), Pattern("*.aof"))])
@pytest.mark.parametrize(
    "name", ["temp-1234.rdb", "temp-rewriteaof-12.aof", "x/dump.rdb.part", "dump.rdb.tmp"]
)
def test_what_is_still_being_written(name: str, patterns: tuple[Pattern, ...]) -> None:
    assert read_name(name, patterns) == Said(is_unfinished=True)


def test_nothing_of_a_multi_part_log_is_named_that_no_pattern_means() -> None:
    assert read_name("x/appendonly.aof.1.base.rdb", (Pattern("dump*.rdb"),)) is None


def test_a_compressed_shard_is_missing_in_its_set() -> None:
    assert read_name("prod-0003.rdb.gz", ()) == Left(
        "compressed files are not supported: decompress it first", "prod"
    )
    assert read_name("prod-0003.rdb.part", ()) == Said("0003", "prod", is_unfinished=True)
    shards = (Pattern("{set}/{node}.rdb"),)
    assert read_name("prod/a.rdb.part", shards) == Said("a", "prod", is_unfinished=True)


@pytest.mark.parametrize(
    ("pattern", "path", "said"),
    [
        ("*.rdb", "a/b.rdb", Said()),
        ("*.rdb", "a/b.aof", None),
        ("b.rdb", "b.rdbx", None),
        ("bx.rdb", "b.rdb", None),
        ("b.rdb", "bxrdb", None),
        ("a/*.rdb", "a/b.rdb", Said()),
        ("a/*.rdb", "a/x/b.rdb", None),
        ("dump-{time:%d.%m.%Y}.rdb", "dump-01.11.2026.rdb", Said(began=DAY)),
        ("dump-{time:%d%m%y%H}.rdb", "dump-0111260300.rdb", None),
        ("{time:%Y/%m/%d}/dump-{time:%H%M}.rdb", "2026/11/01/dump-0300.rdb", Said(began=NIGHT)),
        (
            "{time:%Y%m%d}/{node}.rdb",
            "20261101/shard-1.rdb",
            Said("shard-1", "20261101T000000Z", DAY),
        ),
        ("{set}-{node}.rdb", "prod-20261101-0300.rdb", Said("0300", "prod-20261101")),
        ("{set}/{node}.rdb", "a b/0001.rdb", None),
        ("{set}/{node}.rdb", "../0001.rdb", None),
        ("dump-{time:%Y%m%d}.rdb", "dump-20260230.rdb", Left("20260230 is no time")),
        ("dump-{time:%Y%j}.rdb", "dump-2026305.rdb", Said(began=DAY)),
    ],
)
def test_patterns(pattern: str, path: str, said: Said | Left | None) -> None:
    assert read_name(path, (Pattern(pattern),)) == said


def test_the_first_pattern_that_matches_counts() -> None:
    patterns = Pattern("{set}-{node}.rdb"), Pattern("*.rdb")
    assert read_name("a-1.rdb", patterns) == Said("1", "a")
    assert read_name("a.rdb", patterns) == Said()
    assert read_name("a.aof", patterns) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{name}.rdb", "{name} is none of"),
        ("{time}.rdb", "{time} is none of"),
        ("{node:%Y}-{set}.rdb", "{node:%Y} is none of"),
        ("{time:%B}.rdb", "a time is made of"),
        ("{time:%Y%}.rdb", "a time is made of"),
        ("{node.rdb", "a brace"),
        ("{set}-{node}-{node}.rdb", "twice"),
        ("{set}.rdb", "needs {node}"),
        ("{node}.rdb", "needs {set} or {time}"),
    ],
)
def test_what_is_no_pattern(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why.replace("{", r"\{")):
        Pattern(text)
