"""Backups on demand, from CreateBackup into an archive, against the emulator."""

import json
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from archiver import Archive, TairSource, events, pull
from archiver.archive.indexing import Indexing
from archiver.commands.backup import run as running
from archiver.commands.backup.run import BackupOptions, Home, backup
from archiver.commands.backup.waiting import Clock
from archiver.commands.pull.plan import PullOptions
from archiver.commands.summary import Summary
from archiver.emulator import Emulator, Faults, Policy, Quota
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    BackupRefused,
    BackupUnderWay,
    BadCredentials,
    PermissionDenied,
    SourceUnreachable,
    StoreError,
    UnknownInstance,
    UsageError,
)
from archiver.events import BackupAdvanced, BackupBegun, BackupMade, Failed
from archiver.model import Backup, BackupMode, Page, Query, Status
from archiver.retry import RetryPolicy
from archiver.sources.alibaba.ondemand import EXISTS, LOST, CallApi, TairMaker
from examples.sample_rdb import write_rdb
from tests.backup.made import Time
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker, everything, source_of

pytestmark = pytest.mark.usefixtures("no_clock_skew")

SECONDS = 100
Left = dict[str, tuple[str, ...]]


@dataclass
class Bench:
    """A run against an emulator whose time passes only by waiting. ``wrap`` may stand between the
    maker and the API."""

    time: Time
    emulator: Emulator
    source: TairSource
    archive: Archive
    seen: list[events.Event] = field(default_factory=list)
    wrap: Callable[[CallApi], CallApi] = lambda call: call

    @property
    def maker(self) -> TairMaker:
        call = self.wrap(self.source.api.call)
        return TairMaker(call, self.source, sleep=self.time.sleep)

    @property
    def home(self) -> Home:
        return Home(self.source, self.archive, PullOptions())

    async def run(
        self, left: Left, options: BackupOptions | None = None, home: Home | None = None
    ) -> Summary:
        summary = Summary()

        def observe(event: events.Event) -> None:
            summary(event)
            self.seen.append(event)

        await backup(self.maker, left, options, observe, home, self.time.clock)
        return summary

    def seen_of(self, kind: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    def calls(self, action: str) -> int:
        return self.emulator.tally.calls_by_action[action]

    async def ask(self, action: str, **params: str) -> dict[str, Any]:
        return dict(await self.source.api.call(action, params, subject="a test"))

    def here(self) -> list[str]:
        """The names of the archived files."""
        return sorted(path.name for path in self.archive_path.rglob("*.rdb"))

    @property
    def archive_path(self) -> Path:
        return Path(str(self.archive.store))


@pytest.fixture
def no_clock_skew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator's time passes without us."""
    monkeypatch.setattr("archiver.emulator.gateway._MAX_SKEW_SECONDS", 10**12)


@pytest.fixture
async def bench(files: Path, emulator_of: EmulatorMaker, archive: Archive) -> AsyncIterator[Bench]:
    clock = Time(float(int(time.time())))
    emulator = await emulator_of(files, clock=clock, backup_seconds=SECONDS)
    async with source_of(emulator, region="cn-hangzhou") as source:
        bench = Bench(clock, emulator, source, archive)
        name = f"old_{a_while_ago(bench):%Y%m%d%H%M%S}.rdb"
        write_rdb(files / INSTANCE / name, 3000)
        yield bench


def a_while_ago(bench: Bench) -> datetime:
    return datetime.fromtimestamp(bench.time.start - 600, UTC)


def cluster(files: Path, instance_id: str, count: int = 2, **fields: object) -> None:
    for number in range(count):
        node = files / instance_id / f"{instance_id}-db-{number}"
        node.mkdir(parents=True)
        write_rdb(node / "dump_20261120021500.rdb", 3000, number)
    (files / "instances.json").write_text(json.dumps({"instances": {instance_id: fields}}))


async def test_made_and_nothing_more(bench: Bench) -> None:
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left, BackupOptions(retention_days=30))
    assert (left, summary.exit_code, summary.made) == ({}, 0, 1)
    [begun], [made] = bench.seen_of(BackupBegun), bench.seen_of(BackupMade)
    assert (begun.instance_id, begun.instead) == (INSTANCE, None)
    assert made.jobs == begun.jobs
    [one] = made.backups
    assert one.set_id == begun.jobs[0]
    assert (one.expires_at - one.started_at).days == 30
    assert SECONDS <= made.seconds < SECONDS + 15
    states = [event.state for event in bench.seen_of(BackupAdvanced)]
    assert list(dict.fromkeys(states))[:2] == ["NoStart", "Preparing"]
    assert states[-1] == "Finished"
    assert bench.calls("CreateBackup") == 1
    assert not bench.archive_path.exists()


