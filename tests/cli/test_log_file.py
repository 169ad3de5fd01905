"""``--log-file`` and ``-vv``: what a run leaves to read, whatever becomes of it."""

import asyncio
import json
import logging
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from archiver.cli import streams
from archiver.cli.jsonlines import LastLine
from archiver.cli.runlog import JSON, TEXT, LogFile
from archiver.emulator import Emulator, Faults
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import put_standard
from tests.cli.conftest import Run
from tests.cli.test_pull import PULL, until_bytes_move
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET

LOG = ("--log-file", "run.log")
JSON_LOG = (*LOG, "--log-format", "json")
SECRETS = (KEY_SECRET, "Signature", "OSSAccessKeyId", "Expires=", "security-token")
LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<level>DEBUG|INFO|WARNING|ERROR) +"
    r"(?P<run>\d{8}T\d{6}Z-[0-9a-f]{6}) (?P<command>[a-z]+) (?P<instance>\S+) (?P<message>.*)"
)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a log in JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def one_fails(files: Path) -> None:
    """Two backups, and one that failed at the vendor."""
    for name in "abc":
        write_rdb(files / INSTANCE / f"{name}_20261124021500.rdb", 300_000, ord(name))
    told = {"b_20261124021500.rdb": {"BackupStatus": "Failed"}}
    (files / INSTANCE / "backups.json").write_text(json.dumps(told))


@pytest.mark.usefixtures("one_fails")
async def test_json_of_a_pull_with_a_retry_and_a_failure(
    emulator: Emulator, run: Run, tmp_path: Path
) -> None:
    # By this seed, the first call after that of DescribeInstances is throttled.
    emulator.faults = Faults(throttle=0.5, seed=2)
    result = await run(*PULL, "-vv", *JSON_LOG)
    assert result.code == 1, result.err
    log = lines_of(tmp_path / "run.log")
    assert all(
        list(line)[:5] == ["time", "level", "run", "command", "event"] and line["message"]
        for line in log
    )
    assert {(line["run"], line["command"]) for line in log} == {(log[0]["run"], "pull")}
    by_event = {line["event"]: line for line in log}
    assert [log[0]["event"], log[-1]["event"]] == ["began", "ended"]
    retry, failed, archived = (by_event[name] for name in ("retrying", "failed", "archived"))
    assert (retry["level"], retry["instance"]) == ("WARNING", INSTANCE)
    assert retry["error"]["type"] == "Throttled"
    assert (failed["level"], failed["instance"]) == ("ERROR", INSTANCE)
    assert failed["message"] in result.err.splitlines()  # the same words
    assert (archived["level"], archived["instance"]) == ("INFO", INSTANCE)
    assert len(archived["sha256"]) == 64
    statuses = [line["status"] for line in log if line["event"] == "request"]
    assert {200, 400} <= {*statuses[:4]}
    ended = log[-1]
    assert (ended["exit_code"], ended["level"], ended["archived"]) == (1, "ERROR", 2)
    assert ended["summary"]
    assert set(ended["summary"]) <= set(result.err.splitlines())
    assert ended["why"] in ended["message"]


@pytest.mark.usefixtures("one_fails")
async def test_vv_shows_requests(run: Run, tmp_path: Path) -> None:
    """On stderr and in the log: of the API with its action, and of each download."""
    result = await run(*PULL, "-vv", *JSON_LOG)
    sent = [line for line in lines_of(tmp_path / "run.log") if line["event"] == "request"]
    assert [line["level"] for line in sent] == ["DEBUG"] * len(sent)
    [api] = [one for one in sent if one["action"] == "DescribeBackups"]
    assert (api["method"], api["path"], api["status"]) == ("POST", "/", 200)
    assert api["bytes"] > 1000
    got = [one for one in sent if one["method"] == "GET"]
    assert sum(one["bytes"] for one in got) == 600_000
    assert {one["status"] for one in got} <= {200, 206}
    assert all(one["path"].endswith(".rdb") for one in got)
    assert all(one["seconds"] > 0 and one["error"] is None for one in sent)
    told = [line for line in result.err.splitlines() if line.startswith("request: ")]
    assert sorted(told) == sorted(one["message"] for one in sent)


@pytest.mark.usefixtures("one_fails")
async def test_no_secret_is_in_a_log(run: Run, tmp_path: Path) -> None:
    for log, place in ((LOG, "one"), (JSON_LOG, "two")):
        result = await run(*PULL, "--to", place, "-vv", *log)
        for text in (result.err, (tmp_path / "run.log").read_text()):
            assert ".rdb" in text
            assert [secret for secret in SECRETS if secret in text] == []
            assert KEY_ID not in text
            assert "rdb?" not in text


