"""What strace saw of a program, played into the model: the same tree, and what was synced."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.posix import FileSystem
from tests.faults.syscalls import Moment, Replay, lay_out, read_calls, read_tree, under_strace
from tests.faults.test_disk import needs_strace

PROGRAM = """
import ctypes, os, threading
os.mkdir("d")
a = os.open("d/a", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.pwrite(a, b"abc", 0)
os.pwrite(a, b"XY", 5)
os.fsync(a)
os.replace("d/a", "d/b")
here = os.open("d", os.O_RDONLY | os.O_DIRECTORY)
os.fsync(here)
print("told", flush=True)
with open("over", "w") as file:
    file.write("one")
    file.flush()
    file.write("two")
os.rename("over", "d/over")
os.unlink("gone")
os.ftruncate(a, 4)
def work(n):
    for m in range(20):
        with open(f"d/{n}.{m}", "wb") as file:
            file.write(b"%d" % m)
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
[one.start() for one in threads]
[one.join() for one in threads]
ctypes.CDLL(None).syncfs(here)
os.pwrite(a, b"last", 0)
"""


def record(folder: Path, program: str) -> tuple[FileSystem, list[tuple[Moment, set[str]]]]:
    """The model in the end, and of each moment the files that nothing could take away."""
    trace = folder.with_suffix(".trace")
    system = FileSystem(read_tree(folder))
    command = (*under_strace(trace), sys.executable, "-c", program)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    replay = Replay(system, folder, cwd=folder, in_flight_happened=False)
    seen = [(moment, set(system.after_cut({}))) for moment in replay.moments(trace)]
    return system, seen


@needs_strace
def test_a_program_is_followed_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    lay_out(folder, {"gone": b"1", "old": None})
    system, seen = record(folder, PROGRAM)
    assert system.visible() == read_tree(folder)
    told = next(index for index, (moment, _) in enumerate(seen) if moment.said)
    assert seen[told][0].said.rstrip() == b"told"
    # The folder's names were synced, and its own was not.
    assert seen[told][1] == {"gone", "old"}
    calls = [moment.call for moment, _ in seen]
    whole = calls.index("syncfs")
    assert len(seen[whole][1]) == len(read_tree(folder))
    assert system.after_cut({})["d/b"] == b"abc\0"
    assert system.visible()["d/b"] == b"last"


@needs_strace
def test_a_call_that_is_not_known_is_not_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    program = "import os; os.symlink('a', 'b')"
    with pytest.raises(ValueError, match="symlink"):
        record(folder, program)


@needs_strace
def test_a_call_on_another_folder_does_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    system, seen = record(folder, "import os; os.symlink('/a', '../b'); os.mkdir('../watched-not')")
    assert seen == []
    assert system.visible() == {}


def test_what_is_laid_out_has_the_names_of_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "laid"
    tree = {"a": b"1", "d": None, "d/b": b"1", "c": b"1"}
    lay_out(folder, tree, frozenset([frozenset(("a", "d/b"))]))
    assert read_tree(folder) == tree
    assert (folder / "a").samefile(folder / "d/b")
    assert (folder / "c").stat().st_nlink == 1


def test_calls_of_threads_are_put_together() -> None:
    steps = read_calls(
        '1 pwrite64(3, "\\x61", 1, 0 <unfinished ...>\n'
        "2 fsync(4)                          = 0\n"
        "1 <... pwrite64 resumed>) = 1\n"
        "1 fsync(3 <unfinished ...>\n"
        "2 fsync(9) = -1 EBADF (Bad file descriptor)\n"
        "1 <... fsync resumed>) = ?\n"
    )
    assert [(entered, call.name) for entered, call in steps] == [
        (True, "pwrite64"), (True, "fsync"), (False, "fsync"), (False, "pwrite64"),
        (True, "fsync"), (True, "fsync"), (False, "fsync"), (False, "fsync"),
    ]  # fmt: skip
    write = steps[0][1]
    assert (write.data(1), write.number(3), write.result) == (b"a", 0, 1)
    assert [call.result for entered, call in steps if not entered] == [0, 1, -1, None]


def hexadecimal(path: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in path.encode()) + '"'


@pytest.mark.parametrize("made", [True, False])
def test_a_call_waits_for_a_folder_that_another_thread_makes(tmp_path: Path, made: bool) -> None:
    """Entered in one order and done in another: each thread makes the folders that it misses."""
    folder, trace = tmp_path / "watched", tmp_path / "trace"
    folder.mkdir()
    a, b, c = hexadecimal("a"), hexadecimal("a/b"), hexadecimal("a/b/c")
    lines = [
        f"1 mkdir({b}, 0700 <unfinished ...>",
        f"2 openat(AT_FDCWD, {c}, O_WRONLY|O_CREAT, 0600 <unfinished ...>",
        f"3 mkdir({a}, 0700) = 0",
        "2 <... openat resumed>) = 3",
        "1 <... mkdir resumed>) = 0",
    ]
    if not made:
        del lines[2]  # nobody makes it
    trace.write_text("\n".join(lines))
    system = FileSystem(read_tree(folder))
    replay = Replay(system, folder, cwd=folder, in_flight_happened=False)
    if made:
        assert [moment.call for moment in replay.moments(trace)] == ["mkdir", "mkdir", "openat"]
        assert system.visible() == {"a": None, "a/b": None, "a/b/c": b""}
    else:
        with pytest.raises(FileNotFoundError, match="openat"):
            list(replay.moments(trace))
