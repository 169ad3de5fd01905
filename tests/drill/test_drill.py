"""Whole drills of whole archives, with real servers: what is right passes, and nothing else."""

import csv
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from archiver import Archive, LocalStore
from archiver import rdb as rdb_format
from archiver.archive.folders import list_folders
from archiver.archive.record import Record
from archiver.commands.drill import (
    Assertion,
    Drilled,
    DrillOptions,
    EvidenceNotKept,
    NoServer,
    ServerProgram,
    Wanted,
    drill,
    events,
    parse,
)
from archiver.commands.drill.assertions import AssertionResult, check
from archiver.commands.drill.census import Census, Databases, take_census
from archiver.commands.drill.client import NoReply
from archiver.commands.drill.workdir import MARK
from archiver.commands.restore.files import CopiedFile
from archiver.commands.restore.writer import restore_file
from archiver.concurrency import in_thread
from archiver.errors import (
    ArchiverError,
    NoSpace,
    NoSuchBackup,
    StoreError,
    StoreForbidden,
    UsageError,
)
from archiver.events import Work
from archiver.report.chain import Fault, check_chain, is_evidence_key
from archiver.report.document import decode
from archiver.report.evidence import Mode, Outcome, SetEvidence, Verdict
from archiver.stores.scope import WHOLE
from examples.sample_rdb import rdb
from tests.archive.sample import (
    CLUSTER,
    INSTANCE,
    STARTS,
    ReadsOneByOne,
    change_record,
    put_backup,
    put_cluster,
    put_standard,
    put_sums,
    remove_node,
    set_key,
)
from tests.conftest import DATA
from tests.drill.conftest import FakeMaker, left_in, program, programs
from tests.drill.made import TYPES, make_dump
from tests.sweeps import BUDGET, FULL

AnyEvent = events.DrillEvent | Work

with (DATA / "LIST.tsv").open() as _file:
    ROWS = {row["name"]: row for row in csv.DictReader(_file, delimiter="\t")}

