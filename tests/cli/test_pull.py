"""``archiver pull`` as its users meet it."""

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import shlex
import signal
import struct
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver import events
from archiver.cli import words as texts
from archiver.cli.progress import BarProgress, NoProgress
from archiver.cli.run import say
from archiver.cli.watching import Watch
from archiver.commands.summary import Summary
from archiver.emulator import Emulator, Faults
from archiver.errors import IntegrityError, SourceUnavailable
from archiver.model import Backup, BackupType, Kind, Network, SourceName, Status
from examples.sample_rdb import write_rdb
from tests.cli.conftest import Result, Run
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET

PULL = ("pull", "--instance", INSTANCE, "--to", "archive")
STAMP = "20261124021500"
WRONG_ASSERTION = (
    "'dbsize => 2': expected one of == != >= <= > < at character 8 "
    "(such as: dbsize >= 1000, exists user:1, type user:1 == hash)"
)


def assert_one_line(result: Result, code: int, *words: str) -> None:
    """One line on stderr that says what is wrong, with the right exit code; and what a command
    adds to it: how it is called, or its summary."""
    lines = result.err.strip().splitlines()
    assert result.code == code, result.err
    added = r"|nothing archived; 0 .*|failed: 1|only .* requested|.* has backups of .*"
    assert len([line for line in lines if not re.fullmatch(added, line)]) == 1, lines
    assert code != 2 or lines[0].startswith("archiver: ")
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


async def test_pull_and_pull_again(files: Path, run: Run, tmp_path: Path) -> None:
    for n in range(3):
        write_rdb(files / INSTANCE / f"{n}_{STAMP}.rdb", 100_000, n)
    first = await run(*PULL)
    assert first.code == 0, first.err
    assert "archived 3 backups, 293.0 KiB" in first.err
    assert first.out == ""
    again = await run(*PULL)
    assert again.code == 0
    nothing, narrowed, holding = again.err.splitlines()
    assert nothing == "nothing new: 3 backups listed, all in the archive"
    assert (
        narrowed
        == "only backups that started in 2000-01-01T00:00Z..2100-01-01T00:00Z were requested"
    )
    assert holding.startswith(f"{tmp_path / 'archive'} has backups of 1 of 1 instance requested; ")
    assert "; the newest requested backup started " in holding
    assert len(list((tmp_path / "archive").rglob("*.rdb"))) == 3


async def test_less_was_asked_for_and_the_archive_has_more(
    files: Path, run: Run, tmp_path: Path
) -> None:
    write_rdb(files / INSTANCE / f"a_{STAMP}.rdb", 5000)
    assert (await run(*PULL)).code == 0
    holding = f"{tmp_path / 'archive'} has backups of 1 of 1 instance requested"
    logs = await run(*PULL, "--type", "incremental", "--mode", "manual")
    *_, narrowed, last = logs.err.splitlines()
    assert narrowed.startswith(
        "only incremental, manual backups that started in 2000-01-01T00:00Z.."
    )
    assert (last, logs.code) == (holding, 0)
    assert (await run("copy", "archive", "copy", "--instance", INSTANCE)).code == 0
    [record] = (tmp_path / "archive" / INSTANCE / "2026" / "11").glob("*Z-*.json")
    one = await run("copy", "archive", "copy", "--set", f"{INSTANCE}/2026/11/{record.stem}")
    assert "only 1 backup set was requested\n" in one.err


@pytest.mark.parametrize(
    ("option", "word", "meant"),
    [
        ("--type", "FullBackup", "; did you mean full?"),
        ("--type", "incr", "; did you mean incremental?"),
        ("--mode", "Manuel", "; did you mean manual?"),
        ("--type", "manual", ""),
        ("--mode", "x", ""),
    ],
)
async def test_a_word_that_means_nothing(run: Run, option: str, word: str, meant: str) -> None:
    result = await run(*PULL, option, word)
    assert result.code == 2
    words = "full, incremental" if option == "--type" else "automated, manual"
    assert result.err == f"archiver: {option}: '{word}' is not one of {words}{meant}\n"