@pytest.mark.parametrize(("days", "kept"), [(None, 7), (-1, None)])
async def test_how_long_it_is_kept(bench: Bench, days: int | None, kept: int | None) -> None:
    await bench.run({INSTANCE: ()}, BackupOptions(retention_days=days))
    [one] = bench.seen_of(BackupMade)[0].backups
    assert (one.expires_at and (one.expires_at - one.started_at).days) == kept


@pytest.mark.parametrize("days", [0, 6, 731, -2])
def test_a_retention_that_there_is_not(days: int) -> None:
    with pytest.raises(UsageError, match="7 to 730 days"):
        BackupOptions(retention_days=days)


async def test_exactly_that_backup_comes_home(bench: Bench) -> None:
    summary = await bench.run({INSTANCE: ()}, home=bench.home)
    assert (summary.exit_code, summary.archived) == (0, 1)
    [one] = bench.seen_of(BackupMade)[0].backups
    assert [name.endswith(f"-{one.backup_id}.rdb") for name in bench.here()] == [True]
    # A second run finds it there; a pull of everything brings the older one.
    again: Left = {INSTANCE: bench.seen_of(BackupBegun)[0].jobs}
    held = await bench.run(again, home=bench.home)
    assert (held.archived, held.held, again, bench.calls("CreateBackup")) == (0, 1, {}, 1)
    assert (await pull(bench.source, bench.archive, [everything()])).archived == 1


async def test_a_cluster_with_one_job(files: Path, bench: Bench) -> None:
    cluster(files, "r-new", CreateTime="2024-02-01T00:00:00Z")
    summary = await bench.run({"r-new": ()}, home=bench.home)
    [begun], [made] = bench.seen_of(BackupBegun), bench.seen_of(BackupMade)
    assert (len(begun.jobs), len(made.backups), summary.archived) == (1, 2, 2)
    assert summary.exit_code == 0
    assert [event.files for event in bench.seen_of(events.SetCompleted)] == [2]


async def test_an_old_cluster_with_a_job_for_each_node(files: Path, bench: Bench) -> None:
    cluster(files, "r-old", 3, CreateTime="2020-02-01T00:00:00Z")
    left: Left = {"r-old": ()}
    asked: list[str] = []
    bench.wrap = lambda call: _noting(call, asked)
    summary = await bench.run(left, home=bench.home)
    [begun], [made] = bench.seen_of(BackupBegun), bench.seen_of(BackupMade)
    assert (len(begun.jobs), len(made.backups), summary.archived) == (3, 3, 3)
    assert set(asked) == {"", *begun.jobs}  # each by itself
    assert summary.exit_code == 0, summary.failures


def _noting(call: CallApi, asked: list[str]) -> CallApi:
    async def noting(action: str, params: Mapping[str, str], **more: Any) -> dict[str, Any]:
        if action == "DescribeBackupTasks":
            asked.append(params.get("BackupJobId", ""))
        return await call(action, params, **more)

    return noting


