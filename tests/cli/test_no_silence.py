"""No exit code without a line on stderr, under ``--quiet`` too, and each failure told once."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from archiver.cli.main import main
from archiver.stores.local.lock import Held, hold
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import (
    CLUSTER,
    STARTS,
    change_record,
    put_backup,
    put_cluster,
    put_format,
    put_standard,
    put_sums,
    remove_node,
)
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET
from tests.faults import power

GONE = "r-bp1gone"
PULL = ("pull", "--to", "archive", "--instance", INSTANCE)
PULL_CLUSTER = ("pull", "--to", "archive", "--instance", CLUSTER)
LS = ("ls", "--instance", INSTANCE)
COPY = ("copy", "archive", "other")
RESTORE = ("restore", "archive", "--to", "restored", "--instance", INSTANCE)
DRILL = ("drill", "archive", "--instance", INSTANCE)


@pytest.fixture
def no_blocking_on_the_loop() -> None:
    """The command line looks at places and standard streams before it begins."""


@dataclass
class World:
    """A working directory with an archive to be made, and a vendor."""

    here: Path
    vendor: Path
    environ: dict[str, str]
    open: ExitStack = field(default_factory=ExitStack)

    @property
    def archive(self) -> Path:
        return self.here / "archive"

    def serves(self, name: str, seed: int = 0, *, instance: str = INSTANCE, **fields: str) -> Path:
        """A backup at the vendor, with some fields as they are given."""
        path = self.vendor / instance / name
        write_rdb(path, 5000, seed)
        if fields:
            (self.vendor / instance / "backups.json").write_text(json.dumps({name: fields}))
        return path

    def holds(self, start: str = STARTS[-1], data: bytes | None = None) -> Path:
        return put_standard(self.archive, data if data is not None else rdb(5000), start)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    vendor = tmp_path / "vendor"
    (vendor / INSTANCE).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with power.serving(vendor) as served, ExitStack() as stack:
        environ = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
            "ARCHIVER_PULL_ENDPOINT": served.endpoint,
            "ARCHIVER_LS_ENDPOINT": served.endpoint,
            "ARCHIVER_INSTANCES_ENDPOINT": served.endpoint,
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield World(tmp_path, vendor, environ, stack)


Prepare = Callable[[World], object]


@dataclass(frozen=True)
class Case:
    """A command that ends with ``code``; each of ``said`` is on stderr once."""

    name: str
    words: tuple[str, ...]
    code: int
    said: tuple[str, ...]
    prepare: Prepare = lambda _: None
    environ: tuple[tuple[str, str], ...] = ()


# What is prepared


def failed_at_the_vendor(world: World) -> None:
    world.serves("a_20261124021500.rdb", BackupStatus="Failed")


def damaged_at_the_vendor(world: World) -> None:
    path = world.serves("a_20261124021500.rdb")
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def a_node_that_is_missing(world: World) -> None:
    for day in (21, 22, 23):
        for node in range(3 if day != 22 else 2):
            name = f"{CLUSTER}-db-{node}/d_202611{day}021500.rdb"
            world.serves(name, day + node, instance=CLUSTER)


def several_kept_away(world: World) -> None:
    """What lies in the place of their month keeps all of them away."""
    for day in (21, 22, 23):
        world.serves(f"a_202611{day}021500.rdb", day)
    put_format(world.archive)
    (world.archive / INSTANCE).mkdir()
    (world.archive / INSTANCE / "2026").symlink_to(world.here)


def an_entry_that_is_refused(world: World) -> None:
    world.serves("a_20261124021500.rdb", BackupStartTime="someday")


def an_old_backup(world: World) -> None:
    world.serves("a_20200101021500.rdb")


def a_held_old_backup(world: World) -> None:
    world.holds("20200101T021500Z")


def nothing(world: World) -> None:
    put_format(world.archive)


def a_newer_format(world: World) -> None:
    world.serves("a_20261124021500.rdb")
    nothing(world)
    (world.archive / "archive.json").write_text('{"format": 7}')


def held(archive: Path) -> AbstractContextManager[Held]:
    """The instance's lock, as another pull has it."""
    path = archive / ".locks" / INSTANCE
    path.parent.mkdir(parents=True)
    return hold(path, stop=threading.Event())


def a_writer(world: World) -> None:
    world.serves("a_20261124021500.rdb")
    nothing(world)
    world.open.enter_context(held(world.archive))


def a_writer_there(world: World) -> None:
    world.holds()
    put_format(world.here / "other")
    world.open.enter_context(held(world.here / "other"))


def a_whole_set(world: World) -> None:
    world.holds()


