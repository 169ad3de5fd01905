"""``--max-age``, ``--check`` and ranges, of ``pull`` and ``ls``."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.commands.ls.age import late
from archiver.emulator.call import Call
from archiver.emulator.gateway import ApiError
from archiver.model import BackupType
from examples.sample_rdb import rdb, write_rdb
from tests.archive.sample import (
    CLUSTER,
    INSTANCE,
    put_backup,
    put_cluster,
    put_format,
    put_standard,
    put_sums,
    remove_lines,
    remove_node,
)
from tests.conftest import KEY_ID, KEY_SECRET
from tests.faults import power
from tests.faults.power import command

LS, MAX_AGE = ("ls", "archive"), ("--max-age", "26h")
PULL = ("pull", "--to", "archive", "--instance", INSTANCE)


@pytest.fixture
def no_blocking_on_the_loop() -> None:
    """The command line looks at places before it begins."""


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put_format(tmp_path / "archive")
    return tmp_path / "archive"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[power.Served]:
    (tmp_path / "vendor" / INSTANCE).mkdir(parents=True)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET)
    with power.serving(tmp_path / "vendor") as served:
        monkeypatch.setenv("ARCHIVER_PULL_ENDPOINT", served.endpoint)
        monkeypatch.setenv("ARCHIVER_LS_ENDPOINT", served.endpoint)
        yield served


def ago(**span: float) -> str:
    return f"{datetime.now(UTC) - timedelta(**span):%Y%m%dT%H%M%SZ}"


def serve(seed: int = 0, *, node: str = "", **span: float) -> None:
    stamp = ago(**span).replace("T", "").rstrip("Z")
    write_rdb(Path("vendor", INSTANCE, node, f"d_{stamp}.rdb"), 5000, seed)


@pytest.mark.parametrize(
    ("hours", "code", "said"),
    [
        (25, 0, ""),
        (27, 1, "started 27 h ago, more than 26 h"),
        (-1, 1, "in the future"),
        (-0.1, 0, ""),
    ],
)
def test_the_newest_counts(archive: Path, hours: float, code: int, said: str) -> None:
    put_standard(archive, rdb(5000), ago(hours=hours))
    if hours > 0:
        put_standard(archive, rdb(5000), ago(hours=hours + 24))
    ended = command(*LS, *MAX_AGE, "--quiet")
    assert ended.code == code
    assert said in ended.err
    assert bool(said) == bool(ended.err)


def test_only_what_is_complete_counts(archive: Path) -> None:
    made, *_ = [put_cluster(archive, ago(hours=hours)) for hours in (1, 25, 49)]
    remove_node(made[1])
    put_sums(made[0].parent)
    young = command(*LS, *MAX_AGE)
    assert young.code == 0, young.err
    old = command(*LS, "--max-age", "24h")
    assert old.code == 1
    assert f"of {CLUSTER} in {archive} started 25 h ago" in old.err


def test_a_log_is_not_a_backup(archive: Path) -> None:
    put_standard(archive, b"*1\r\n$4\r\nPING\r\n", ago(hours=1), backup_type=BackupType.INCREMENTAL)
    assert command(*LS, *MAX_AGE).code == 1
    put_standard(archive, rdb(5000), ago(hours=2))
    assert command(*LS, *MAX_AGE).code == 0


def test_a_damaged_one_is_none(archive: Path) -> None:
    put_standard(archive, rdb(5000), ago(hours=1)).unlink()
    ended = command(*LS, *MAX_AGE)
    assert ended.code == 3
    assert f"{INSTANCE} has no complete backup in {archive}" in ended.err


def test_a_cluster_of_a_folder_for_each_shard(archive: Path) -> None:
    """All of them make one backup; without one of them it is none."""
    for hours in (50.0, 26.2, 2.0):
        for node in range(2):
            put_backup(
                archive, ago(hours=hours), rdb(3000, node), instance=CLUSTER,
                node=f"{CLUSTER}-db-{node}", job=f"{node + 1}", backup_id=f"10{node}",
            )  # fmt: skip
    for folder in archive.glob(f"{CLUSTER}/*/*/*Z-*"):
        put_sums(folder)
    assert command(*LS, *MAX_AGE).code == 0
    [newest] = sorted(archive.glob(f"{CLUSTER}/*/*/*-2"))[-1:]
    remove_lines(newest)
    shutil.rmtree(newest)
    ended = command(*LS, *MAX_AGE)
    assert ended.code == 1, ended.err
    assert "started 26 h ago" in ended.err


def test_each_instance_that_is_asked_for(archive: Path) -> None:
    put_standard(archive, rdb(5000), ago(hours=1))
    put_standard(archive, rdb(5000), ago(days=18), instance="r-b")
    both = command(*LS, *MAX_AGE)
    assert both.code == 1
    assert "r-b" in both.err
    assert f"of {INSTANCE} in" not in both.err
    assert command(*LS, *MAX_AGE, "--instance", INSTANCE).code == 0
    assert "r-c has no complete backup" in command(*LS, *MAX_AGE, "--instance", "r-c").err


def test_a_range_of_an_archive(archive: Path) -> None:
    put_standard(archive, rdb(5000), ago(days=1))
    put_standard(archive, rdb(5000), ago(days=9))
    assert "2 backups, " in command(*LS).err
    assert "2 backups, " in command(*LS, "--range", "all").err
    assert "1 backup, " in command(*LS, "--range", "last-7d").err


def test_a_pull_of_an_instance_that_has_stopped(archive: Path, served: power.Served) -> None:
    """18 days old: what is held is all that there is, and all is well but for the age, which is
    said, loud or not."""
    serve(days=18)
    said = f"note: the newest backup of {INSTANCE} started 18 d ago: is the vendor still making"
    for words in (PULL, (*LS, "--instance", INSTANCE), ("ls", "--instance", INSTANCE)):
        ended = command(*words, "-q")
        assert (ended.code, ended.err.count(said), ended.err.count("\n")) == (0, 1, 1), ended.err
    again = command(*PULL)
    assert again.code == 0
    assert (
        f"{archive} has backups of 1 of 1 instance requested; the newest backup started 18 d ago"
        in (again.err)
    )
    late = command(*PULL, *MAX_AGE, "-q")
    assert late.code == 1
    [line] = late.err.splitlines()
    assert line.endswith(f"of {INSTANCE} in {archive} started 18 d ago, more than 26 h")
    serve(1, hours=2)
    assert (command(*PULL, *MAX_AGE, "-q")).code == 0


@pytest.mark.parametrize(
    ("days", "usual"),
    [
        ([1.0], None),
        ([7.9], None),
        ([8.1], ""),
        ([9, 2, 1], None),
        ([5, 4, 3, 2.0], None),
        ([6, 5, 4, 3], ", and they usually start 24 h apart"),
        ([3.2, 3.1, 3], ", and they usually start 2 h apart"),
        ([2.2, 2.1, 2], None),
        ([34, 27, 20, 13], None),
        ([36, 29, 22, 15], ", and they usually start 7 d apart"),
    ],
)
def test_how_old_is_older_than_usual(days: list[float], usual: str | None) -> None:
    now = datetime.now(UTC)
    starts = [now - timedelta(days=one) for one in days]
    told = [str(one) for one in late({INSTANCE: starts}, now)]
    expected = (
        f"note: the newest backup of {INSTANCE} started {days[-1]:.0f} d ago{usual}: "
        "is the vendor still making them?"
    )
    assert told == ([] if usual is None else [expected])


def test_a_narrow_range_is_said_and_the_archive_counts(archive: Path, served: power.Served) -> None:
    put_standard(archive, rdb(5000), ago(hours=3))
    serve(hours=5)
    ended = command(*PULL, *MAX_AGE, "--range", "last-4h")
    assert ended.code == 0, ended.err
    assert re.search(r"no backups: .* from 20.*Z to 20", ended.err)
    narrow = command(*PULL, "--range", "last-6h")
    assert re.search(r"only backups that started in 20.*Z\.\.20.*Z were requested", narrow.err)
    assert "requested;" in narrow.err


def test_nothing_listed_is_said(archive: Path, served: power.Served) -> None:
    for words in (PULL, ("ls", "--instance", INSTANCE)):
        ended = command(*words, "-q")
        assert ended.code == 0
        assert ended.err == f"no backups: the source lists none of {INSTANCE}\n"
    ended = command(*LS, "--instance", INSTANCE, "-q")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"no backups: {archive} has none of {INSTANCE}\n"


def test_all_that_the_vendor_has_comes_home(archive: Path, served: power.Served) -> None:
    for days in (1, 400, 729, 2000):
        serve(days, days=days)
    listed = served.emulator.tally.api_calls
    ended = command(*PULL)
    assert ended.code == 0
    assert len(list(archive.rglob("*.rdb"))) == 4
    assert served.emulator.tally.api_calls - listed == 3  # two look it up
    assert "were requested" not in ended.err


def test_an_api_that_refuses_to_be_asked_for_everything(
    archive: Path, served: power.Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = Call.span

    def checked_span(call: Call) -> tuple[datetime, datetime]:
        start, end = span(call)
        if datetime.now(UTC) - start > timedelta(days=732):
            raise ApiError(400, "InvalidStartTime.Malformed", "The start is too early.")
        return start, end

    monkeypatch.setattr(Call, "span", checked_span)
    serve(1, days=1)
    serve(2, days=729)
    ended = command(*PULL, "-q")
    assert ended.code == 0
    assert ended.err.count("range: the API rejects earlier times") == 1
    assert len(list(archive.rglob("*.rdb"))) == 2
    refused = command(*PULL, "--range", "2000-01-01..")
    assert refused.code == 2
    assert "InvalidStartTime.Malformed" in refused.err


def test_check(archive: Path, served: power.Served) -> None:
    remote = ("ls", "archive", "--remote", "--instance", INSTANCE)
    serve(1, hours=1)
    serve(2, hours=25)
    assert command(*remote).code == 0
    missing = command(*remote, "--check", "-q")
    assert missing.code == 1
    assert missing.err.count("missing: ") == 2
    assert command(*PULL).code == 0
    assert command(*remote, "--check", "-q").err == ""
    [newest, _] = sorted(Path("vendor", INSTANCE).glob("*.rdb"), reverse=True)
    overrides = {newest.name: {"BackupStatus": "Running"}}
    Path("vendor", INSTANCE, "backups.json").write_text(json.dumps(overrides))
    listed = command("ls", "--instance", INSTANCE, "--check")
    assert (listed.code, "unfinished" in listed.out) == (0, True)


def test_check_of_an_archive(archive: Path) -> None:
    made, *_ = [put_cluster(archive, ago(hours=hours)) for hours in (1, 25, 49)]
    assert command(*LS, "--check").code == 0
    remove_node(made[1])
    put_sums(made[0].parent)
    assert command(*LS).code == 0
    ended = command(*LS, "--check", "-q")
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith(f"incomplete: {CLUSTER}, set ")


def test_check_while_a_set_is_being_made(served: power.Served) -> None:
    names = [f"{INSTANCE}-db-{node}" for node in range(2)]
    for node in names:
        serve(1, node=node, hours=25)
        serve(2, node=node, hours=1)
    newest = max(Path("vendor", INSTANCE, names[1]).iterdir())
    overrides = {f"{names[1]}/{newest.name}": {"BackupStatus": "Running"}}
    Path("vendor", INSTANCE, "backups.json").write_text(json.dumps(overrides))
    ended = command("ls", "--instance", INSTANCE, "--check")
    assert "incomplete set" in ended.out
    assert ended.code == 0, ended.err