UNLOADABLE = {
    "librdb__misc_with_stream.rdb": "test__rdb",
    "librdb__module.rdb": "test__rdb",
    "librdb__module_aux.rdb": "test__rdb",
    "librdb__module_aux_empty.rdb": "graphdata",
    "librdb__module_aux_v12.rdb": "test__rdb",
    "librdb__redis_ent_opcode_ram_lru.rdb": "intact by its own checksum",
}
# The future has a wrong checksum, too.
DAMAGED = {"librdb__future_v19.rdb", "librdb__invalid_chksum_v8.rdb", "rdb__zipmap_big_len.rdb"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def options(place: Path) -> DrillOptions:
    return DrillOptions(scratch=place)


async def drilled(root: Path, options: DrillOptions, *given: ServerProgram) -> Drilled:
    """A drill, and that it left nothing and its evidence reads back."""
    assert options.scratch is not None
    done = await drill(Archive(LocalStore(root)), given or await programs(), options)
    assert left_in(options.scratch) == []
    assert list(options.scratch.iterdir()) == []
    stored = (root / done.filed.key).read_bytes()
    assert stored == done.filed.data
    assert decode(stored) == done.evidence
    for suffix in ("html", "md", "xml"):
        assert (root / done.filed.key).with_suffix(f".{suffix}").stat().st_size
    return done


def only(done: Drilled) -> SetEvidence:
    [one] = done.evidence.sets
    return one


async def test_every_file_of_the_field(root: Path, options: DrillOptions) -> None:
    await program("redis", 8, 2)
    keys = {}
    for number, name in enumerate(ROWS):
        instance = f"r-field{number:03}"
        target = put_standard(root, (DATA / name).read_bytes(), instance=instance)
        keys[set_key(root, target)] = name
    wanted = Wanted(mode=Mode.NAMED, sets=tuple(keys))
    done = await drilled(root, replace(options, wanted=wanted, allow_empty=True))
    assert len(done.evidence.sets) == len(ROWS)
    for one in done.evidence.sets:
        name, [file] = keys[one.key], one.files
        if name in UNLOADABLE:
            assert one.verdict is Verdict.UNLOADABLE, (name, one.why)
            assert UNLOADABLE[name] in one.why
        elif name in DAMAGED:
            assert one.verdict is Verdict.FAIL, (name, one.why)
        else:
            assert one.verdict is Verdict.PASS, (name, one.why)
            assert file.loaded is not None
            loaded = sum(database.keys for database in file.loaded)
            row = ROWS[name]
            counts = {row[f"keys_{which}"] for which in ("r7.0", "r8.2", "v9.1")} - {""}
            assert str(loaded) in counts, name
            if file.parsed is not None:
                expired = -file.difference.keys if file.difference else 0
                assert loaded == sum(one.keys for one in file.parsed) - expired
    assert not done.evidence.conclusion.passed
    assert done.exit_code == 3


async def made(root: Path, tmp_path: Path, options: DrillOptions, keys: int) -> SetEvidence:
    """A drill of a made instance: all types, two databases, and keys that expired."""
    data = await make_dump(
        await program("valkey", 9, 1), tmp_path / "made", keys, seconds=1 + keys / 2e5
    )
    put_standard(root, data)
    asserted = tuple(
        parse(text)
        for text in ("dbsize >= 1000", "exists key:1", "missing key:100", "type key:4 == hash",
                     "dbsize[3] == 1", "get[3] three == 3")
    )  # fmt: skip
    done = await drilled(root, replace(options, assertions=asserted, rto_seconds=600))
    one = only(done)
    assert done.exit_code == 0, one.why
    [file] = one.files
    assert file.parsed is not None
    assert file.loaded is not None
    assert sum(database.keys for database in file.parsed) == keys + 1
    assert file.difference is not None
    assert file.difference.keys == -(keys // 100) == -(file.keys_expired or 0)
    assert (
        file.difference.explanation == f"keys: {keys // 100:,} had expired by the reference clock"
    )
    assert set(file.loaded[0].types) == set(TYPES)
    assert file.loaded[0].with_expiry == keys // 10 - keys // 100
    assert all(assertion.holds for assertion in one.assertions)
    assert None not in [getattr(one.phases, name) for name in one.phases.__slots__]
    assert one.rto.met
    return one


async def test_a_sample_is_called_one(
    root: Path, tmp_path: Path, options: DrillOptions, valkey: ServerProgram
) -> None:
    put_standard(root, await make_dump(valkey, tmp_path / "made", 20_000, seconds=2))
    done = await drilled(root, replace(options, sample_above=1000), valkey)
    one = only(done)
    [file] = one.files
    assert file.parsed is not None
    assert file.loaded is not None
    assert [database.sampled for database in file.parsed] == [False, False]
    assert [database.sampled for database in file.loaded] == [True, False]
    assert "by a sample" in file.reason
    assert one.why.endswith("by a sample")
    assert b"from a sample: " in (root / done.filed.key).with_suffix(".md").read_bytes()
    assert b"of a sample" in (root / done.filed.key).with_suffix(".html").read_bytes()


@pytest.mark.parametrize("consistent", [True, False])
async def test_a_count_that_does_not_add_up_is_called_so(
    consistent: bool, root: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def take_one(server: Databases, **given: Any) -> Census:
        census = await take_census(server, **given)
        databases = [replace(one, consistent=consistent) for one in census.databases]
        return replace(census, databases=tuple(databases))

    monkeypatch.setattr("archiver.commands.drill.trial.take_census", take_one)
    put_standard(root, rdb(3000))
    one = only(await drilled(root, options))
    assert one.verdict is Verdict.PASS
    assert ("types were not compared" in one.files[0].reason) is not consistent


async def test_fifty_thousand_keys_of_all_types(
    root: Path, tmp_path: Path, options: DrillOptions
) -> None:
    await made(root, tmp_path, options, 50_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not FULL or BUDGET > 0, reason="slow: make faults without a budget")
async def test_a_million_keys_of_all_types(
    root: Path, tmp_path: Path, options: DrillOptions
) -> None:
    one = await made(root, tmp_path, options, 1_000_000)
    print(one.phases)


async def test_a_cluster_is_one_body_of_data(root: Path, options: DrillOptions) -> None:
    put_cluster(root)
    asserted = ("dbsize == 3", "exists key:00000000", "missing nothing", "strlen nothing >= 1")
    done = await drilled(root, replace(options, assertions=tuple(parse(text) for text in asserted)))
    one = only(done)
    assert [assertion.holds for assertion in one.assertions] == [True, True, True, False]
    assert one.verdict is Verdict.FAIL
    assert one.why == "assertion failed: strlen nothing >= 1 (no node has key nothing)"
    assert len(one.files) == 3
    assert done.exit_code == 1


async def test_a_node_without_the_key_has_no_say(
    root: Path, tmp_path: Path, options: DrillOptions, valkey: ServerProgram
) -> None:
    data = await make_dump(valkey, tmp_path / "made", 10)  # key:4 is a hash of two fields
    made = put_cluster(root)
    given = {"instance": CLUSTER, "node": f"{CLUSTER}-db-1", "backup_id": "201"}
    put_backup(root, STARTS[-1], data, **given)
    put_sums(made[0].parent)
    texts = ("hlen key:4 <= 1", "type key:4 != hash", "ttl key:4 < -1", "hlen key:4 == 2",
             "type key:4 == hash", "hlen no <= 3", "type no == none")  # fmt: skip
    asserted = tuple(parse(text) for text in texts)
    one = only(await drilled(root, replace(options, assertions=asserted), valkey))
    holds = [assertion.holds for assertion in one.assertions]
    assert holds == [False, False, False, True, True, False, False]
    assert one.verdict is Verdict.FAIL
    assert "hlen key:4 <= 1 (hlen key:4 is 2), type key:4 != hash (type key:4 is h" in one.why
    assert one.why.endswith("type no == none (no node has key no)")


async def test_what_is_asserted_of_a_set_without_one_of_its_nodes(
    root: Path, options: DrillOptions
) -> None:
    """The node that is not here may have the key."""
    remove_node(put_cluster(root)[1])
    asserted = (parse("missing nothing"), parse("dbsize <= 2"), parse("exists nothing"))
    one = only(await drilled(root, replace(options, assertions=asserted)))
    assert [assertion.holds for assertion in one.assertions] == [None, None, None]
    assert one.verdict is Verdict.FAIL


def _flip(target: Path) -> None:
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)


def _cut(target: Path) -> None:
    target.write_bytes(target.read_bytes()[:-1])


def _pad(target: Path) -> None:
    target.write_bytes(target.read_bytes() + b"\n")


def _record(target: Path) -> None:
    change_record(target, sha256="0" * 64)


def _torn_record(target: Path) -> None:
    target.with_suffix(".json").write_text("{")


def _no_object(target: Path) -> None:
    target.unlink()


def _swap(target: Path) -> None:
    other = target.with_name(target.name.replace("-0-200", "-1-201"))
    one, two = target.read_bytes(), other.read_bytes()
    target.write_bytes(two)
    other.write_bytes(one)


def _tampered(target: Path) -> None:
    """Another dump, with a record and a SHA256SUMS that agree; but the API said otherwise."""
    record = put_backup(
        target.parents[4], STARTS[-1], rdb(9000), instance=CLUSTER, node=f"{CLUSTER}-db-0",
        backup_id="200",
    ).with_suffix(".json")  # fmt: skip
    document = json.loads(record.read_text())
    document["received"]["BackupSize"] -= 1
    record.write_text(json.dumps(document))
    put_sums(target.parent)


@pytest.mark.parametrize(
    "damage", [_flip, _cut, _pad, _record, _torn_record, _no_object, _swap, _tampered]
)
async def test_damage_is_found(
    damage: Callable[[Path], None], root: Path, options: DrillOptions
) -> None:
    damage(put_cluster(root)[0])
    done = await drilled(root, options)
    one = only(done)
    assert one.verdict is Verdict.FAIL
    assert done.exit_code == 3
    assert one.rto.seconds is None or one.why
    assert not done.evidence.conclusion.passed


async def test_scratch_holds_one_file_at_a_time(
    root: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = put_cluster(root)
    _flip(made[0])
    found: list[list[Path]] = []

    async def restore(
        archive: Archive,
        record: Record,
        scratch: Path,
        **given: Any,
    ) -> CopiedFile:
        there = await in_thread(lambda: list(scratch.iterdir()))
        found.append([path for path in there if path.name != MARK])
        return await restore_file(archive, record, scratch, **given)

    monkeypatch.setattr("archiver.commands.drill.files.restore_file", restore)
    await drilled(root, options)
    assert found == [[], [], []]


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1] + b"?", lambda data: data + b"\n", lambda data: data[:-3]]
)
async def test_damage_that_the_record_agrees_with(
    change: Callable[[bytes], bytes], root: Path, options: DrillOptions
) -> None:
    """The dump was wrong when it came, or somebody changed file and record alike."""
    put_standard(root, change(rdb(5000)))
    done = await drilled(root, options)
    assert only(done).verdict is Verdict.FAIL
    assert done.exit_code == 3


