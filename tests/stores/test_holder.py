"""Which holders are certainly dead, tried with processes in their own namespaces."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archiver import processes
from archiver.stores import holder
from archiver.stores.holder import is_dead, ourselves, parse

WRITE = (
    "import json, time; from archiver.stores.holder import ourselves\n"
    "print(json.dumps(ourselves('other', 1)), flush=True); time.sleep(600)"
)
# A container as another one sees it: the same kernel and host name, other processes.
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]


def containers_allowed() -> bool:
    made = subprocess.run([*CONTAINER, "true"], capture_output=True, check=False)
    return made.returncode == 0


in_containers = pytest.mark.skipif(not containers_allowed(), reason="NEEDS ROOT for namespaces")


@contextmanager
def living(*before: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """A live process, and what it wrote."""
    with subprocess.Popen(
        [*before, sys.executable, "-c", WRITE], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_the_living_are_not_dead() -> None:
    assert not is_dead(ourselves("own", 1))
    with living() as (_, written):
        assert not is_dead(written)


def test_the_dead_are() -> None:
    with living() as (process, written):
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_dead(written)  # a zombie
        process.wait()
        assert is_dead(written)  # nothing


def test_a_process_of_the_same_number_is_another() -> None:
    with living() as (_, written):
        assert is_dead(written | {"started": "1"})


@in_containers
def test_a_living_holder_in_another_pid_namespace() -> None:
    with living(*CONTAINER) as (_, written):
        assert written["host"] == ourselves("own", 1)["host"]
        assert not Path(f"/proc/{written['pid']}x").exists()
        # Here that number is another process, or none.
        assert not is_dead(written)
        assert not is_dead(written | {"pid": 2**22 - 1})


@in_containers
def test_where_proc_is_of_another_namespace_nobody_is_known_to_be_dead() -> None:
    """``unshare --pid`` alone: /proc still shows the processes outside."""
    code = (
        "import sys, json; from archiver.stores.holder import ourselves, is_dead\n"
        "print(is_dead(ourselves('own', 1) | {'pid': 4000000, 'started': '5'}))"
    )
    said = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout == "False\n"


@pytest.mark.parametrize("missing", ["machine", "boot", "pid_namespace", "started", "pid"])
def test_what_an_earlier_version_left_out_is_not_known(missing: str) -> None:
    written = ourselves("other", 1) | {"pid": 2**22 - 1}
    assert is_dead(written)
    del written[missing]
    assert not is_dead(written)


@pytest.mark.parametrize("which", ["machine", "boot", "pid_namespace", "time_namespace"])
def test_another_place_is_not_known(which: str) -> None:
    assert not is_dead(ourselves("other", 1) | {"pid": 2**22 - 1, which: "another"})


def test_where_this_machine_has_no_id_nobody_is_known_to_be_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("")
    for path in (tmp_path / "none", tmp_path / "empty"):
        monkeypatch.setattr(processes, "_MACHINE_ID", path)
        assert not is_dead(ourselves("other", 1) | {"pid": 2**22 - 1})


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000, b"1" * 5000],
)
def test_rubbish_is_nobody(data: bytes) -> None:
    assert parse(data) == {}


@pytest.mark.parametrize("pid", [None, "12", -1, 0, 2**70, 1.5, [], {}])
def test_a_process_number_that_is_none(pid: object) -> None:
    written = parse(json.dumps(ourselves("other", 1) | {"pid": pid}).encode())
    assert not is_dead(written)
    assert holder.words(written)
