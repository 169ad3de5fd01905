"""Every real file of tests/data/rdb (LIST.tsv says where each is from, and who loads it)."""

import csv
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO

import pytest

from archiver.model import Footer, Kind
from archiver.rdb import Inspection, Verdict, inspect
from tests.conftest import DATA
from tests.rdb.dumps import inspected, sealed

LISTED = {
    row["name"]: row
    for row in csv.DictReader((DATA / "LIST.tsv").read_text().splitlines(), delimiter="\t")
}
# The servers that LIST.tsv speaks of loaded the files later than this, and sooner than the
# expiries that lie in the future.
LOADED_AT = datetime(2026, 1, 1, tzinfo=UTC)

INTACT = {
    "librdb__100_lists.rdb": {"list": 100},
    "librdb__cluster_slot_info.rdb": {"string": 1},
    "librdb__empty.rdb": {},
    "librdb__function.rdb": {},
    "librdb__function2.rdb": {"string": 10},
    "librdb__hash_lp_v11.rdb": {"hash": 2},
    "librdb__hash_lp_with_hexpire_v12.rdb": {"hash": 1},
    "librdb__hash_v3.rdb": {"hash": 1},
    "librdb__hash_with_expire_v12.rdb": {"hash": 1},
    "librdb__hash_zl_v6.rdb": {"hash": 1},
    "librdb__hash_zm_v2.rdb": {"hash": 1},
    "librdb__mem_policy_lfu.rdb": {"string": 1},
    "librdb__mem_policy_lru.rdb": {"string": 1},
    "librdb__misc_with_stream.rdb": {
        "string": 3, "list": 1, "set": 1, "hash": 1, "zset": 1, "stream": 5,
    },
    "librdb__module.rdb": {"test__rdb": 1},
    "librdb__module_aux.rdb": {"string": 1},
    "librdb__module_aux_empty.rdb": {},
    "librdb__module_aux_v12.rdb": {"test__rdb": 1},
    "librdb__multiple_dbs.rdb": {"string": 3},
    "librdb__multiple_lists_strings.rdb": {"string": 3, "list": 3},
    "librdb__plain_list_v6.rdb": {"list": 1},
    "librdb__plain_set_v6.rdb": {"set": 1},
    "librdb__plain_zset_2_v11.rdb": {"zset": 1},
    "librdb__plain_zset_v6.rdb": {"zset": 1},
    "librdb__quicklist2_v11.rdb": {"list": 1},
    "librdb__script.rdb": {},
    "librdb__script_legacy.rdb": {},
    "librdb__set_expired_v11.rdb": {"string": 1},
    "librdb__set_is_v11.rdb": {"set": 1},
    "librdb__set_lp_v11.rdb": {"set": 1},
    "librdb__set_not_expired_v11.rdb": {"string": 1},
    "librdb__single_key.rdb": {"string": 1},
    "librdb__stream_v11.rdb": {"stream": 1},
    "librdb__string_int_encoded.rdb": {"string": 57},
    "librdb__string_lzf.rdb": {"string": 2},
    "librdb__ziplist_v3.rdb": {"list": 1},
    "librdb__zset_lp_v11.rdb": {"zset": 1},
    "librdb__zset_zl_v6.rdb": {"zset": 1},
    "rdb__expiration.rdb": {"string": 2},
    "rdb__function.rdb": {},
    "rdb__hash_as_listpack_with_hfe.rdb": {"hash": 1},
    "rdb__hash_with_hfe.rdb": {"hash": 1},
    "rdb__issue27.rdb": {"stream": 1},
    "rdb__listpack.rdb": {"hash": 1, "zset": 1, "list": 1},
    "rdb__memory.rdb": {"string": 3, "set": 1, "zset": 1, "hash": 1, "list": 1},
    "rdb__quicklist.rdb": {"list": 1},
    "rdb__set_listpack.rdb": {"set": 1},
    "rdb__stream_listoacks_3.rdb": {"stream": 1},
    "rdb__stream_listpacks_1.rdb": {"stream": 5},
    "rdb__stream_listpacks_2.rdb": {"stream": 1},
    "rdb__tree.rdb": {"string": 7},
    "rdb__valkey_hash2_with_hfe.rdb": {"hash": 1},
    "rdb__zipmap_big_len.rdb": {"hash": 1},
}  # fmt: skip
NOT_INTACT = {
    # The version in the magic was changed to 99, and the checksum left as it was.
    "librdb__future_v19.rdb": Verdict.CORRUPT,
    "librdb__invalid_chksum_v8.rdb": Verdict.CORRUPT,
    # An opcode of Redis Enterprise; the checksum proves the file all the same.
    "librdb__redis_ent_opcode_ram_lru.rdb": Verdict.OPAQUE,
}
COMMANDS = {
    "rdb__hash_as_listpack_with_hfe.aof": 4,
    "rdb__hash_with_hfe.aof": 9,
    "rdb__memory.aof": 8,
    "rdb__memory_regex.aof": 2,
    "rdb__valkey_hash2_with_hfe.aof": 4,
}
NO_FOOTER = {  # versions 2 and 3
    "librdb__hash_zm_v2.rdb", "librdb__ziplist_v3.rdb", "rdb__zipmap_big_len.rdb",
}  # fmt: skip
CHECKSUM_DISABLED = {"librdb__script.rdb"}
EXPIRING_FIELDS = {
    "librdb__hash_lp_with_hexpire_v12.rdb": 2,
    "librdb__hash_with_expire_v12.rdb": 2,
    "rdb__hash_as_listpack_with_hfe.rdb": 2,
    "rdb__hash_with_hfe.rdb": 3,
    "rdb__valkey_hash2_with_hfe.rdb": 2,
}


