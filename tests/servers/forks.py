"""Processes of the command line that start at once: forks of one that has imported everything.

A process of its own for each command, with its environment, directory, streams and exit code, as
``python -m archiver`` has; only what takes most of its time, the imports, is done once a session.
What a test shows about starting, about streams that are closed or about signals takes a real start.
"""

import array
import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import botocore.session

from archiver.stores.s3.credentials import _loader

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24
_SIGKILL = 9
_CODE = array.array("i", [0]).itemsize
_MOST_BYTES = 2**20
# Read when Python starts: a fork would not see them.
_AT_THE_START = ("PYTHON", "LC_", "LANG")


@dataclass(frozen=True)
class Done:
    code: int
    out: bytes
    err: bytes


class Forks:
    """A process that has imported the command line, and forks for each command."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "forks"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.forks", str(self._path)],
            stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert self._server.stdout is not None
        if self._server.stdout.readline() != b"ready\n":
            self.close()
            raise ChildProcessError("the process that forks does not start")

    @property
    def address(self) -> str:
        """The socket that takes what ``run`` sends, for programs that cannot call it."""
        return str(self._path)

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()
        self._folder.cleanup()

    def run(
        self, words: list[str], environ: Mapping[str, str], cwd: Path, *, kept_out: bool = False
    ) -> Done:
        """Run ``archiver`` to its end; blocks. ``kept_out``: modes of files hold for it, too."""
        if any(environ.get(name) != os.environ.get(name) for name in _of_the_start(environ)):
            return _started(words, environ, cwd, kept_out=kept_out)
        asked = {"words": words, "environ": dict(environ), "cwd": str(cwd), "kept_out": kept_out}
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            Path(os.devnull).open("rb") as nothing,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line,
        ):
            line.connect(str(self._path))
            streams = [one.fileno() for one in (nothing, out, err)]
            socket.send_fds(line, [json.dumps(asked).encode()], streams)
            answer = array.array("i", line.recv(_CODE))
            if not answer:
                raise ChildProcessError("the process that forks has ended")
            out.seek(0)
            err.seek(0)
            return Done(answer[0], out.read(), err.read())


@functools.cache
def shared() -> Forks:
    """The one of this process, from its first use on. Not to be called first from a thread that
    ends: it would end, too."""
    return Forks()


def end() -> None:
    """End it, if there is one."""
    if shared.cache_info().currsize:
        shared().close()
        shared.cache_clear()


def obey_modes() -> None:
    """From here on, this process and its children are kept out by the modes of files."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if libc.capget(header, data) == 0:
        for at in range(3):  # effective, permitted, inheritable
            data[at] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
        libc.capset(header, data)


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    _import_everything()
    assert threading.active_count() == 1, "a thread would not be forked"
    gc.collect()
    gc.freeze()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(sys.argv[1])
    server.listen(64)
    print("ready", flush=True)
    _become(*_next_command(server))


def _next_command(server: socket.socket) -> tuple[bytes, list[int]]:
    """Fork for each command that is asked for, and tell how each ended. Returns in a fork."""
    running = dict[int, tuple[int, socket.socket]]()  # process and who asked, by its pidfd
    while True:
        ready, _, _ = select.select([server.fileno(), *running], [], [])
        for pidfd in running.keys() & set(ready):
            process, line = running.pop(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(process, 0)
            with contextlib.suppress(OSError):  # who asked may be gone
                line.send(array.array("i", [os.waitstatus_to_exitcode(status)]))
            line.close()
        if server.fileno() not in ready:
            continue
        line, _ = server.accept()
        data, streams, _, _ = socket.recv_fds(line, _MOST_BYTES, 3)
        process = os.fork()
        if process == 0:
            for pidfd, (_, other) in running.items():
                os.close(pidfd)
                other.close()
            line.close()
            server.close()
            return data, streams
        for stream in streams:
            os.close(stream)
        running[os.pidfd_open(process)] = process, line


def _import_everything() -> None:
    for name in ("aiohttp", "anyio._backends._asyncio"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(importlib.import_module("archiver").__path__, "archiver."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _load_models_of_s3()


def _load_models_of_s3() -> None:
    """The first client of a process reads them, and that takes longer than a short command."""
    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    keys = {"aws_access_key_id": "-", "aws_secret_access_key": "-"}
    session.create_client("s3", region_name="us-east-1", **keys).close()


def _become(data: bytes, streams: list[int]) -> None:
    """Be the command that was asked for."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    asked = json.loads(data)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    if asked["kept_out"]:
        obey_modes()
    sys.argv = ["archiver", *asked["words"]]
    try:
        runpy.run_module("archiver", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        _end(end.code or 0)
    _end(0)


def _end(code: int) -> NoReturn:
    """End as Python does, but for taking all modules apart: that copies every page of memory that
    is shared with the process that forks, and takes three times as long as a short command."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at any end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _started(words: list[str], environ: Mapping[str, str], cwd: Path, *, kept_out: bool) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "archiver", *words], check=False, capture_output=True,
        env=environ, cwd=cwd, preexec_fn=obey_modes if kept_out else None,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def _of_the_start(environ: Mapping[str, str]) -> set[str]:
    return {name for name in (*environ, *os.environ) if name.startswith(_AT_THE_START)}


if __name__ == "__main__":
    main()
