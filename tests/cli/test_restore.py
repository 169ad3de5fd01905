"""``archiver restore`` as a command."""

import asyncio
import hashlib
import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
import redis.asyncio

from archiver.commands.drill import ServerProgram
from examples.sample_rdb import rdb
from tests.archive.sample import (
    CLUSTER,
    INSTANCE,
    STARTS,
    put_cluster,
    put_standard,
    put_sums,
    remove_node,
    set_key,
)
from tests.cli.conftest import Run
from tests.drill.conftest import program
from tests.rdb.dumps import sealed


@pytest.fixture
async def valkey() -> ServerProgram:
    return await program("valkey", 9, 1)


async def test_stdout_is_the_commands(run: Run, tmp_path: Path) -> None:
    made = put_cluster(tmp_path / "archive")
    done = await run("restore", "archive", "--instance", CLUSTER, "--to", "to")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [shlex.split(line)[0] for line in lines] == ["redis-server"] * 3
    assert str(tmp_path / "to" / f"{CLUSTER}-db-0") in lines[0]
    assert "restored 3 nodes" in done.err
    again = await run("restore", "archive", "--instance", CLUSTER, "--to", "to", "--json", "-q")
    objects = [json.loads(line) for line in again.out.splitlines()]
    assert [one["path"] for one in objects] == [
        str(tmp_path / "to" / f"{CLUSTER}-db-{n}" / "dump.rdb") for n in range(3)
    ]
    assert all(one["was_there"] for one in objects)
    assert again.err == ""
    assert len(made) == 3