@pytest.mark.usefixtures("one_fails")
async def test_text_without_vv(run: Run, tmp_path: Path) -> None:
    """INFO and above, however quiet stderr is; of requests nothing."""
    result = await run(*PULL, "--quiet", *LOG)
    matches = [LINE.fullmatch(line) for line in (tmp_path / "run.log").read_text().splitlines()]
    lines = [match.groupdict() for match in matches if match is not None]
    assert len(lines) == len(matches)
    assert {line["level"] for line in lines} == {"INFO", "ERROR"}
    assert {line["instance"] for line in lines} == {"-", INSTANCE}
    assert sum(line["message"].startswith("archived: ") for line in lines) == 2
    assert len(result.err.splitlines()) == 2  # what failed, and that its set is not complete
    assert lines[-1]["message"].startswith("ended with exit code 1 after ")
    assert "; archived 2 backups, 585.9 KiB in " in lines[-1]["message"]
    assert "archived 2" not in result.err


async def test_a_run_that_failed_before_it_began(run: Run, tmp_path: Path) -> None:
    """Options, credentials, a place that somebody else writes to: each ends with its line."""
    path = tmp_path / "run.log"
    assert (await run(*PULL, *JSON_LOG, "--workers", "0")).code == 2
    assert (await run("pull", "--log-file=run.log", "--log-format=json", "--nonsense")).code == 2
    nobody = dict.fromkeys(("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"))
    assert (await run(*PULL, *JSON_LOG, **nobody)).code == 4
    named = {"ARCHIVER_LS_LOG_FILE": "run.log", "ARCHIVER_LS_LOG_FORMAT": "json"}
    assert (await run("ls", "nowhere", **named)).code == 2
    assert (await run("ls", "nowhere", "--no-such-option", **named)).code == 2
    ended = [line for line in lines_of(path) if line["event"] == "ended"]
    assert [line["exit_code"] for line in ended] == [2, 2, 4, 2, 2]
    assert "--workers: '0' is not a whole number from 1 to 256" in ended[0]["why"]
    assert "--nonsense" in ended[1]["why"]
    assert "no access key" in ended[2]["why"]
    assert "nowhere" in ended[3]["why"]
    assert "--no-such-option" in ended[4]["why"]
    assert len({line["run"] for line in ended}) == 5


async def test_a_busy_archive(run: Run, environ: dict[str, str], tmp_path: Path, files: Path,
                              emulator: Emulator) -> None:  # fmt: skip
    write_rdb(files / INSTANCE / "a_20261124021500.rdb", 1_000_000)
    emulator.faults = Faults(rate=100_000)
    first = await begun(environ, tmp_path, "--log-file", "first.log")
    await until_bytes_move(emulator, 50_000)
    assert (await run(*PULL, *JSON_LOG)).code == 7
    assert lines_of(tmp_path / "run.log")[-1]["exit_code"] == 7
    first.send_signal(signal.SIGKILL)
    await first.wait()


async def begun(environ: dict[str, str], cwd: Path, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", *PULL, "--part-size", "64KiB", *words, env=environ,
        cwd=cwd, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def test_an_interrupted_run_has_its_last_line(
    files: Path, emulator: Emulator, environ: dict[str, str], tmp_path: Path
) -> None:
    write_rdb(files / INSTANCE / "a_20261124021500.rdb", 1_000_000)
    emulator.faults = Faults(rate=100_000)
    process = await begun(environ, tmp_path, *JSON_LOG)
    await until_bytes_move(emulator, 100_000)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 130
    *_, stopping, ended = lines_of(tmp_path / "run.log")
    assert (stopping["event"], stopping["level"]) == ("stopping", "WARNING")
    assert (ended["event"], ended["exit_code"], ended["interrupted"]) == ("ended", 130, True)
    assert any(line.startswith("stopped early: ") for line in ended["summary"])


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nowhere/run.log", "No such file or directory"),
        (".", "Is a directory"),
        ("archive/run.log", "that is inside an archive"),
        ("run.log/further", "Not a directory"),
    ],
)
async def test_a_log_that_cannot_be_written(
    path: str, why: str, run: Run, emulator: Emulator, tmp_path: Path
) -> None:
    """One line, exit code 2, before the vendor is asked."""
    put_standard(tmp_path / "archive", rdb(5000))
    (tmp_path / "run.log").touch()
    result = await run(*PULL, "--log-file", path, "--json")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.startswith(f"archiver: --log-file {path}: ")
    assert why in result.err
    assert json.loads(result.out)["exit_code"] == 2
    assert emulator.tally.api_calls == 0


