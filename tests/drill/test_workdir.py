"""Directories of drills: which ones are removed, and above all which are not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.commands.drill.workdir import MARK, Swept, is_name, new_name, open_workdir, sweep
from archiver.processes import ProcessIdentity, read_stat
from tests.drill.conftest import left_in

MAKE = """
import sys, time
from pathlib import Path
from archiver.commands.drill.workdir import open_workdir
print(open_workdir(Path(sys.argv[1])).directory, flush=True)
time.sleep(60)
"""
KIND_OF = "archiver.commands.drill.workdir.file_system_kind"


def fill(directory: Path) -> None:
    (directory / "node" / "deep").mkdir(parents=True)
    (directory / "node" / "deep" / "dump.rdb").write_bytes(b"REDIS")
    (directory / "link").symlink_to(directory.parent.parent)


def left_by_the_dead(place: Path) -> Path:
    """As a drill that was killed leaves it: no lock, and a maker that is no more."""
    workdir = open_workdir(place)
    os.close(workdir.descriptor)
    fill(workdir.directory)
    change(workdir.directory, started=earlier(ProcessIdentity.current()))
    return workdir.directory


def earlier(process: ProcessIdentity) -> str:
    """A start time before that of the process: another one, which had its number."""
    return str(int(process.started) - 1)


def killed(place: Path) -> Path:
    """The same, with a maker that really was."""
    maker = subprocess.Popen([sys.executable, "-c", MAKE, str(place)], stdout=subprocess.PIPE)
    with maker:
        assert maker.stdout is not None
        directory = Path(maker.stdout.readline().decode().strip())
        fill(directory)
        assert sweep(place) == Swept((), ())  # it lives
        maker.send_signal(signal.SIGKILL)
    return directory


def change(directory: Path, **fields: object) -> None:
    path = directory / MARK
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_a_killed_drill_left_is_removed(place: Path) -> None:
    directory = killed(place)
    assert is_name(directory.name)
    assert [path.name for path in directory.iterdir() if path.name == MARK] == [MARK]
    assert sweep(place) == Swept((directory,), ())
    assert not directory.exists()
    assert place.parent.exists()


def test_an_own_one_is_removed_and_leaves_nothing(place: Path) -> None:
    workdir = open_workdir(place)
    assert [path.name for path in workdir.directory.iterdir()] == [MARK]
    assert sweep(place) == Swept((), ())
    assert workdir.remove()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["archiver-drill-evidence", "archiver-drill-reports-2026", "archiver-drill-", "archiver-drill",
     "archiver-drill-0123456789ABCDEF", "archiver-drill-0123456789abcdef0", "archiver-drill-x_b7k2",
     "xarchiver-drill-0123456789abcdef"],
)  # fmt: skip
def test_what_has_another_name_is_left_alone(place: Path, name: str) -> None:
    """A whole and valid directory of a dead drill, but for its name."""
    directory = left_by_the_dead(place).rename(place / name)
    change(directory, name=name)
    os.utime(directory, (0, 0))
    assert sweep(place) == Swept((), ())
    assert (directory / "node" / "deep" / "dump.rdb").exists()


def _no_mark(directory: Path) -> None:
    (directory / MARK).unlink()


def _empty(directory: Path) -> None:
    (directory / MARK).write_bytes(b"")


def _cut(directory: Path) -> None:
    path = directory / MARK
    path.write_bytes(path.read_bytes()[:-30])


def _raw(directory: Path) -> None:
    (directory / MARK).write_bytes(b"\xff" * 300)


def _long(directory: Path) -> None:
    path = directory / MARK
    path.write_bytes(path.read_bytes() + b" " * 5000)


def _deep(directory: Path) -> None:
    (directory / MARK).write_bytes(b"[" * 4000)


def _list(directory: Path) -> None:
    (directory / MARK).write_bytes(b"[]")


def _another_format(directory: Path) -> None:
    change(directory, format="archiver drill directory 3")


def _no_number(directory: Path) -> None:
    change(directory, pid="7")


def _truth(directory: Path) -> None:
    change(directory, pid=True)


def _more(directory: Path) -> None:
    change(directory, more=1)


def _another_inode(directory: Path) -> None:
    change(directory, inode=1)


def _link(directory: Path) -> None:
    path = directory / MARK
    path.rename(directory.parent / "elsewhere")
    path.symlink_to(directory.parent / "elsewhere")


def _pipe(directory: Path) -> None:
    _no_mark(directory)
    os.mkfifo(directory / MARK)


def _folder(directory: Path) -> None:
    _no_mark(directory)
    (directory / MARK).mkdir()


def _renamed(directory: Path) -> None:
    directory.rename(directory.with_name(new_name()))


def _copied(directory: Path) -> None:
    shutil.copytree(directory, directory.with_name("copy"), symlinks=True)
    shutil.rmtree(directory)
    (directory.with_name("copy")).rename(directory)


def _linked(directory: Path) -> None:
    directory.rename(directory.with_name("real"))
    directory.symlink_to(directory.with_name("real"))


def _file(directory: Path) -> None:
    directory.rename(directory.with_name("real"))
    directory.write_bytes(b"")


@pytest.mark.parametrize(
    "altered",
    [_no_mark, _empty, _cut, _raw, _long, _deep, _list, _another_format, _no_number, _truth, _more,
     _another_inode, _link, _pipe, _folder, _renamed, _copied, _linked, _file],
)  # fmt: skip
def test_what_has_no_valid_mark_is_left_alone_and_named(
    place: Path, altered: Callable[[Path], None]
) -> None:
    altered(left_by_the_dead(place))
    before = sorted(path.relative_to(place) for path in place.rglob("*"))
    swept = sweep(place)
    assert swept.removed == ()
    [(directory, why)] = swept.left
    assert is_name(directory.name)
    assert why
    assert sorted(path.relative_to(place) for path in place.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("whose", ["the directory", "the mark"])
def test_what_another_user_owns_is_left_alone(place: Path, whose: str) -> None:
    directory = left_by_the_dead(place)
    os.chown(directory if whose == "the directory" else directory / MARK, 12345, -1)
    assert sweep(place).removed == ()
    assert (directory / "node" / "deep" / "dump.rdb").exists()


def test_a_living_maker_whose_lock_is_gone(place: Path) -> None:
    directory = left_by_the_dead(place)
    own = ProcessIdentity.current()
    change(directory, pid=own.pid, started=own.started)
    [(_, why)] = sweep(place).left
    assert f"process {own.pid}, which made it, is still running" in why
    # The number of a process that had another one's before.
    change(directory, started=earlier(own))
    assert sweep(place).removed == (directory,)


def test_a_maker_that_nobody_has_waited_for_has_ended(place: Path) -> None:
    directory = left_by_the_dead(place)
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    stat = read_stat(child.pid)
    assert stat is not None
    change(directory, pid=child.pid, started=stat.started)
    assert sweep(place).removed == (directory,)
    child.wait()


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"boot": "of another kernel"}, "on another machine, or before a reboot"),
        ({"boot": ""}, "on another machine"),
        ({"machine": "another"}, "in another container"),
        ({"pid_namespace": "pid:[1]"}, "in another container"),
        ({"time_namespace": ""}, "in another container"),
    ],
)
@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", None])
def test_on_a_shared_disk_a_maker_elsewhere_may_live(
    place: Path,
    fields: dict[str, object],
    where: str,
    kind: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = left_by_the_dead(place)
    change(directory, **fields)
    monkeypatch.setattr(KIND_OF, lambda _: kind)
    [(_, why)] = sweep(place).left
    assert where in why
    assert directory.exists()
    # On a disk of this machine the lock tells of it, in whatever container, before any reboot.
    monkeypatch.setattr(KIND_OF, lambda _: "ext4")
    assert sweep(place).removed == (directory,)


def test_on_a_shared_disk_a_process_of_ours_that_ended(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = killed(place)
    monkeypatch.setattr(KIND_OF, lambda _: "nfs4")
    assert sweep(place).removed == (directory,)


def test_the_mark_goes_last(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal that is cut short leaves what the next sweep knows for its own."""
    directory = left_by_the_dead(place)

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", fail)
        [(left, why)] = sweep(place).left
    assert (left, why) == (directory, "it cannot be removed: Input/output error")
    assert (directory / MARK).exists()
    assert sweep(place).removed == (directory,)


def test_a_directory_that_cannot_be_marked_is_not_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("archiver.commands.drill.workdir.write_mark", fail)
    with pytest.raises(OSError, match="No space"):
        open_workdir(place)
    assert left_in(place) == []


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == Swept((), ())