async def test_no_command_for_what_no_server_loads(run: Run, tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", b"\x93encrypted, perhaps" * 99)
    done = await run("restore", "archive", "--instance", INSTANCE, "--to", "to", "-q")
    assert (done.code, done.out) == (1, "")
    assert "no command: " in done.err
    done = await run("restore", "archive", "--instance", INSTANCE, "--to", "to", "--json")
    restored, last = map(json.loads, done.out.splitlines())
    assert restored["command"] is None
    assert "no command: " in last["why"]


@pytest.mark.parametrize(
    "data",
    [
        rdb(5000),
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n",
        sealed(b"\xfe\x14" + b"\x00\x01a\x01b", b"REDIS0009"),  # in database 20
    ],
    ids=["rdb", "aof", "database"],
)
async def test_a_server_started_as_printed_has_the_keys(
    data: bytes, run: Run, tmp_path: Path, valkey: ServerProgram
) -> None:
    target = put_standard(tmp_path / "archive", data)
    key = set_key(tmp_path / "archive", target)
    done = await run("restore", "archive", "--set", key, "--to", "to there")
    words = shlex.split(done.out)
    words[0], words[words.index("--port") + 1] = str(valkey.path), "0"
    socket = tmp_path / "s"
    server = await asyncio.create_subprocess_exec(
        *words, "--unixsocket", str(socket), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while not socket.exists():
                await asyncio.sleep(0.02)
        client = redis.asyncio.Redis(unix_socket_path=str(socket), socket_timeout=60)
        async with asyncio.timeout(30):
            while (await client.info("persistence"))["loading"]:
                await asyncio.sleep(0.02)
        keyspace = await client.info("keyspace")
        assert [database["keys"] for database in keyspace.values()] == [1]
        await client.aclose()
    finally:
        server.kill()
        await server.wait()


async def test_exit_codes(run: Run, tmp_path: Path) -> None:
    target = put_standard(tmp_path / "archive", rdb(5000))
    for words, code in (
        (["--instance", "r-none", "--to", "a"], 1),
        (["--instance", "../none", "--to", "a"], 2),
        (["--instance", "r-none", "--list"], 1),
        (["--set", "r-none/2026/11/20261124T021500Z-1", "--to", "a"], 1),
        (["--set", "r-none", "--to", "a"], 2),
        (["--instance", INSTANCE], 2),
        (["--instance", INSTANCE, "--to", "a", "--at", "yesterday"], 2),
        (["--instance", INSTANCE, "--to", "a", "--at", "2026-11-23"], 0),
        (["--instance", INSTANCE, "--to", "b", "--at", "2026-11-22"], 1),
    ):
        done = await run("restore", "archive", *words)
        assert done.code == code, done.err
    target.write_bytes(target.read_bytes()[:-1] + b"?")
    done = await run("restore", "archive", "--instance", INSTANCE, "--to", "c")
    assert done.code == 3
    assert "SHA-256" in done.err


async def test_what_is_missing_is_loud(run: Run, tmp_path: Path) -> None:
    sets = [put_cluster(tmp_path / "archive", start) for start in STARTS]
    remove_node(sets[2][1])
    put_sums(sets[2][0].parent)
    done = await run("restore", "archive", "--instance", CLUSTER, "--to", "to", "-q")
    assert done.code == 0
    assert f"skipped: {CLUSTER}/2026/11/{STARTS[2]}-1" in done.err
    assert STARTS[1] in (tmp_path / "to" / f"{CLUSTER}-db-1" / "RESTORE.txt").read_text()
    key = f"{CLUSTER}/2026/11/{STARTS[2]}-1"
    done = await run("restore", "archive", "--set", key, "--to", "b", "--partial")
    assert done.code == 1
    assert f"{CLUSTER}-db-1" in done.err
    sets[1][2].unlink()
    words = ["restore", "archive", "--instance", CLUSTER, "--json", "-q"]
    done = await run(*words, "--to", "c")
    assert (done.code, done.err.count("\n")) == (3, 1)
    assert f"{STARTS[1]}-1 is damaged: " in done.err
    assert "(--skip-damaged restores one 24 h older; -v tells more)" in done.err
    told, last = [json.loads(line) for line in done.out.splitlines()]
    assert (told["event"], told["older_seconds"]) == ("damaged_set", 86400)
    assert (last["event"], last["exit_code"]) == ("summary", 3)
    assert not (tmp_path / "c").exists()
    detail = await run(*words[:-1], "--to", "c", "-v")
    assert f"the next complete set is {CLUSTER}/2026/11/{STARTS[0]}-1\n" in detail.err
    again = shlex.split(detail.err.partition("to restore that one: ")[2].splitlines()[0])
    assert again[0] == "archiver"
    done = await run(*again[1:])
    assert done.code == 3
    assert f"{STARTS[1]}-1 is newer, but damaged: " in done.err
    objects = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["event"], one.get("state")) for one in objects[:3]] == [
        ("skipped", "not complete"), ("skipped", "damaged"), ("restored", None)
    ]  # fmt: skip
    listed = await run(*words, "--list")
    objects = [json.loads(line) for line in listed.out.splitlines()]
    assert [one["state"] for one in objects] == ["not complete", "damaged", "complete"]
    assert objects[0]["missing"] == [f"{CLUSTER}-db-1"]
    listed = await run("restore", "archive", "--instance", CLUSTER, "--list")
    assert [line.split("  ")[3][:8] for line in listed.out.splitlines()] == [
        "not comp", "damaged:", "complete"
    ]  # fmt: skip


async def test_the_command_for_a_named_set(run: Run, tmp_path: Path) -> None:
    sets = [put_cluster(tmp_path / "archive", start) for start in STARTS]
    sets[2][0].unlink()
    key = f"{CLUSTER}/2026/11/{STARTS[2]}-1"
    done = await run("restore", "archive", "--set", key, "--to", "to", "-v")
    again = shlex.split(done.err.partition("to restore that one: ")[2].splitlines()[0])
    assert (done.code, again[4]) == (3, f"{CLUSTER}/2026/11/{STARTS[1]}-1")
    assert (await run(*again[1:])).code == 0
    assert (await run("restore", "archive", "--set", key, "--to", "x", "--skip-damaged")).code == 2


@pytest.mark.parametrize("nodes", [1, 3])
async def test_a_wrong_digest_in_one_short_line(run: Run, tmp_path: Path, nodes: int) -> None:
    """What is wrong, where, and what to do; the digests and keys are in the log and under -v."""
    root = tmp_path / "archive"
    sets = [
        put_cluster(root, start) if nodes == 3 else [put_standard(root, rdb(3000), start)]
        for start in STARTS
    ]
    wrong = sets[-1][-2:]
    for path in wrong:
        data = path.read_bytes()
        path.write_bytes(data[:1500] + bytes([data[1500] ^ 1]) + data[1501:])
    instance = CLUSTER if nodes == 3 else INSTANCE
    which = f"{instance}/2026/11/{STARTS[2]}-{1 if nodes == 3 else 100}"
    for words in (["--instance", instance], ["--set", which]):
        done = await run("restore", "archive", *words, "--to", "to", "--log-file", "log")
        assert done.code == 3
        [line] = done.err.splitlines()
        assert len(line) < 200
        node = "db-1-201.rdb: " if nodes == 3 else ""
        assert line.startswith(f"archiver: {which} is damaged: {node}wrong SHA-256 (--")
        assert line.endswith(" restores one 24 h older; -v tells more)")
        full = hashlib.sha256(wrong[0].read_bytes()).hexdigest()
        assert full in (tmp_path / "log").read_text()
        assert full in (await run("restore", "archive", *words, "--to", "to", "-v")).err