async def test_a_word_in_any_case(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / f"a_{STAMP}.rdb", 5000)
    pulled = await run(*PULL, "--type", "FULL", "--mode", "Automated", "--network", "Auto")
    assert (pulled.code, "archived 1 backup" in pulled.err) == (0, True)
    assert "[full|incremental]" in (await run("pull", "--help")).out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("pul",), "no such command: pul; did you mean pull? (see archiver --help)"),
        (("pull", "--too"), "no such option: --too; did you mean --to? (see archiver pull --help)"),
        (("pull",), "missing option: --to ARCHIVE (see archiver pull --help)"),
        (("pull", "--to", "x"), "missing option: --instance ID, or --instance all"),
        (("verify",), "missing argument: ARCHIVE (see archiver verify --help)"),
        (("verify", "a", "--sample", "150%"), "--sample: '150%' is more than 100%"),
        (("pull", "--workers", "abc"), "--workers: 'abc' is not a whole number from 1 to 256"),
        (("emulate", "x", "--drop", "2"), "--drop: '2' is not a number from 0 to 1"),
        (("pull", "--to"), "option --to requires an argument"),
        (("verify", "a", "b"), "got unexpected extra argument (b)"),
        (("ls", "a", "--log-format", "json"), "--log-format needs --log-file"),
        (
            ("completion", "fihs"),
            "SHELL|install: 'fihs' is not one of bash, zsh, fish, install; did you mean fish?",
        ),
        (
            ("restore", "a", "--at", "noon"),
            "--at: invalid time 'noon' (write latest, 2026-11-01 or 2026-11-01T02:15Z, in UTC)",
        ),
        (("drill", "a", "--assert", "dbsize => 2"), f"--assert: {WRONG_ASSERTION}"),
    ],
)
async def test_a_usage_error_is_one_line(run: Run, args: tuple[str, ...], said: str) -> None:
    refused = await run(*args)
    assert (refused.code, refused.out, refused.err) == (2, "", f"archiver: {said}\n")


async def test_json_is_one_event_a_line(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 100_000)
    result = await run(*PULL, "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["event"] for event in events] == [
        "page_listed",
        "archive_begun",
        "planned",
        "route_chosen",
        "started",
        "archived",
        "set_completed",
        "summary",
    ]
    assert events[-1]["archived"] == 1
    assert events[-1]["bytes_fetched"] == {"intranet": 100_000}
    assert events[5]["backup"]["instance_id"] == INSTANCE


async def test_json_names_what_a_copy_holds(files: Path, run: Run, tmp_path: Path) -> None:
    """Whether it read the catalogue or the records."""
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    assert (await run(*PULL)).code == 0
    assert (await run("copy", "archive", "copy")).code == 0
    [index] = (tmp_path / "archive").rglob("index.jsonl")
    for mode in (None, "automated"):
        result = await run("copy", "archive", "copy", "--json")
        assert result.code == 0, result.err
        [held] = [one for one in map(json.loads, result.out.splitlines()) if "backup" in one]
        assert held["event"] == "held"
        assert held["backup"].keys() == {
            "instance_id", "node_id", "backup_id", "set_id", "type", "mode", "started_at", "size",
        }  # fmt: skip
        assert (held["backup"]["size"], held["backup"]["mode"]) == (5000, mode)
        index.unlink(missing_ok=True)


async def test_every_failure_is_named(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "good.rdb", 5000)
    bad = bytearray(write_rdb(files / INSTANCE / "bad.rdb", 5000, 1))
    bad[2500] ^= 1
    (files / INSTANCE / "bad.rdb").write_bytes(bad)
    write_rdb(files / INSTANCE / "failed.rdb", 5000, 2)
    overrides = {"failed.rdb": {"BackupStatus": "Failed"}}
    (files / INSTANCE / "backups.json").write_text(json.dumps(overrides))
    result = await run(*PULL, "--json")
    assert result.code == 3
    assert "archived 1 backup" in result.err
    assert "\nfailed: 2\n" in result.err
    assert result.err.count("failed at the vendor") == 1
    assert result.err.count("checksum at the end of this RDB") == 1
    failures = [json.loads(line) for line in result.out.splitlines() if '"failed"' in line]
    assert {f["error"]["exit_code"] for f in failures if f["event"] == "failed"} == {1, 3}