async def test_a_log_without_permission(run_kept_out: Run, tmp_path: Path) -> None:
    (tmp_path / "run.log").touch(0o400)
    result = await run_kept_out("ls", "archive", *LOG)
    assert result.code == 2
    assert "--log-file run.log: it cannot be written: Permission denied" in result.err


async def test_a_full_disk_under_the_log(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "a_20261124021500.rdb", 5000)
    result = await run(*PULL, "-vv", "--log-file", "/dev/full")
    assert result.code == 0, result.err
    lost = [line for line in result.err.splitlines() if "the log" in line]
    assert lost == [
        "archiver: the log /dev/full could not be written: No space left on device; the run goes on"
    ]
    assert "archived 1 backup" in result.err


def test_what_stands_there_of_a_line_that_did_not_fit_begins_no_other(tmp_path: Path) -> None:
    path, said = tmp_path / "run.log", list[str]()
    log = LogFile(path, JSON, "pull", said.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        log.emit(record_of("the first"))
        log.emit(record_of("the second"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    log.emit(record_of("the third"))
    log.close()
    torn, third = path.read_text().splitlines()
    assert len(torn) == 100
    assert json.loads(third)["message"] == "the third"
    assert len(said) == 1


def record_of(text: str, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": text, "levelno": logging.INFO, "levelname": "INFO"})
    made.__dict__.update(event="said", instance="r-x", fields=fields)
    return made


def test_a_line_is_a_line(tmp_path: Path) -> None:
    """Whatever a name has in it; and a query is left out of fields and messages alike."""
    wicked = "a\nb\x1b[2J\u202ec \udcff http://host/x.rdb?Signature=abc"
    for format_, path in ((TEXT, tmp_path / "text"), (JSON, tmp_path / "json")):
        log = LogFile(path, format_, "pull", print)
        log.emit(record_of(wicked, why=wicked, more={"deep": [wicked]}, share=float("inf")))
        log.ended(3, wicked, LastLine(summary=[wicked]))
        log.close()
        text = path.read_bytes().decode("ascii")
        assert text.count("\n") == 2
        assert streams.plain(text.replace("\n", "")) == text.replace("\n", "")
        assert "Signature" not in text
    first, last = lines_of(tmp_path / "json")
    assert first["share"] is None
    assert first["more"]["deep"][0].startswith("a\nb")
    assert last["exit_code"] == 3


def test_rotation_by_renaming_and_by_truncating(tmp_path: Path) -> None:
    path, old = tmp_path / "run.log", tmp_path / "run.log.1"
    log = LogFile(path, JSON, "pull", print)
    log.emit(record_of("one"))
    path.rename(old)
    log.emit(record_of("two"))
    assert [line["message"] for line in lines_of(old)] == ["one"]
    assert [line["message"] for line in lines_of(path)] == ["two"]
    os.truncate(path, 0)
    log.emit(record_of("three"))
    assert [line["message"] for line in lines_of(path)] == ["three"]
    path.unlink()
    log.emit(record_of("four"))
    assert [line["message"] for line in lines_of(path)] == ["four"]
    log.close()


async def test_two_runs_in_one_file(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        put_standard(tmp_path / name, rdb(5000))
    results = await asyncio.gather(
        *(run("verify", name, *JSON_LOG) for name in ("one", "two") for _ in range(3))
    )
    assert [result.code for result in results] == [0] * 6
    runs: dict[str, list[str]] = {}
    for line in lines_of(tmp_path / "run.log"):
        runs.setdefault(line["run"], []).append(line["event"])
    assert len(runs) == 6
    assert {tuple(events) for events in runs.values()} == {("began", "verified", "ended")}


async def test_every_command_that_works_has_one(run: Run, tmp_path: Path) -> None:
    """What it came to is in the last line, as on stderr."""
    put_standard(tmp_path / "archive", rdb(5000))
    for words in (
        ("verify", "archive"),
        ("ls", "archive"),
        ("copy", "archive", "copy"),
        ("copy", "archive", "copy", "--diff"),
        ("restore", "archive", "--instance", INSTANCE, "--to", "restored"),
        ("drill", "archive", "--allow-empty"),
        ("ack", "archive", "--list"),
        ("uploads", "archive"),
    ):
        (tmp_path / "run.log").unlink(missing_ok=True)
        result = await run(*words, *JSON_LOG)
        *_, last = lines_of(tmp_path / "run.log")
        assert (last["event"], last["command"], last["exit_code"]) == (
            "ended",
            words[0],
            result.code,
        )
        assert set(last["summary"]) <= set(result.err.splitlines()), words
        assert last["why"] is None or last["why"] in result.err
        assert last["summary"] or words[0] in ("ack", "uploads"), words