@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n", "\x04"])
async def test_on_a_terminal_it_asks(answer: str, environ: dict[str, str], tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(3000), STARTS[0])
    put_standard(tmp_path / "archive", rdb(3000), STARTS[1]).unlink()
    ours, theirs = os.openpty()
    words = ["restore", "archive", "--instance", INSTANCE, "--to", "to"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", *words, env=environ, cwd=tmp_path,
        stdin=theirs, stderr=theirs, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    said = await asyncio.to_thread(_read_until, ours, b"[y/N] ")
    await asyncio.to_thread(os.write, ours, answer.encode())
    out, _ = await process.communicate()
    os.close(ours)
    assert "2026-11-22 02:15 UTC is damaged (" in said
    assert "Next good: 2026-11-21 02:15 UTC, 24 h older. Use it? [y/N] " in said
    assert process.returncode == 3
    assert (b"redis-server" in out) is answer.startswith("y")
    assert (tmp_path / "to" / INSTANCE / "dump.rdb").exists() is answer.startswith("y")


def _read_until(descriptor: int, end: bytes) -> str:
    said = b""
    while not said.endswith(end):
        said += os.read(descriptor, 4096)
    return said.decode()


async def test_a_question_can_be_interrupted(environ: dict[str, str], tmp_path: Path) -> None:
    put_standard(tmp_path / "archive", rdb(3000), STARTS[0])
    put_standard(tmp_path / "archive", rdb(3000), STARTS[1]).unlink()
    ours, theirs = os.openpty()
    words = ["restore", "archive", "--instance", INSTANCE, "--to", "to"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", *words, env=environ, cwd=tmp_path,
        stdin=theirs, stderr=theirs, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    await asyncio.to_thread(_read_until, ours, b"[y/N] ")
    process.send_signal(signal.SIGINT)
    await asyncio.to_thread(_read_until, ours, b"\n")
    await process.communicate()
    os.close(ours)
    assert process.returncode == 130


async def test_beside_what_only_looks_like_an_archive(run: Run, tmp_path: Path) -> None:
    """A document of another tool above it; and a hidden folder is no part of an archive."""
    put_cluster(tmp_path / "archive")
    (tmp_path / "archive.json").write_text('{"name": "another tool"}')
    for place in ("restored", "archive/.restored"):
        done = await run("restore", "archive", "--instance", CLUSTER, "--to", place)
        assert done.code == 0, done.err


async def test_never_into_an_archive(run: Run, tmp_path: Path) -> None:
    """Nor below one, nor by a link: what is no part of it would be a stray there."""
    put_cluster(tmp_path / "archive")
    put_cluster(tmp_path / "other")
    (tmp_path / "link").symlink_to("archive")
    (tmp_path / "results.xml").symlink_to("archive/results.xml")
    before = sorted(tmp_path.rglob("*"))
    restore = ("restore", "archive", "--instance", CLUSTER, "--to")
    for words in (
        (*restore, "archive"),
        (*restore, "archive/restored"),
        (*restore, "link/restored/there"),
        ("drill", "archive", "--evidence", "other/evidence"),
        ("drill", "archive", "--scratch", "link"),
        ("drill", "archive", "--junit", "results.xml"),
        ("copy", "other", "archive/sub"),
        ("copy", "other", "link/sub/more", "--create"),
        ("pull", "--instance", CLUSTER, "--to", "archive/sub", "--dry-run"),
    ):
        done = await run(*words)
        assert (done.code, " inside an" in done.err) == (2, True), (words, done.err)
    assert sorted(tmp_path.rglob("*")) == before