async def test_a_cloud_native_cluster(files: Path, bench: Bench) -> None:
    """Its listing does not name the job: the set that began with it comes home, and no other."""
    cluster(files, "r-native", 8, ArchitectureType="cluster", ComputingType="Ecs", ShardCount=8)
    for path in files.glob("r-native/*/dump_*"):
        shutil.copy(path, path.with_name(f"dump_{a_while_ago(bench):%Y%m%d%H%M%S}.rdb"))
    for _ in range(2):
        before = set(bench.here())
        summary = await bench.run({"r-native": ()}, home=bench.home)
        assert (summary.archived, summary.exit_code) == (8, 0)
        assert len({*bench.here()} - before) == 8
    first, second = bench.seen_of(BackupMade)
    for made in (first, second):
        [set_id] = {one.set_id for one in made.backups}
        assert set_id.startswith("cb-")
    assert not {one.set_id for one in first.backups} & {one.set_id for one in second.backups}
    left: Left = {"r-native": first.jobs}
    held = await bench.run(left, home=bench.home)
    assert (held.held, held.archived, left) == (8, 0, {})
    assert {one.set_id for one in bench.seen_of(BackupMade)[2].backups} == {
        one.set_id for one in first.backups
    }


@pytest.mark.parametrize("days", [None, 30])
async def test_another_backup_is_under_way(bench: Bench, days: int | None) -> None:
    job = (await bench.ask("CreateBackup", InstanceId=INSTANCE))["BackupJobID"]
    summary = await bench.run({INSTANCE: ()}, BackupOptions(retention_days=days), bench.home)
    [begun] = bench.seen_of(BackupBegun)
    assert begun.jobs == (job,)
    why = f"{EXISTS}; how long it is kept was settled when it began" if days else EXISTS
    assert begun.instead == why
    assert begun.began_at == datetime.fromtimestamp(bench.time.start, UTC)
    assert (summary.exit_code, summary.archived, bench.calls("CreateBackup")) == (0, 1, 2)


async def test_another_backup_ended_just_now(bench: Bench) -> None:
    """The vendor refused for it, and shows no job under way: then it can be asked again."""

    def wrap(call: CallApi) -> CallApi:
        refusals = [BackupUnderWay("BackupJobExists")]

        async def refusing(action: str, params: Mapping[str, str], **more: Any) -> dict[str, Any]:
            if action == "CreateBackup" and refusals:
                raise refusals.pop()
            return await call(action, params, **more)

        return refusing

    bench.wrap = wrap
    assert (await bench.run({INSTANCE: ()})).made == 1
    assert bench.calls("CreateBackup") == 1


async def test_no_job_for_which_it_was_refused(bench: Bench) -> None:
    async def refusing(action: str, params: Mapping[str, str], **_: Any) -> dict[str, Any]:
        if action == "CreateBackup":
            raise BackupUnderWay("BackupJobExists")
        return {}

    bench.wrap = lambda _: refusing
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left)
    [failed] = summary.failures
    assert isinstance(failed.error, BackupUnderWay)
    assert (left, summary.exit_code) == ({}, 1)
    assert 60 <= bench.time.passed < 70


def losing(error: SourceUnreachable, *, is_carried_out: bool) -> Callable[[CallApi], CallApi]:
    """The answer to CreateBackup never arrives."""

    def wrap(call: CallApi) -> CallApi:
        async def lost(action: str, params: Mapping[str, str], **more: Any) -> dict[str, Any]:
            if action != "CreateBackup":
                return await call(action, params, **more)
            if is_carried_out:
                await call(action, params, **more)
            raise error

        return lost

    return wrap


async def test_a_lost_answer(bench: Bench) -> None:
    """CreateBackup is not sent again: the job that appeared is waited for."""
    bench.wrap = losing(SourceUnreachable("no answer"), is_carried_out=True)
    summary = await bench.run({INSTANCE: ()}, home=bench.home)
    [begun] = bench.seen_of(BackupBegun)
    assert (begun.instead, bench.calls("CreateBackup")) == (LOST, 1)
    assert (summary.exit_code, summary.archived) == (0, 1)


class Cutting(Emulator):
    """Carries CreateBackup out, and then breaks the connection off instead of answering."""

    async def _serve_api(self, request: web.Request) -> web.Response:
        answer = await super()._serve_api(request)
        if request.headers["x-acs-action"] == "CreateBackup" and request.transport is not None:
            request.transport.abort()
        return answer