async def test_junk_behind_an_old_dump(root: Path, options: DrillOptions) -> None:
    """Version 2 has no checksum, and servers do not look behind the end: our parser does."""
    put_standard(root, (DATA / "librdb__hash_zm_v2.rdb").read_bytes() + b"junk")
    done = await drilled(root, options)
    assert only(done).why.startswith("padded")
    assert done.exit_code == 3


async def test_keys_that_the_server_lacks(
    root: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser that counts a key more stands for a server that loads one less."""

    def inspect_one_more(stream: rdb_format.Readable, *, is_log: bool) -> rdb_format.Inspection:
        found = rdb_format.inspect(stream, is_log=is_log)
        assert found.contents is not None
        [database] = found.contents.databases
        more = replace(database, keys={"string": database.total + 1})
        return replace(found, contents=replace(found.contents, databases=(more,)))

    put_standard(root, rdb(3000))
    monkeypatch.setattr("archiver.commands.restore.inspection.inspect", inspect_one_more)
    done = await drilled(root, options)
    assert only(done).verdict is Verdict.FAIL
    assert "-1 keys: 1 unexplained" in only(done).why
    assert done.exit_code == 1
    done = await drilled(root, replace(options, tolerance=0.5))
    assert only(done).verdict is Verdict.PASS


@pytest.mark.parametrize("came", [True, False])
async def test_a_missing_node(came: bool, root: Path, options: DrillOptions) -> None:
    """What SHA256SUMS names was here, and is lost; a node that never came is missing. The other
    nodes are tried all the same."""
    put_cluster(root, STARTS[0])
    made = put_cluster(root)
    remove_node(made[1])
    if not came:
        put_sums(made[1].parent)
    done = await drilled(root, options)
    one = only(done)
    assert one.verdict is (Verdict.FAIL if came else Verdict.PARTIAL)
    assert f"{CLUSTER}-db-1" in one.why
    assert one.nodes.missing == (f"{CLUSTER}-db-1",)
    assert [file.outcome for file in one.files] == [Outcome.PASS, Outcome.PASS]
    assert one.rpo.newest_age_seconds is not None
    assert done.exit_code == (3 if came else 1)


async def test_a_set_that_nothing_is_left_of(root: Path, options: DrillOptions) -> None:
    put_standard(root, rdb(3000), STARTS[0])
    remove_node(put_standard(root, rdb(3000), STARTS[1]))
    done = await drilled(root, options)
    assert (only(done).verdict, done.exit_code) == (Verdict.FAIL, 3)
    assert "SHA256SUMS names it, but it has no record" in only(done).why
    assert only(done).nodes.missing == (INSTANCE,)


async def test_what_is_not_a_dump_fails_in_plain_words(root: Path, options: DrillOptions) -> None:
    put_standard(root, b"\x93encrypted, perhaps" * 99)
    done = await drilled(root, options)
    assert only(done).verdict is Verdict.FAIL
    assert only(done).why.startswith("foreign: neither RDB nor AOF at byte 0")
    assert done.exit_code == 1


async def test_a_server_that_refuses_and_exits_with_0(
    root: Path, options: DrillOptions, fake: FakeMaker
) -> None:
    put_standard(root, rdb(3000))
    done = await drilled(root, options, fake("sys.exit(0)\n"))
    assert only(done).verdict is Verdict.FAIL
    assert only(done).rto.seconds is None
    assert done.exit_code == 1


async def test_a_server_that_falls_silent_in_an_assertion(
    root: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check_one(assertion: Assertion, server: Databases) -> AssertionResult:
        if assertion.verb == "exists":
            raise NoReply("no answer in time")
        return await check(assertion, server)

    monkeypatch.setattr("archiver.commands.drill.trial.check", check_one)
    put_standard(root, rdb(3000))
    asserted = (parse("dbsize >= 1"), parse("exists a"), parse("missing b"))
    done = await drilled(root, replace(options, assertions=asserted))
    assert [one.holds for one in only(done).assertions] == [True, None, None]
    assert only(done).verdict is Verdict.FAIL
    assert "no answer in time" in only(done).why
    assert done.exit_code == 1


async def test_a_file_that_one_server_refuses_and_another_loads(
    root: Path, options: DrillOptions, valkey: ServerProgram
) -> None:
    put_standard(root, (DATA / "rdb__stream_listpacks_1.rdb").read_bytes())
    done = await drilled(root, options, valkey)
    assert only(done).verdict is Verdict.UNLOADABLE
    assert "intact by its own checksum" in only(done).why
    done = await drilled(root, options, valkey, await program("redis", 8, 2))
    assert only(done).verdict is Verdict.PASS


async def test_the_chain_and_the_drill_before(root: Path, options: DrillOptions) -> None:
    put_standard(root, rdb(3_200_000), STARTS[0])
    first = await drilled(root, options)
    put_standard(root, rdb(2_100_000), STARTS[1])
    second = await drilled(root, options)
    third = await drilled(root, replace(options, max_change=0.1))
    for one, other in ((first, second), (second, third)):
        assert other.evidence.previous is not None
        assert other.evidence.previous.id == one.evidence.id
    keys = sorted(path for path in (root / "drills").rglob("*.json"))
    documents = [(path.relative_to(root).as_posix(), path.read_bytes()) for path in keys]
    assert check_chain(documents) == []
    assert all(is_evidence_key(key) for key, _ in documents)
    compared = only(second).comparison
    assert compared is not None
    assert (compared.keys_then, compared.keys_now, compared.within_tolerance) == (4, 3, True)
    assert only(third).verdict is Verdict.PASS  # compared with the second, of as many keys
    put_standard(root, rdb(1000), STARTS[2])
    fourth = await drilled(root, replace(options, max_change=0.1))
    assert only(fourth).verdict is Verdict.FAIL
    assert only(fourth).why == "1 keys, but 3 in the previous drill"


@pytest.mark.parametrize("change", [b" ", b"", b"{"])
async def test_tampered_evidence_is_found(change: bytes, root: Path, options: DrillOptions) -> None:
    put_standard(root, rdb(3000))
    first = await drilled(root, options)
    await drilled(root, options)
    path = root / first.filed.key
    path.write_bytes(path.read_bytes() + change if change == b" " else change)
    seen: list[AnyEvent] = []
    failing = replace(options, assertions=(parse("dbsize >= 9"),))
    assert (await drilled(root, failing)).exit_code == 3
    done = await drill(Archive(LocalStore(root)), await programs(), options, observer=seen.append)
    assert done.evidence.conclusion.passed
    assert done.exit_code == 3
    faults = {finding.fault for finding in done.faults}
    assert faults & {Fault.ALTERED, Fault.UNREADABLE}
    assert [one.finding for one in seen if isinstance(one, events.ChainFault)] == list(done.faults)


async def test_a_tampered_last_document_is_linked_to_as_it_is(
    root: Path, options: DrillOptions
) -> None:
    put_standard(root, rdb(3000))
    first = await drilled(root, options)
    (root / first.filed.key).write_bytes(b"{}")
    second = await drilled(root, options)
    assert second.exit_code == 3
    assert second.evidence.previous is not None
    assert second.evidence.previous.id == first.evidence.id


async def test_an_old_chain_is_checked_in_part(
    root: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.commands.drill.history._LOOK_BACK", 2)
    put_standard(root, rdb(3000))
    done = [await drilled(root, options) for _ in range(4)]
    assert [one.exit_code for one in done] == [0, 0, 0, 0]
    (root / done[2].filed.key).unlink()
    assert (await drilled(root, options)).exit_code == 3


async def test_two_drills_at_once_do_not_fork_the_chain(root: Path, options: DrillOptions) -> None:
    put_standard(root, rdb(3000))
    servers = await programs()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(drill, Archive(LocalStore(root)), servers, options)
    keys = sorted((root / "drills").rglob("*.json"))
    documents = [(path.relative_to(root).as_posix(), path.read_bytes()) for path in keys]
    assert len(documents) == 3
    assert check_chain(documents) == []


class ReadOnly(LocalStore):
    error: ArchiverError = StoreError("Read-only file system")

    @asynccontextmanager
    async def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AsyncGenerator[None, None]:
        if str(self.root):
            raise self.error
        yield

    async def put(self, key: str, data: bytes) -> str:
        raise AssertionError(key)


@pytest.mark.parametrize("error", [ReadOnly.error, StoreForbidden("Read-only key")])
async def test_a_read_only_archive_keeps_its_evidence_elsewhere(
    error: ArchiverError, root: Path, tmp_path: Path, options: DrillOptions
) -> None:
    put_standard(root, rdb(3000))
    store = ReadOnly(root)
    store.error = error
    archive, servers = Archive(store), await programs()
    with pytest.raises(EvidenceNotKept, match=r"Read-only.*--evidence") as raised:
        await drill(archive, servers, options)
    assert decode(raised.value.data) == raised.value.evidence
    assert raised.value.evidence.conclusion.passed
    seen: list[AnyEvent] = []
    directory = tmp_path / "evidence"
    for number in range(2):
        done = await drill(
            archive, servers, options, evidence_directory=directory, observer=seen.append
        )
        assert (directory / done.filed.key).read_bytes() == done.filed.data
        assert (done.evidence.previous is None) is (number == 0)
    assert seen[0] == events.ArchiveNotWritable(str(error), directory)
    assert not (root / "drills").exists()


class Full(LocalStore):
    async def put(self, key: str, data: bytes) -> str:
        if key.startswith("drills/"):
            raise NoSpace("Disk quota exceeded")
        return await super().put(key, data)


@pytest.mark.parametrize("store", [LocalStore, Full])
async def test_evidence_that_the_archive_does_not_take_is_not_lost(
    store: type[LocalStore],
    root: Path,
    tmp_path: Path,
    options: DrillOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = replace(options, lock_wait=0.1)
    put_standard(root, rdb(3000))
    archive, servers, directory = Archive(store(root)), await programs(), tmp_path / "evidence"
    seen: list[AnyEvent] = []
    async with AsyncExitStack() as stack:
        if store is LocalStore:
            await stack.enter_async_context(
                Archive(LocalStore(root)).writing(WHOLE)
            )  # another drill
        done = await drill(
            archive, servers, options, evidence_directory=directory, observer=seen.append
        )
        with pytest.raises(EvidenceNotKept, match="could not be stored") as raised:
            await drill(archive, servers, options)
    assert (directory / done.filed.key).read_bytes() == done.filed.data
    assert done.filed.stores == (str(directory),)
    assert isinstance(seen[-1], events.EvidenceIncomplete)
    assert not (directory / "drills").exists()  # no chain would stay whole with it
    assert decode(raised.value.data).conclusion.passed
    assert raised.value.exit_code == (7 if store is LocalStore else 6)
    assert list((root / "drills").rglob("*.json")) == []


async def test_writing_takes_the_time_it_takes(
    root: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(LocalStore):
        async def put(self, key: str, data: bytes) -> str:
            await anyio.sleep(0.1)
            return await super().put(key, data)

    options = replace(options, lock_wait=0.05)
    put_standard(root, rdb(3000))
    done = await drill(Archive(Slow(root)), await programs(), options)
    assert done.filed.problem is None
    assert (root / done.filed.key).with_suffix(".xml").exists()


async def test_a_directory_that_is_full_does_not_lose_what_the_archive_has(
    root: Path, tmp_path: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.commands.drill.ledger.LocalStore", Full)
    put_standard(root, rdb(3000))
    done = await drill(
        Archive(LocalStore(root)), await programs(), options, evidence_directory=tmp_path / "full"
    )
    assert done.filed.stores == (str(root),)
    assert done.filed.problem == "Disk quota exceeded"
    assert done.evidence.conclusion.passed
    assert done.exit_code == 6  # it was asked for


class FullSoon(LocalStore):
    """What is made from the evidence has no room, nor has the lock when it is given back."""

    has_evidence = False

    async def put(self, key: str, data: bytes) -> str:
        if key.startswith("drills/"):
            if self.has_evidence:
                raise NoSpace("Disk quota exceeded")
            self.has_evidence = True
        return await super().put(key, data)

    @asynccontextmanager
    async def exclusive(
        self, scope: str, *, watch: bool = True, briefly: bool = False
    ) -> AsyncGenerator[None, None]:
        async with super().exclusive(scope, watch=watch, briefly=briefly):
            yield
        if self.has_evidence:
            raise StoreError("Input/output error")


async def test_evidence_that_is_in_the_archive_is_there_once(
    root: Path, tmp_path: Path, options: DrillOptions
) -> None:
    put_standard(root, rdb(3000))
    directory = tmp_path / "evidence"
    done = await drill(
        Archive(FullSoon(root)), await programs(), options, evidence_directory=directory
    )
    assert done.filed.stores == (str(root), str(directory))
    assert done.filed.problem == "Disk quota exceeded"
    assert len(list(root.glob("drills/*/*/*.json"))) == 1
    assert (directory / done.filed.key).with_suffix(".html").exists()


@pytest.mark.parametrize("beside", [False, True])
async def test_evidence_that_cannot_be_seen_stops_no_drill(
    beside: bool,
    root: Path,
    tmp_path: Path,
    options: DrillOptions,
) -> None:
    """What is hidden may be the end of the chain: nothing is linked into it."""
    put_standard(root, rdb(3000))
    (root / "drills").symlink_to(tmp_path)
    directory = tmp_path / "evidence" if beside else None
    seen: list[AnyEvent] = []

    async def run() -> Drilled:
        return await drill(
            Archive(LocalStore(root)), await programs(), options,
            evidence_directory=directory, observer=seen.append,
        )  # fmt: skip

    if directory is None:
        with pytest.raises(EvidenceNotKept, match="symbolic link") as raised:
            await run()
        assert raised.value.evidence.conclusion.passed
    else:
        done = await run()
        assert done.evidence.conclusion.passed
        assert done.exit_code == 3
        assert (directory / done.filed.key).read_bytes() == done.filed.data
    assert any(isinstance(one, events.ChainUnreadable) for one in seen)


class Unmounted(ReadsOneByOne):
    is_gone = False

    async def read(self, key: str) -> bytes | None:
        return None if self.is_gone else await super().read(key)

    async def put(self, key: str, data: bytes) -> str:
        raise AssertionError(key)


async def test_an_archive_that_is_gone_meanwhile_is_not_begun_anew(
    root: Path, options: DrillOptions
) -> None:
    put_standard(root, rdb(3000))
    store = Unmounted(root)

    def unmount(event: AnyEvent) -> None:
        store.is_gone = store.is_gone or isinstance(event, events.SetJudged)

    with pytest.raises(EvidenceNotKept, match="no archive here, and one is required"):
        await drill(Archive(store), await programs(), options, observer=unmount)


async def test_evidence_in_both_places(root: Path, tmp_path: Path, options: DrillOptions) -> None:
    put_standard(root, rdb(3000))
    directory = tmp_path / "evidence"
    done = await drill(
        Archive(LocalStore(root)), await programs(), options, evidence_directory=directory
    )
    assert (directory / done.filed.key).read_bytes() == (root / done.filed.key).read_bytes()
    assert done.filed.stores == (str(root), str(directory))


async def test_no_space_is_untried_and_no_pass(
    root: Path, options: DrillOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(directory: Path, wanted: int) -> None:
        raise NoSpace(f"{directory}: {wanted}")

    monkeypatch.setattr("archiver.commands.drill.files.check_space", full)
    put_standard(root, rdb(3000))
    done = await drilled(root, options)
    assert only(done).verdict is Verdict.PARTIAL
    assert only(done).files[0].outcome is Outcome.UNTRIED
    assert done.exit_code == 6


async def test_an_old_gap_does_not_miss_the_target_for_ever(
    root: Path, options: DrillOptions
) -> None:
    now = datetime.now(UTC)
    for days in (400, 40, 0.9, 0.1):
        put_standard(root, rdb(3000), f"{now - timedelta(days=days):%Y%m%dT%H%M%SZ}")
    asked = replace(options, rpo_seconds=26 * 3600.0)
    done = await drilled(root, asked)
    assert only(done).rpo.met is False  # the gap of 39 days has just ended
    assert done.evidence.targets.rpo_window_seconds == 30 * 86_400
    done = await drilled(root, replace(asked, rpo_window_seconds=12 * 3600.0))
    assert only(done).rpo.met is True
    gap = only(done).rpo.largest_gap
    assert gap is not None
    assert gap.seconds == pytest.approx(0.8 * 86_400, abs=2)


async def test_targets(root: Path, options: DrillOptions) -> None:
    for start in STARTS:
        put_standard(root, rdb(3000), start)
    now = datetime.now(UTC)
    done = await drilled(
        root, replace(options, rto_seconds=0.0, rpo_seconds=1.0, rpo_window_seconds=1e12)
    )
    one = only(done)
    assert one.verdict is Verdict.PASS
    assert (one.rto.met, one.rpo.met) == (False, False)
    assert one.rpo.largest_gap is not None
    assert one.rpo.largest_gap.seconds == 86400
    assert one.rpo.newest_age_seconds == pytest.approx(
        max(0, (now - datetime.fromisoformat(STARTS[-1])).total_seconds()), abs=30
    )
    assert done.exit_code == 1


async def test_a_log_and_a_dump_of_one_node(root: Path, options: DrillOptions) -> None:
    log = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
    node = {"instance": CLUSTER, "node": f"{CLUSTER}-db-0"}
    put_backup(root, STARTS[0], log, backup_id="300", **node)
    target = put_backup(root, STARTS[0], rdb(3000), backup_id="200", **node)
    put_sums(target.parent)
    asserted = (parse("dbsize == 1"), parse("exists key:00000000"))
    one = only(await drilled(root, replace(options, assertions=asserted)))
    assert one.verdict is Verdict.PASS, one.why
    assert [str(file.kind) for file in one.files] == ["rdb", "aof"]
    # The same, but the log uses what no server knows.
    put_backup(root, STARTS[1], rdb(3000), backup_id="400", **node)
    target = put_backup(root, STARTS[1], b"*1\r\n$6\r\nEXHSET\r\n", backup_id="500", **node)
    put_sums(target.parent)
    one = only(await drilled(root, options))
    assert one.verdict is Verdict.UNLOADABLE
    assert "EXHSET" in one.why


async def test_what_cannot_be_drilled(root: Path, options: DrillOptions) -> None:
    archive = Archive(LocalStore(root))
    with pytest.raises(UsageError, match="no archive"):
        await drill(archive, await programs(), options)
    put_standard(root, rdb(3000))
    with pytest.raises(NoServer):
        await drill(archive, [], options)
    for wanted in (
        Wanted(instances=("r-none",)),
        Wanted(mode=Mode.NAMED, sets=("r-none/2026/11/20261124T021500Z-1",)),
        Wanted(mode=Mode.AT, at=datetime(2020, 1, 1, tzinfo=UTC)),
    ):
        with pytest.raises(NoSuchBackup, match="no backup set"):
            await drill(archive, await programs(), replace(options, wanted=wanted))
    with pytest.raises(StoreError):
        await drill(archive, await programs(), replace(options, scratch=root / "none"))
    assert len(await list_folders(archive)) == 1
    assert not (root / "drills").exists()


async def test_cancelled_it_leaves_nothing(root: Path, options: DrillOptions) -> None:
    put_cluster(root)
    assert options.scratch is not None
    servers = await programs()
    for number in range(4):
        with anyio.CancelScope() as scope:

            def cancel(event: AnyEvent, scope: anyio.CancelScope = scope) -> None:
                if isinstance(event, events.Trying):
                    scope.cancel()

            def later(seconds: float = number * 0.01) -> events.Observer:
                def watch(event: AnyEvent) -> None:
                    if isinstance(event, events.Trying):
                        scope.deadline = anyio.current_time() + seconds

                return watch

            observer = later() if number else cancel
            await drill(Archive(LocalStore(root)), servers, options, observer=observer)
        assert scope.cancelled_caught
        assert list(options.scratch.iterdir()) == []
    assert not (root / "drills").exists()


async def test_who_can_be_withheld(root: Path, options: DrillOptions) -> None:
    put_standard(root, rdb(3000))
    done = await drilled(root, replace(options, withhold_identity=True))
    assert json.loads(done.filed.data)["who"] == {"user": None, "host": None}