def a_changed_file(world: World) -> None:
    target = world.holds()
    target.write_bytes(target.read_bytes()[:-1] + b"?")


def a_lost_file(world: World) -> None:
    world.holds().unlink()


def a_bad_record(world: World) -> None:
    world.holds().with_suffix(".json").write_text("{")


def a_changed_record(world: World) -> None:
    change_record(world.holds(), sha256="0" * 64)


def an_encrypted_file(world: World) -> None:
    world.holds(data=b"\x93encrypted, perhaps" * 99)


def a_newer_set_that_lacks_a_node(world: World) -> None:
    newest, *_ = [put_cluster(world.archive, start) for start in reversed(STARTS)]
    remove_node(newest[1])
    put_sums(newest[0].parent)


def a_newer_damaged_set(world: World) -> None:
    world.holds(STARTS[0], rdb(5000, 1))
    a_changed_file(world)


def two_that_differ(world: World) -> None:
    world.holds()
    put_standard(world.here / "other", rdb(5000, 1))


def one_more_there(world: World) -> None:
    world.holds()
    put_standard(world.here / "other", rdb(5000))
    put_backup(world.here / "other", STARTS[0], rdb(5000, 1))


def one_that_is_missing(world: World) -> None:
    nothing(world)
    an_old_backup(world)


def two_without_backups(world: World) -> None:
    nothing(world)
    put_format(world.here / "other")


def a_bad_note(world: World) -> None:
    world.holds()
    note = world.archive / "acknowledged" / "backups" / f"{INSTANCE}-100.json"
    note.parent.mkdir(parents=True)
    note.write_text("{")


def an_empty_folder(world: World) -> None:
    world.archive.mkdir()


def a_job(world: World) -> None:
    (world.here / "a.toml").write_text("[jobs.a]\nrun = 'instances'\n")


def a_wrong_job(world: World) -> None:
    (world.here / "a.toml").write_text("[jobs.a]\nrun = 'pul'\n")