async def test_an_answer_that_breaks_off_on_its_way(files: Path, archive: Archive) -> None:
    write_rdb(files / INSTANCE / "old_20261120021500.rdb", 3000)
    clock = Time(float(int(time.time())))
    given: Any = {"access_key_id": KEY_ID, "access_key_secret": KEY_SECRET}
    given |= {"clock": clock, "backup_seconds": SECONDS}
    async with Cutting(files, **given) as emulator, source_of(emulator) as source:
        bench = Bench(clock, emulator, source, archive)
        summary = await bench.run({INSTANCE: ()}, home=bench.home)
    assert (summary.archived, bench.calls("CreateBackup")) == (1, 1)
    assert bench.seen_of(BackupBegun)[0].instead == LOST


async def test_an_answer_lost_while_another_backup_is_under_way(bench: Bench) -> None:
    job = (await bench.ask("CreateBackup", InstanceId=INSTANCE))["BackupJobID"]
    bench.wrap = losing(SourceUnreachable("no answer"), is_carried_out=False)
    await bench.run({INSTANCE: ()})
    [begun] = bench.seen_of(BackupBegun)
    assert (begun.jobs, begun.instead) == ((job,), LOST)


async def test_a_lost_answer_and_no_job(bench: Bench) -> None:
    await bench.run({INSTANCE: ()})  # its job is not taken for the new one
    bench.wrap = losing(SourceUnreachable("no answer"), is_carried_out=False)
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left)
    [failed] = summary.failures
    assert isinstance(failed.error, BackupFailed)
    assert "no answer; DescribeBackupTasks shows no job that began since" in str(failed.error)
    assert (left, summary.exit_code, bench.calls("CreateBackup")) == ({}, 1, 1)


async def test_the_jobs_of_a_lost_answer_appear_one_by_one(files: Path, bench: Bench) -> None:
    cluster(files, "r-old", 3, CreateTime="2020-02-01T00:00:00Z")
    shown: list[int] = []

    def wrap(call: CallApi) -> CallApi:
        losing_one = losing(SourceUnreachable("no answer"), is_carried_out=True)(call)

        async def slow(action: str, params: Mapping[str, str], **more: Any) -> dict[str, Any]:
            answer = await losing_one(action, params, **more)
            if action == "DescribeBackupTasks" and answer["BackupJobs"]:
                shown.append(1)
                answer["BackupJobs"] = answer["BackupJobs"][: len(shown)]
            return answer

        return slow

    bench.wrap = wrap
    await bench.run({"r-old": ()})
    assert len(bench.seen_of(BackupBegun)[0].jobs) == 3


@pytest.mark.parametrize("error", [SourceUnreachable("gone"), BadCredentials("expired")])
async def test_a_lost_answer_and_nobody_to_ask(error: ArchiverError, bench: Bench) -> None:
    """Who runs it again must know that a backup may be made already."""
    lost = losing(SourceUnreachable("no answer"), is_carried_out=True)

    def wrap(call: CallApi) -> CallApi:
        losing_one = lost(call)

        async def gone(action: str, params: Mapping[str, str], **more: Any) -> dict[str, Any]:
            if bench.calls("CreateBackup"):
                raise error
            return await losing_one(action, params, **more)

        return gone

    bench.wrap = wrap
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left)
    [failed] = summary.failures
    assert str(failed.error).startswith("no answer; whether it was carried out cannot be seen: ")
    assert "the vendor may still make a backup" in str(failed.error.hint)
    assert (left, summary.exit_code, bench.calls("CreateBackup")) == ({}, 1, 1)


@dataclass
class HalfDone:
    """A source of which one node's new file stays unfinished."""

    source: TairSource

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        async for page in self.source.pages(query):
            yield replace(page, backups=tuple(map(self._told, page.backups)))

    async def again(self, backup: Backup) -> Backup:
        return await self.source.again(backup)

    @staticmethod
    def _told(one: Backup) -> Backup:
        is_half = one.mode is BackupMode.MANUAL and "-db-1" in one.node_id
        return replace(one, status=Status.UNFINISHED) if is_half else one


