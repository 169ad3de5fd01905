"""The multi-part AOF of Redis 7 becomes one log, which a real server loads."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from anyio import run_process

from archiver import Archive
from archiver.commands.drill import DrillOptions, Wanted, drill
from archiver.errors import FileChanged
from archiver.report.evidence import Mode
from archiver.sources.files.multipart import JoinedFiles, names_in
from tests.adopt.made import LOG, Disturbed, dump, put
from tests.adopt.test_adopt import bring, records
from tests.drill.conftest import programs

BASE, FIRST, SECOND = (
    "appendonly.aof.2.base.rdb",
    "appendonly.aof.2.incr.aof",
    "appendonly.aof.3.incr.aof",
)
MANIFEST = (
    f"file {BASE} seq 2 type b\n"
    "file appendonly.aof.1.incr.aof seq 1 type h\n"
    f"file {FIRST} seq 2 type i\nfile {SECOND} seq 3 type i\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "place/appendonlydir"


def made(folder: Path) -> bytes:
    """Write a log of three files; all of it."""
    base = (b"*3\r\n$3\r\nSET\r\n$4\r\nbase\r\n$1\r\n1\r\n") * 2000
    parts = [put(folder / BASE, base), put(folder / FIRST, LOG), put(folder / SECOND, LOG * 2)]
    put(folder / "appendonly.aof.manifest", MANIFEST.encode())
    return b"".join(parts)


async def test_its_files_become_one(folder: Path, archive: Archive, tmp_path: Path) -> None:
    whole = made(folder)
    put(folder / "appendonly.aof.1.incr.aof", LOG)
    put(folder / "temp-appendonly.aof.manifest", b"file")
    done = await bring(folder.parent, archive)
    assert str(done) == "1 new, 0 held, 0 failed"
    assert done.left == {
        "appendonlydir/appendonly.aof.1.incr.aof": "its manifest does not count it as a part of "
        "the log",
        "appendonlydir/temp-appendonly.aof.manifest": "by its name it is still being written",
    }
    [record] = records(tmp_path).values()
    assert (tmp_path / "archive" / record.object_key).read_bytes() == whole
    assert record.received["name"] == "appendonlydir/appendonly.aof.manifest"
    assert str(await bring(folder.parent, archive)) == "0 new, 1 held, 0 failed"
    # Another one of its files is another log.
    put(folder / SECOND, LOG * 3, age=timedelta(minutes=30))
    assert str(await bring(folder.parent, archive)) == "1 new, 0 held, 0 failed"


async def test_the_log_of_a_real_server(folder: Path, archive: Archive, tmp_path: Path) -> None:
    """A base with a preamble, two rewrites, and commands since; a drill loads it."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    folder.parent.mkdir()
    server = await run_process(["sh", "-c", _SERVER, "sh", str(folder.parent)], check=False)
    assert server.returncode == 0, server.stderr
    assert {path.name for path in folder.iterdir()} == {
        "appendonly.aof.manifest", BASE, FIRST,
    }  # fmt: skip
    for path in folder.iterdir():
        put(path, path.read_bytes())
    assert (folder / BASE).read_bytes().startswith(b"REDIS")
    done = await bring(folder.parent, archive)
    assert str(done) == "1 new, 0 held, 0 failed", done.failed
    [record] = records(tmp_path).values()
    (tmp_path / "scratch").mkdir()
    options = DrillOptions(Wanted(Mode.NAMED, sets=(record.set_key,)), scratch=tmp_path / "scratch")
    [one] = (await drill(archive, await programs(), options)).evidence.sets
    assert one.verdict == "pass", one.why
    assert [[database.keys for database in file.loaded or ()] for file in one.files] == [[2]]


_SERVER = """
set -e
cd "$1"
redis-server --port 0 --unixsocket "$1/s.sock" --appendonly yes --dir "$1" --save "" > log.txt &
for i in $(seq 100); do redis-cli -s s.sock ping > /dev/null 2>&1 && break; sleep 0.1; done
redis-cli -s s.sock set before 1
redis-cli -s s.sock bgrewriteaof
for i in $(seq 100); do
    redis-cli -s s.sock info persistence | grep -q "aof_rewrite_in_progress:0" && break; sleep 0.1
done
redis-cli -s s.sock set after 2
redis-cli -s s.sock shutdown
wait
"""


async def test_it_was_written_to_just_now(folder: Path, archive: Archive) -> None:
    made(folder)
    put(folder / SECOND, LOG, age=timedelta(seconds=5))
    done = await bring(folder.parent, archive)
    assert (str(done), done.summary.unfinished) == ("0 new, 0 held, 0 failed", 1)


@pytest.mark.parametrize("wrong", ["missing", "form", "order"])
async def test_a_log_that_is_not_all_there(wrong: str, folder: Path, archive: Archive) -> None:
    made(folder)
    put(folder.parent / "good.rdb", dump(3000))
    manifest = folder / "appendonly.aof.manifest"
    if wrong == "missing":
        (folder / FIRST).unlink()
    elif wrong == "form":
        put(manifest, MANIFEST.encode() + b"file ../x.aof seq 4 type i\n")
    else:
        put(manifest, MANIFEST.replace("seq 3", "seq 1").encode())
    done = await bring(folder.parent, archive)
    assert str(done) == "1 new, 0 held, 1 failed"
    why = f"it names {FIRST}, which is not there" if wrong == "missing" else "this is no manifest"
    assert f"appendonlydir/appendonly.aof.manifest: {why}" in done.failed[0]
    assert done.summary.exit_code == 1


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(LOG)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("act", [_grow, _cut])
@pytest.mark.parametrize("name", [BASE, SECOND, "appendonly.aof.manifest"])
async def test_a_log_that_changes_while_it_is_read(
    name: str, act: Callable[[Path], None], folder: Path, archive: Archive
) -> None:
    made(folder)
    opened = 0

    class Later(Disturbed):
        """After its listing, which opens the manifest by itself, and all of them once."""

        def disturb(self, key: str, offset: int | None) -> None:
            nonlocal opened
            opened += offset is None and key.endswith(BASE)
            if opened == 1 and offset is None:
                super().disturb(f"appendonlydir/{name}" if key.endswith(BASE) else key, None)

    done = await bring(Later(folder.parent, f"appendonlydir/{name}", act, None), archive)
    [failure] = done.summary.failures
    assert isinstance(failure.error, FileChanged)
    assert done.summary.archived == 0


def test_what_a_manifest_names() -> None:
    assert names_in(MANIFEST.encode()) == [BASE, FIRST, SECOND]
    assert names_in(b"# a comment\nfile a seq 1 type i\n") == ["a"]
    for wrong in (
        b"", b"file a seq 1 type h\n", b"file a seq 1 type x\n", b'file "a b" seq 1 type i\n',
        b"file a seq 1 type b\nfile b seq 2 type b\n", b"file a seq 1 type i startoffset 9\n",
        b"file a seq 1 type i\nfile a seq 2 type i\n",
    ):  # fmt: skip
        assert names_in(wrong) is None


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, offset: int, block: memoryview) -> int:
        some = self._data[offset : offset + len(block)]
        block[: len(some)] = some
        return len(some)


def test_reads_across_files() -> None:
    joined = JoinedFiles([_Bytes(b"abc"), _Bytes(b""), _Bytes(b"defg"), _Bytes(b"h")])
    assert joined.size == 8
    for offset in range(10):
        for size in range(10):
            block = bytearray(size)
            count = joined.read(offset, memoryview(block))
            assert bytes(block[:count]) == b"abcdefgh"[offset : offset + size]