def read(name: str) -> Inspection:
    with (DATA / name).open("rb") as stream:
        return inspect(stream)


def test_every_file_has_a_verdict_written_down() -> None:
    names = {path.name for path in DATA.iterdir()} - {"LIST.tsv"}
    assert names == set(LISTED) == {*INTACT, *NOT_INTACT, *COMMANDS}


@pytest.mark.parametrize(("name", "keys"), INTACT.items(), ids=INTACT)
def test_a_dump_that_is_intact(name: str, keys: Mapping[str, int]) -> None:
    found = read(name)
    assert (found.verdict, found.kind, found.is_intact) == (Verdict.INTACT, Kind.RDB, True)
    assert found.size == (DATA / name).stat().st_size
    expected = Footer.NONE if name in NO_FOOTER else Footer.OK
    assert found.footer is (Footer.DISABLED if name in CHECKSUM_DISABLED else expected)
    assert str(found.magic).removeprefix("REDIS") == LISTED[name]["rdb_version"]
    assert found.contents is not None
    assert found.contents.is_complete
    assert found.contents.keys == keys
    assert found.contents.expiring_fields == EXPIRING_FIELDS.get(name, 0)


@pytest.mark.parametrize("name", INTACT)
def test_servers_counted_the_same_without_the_expired(name: str) -> None:
    contents = read(name).contents
    assert contents is not None
    low, high = contents.expired_at(LOADED_AT)
    assert low == high
    for server in ("keys_r7.0", "keys_r8.2", "keys_v9.1"):
        if LISTED[name][server]:
            assert int(LISTED[name][server]) == contents.total - low


@pytest.mark.parametrize(("name", "verdict"), NOT_INTACT.items(), ids=NOT_INTACT)
def test_a_dump_that_is_not(name: str, verdict: Verdict) -> None:
    found = read(name)
    assert found.verdict is verdict
    assert str(found.offset) in found.reason
    assert found.contents is not None
    assert not found.contents.is_complete


@pytest.mark.parametrize(("name", "commands"), COMMANDS.items(), ids=COMMANDS)
def test_a_log(name: str, commands: int) -> None:
    found = read(name)
    assert (found.verdict, found.kind, found.contents) == (Verdict.INTACT, Kind.AOF, None)
    assert found.log is not None
    assert (found.log.commands, found.log.good_until) == (commands, found.size)


@pytest.mark.parametrize("name", [*INTACT, *NOT_INTACT, *COMMANDS])
def test_blocks_of_any_size_tell_the_same(name: str) -> None:
    data = (DATA / name).read_bytes()
    whole = inspect(BytesIO(data))
    for block_size in (1, 129, 200, 1000):
        assert inspect(BytesIO(data), block_size=block_size) == whole
    assert inspect(Dripping(data)) == whole


class Dripping:
    """A stream that gives three bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = BytesIO(data)

    def readinto(self, buffer: memoryview, /) -> int:
        return self._stream.readinto(buffer[:3])


def test_what_a_module_needs_is_named() -> None:
    contents = read("librdb__module_aux_v12.rdb").contents
    assert contents is not None
    (module,) = contents.modules.values()
    assert (module.version, module.keys, module.aux_records) == (1, 1, 2)
    assert list(contents.modules) == ["test__rdb"]


def test_the_fields_at_the_beginning() -> None:
    contents = read("librdb__invalid_chksum_v8.rdb").contents
    assert contents is not None
    assert contents.aux["redis-ver"] == "999.999.999"
    assert contents.aux["repl-id"] == "0c5dd4326e36e88c5841bee36a279c65ea1a9549"
    assert contents.aux["ctime"] == "1552398179"


def test_databases_functions_slots_and_hints() -> None:
    databases = read("librdb__multiple_dbs.rdb").contents
    assert databases is not None
    assert sum(database.total for database in databases.databases) == 3
    assert len(databases.databases) > 1
    assert all(database.hint == (database.total, 0) for database in databases.databases)
    functions = read("librdb__function2.rdb").contents
    assert functions is not None
    assert functions.functions == 2
    slots = read("librdb__cluster_slot_info.rdb").contents
    assert slots is not None
    assert slots.slots == 1


def test_a_version_to_come_is_opaque_when_its_checksum_agrees() -> None:
    data = (DATA / "librdb__single_key.rdb").read_bytes()
    found = inspected(sealed(data[9:-9], b"REDIS0099"))
    assert (found.verdict, found.footer, found.version) == (Verdict.OPAQUE, Footer.OK, 99)
    assert found.contents is not None
    assert not found.contents.is_complete
    assert found.is_intact