async def test_a_set_of_which_a_file_is_never_finished(files: Path, bench: Bench) -> None:
    """The others come home, their set stays open, and what goes on waits for the rest."""
    cluster(files, "r-new", CreateTime="2024-02-01T00:00:00Z")
    whole, bench.source = bench.source, HalfDone(bench.source)  # type: ignore[assignment]
    bench.wrap = lambda _: whole.api.call
    bench.source.api = whole.api  # type: ignore[misc]
    left: Left = {"r-new": ()}
    summary = await bench.run(left)
    [begun] = bench.seen_of(BackupBegun)
    assert (summary.exit_code, left) == (1, {"r-new": begun.jobs})
    summary = await bench.run(left, home=bench.home)
    assert (summary.archived, summary.exit_code, left) == (1, 1, {"r-new": begun.jobs})
    assert bench.seen_of(events.SetCompleted) == []
    assert not list(bench.archive_path.rglob("SHA256SUMS"))
    bench.source = whole
    summary = await bench.run(left, home=bench.home)
    assert (summary.archived, summary.exit_code, left) == (1, 0, {})
    assert [event.files for event in bench.seen_of(events.SetCompleted)] == [2]


async def test_what_the_store_does_not_keep_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(_: Indexing, month: str) -> dict[str, ArchiverError]:
        return {f"{month}/a-set": StoreError("the store does not have it as it was sent")}

    monkeypatch.setattr(Indexing, "check", check)
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left, home=bench.home)
    [begun] = bench.seen_of(BackupBegun)
    assert (summary.exit_code, left) == (6, {INSTANCE: begun.jobs})


async def test_a_request_that_was_never_sent(bench: Bench) -> None:
    error = SourceUnreachable("no connection")
    error.was_sent = False
    bench.wrap = losing(error, is_carried_out=False)
    summary = await bench.run({INSTANCE: ()})
    assert summary.failures[0].error is error
    assert bench.time.passed == 0


def allowing(*actions: str, resource: str = "*") -> dict[str, object]:
    statements = [
        {"Effect": "Allow", "Action": f"kvstore:{action}", "Resource": resource}
        for action in actions
    ]
    return {"Version": "1", "Statement": statements}


async def test_a_permission_is_missing(
    files: Path, emulator_of: EmulatorMaker, archive: Archive
) -> None:
    """Of one instance: the others are backed up."""
    (files / "r-other").mkdir()
    for name in (INSTANCE, "r-other"):
        write_rdb(files / name / "old_20261120021500.rdb", 3000)
    policy = allowing("DescribeBackups", "DescribeBackupTasks")
    policy["Statement"] += allowing("CreateBackup", resource=f"*/{INSTANCE}")["Statement"]  # type: ignore[operator]
    clock = Time(float(int(time.time())))
    emulator = await emulator_of(
        files, clock=clock, backup_seconds=SECONDS, policy=Policy.parse(policy)
    )
    async with source_of(emulator) as source:
        bench = Bench(clock, emulator, source, archive)
        left: Left = {"r-other": (), INSTANCE: ()}
        summary = await bench.run(left)
    [failed] = summary.failures
    assert isinstance(failed.error, PermissionDenied)
    assert "kvstore:CreateBackup" in str(failed.error)
    assert (failed.subject, summary.exit_code, summary.made, left) == ("r-other", 4, 1, {})


@pytest.mark.parametrize("missing", ["DescribeBackups", "DescribeBackupTasks"])
async def test_no_backup_is_begun_that_nobody_could_wait_for(
    files: Path, emulator_of: EmulatorMaker, archive: Archive, missing: str
) -> None:
    every = {"DescribeBackups", "DescribeBackupTasks", "CreateBackup"}
    policy = Policy.parse(allowing(*(every - {missing})))
    emulator = await emulator_of(files, policy=policy)
    async with source_of(emulator) as source:
        bench = Bench(Time(), emulator, source, archive)
        summary = await bench.run({INSTANCE: ()})
    assert (summary.exit_code, bench.calls("CreateBackup")) == (4, 0)