FAILED, WRONG = "failed at the vendor", "checksum at the end of this RDB"
BAD_KEY = (("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "wrong"),)
QUOTED = (("ALIBABA_CLOUD_ACCESS_KEY_SECRET", f'"{KEY_SECRET}"'),)
NO_KEY = tuple((f"ALIBABA_CLOUD_ACCESS_KEY_{name}", "") for name in ("ID", "SECRET"))
NOWHERE = ("--endpoint", "http://127.0.0.1:1", "--retry-for", "0s")
BUCKET = (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"))
NO_BUCKET = ("--s3-endpoint", "http://127.0.0.1:1")
SET = f"{CLUSTER}/2026/11/{STARTS[-1]}-1"

CASES = (
    # The group
    Case("no command", (), 2, ("archiver: missing command",)),
    Case("no such command", ("pul",), 2, ("no such command: pul; did you mean pull?",)),
    Case("no such option", ("pull", "--no-such"), 2, ("--no-such",)),
    Case("no archive is named", ("pull", "--instance", INSTANCE), 2,
         ("missing option: --to",)),
    Case("no such shell", ("completion", "tcsh"), 2, ("'tcsh'",)),
    # pull
    Case("failed", PULL, 1, (FAILED,), failed_at_the_vendor),
    Case("damaged", PULL, 3, (WRONG,), damaged_at_the_vendor),
    Case("incomplete", PULL_CLUSTER, 1, ("is missing: ",), a_node_that_is_missing),
    Case("kept away", PULL, 3, ("mount --bind", "2 more backups, for "), several_kept_away),
    Case("refused", PULL, 1, ("someday",), an_entry_that_is_refused),
    Case("overdue", (*PULL, "--max-age", "26h"), 1, ("more than 26 h",), an_old_backup),
    Case("never", (*PULL, "--max-age", "26h"), 1, ("no backups", "has no complete backup")),
    Case("gone", (*PULL[:3], "--instance", GONE), 1, ("InvalidInstanceId",)),
    Case("two gone", (*PULL[:3], "--instance", GONE, "--instance", f"{GONE}2"), 1, (f"{GONE}2: ",)),
    Case("wrong key", PULL, 4, ("SignatureDoesNotMatch",), environ=BAD_KEY),
    Case("no key", PULL, 4, ("no access key",), environ=NO_KEY),
    Case("nobody answers", (*PULL, *NOWHERE), 5, ("no response from",)),
    Case("no place", (*PULL, "--to", "/proc/no/archive"), 6, ("/proc/no",), an_old_backup),
    Case("a writer", PULL, 7, (f"process {os.getpid()}",), a_writer),
    Case("newer format", PULL, 2, ("format 7",), a_newer_format),
    Case("no archive", (*PULL, "--require-archive"), 2, ("no archive here",), an_old_backup),
    Case("no instance", PULL[:3], 2, ("missing option: --instance",)),
    Case("bad range", (*PULL, "--range", "someday"), 2, ("invalid range 'someday'",)),
    Case("turned round", (*PULL, "--range", "2026-11-28..2026-11-27"), 2,
         ("'2026-11-28..2026-11-27': its end is not after",)),
    Case("to come", (*PULL, "--range", "2999-01-01.."), 2,
         ("'2999-01-01..' starts in the future",)),
    Case("quotes", PULL, 4, ("ALIBABA_CLOUD_ACCESS_KEY_SECRET: there are quotes around it",),
         environ=QUOTED),
    Case("no bucket", ("pull", "--to", "s3://b/x", "--instance", INSTANCE), 4,
         ("AWS_ACCESS_KEY_ID",)),
    # backup
    Case("backup: nothing", ("backup",), 2, ("missing option: --instance",)),
    # instances
    Case("instances: none", ("instances", "--name", "none*"), 2, ("no instance is selected",)),
    Case("instances: gone", ("instances", "--instance", GONE), 1, (f"{GONE}: no region",)),
    Case("instances: nobody", ("instances", *NOWHERE), 5, ("no response from",)),
    Case("instances: wrong key", ("instances",), 4, ("SignatureDoesNotMatch",), environ=BAD_KEY),
    Case("instances: no key", ("instances",), 4, ("no access key",), environ=NO_KEY),
    # ls
    Case("ls: nothing", ("ls",), 2, ("missing argument: ARCHIVE",)),
    Case("ls: no archive", ("ls", "nowhere"), 2, ("no archive here",)),
    Case("ls: damaged", ("ls", "archive"), 3, (f"{STARTS[-1]}-100.json: ",), a_bad_record),
    Case("ls: lost", ("ls", "archive"), 3, (f"{STARTS[-1]}-100.rdb",), a_lost_file),
    Case("ls: at odds", ("ls", "archive"), 3, ("SHA256SUMS says",), a_changed_record),
    Case("ls: refused", LS, 1, ("someday",), an_entry_that_is_refused),
    Case("ls: gone", ("ls", "--instance", GONE, "--instance", f"{GONE}2"), 1, (f"{GONE}2: ",)),
    Case("ls: wrong key", LS, 4, ("SignatureDoesNotMatch",), environ=BAD_KEY),
    Case("ls: nobody", (*LS, *NOWHERE), 5, ("no response from",)),
    Case("ls: failed", (*LS, "--check"), 1, ("failed: ",), failed_at_the_vendor),
    Case("ls: lacks", ("ls", "--check", "--instance", CLUSTER), 1, ("incomplete: ",),
         a_node_that_is_missing),
    Case("ls: missing", ("ls", "archive", "--remote", "--check", *LS[1:]), 1, ("missing: ",),
         one_that_is_missing),
    Case("ls: overdue", ("ls", "archive", "--max-age", "26h"), 1, ("more than 26 h",),
         a_held_old_backup),
    Case("ls: vendor overdue", (*LS, "--max-age", "26h"), 1, ("at the vendor started",),
         an_old_backup),
    Case("ls: none", ("ls", "archive", "--max-age", "26h"), 1, ("there are no backups",), nothing),
    # man
    Case("man: no directory", ("man",), 2, ("--to",)),
    # doctor
    Case("doctor: nothing", ("doctor",), 2, ("nothing to check",)),
    Case("doctor: nobody", ("doctor", *NOWHERE), 5, ("fix first: endpoint",)),
    # status
    Case("status: nothing", ("status",), 2, ("missing argument: ARCHIVE... (see",)),
    Case("status: no archive", ("status", "nowhere"), 2, ("no archive here",)),
    Case("status: overdue", ("status", "archive"), 1, ("instance is not well",), a_held_old_backup),
    Case("status: lost", ("status", "archive"), 1, ("1 instance is not well",), a_lost_file),
    # adopt
    Case("adopt: nothing", ("adopt", "other", "--instance", "shop", "--to", "archive"), 2,
         ("no such directory",)),
    # copy
    Case("copy: no archive", COPY, 2, ("no archive here",)),
    Case("copy: nothing", COPY, 1, ("no backup matches the request",), nothing),
    Case("copy: damaged", COPY, 3, ("is damaged in /", "run archiver verify"), a_changed_file),
    Case("copy: bad record", COPY, 3, (f"{STARTS[-1]}-100.json",), a_bad_record),
    Case("copy: lost", COPY, 3, (f"{STARTS[-1]}-100.rdb",), a_lost_file),
    Case("copy: other bytes", COPY, 3, ("name different bytes",), two_that_differ),
    Case("copy: itself", ("copy", "archive", "archive"), 2, ("are the same archive",), a_whole_set),
    Case("copy: a writer", COPY, 7, (f"process {os.getpid()}",), a_writer_there),
    Case("mirror", (*COPY, "--diff"), 3, ("1 difference",), two_that_differ),
    Case("mirror: more", (*COPY, "--diff"), 3, ("difference",), one_more_there),
    Case("mirror: none", (*COPY, "--diff"), 2, ("no archive here",), a_whole_set),
    Case("mirror: empty", (*COPY, "--diff"), 1, ("nothing was compared",),
         two_without_backups),
    # uploads
    Case("uploads: directory", ("uploads", "archive"), 2, ("only buckets have uploads",)),
    Case("uploads: no key", ("uploads", "s3://b/x"), 4, ("AWS_ACCESS_KEY_ID",)),
    # verify
    Case("verify: no archive", ("verify", "nowhere"), 2, ("no archive here",)),
    Case("verify: nothing", ("verify", "archive"), 1, ("nothing was verified",), nothing),
    Case("verify: changed", ("verify", "archive"), 3, ("SHA-256 is",), a_changed_file),
    Case("verify: lost", ("verify", "archive"), 3, (f"{STARTS[-1]}-100.rdb: ",), a_lost_file),
    Case("verify: record", ("verify", "archive"), 3, (f"{STARTS[-1]}-100.json: ",), a_bad_record),
    Case("verify: no region", ("verify", "archive", "--repair-from", "source"), 2,
         ("missing option: --region",), a_whole_set),
    Case("verify: no sample", ("verify", "archive", "--seed", "1"), 2, ("--seed",), a_whole_set),
    # restore
    Case("restore: nowhere to", ("restore", "archive", "--instance", INSTANCE), 2, ("--to",)),
    Case("restore: no archive", RESTORE, 2, ("no archive here",)),
    Case("restore: nothing", RESTORE, 1, ("has no backup of",), nothing),
    Case("restore: damaged", RESTORE, 3, ("is damaged",), a_changed_file),
    Case("restore: record", RESTORE, 3, (f"{STARTS[-1]}-100.json",), a_bad_record),
    Case("restore: encrypted", RESTORE, 1, ("no command: ",), an_encrypted_file),
    Case("restore: older", (*RESTORE, "--skip-damaged"), 3, ("skipped: ",),
         a_newer_damaged_set),
    Case("restore: partial", (*RESTORE[:4], "--set", SET, "--partial"), 1, ("partial: ",),
         a_newer_set_that_lacks_a_node),
    Case("restore: list", ("restore", "archive", "--list", "--instance", GONE), 1, (GONE,),
         nothing),
    # ack
    Case("ack: no archive", ("ack", "nowhere", SET, "--reason", "r"), 2,
         ("no archive here (check the path and that its disk is mounted)",)),
    Case("ack: no reason", ("ack", "archive", SET), 2, ("missing option: --reason",), a_whole_set),
    Case("ack: no key", ("ack", "archive", "r-x/..", "--reason", "r"), 2, ("r-x/..",), a_whole_set),
    Case("ack: a bad note", ("ack", "archive", "--list"), 1, ("damaged: ",), a_bad_note),
    # drill
    Case("drill: no archive", DRILL, 2, ("no archive here",)),
    Case("drill: nothing", DRILL, 1, (INSTANCE,), nothing),
    Case("drill: changed", DRILL, 3, (f"{STARTS[-1]}-100.rdb",), a_changed_file),
    Case("drill: assertion", (*DRILL, "--assert", "dbsize >= 4000"), 1, ("assertion failed",),
         a_whole_set),
    Case("drill: lacks", ("drill", "archive"), 1, ("partial: ",), a_newer_set_that_lacks_a_node),
    Case("drill: no server", (*DRILL, "--server", sys.executable), 2, (sys.executable,),
         a_whole_set),
    Case("drill: no scratch", (*DRILL, "--scratch", "nowhere"), 6, ("nowhere",), a_whole_set),
    Case("drill: no junit", (*DRILL, "--junit", "no/where.xml"), 6, ("no/where.xml",), a_whole_set),
    # backup
    Case("backup: half", ("backup", "--instance", INSTANCE, "--pull"), 2, ("need each other",)),
    Case("backup: nobody", ("backup", "--instance", INSTANCE, *NOWHERE), 5, ("no response from",)),
    Case("backup: no key", ("backup", "--instance", INSTANCE, *NOWHERE), 4, ("no access key",),
         environ=NO_KEY),
    # run, config
    Case("run: nothing", ("run",), 2, ("missing argument: JOB",)),
    Case("run: no file", ("run", "a", "--config", "no.toml"), 2, ("no.toml cannot be read",)),
    Case("run: no job", ("run", "b", "--config", "a.toml"), 2, ("a.toml has no job b",), a_job),
    Case("config: no file", ("config", "check", "--config", "no.toml"), 2,
         ("no.toml cannot be read",)),
    Case("config: wrong", ("config", "check", "--config", "a.toml"), 2,
         ("a.toml:2: jobs.a.run: no job can run 'pul'; did you mean pull?",), a_wrong_job),
    # emulate
    Case("emulate: nothing", ("emulate", "nowhere"), 2, ("nowhere does not exist",)),
    Case("emulate: no instance", ("emulate", "archive"), 2, ("contains no instance",),
         an_empty_folder),
)  # fmt: skip
# No command began: its words could not be understood.
NEVER_BEGUN = {"no such option", "no archive is named", "no instance", "bad range", "turned round"}
NEVER_BEGUN.add("to come")
HAS_QUIET = ("pull", "ls", "copy", "uploads", "verify", "ack", "restore", "drill")


def told_once(err: str, said: tuple[str, ...]) -> None:
    lines = [line for line in err.splitlines() if line.strip()]
    assert lines
    assert "Traceback" not in err
    assert "unexpected" not in err
    for text in said:
        assert err.count(text) == 1, (text, err)
    # Whatever else is told: no line, nor what follows its first word, is in another one.
    for line in lines:
        what = line.strip().partition(": ")[2].partition(" checked; needs ")[0]
        assert len(what) < 25 or err.count(what) == 1, (what, err)


WALKED = [
    (case, quiet)
    for case in CASES
    for quiet in ((False, True) if case.words[:1] and case.words[0] in HAS_QUIET else (False,))
]


@pytest.mark.parametrize(
    ("case", "quiet"), WALKED, ids=[f"{case.name}{', quiet' * quiet}" for case, quiet in WALKED]
)
def test_each_failure_is_reported_once(
    world: World, case: Case, quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.prepare(world)
    for name, value in case.environ:
        monkeypatch.setenv(name, value)
    ended = power.command(*case.words, *["--quiet", "--json"] * quiet)
    assert ended.code == case.code, ended.err
    told_once(ended.err, case.said)
    if quiet and case.name not in NEVER_BEGUN:
        last = json.loads(ended.out.splitlines()[-1])
        assert last["exit_code"] == case.code
        assert last["why"] in ended.err
        assert last["ended_by"] is None or last["ended_by"]["message"] in last["why"]


def test_json_names_what_is_too_old(world: World) -> None:
    an_old_backup(world)
    for words in ((*PULL, "--max-age", "26h"), ("ls", "archive", "--max-age", "26h")):
        *lines, last = map(json.loads, power.command(*words, "--json").out.splitlines())
        [overdue] = [line for line in lines if line.get("event") == "overdue"]
        assert overdue["instance_id"] == INSTANCE
        assert overdue["newest"] == "2020-01-01T02:15:00Z"
        assert last["why"] == overdue["why"]
        assert last.get("overdue", 1) == 1


def test_json_names_what_ended_the_listing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing(world)
    for name, value in BAD_KEY:
        monkeypatch.setenv(name, value)
    for words in (PULL, LS):
        ended = power.command(*words, "--instance", GONE, "--json")
        *_, failed, last = map(json.loads, ended.out.splitlines())
        assert (failed["event"], failed["subject"]) == ("failed", INSTANCE)
        assert last["ended_by"] == failed["error"]
        assert "1 more instance was not listed" in last["ended_by"]["message"]


def test_what_nobody_foresaw(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug at https://host/path?Signature=secret")

    monkeypatch.setattr("archiver.cli.uploads.store_at", broken)
    ended = power.command("uploads", "archive", "--quiet")
    assert ended.code == 1
    assert ended.err.startswith("archiver: unexpected ValueError: a bug at https://host/path?***")
    assert ended.err.count("\n") == 1


def test_an_interrupt_before_the_command_begins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("archiver.cli.run.run", interrupted)
    ended = power.command("uploads", "archive", "--quiet")
    assert ended.code == 130
    assert ended.err == "archiver: interrupted; nothing was started\n"


def test_every_command_is_walked() -> None:
    walked = {case.words[0] for case in CASES if case.words}
    assert walked >= set(main.list_commands(click.Context(main)))