async def test_quiet_and_verbose(files: Path, run: Run) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    first = (await run(*PULL, "-q")).err
    assert first.startswith("Creating a new archive in ")
    assert first.count("\n") == 1
    assert (await run(*PULL, "-q")).err == ""
    write_rdb(files / INSTANCE / "b.rdb", 5000, 1)
    verbose = await run(*PULL, "-v")
    assert re.search(r"archived: r-bp.*\.rdb 4.9 KiB sha256 [0-9a-f]{64}", verbose.err)
    debug = await run(*PULL, "-vv")
    assert f"held: {INSTANCE}-" in debug.err


async def test_options_come_from_the_environment(files: Path, run: Run, tmp_path: Path) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    result = await run(
        "pull",
        ARCHIVER_PULL_INSTANCE=f"{INSTANCE} r-none",
        ARCHIVER_PULL_TO="elsewhere",
        ARCHIVER_PULL_WORKERS="2",
    )
    assert result.code == 1
    assert "r-none" in result.err
    assert list((tmp_path / "elsewhere").rglob("*.rdb"))
    assert (await run(*PULL, ARCHIVER_PULL_WORKERS="none")).code == 2
    assert (await run(*PULL, ARCHIVER_PULL_DRY_RUN="1")).code == 0
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    ("args", "changed", "code", "words"),
    [
        (("--range", "2026-11-02..2026-11-01"), {}, 2, ("is not after its start",)),
        (("--range", "someday"), {}, 2, ("someday", "last-7d")),
        (("--range", "2026-11-01T25:00Z.."), {}, 2, ("invalid time",)),
        (("--instance", "../x"), {}, 2, ("invalid instance ID",)),
        (("--part-size", "tiny"), {}, 2, ("invalid size",)),
        (("--part-size", "1"), {}, 2, ("below the minimum",)),
        (("--to", "ftp://host/x"), {}, 2, ("ftp://", "directory")),
        (("--to", ""), {}, 2, ("name is empty",)),
        (("--to", "s3:/bucket/x"), {}, 2, ("s3://bucket/prefix",)),
        (("--to", "s3//bucket/x"), {}, 2, ("s3://bucket/prefix",)),
        (("--to", "s3://b/x", "--s3-lock-mode", "compliance"), {}, 2, ("--s3-lock-days",)),
        (("--to", "s3://b/x", "--s3-lock-until", "2020-01-01"), {}, 2, ("past",)),
        (("--to", "s3://bucket/.x"), {}, 2, ("begins with a dot",)),
        (("--to", "s3:///x"), {}, 2, ("s3://bucket/prefix",)),
        (("--to", "s3://bucket/x", "--part-size", "1MiB"), {}, 2, ("5 MiB",)),
        (("--to", "s3://bucket/x"), {}, 4, ("AWS_ACCESS_KEY_ID",)),
        (("--region", "Nowhere"), {"ARCHIVER_PULL_ENDPOINT": None}, 2, ("not a region id",)),
        ((), {"ARCHIVER_PULL_ENDPOINT": None}, 2, ("missing option: --region",)),
        (
            (),
            {"ALIBABA_CLOUD_ACCESS_KEY_ID": None, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": None},
            4,
            ("no access key", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
        ),
        ((), {"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "wrong"}, 4, ("SignatureDoesNotMatch",)),
        ((), {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAInobody"}, 4, ("InvalidAccessKeyId",)),
        (("--to", "/proc/nowhere/archive"), {}, 6, ("/proc/nowhere",)),
        (("--to", "a-file/archive"), {}, 6, ("a-file",)),
    ],
)
async def test_bad_input_is_one_line_and_writes_nothing(
    files: Path,
    run: Run,
    tmp_path: Path,
    args: tuple[str, ...],
    changed: dict[str, str | None],
    code: int,
    words: tuple[str, ...],
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    (tmp_path / "a-file").write_bytes(b"")
    result = await run(*PULL, *args, **changed)
    assert_one_line(result, code, *words)
    assert not (tmp_path / "archive").exists()


async def test_an_unknown_instance(run: Run, tmp_path: Path) -> None:
    result = await run("pull", "--instance", "r-unknown", "--to", "archive")
    assert_one_line(result, 1, "InvalidInstanceId.NotFound", "--region")
    assert result.err.splitlines()[1:] == [
        "nothing archived; 0 already in the archive",
        "failed: 1",
        "only backups that started in 2000-01-01T00:00Z..2100-01-01T00:00Z were requested",
        f"{tmp_path / 'archive'} has backups of 0 of 1 instance requested",
    ]
    assert not (tmp_path / "archive").exists()


async def test_no_instance(run: Run) -> None:
    assert_one_line(await run("pull", "--to", "archive"), 2, "--instance")


async def test_an_archive_of_a_newer_format(files: Path, run: Run, tmp_path: Path) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 5000)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "archive.json").write_text('{"format": 7}')
    result = await run(*PULL)
    assert result.code == 2
    assert "format 7" in result.err
    assert [p.name for p in (tmp_path / "archive").iterdir()] == ["archive.json"]


async def test_nobody_answers(run: Run, tmp_path: Path) -> None:
    result = await run(*PULL, "--retry-for", "0s", ARCHIVER_PULL_ENDPOINT="http://127.0.0.1:1")
    assert_one_line(result, 5, "127.0.0.1:1", "endpoint")
    assert not (tmp_path / "archive").exists()


async def test_no_secret_in_any_output(
    files: Path, emulator: Emulator, run: Run, tmp_path: Path
) -> None:
    """At -vv, with everything going wrong: no key, no token, no signature anywhere."""
    for n in range(4):
        write_rdb(files / INSTANCE / f"{n}.rdb", 300_000, n)
    said = ""
    for faults in (
        Faults(drop=0.5, server_errors=0.3, throttle=0.3, expire_after=0, seed=1),
        Faults(server_errors=1.0),
        Faults(corrupt=1.0),
        Faults(),
    ):
        emulator.faults = faults
        for token in (None, "STStokenSTStokenSTStoken"):
            result = await run(
                *PULL,
                "-vv",
                "--json",
                "--part-size",
                "64KiB",
                "--retry-for",
                "1s",
                ALIBABA_CLOUD_SECURITY_TOKEN=token,
            )
            said += result.out + result.err
    for path in (tmp_path / "archive").rglob("*"):
        if path.is_file() and path.suffix != ".rdb":
            said += path.read_text("utf-8", "replace")
    assert len(said) > 10_000
    for secret in (KEY_ID, KEY_SECRET, "STStoken", "Signature=", "OSSAccessKeyId", "Expires="):
        assert secret not in said


async def start(environ: dict[str, str], cwd: Path, *args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "archiver",
        *PULL,
        *args,
        env=environ,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def until_bytes_move(emulator: Emulator, count: int = 1) -> None:
    async with asyncio.timeout(30):
        while emulator.tally.object_bytes < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_cleanly(
    files: Path,
    emulator: Emulator,
    environ: dict[str, str],
    run: Run,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    data = write_rdb(files / INSTANCE / "a.rdb", 1_000_000)
    emulator.faults = Faults(rate=200_000)
    process = await start(environ, tmp_path, "--part-size", "64KiB", "--json")
    await until_bytes_move(emulator, 300_000)
    process.send_signal(number)
    out, err = await process.communicate()
    assert process.returncode == 130
    assert b"run the same command again" in err
    assert b"Traceback" not in err
    told = [json.loads(line) for line in out.splitlines()]
    assert told[-1]["interrupted"] is True
    [kept] = [event["size"] for event in told if event["event"] == "kept"]
    assert 64 * 1024 <= kept < 1_000_000
    said = f"kept: {texts.size(kept)} of 1 unfinished file; the next run resumes from there\n"
    assert said in err.decode()
    emulator.faults = Faults()
    before = emulator.tally.object_bytes
    resumed = await run(*PULL, "--part-size", "64KiB", "-v")
    assert resumed.code == 0
    assert "resuming: " in resumed.err
    assert emulator.tally.object_bytes - before <= 1_000_000 - kept
    [home] = (tmp_path / "archive").rglob("*.rdb")
    assert home.read_bytes() == data


async def test_two_pulls_into_one_archive(
    files: Path, emulator: Emulator, environ: dict[str, str], run: Run, tmp_path: Path
) -> None:
    write_rdb(files / INSTANCE / "a.rdb", 1_000_000)
    emulator.faults = Faults(rate=100_000)
    process = await start(environ, tmp_path)
    await until_bytes_move(emulator)
    second = await run(*PULL)
    assert second.code == 7
    assert f"process {process.pid} on" in second.err
    emulator.faults = Faults()
    process.kill()
    await process.communicate()
    assert (await run(*PULL)).code == 0


async def test_bars_on_a_terminal(files: Path, environ: dict[str, str], tmp_path: Path) -> None:
    for n in range(3):
        write_rdb(files / INSTANCE / f"{n}.rdb", 3_000_000, n)
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", *PULL, env=environ,
        cwd=tmp_path, stdout=side, stderr=side,
    )  # fmt: skip
    os.close(side)
    shown = b""
    loop = asyncio.get_running_loop()
    while True:
        try:
            piece = await loop.run_in_executor(None, os.read, main, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert await process.wait() == 0
    text = shown.decode()
    assert "all: 100%" in text
    assert max(int(p) for p in re.findall(r"(\d+)%", text)) == 100
    assert "archived 3 backups" in text


async def test_a_reader_that_goes_away_costs_no_backup(
    files: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    for n in range(3):
        write_rdb(files / INSTANCE / f"{n}_{STAMP}.rdb", 100_000, n)
    words = shlex.join([sys.executable, "-m", "archiver", *PULL, "--json"])
    command = f"{words} | head -1; echo ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env=environ, cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out.decode().splitlines()[-1] == "0", err
    assert b"unexpected" not in err
    assert len(list((tmp_path / "archive").rglob("*.rdb"))) == 3
    listing = f"{sys.executable} -m archiver ls archive | true; echo ${{PIPESTATUS[0]}}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", listing, env=environ, cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    unread = b"archiver: the reader of stdout went away\n"
    assert (out.decode().strip(), err) in (("0", b""), ("141", unread))


@pytest.mark.parametrize(
    ("planned", "archived", "said"),
    [
        (5, 3, "stopped early: at least 2 backups left"),
        (5, 5, "stopped early: there may be more backups"),
        (0, 0, "stopped early: there may be more backups"),
    ],
)
def test_what_is_left_when_it_stops_early(planned: int, archived: int, said: str) -> None:
    result = Summary(held=1, planned=planned, archived=archived)
    assert texts.summary(result, 1.0, finished=False)[-1] == said


def test_the_age_of_the_newest_backup_and_of_who_is_furthest_behind() -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    newest = {"r-a": now - timedelta(hours=3), "r-b": now - timedelta(hours=25)}
    assert texts.holding("/x", "2 instances", newest, now, is_all=True) == (
        "/x has backups of 2 instances; "
        "the newest backup started 3 h ago, and the newest of r-b 25 h ago"
    )


def test_what_a_run_says_is_above_its_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is said by the command, not by its progress: that a signal stops it."""
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    bars = BarProgress()
    say("archiver: stopping")
    bars.close()
    assert "\rarchiver: stopping\n" in shown.getvalue()


def test_the_rate_of_a_resumed_file_is_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    bars = BarProgress()
    bars(events.Planned(backup(1)))
    bars(events.Started(backup(1), 8192, 9000))
    bars.close()
    assert "8.00k/8.79k" in shown.getvalue()
    assert set(re.findall(r"[, ]([\d.?]+)\w*B/s", shown.getvalue())) <= {"?", "0.00"}


def test_a_route_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A `backup` of several instances pulls several times, and each pull chooses its routes."""
    watch = Watch(NoProgress(), texts.NORMAL, as_json=False, dry_run=False)
    for host in ("a.example", "a.example", "b.example"):
        watch.observe(events.RouteChosen(host, Network.INTRANET, ""))
    assert capsys.readouterr().err.count("Using the intranet endpoint") == 2


def test_what_is_kept_of_files_that_did_not_come_home() -> None:
    """What came home, or was wrong, is not gone on with; what the source did not give is."""
    made = [backup(n) for n in range(4)]
    result = Summary(planned=len(made))
    for one in made:
        result(events.Kept(one, 1024))
    result(events.Archived(made[0], "k", 9, "", Network.PUBLIC, 9, 0, True, Kind.RDB, 1.0))
    result(events.Failed(str(made[1]), IntegrityError("wrong"), made[1]))
    result(events.Failed(str(made[2]), SourceUnavailable("reset"), made[2]))
    lines = texts.summary(result, 1.0, finished=False)
    assert "kept: 2.0 KiB of 2 unfinished files; the next run resumes from there" in lines


def backup(number: int) -> Backup:
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    return Backup(
        SourceName("alibaba", "DescribeBackups 2015-01-01"), INSTANCE, INSTANCE, str(number), None,
        moment, Status.SUCCESS, BackupType.FULL, size=9000,
    )  # fmt: skip