async def test_throttling(files: Path, emulator_of: EmulatorMaker, archive: Archive) -> None:
    """Whatever is refused for its rate is asked again, and a backup is made once."""
    write_rdb(files / INSTANCE / "old_20261120021500.rdb", 3000)
    clock = Time(float(int(time.time())))
    faults = Faults(throttle=0.5, seed=3)
    emulator = await emulator_of(files, clock=clock, backup_seconds=SECONDS, faults=faults)
    retry = RetryPolicy(attempts=100, first_wait=0.001, max_wait=0.002)
    async with source_of(emulator, retry=retry) as source:
        bench = Bench(clock, emulator, source, archive)
        summary = await bench.run({INSTANCE: ()}, home=bench.home)
    assert (summary.exit_code, summary.archived, bench.calls("CreateBackup")) == (0, 1, 1)
    assert emulator.tally.refused["Throttling.User"] > 3


async def test_thirty_a_day(bench: Bench) -> None:
    for _ in range(30):
        await bench.ask("CreateBackup", InstanceId=INSTANCE)
        bench.time.passed += SECONDS
    summary = await bench.run({INSTANCE: ()})
    assert isinstance(summary.failures[0].error, BackupRefused)
    assert "30 manual backups a day" in str(summary.failures[0].error)
    assert summary.exit_code == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"InstanceStatus": "Changing"}, "IncorrectDBInstanceState"),
        ({"NodeType": "STAND_ALONE"}, "cannot be backed up"),
    ],
)
async def test_an_instance_that_is_not_backed_up(
    files: Path, bench: Bench, fields: dict[str, str], said: str
) -> None:
    (files / "instances.json").write_text(json.dumps({"instances": {INSTANCE: fields}}))
    summary = await bench.run({INSTANCE: ()})
    assert isinstance(summary.failures[0].error, BackupRefused)
    assert said in str(summary.failures[0].error)


async def test_one_instance_is_unknown(bench: Bench) -> None:
    left: Left = {"r-none": (), INSTANCE: ()}
    summary = await bench.run(left, home=bench.home)
    [failed] = summary.failures
    assert isinstance(failed.error, UnknownInstance)
    assert (summary.archived, summary.exit_code, left) == (1, 1, {})


async def test_a_wrong_key_is_said_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MOST_AT_ONCE", 1)

    async def refusing(*_: Any, **__: Any) -> dict[str, Any]:
        raise BadCredentials("wrong")

    bench.wrap = lambda _: refusing
    left: Left = dict.fromkeys((INSTANCE, "r-b", "r-c"), ())
    summary = await bench.run(left)
    [failed] = summary.failures
    assert "wrong; 2 more instances were not backed up" in str(failed.error)
    assert (summary.exit_code, left) == (4, {"r-b": (), "r-c": ()})


def fail_the_next(files: Path, bench: Bench, folder: str) -> None:
    """Of the backup that begins now; nobody knows before."""
    name = f"manual_{datetime.fromtimestamp(bench.time(), UTC):%Y%m%d%H%M%S}_policy.rdb"
    path = files / folder.partition("/")[0] / "backups.json"
    key = name if "/" not in folder else f"{folder.partition('/')[2]}/{name}"
    path.write_text(json.dumps({key: {"BackupStatus": "Failed"}}))


@pytest.mark.parametrize("is_pulled", [False, True])
async def test_a_backup_that_fails(files: Path, bench: Bench, is_pulled: bool) -> None:
    fail_the_next(files, bench, INSTANCE)
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left, home=bench.home if is_pulled else None)
    [failed] = bench.seen_of(Failed)
    assert "failed at the vendor: there is no file" in str(failed.error)
    assert (summary.exit_code, summary.made, left) == (1, 0, {})


@pytest.mark.parametrize("is_pulled", [False, True])
async def test_one_node_fails(files: Path, bench: Bench, is_pulled: bool) -> None:
    cluster(files, "r-new", CreateTime="2024-02-01T00:00:00Z")
    fail_the_next(files, bench, "r-new/r-new-db-1")
    summary = await bench.run({"r-new": ()}, home=bench.home if is_pulled else None)
    [made] = bench.seen_of(BackupMade)
    assert [one.node_id for one in made.backups] == ["r-new-db-0"]
    assert (len(summary.failures), summary.exit_code) == (1, 1)
    assert summary.archived == is_pulled


async def test_a_backup_that_takes_too_long(bench: Bench) -> None:
    """It can be waited for later."""
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left, BackupOptions(timeout=30))
    [begun] = bench.seen_of(BackupBegun)
    assert "Uploading, 30% after 30 s" in str(summary.failures[0].error)
    assert (left, summary.exit_code) == ({INSTANCE: begun.jobs}, 1)
    assert (await bench.run(left, home=bench.home)).archived == 1
    assert (left, bench.calls("CreateBackup")) == ({}, 1)


async def test_nobody_answers_any_more(bench: Bench) -> None:
    """Once a backup is begun, it can be gone on with."""

    def wrap(call: CallApi) -> CallApi:
        async def silent(action: str, params: Mapping[str, str], **more: Any) -> dict[str, Any]:
            if "BackupJobId" in params:
                raise SourceUnreachable("no answer")
            return await call(action, params, **more)

        return silent

    bench.wrap = wrap
    left: Left = {INSTANCE: ()}
    summary = await bench.run(left)
    assert (left, summary.exit_code) == ({INSTANCE: bench.seen_of(BackupBegun)[0].jobs}, 5)


async def test_cancelled_while_it_waits(bench: Bench) -> None:
    left: Left = {INSTANCE: ()}

    async def forever(seconds: float) -> None:
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(
                lambda: backup(
                    bench.maker, left, observer=bench.seen.append, home=bench.home,
                    clock=Clock(bench.time.now, forever),
                )
            )  # fmt: skip
            while not bench.seen_of(BackupAdvanced):
                await anyio.sleep(0.01)
            scope.cancel()
    assert left == {INSTANCE: bench.seen_of(BackupBegun)[0].jobs}
    assert (await bench.run(left, home=bench.home)).archived == 1


async def test_others_come_home_meanwhile(files: Path, bench: Bench) -> None:
    """What is made does not wait for what is not."""
    (files / "r-slow").mkdir()
    write_rdb(files / "r-slow" / "old_20261120021500.rdb", 3000)
    [begun_earlier] = [(await bench.ask("CreateBackup", InstanceId="r-slow"))["BackupJobID"]]

    def wrap(call: CallApi) -> CallApi:
        async def slow(action: str, params: Mapping[str, str], **more: Any) -> dict[str, Any]:
            answer = await call(action, params, **more)
            is_slow = action == "DescribeBackupTasks" and params["InstanceId"] == "r-slow"
            if is_slow and not bench.seen_of(events.Archived):
                for job in answer["BackupJobs"]:
                    job["BackupProgressStatus"] = "Uploading"
            return answer

        return slow

    bench.wrap = wrap
    left: Left = {"r-slow": (begun_earlier,), INSTANCE: ()}
    summary = await bench.run(left, BackupOptions(timeout=10**9), bench.home)
    assert (summary.archived, left) == (2, {})


async def test_an_archive_that_cannot_be_written_to(bench: Bench, tmp_path: Path) -> None:
    """Nobody is asked for a backup that has no place to go to."""
    bench.archive_path.mkdir()
    (bench.archive_path / "archive.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="99"):
        await bench.run({INSTANCE: ()}, home=bench.home)
    assert bench.calls("CreateBackup") == 0


async def test_the_vendors_quota(files: Path, emulator_of: EmulatorMaker, archive: Archive) -> None:
    """A quarter of an hour is waited for with less than 12 calls in any minute."""
    write_rdb(files / INSTANCE / "old_20261120021500.rdb", 3000)
    clock = Time(float(int(time.time())))
    quotas = {("*", "DescribeBackupTasks"): Quota(12)}
    emulator = await emulator_of(files, clock=clock, backup_seconds=900, quotas=quotas)
    async with source_of(emulator) as source:
        bench = Bench(clock, emulator, source, archive)
        summary = await bench.run({INSTANCE: ()})
    assert (summary.exit_code, emulator.tally.refused.total()) == (0, 0)
