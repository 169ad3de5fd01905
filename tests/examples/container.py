"""Runs a command as a container would: as the program, it makes the container from inside.

Root is read-only and holds the system, this Python and this checkout; ``/tmp`` is not there unless
it is mounted. The user has no entry in passwd, the environment is what is given and nothing else
(no HOME), and without a network there is loopback alone.
"""

import asyncio
import ctypes
import fcntl
import functools
import json
import os
import pwd
import re
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
# Where the code is within; a copy for a mutation lies in a directory of root's alone.
CODE = "/code"
ARCHIVER = (sys.executable, "-m", "archiver")
UNSHARE = ("unshare", "--mount", "--pid", "--fork")
_MS_RDONLY, _MS_NOSUID, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
_PR_SET_NO_NEW_PRIVS = 38
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


@dataclass(frozen=True)
class Mount:
    source: str
    at: str
    read_only: bool = False


@dataclass(frozen=True)
class Container:
    """``vendor`` is a directory that an emulator serves beside the command; then the command gets
    its ``--endpoint``."""

    command: list[str]
    environ: dict[str, str]
    user: int
    group: int
    mounts: list[Mount] = field(default_factory=list)
    network: bool = False
    vendor: str = ""
    key: dict[str, str] = field(default_factory=dict)

    async def run(self, scratch: Path) -> tuple[int, str]:
        """The exit code, and what was said on stdout and stderr together."""
        root = scratch / "root"
        root.mkdir()
        spec = json.dumps({**asdict(self), "root": str(root)})
        process = await asyncio.create_subprocess_exec(
            *UNSHARE, *([] if self.network else ["--net"]),
            sys.executable, "-m", "tests.examples.container", spec,
            cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )  # fmt: skip
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()


@functools.cache
def why_not() -> str:
    """Why no container can be made here; empty when one can."""
    if os.geteuid() != 0:
        return "only root makes a container without a user namespace"
    done = subprocess.run(
        [*UNSHARE, "--net", "mount", "--make-rprivate", "/"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return done.stderr.strip() or "unshare failed" if done.returncode else ""


def main() -> None:
    spec = json.loads(sys.argv[1])
    if not spec["network"]:
        _raise_loopback()
    command = [*spec["command"]]
    if spec["vendor"]:
        command.append(f"--endpoint={_serve(spec['vendor'], spec['key'])}")
    child = os.fork()
    if child == 0:
        try:
            _enter(Path(spec["root"]), [Mount(**one) for one in spec["mounts"]])
            _become(spec["user"], spec["group"])
            os.execve(command[0], command, {**spec["environ"], "PYTHONPATH": CODE})
        except BaseException as error:  # noqa: BLE001 - this process ends here, whatever it is
            print(f"no container: {error!r}", file=sys.stderr, flush=True)
            os._exit(125)
    _, status = os.waitpid(child, 0)
    sys.stdout.flush()
    # The first process of its namespace: all that it started ends with it.
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _serve(directory: str, key: dict[str, str]) -> str:
    """Start an emulator that nobody outside can reach; its URL."""
    emulator = subprocess.Popen(
        [*ARCHIVER, "emulate", directory, "--port=0"],
        env={**os.environ, **key}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert emulator.stdout is not None
    [url] = re.findall(r"--endpoint (\S+)", emulator.stdout.readline())
    return str(url)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _enter(root: Path, mounts: list[Mount]) -> None:
    """A root of its own, read-only but for what is mounted to be written to."""
    _mount("none", "/", _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", str(root), _MS_NOSUID, "tmpfs", "mode=755")
    for name in ("usr", "bin", "sbin", "lib", "lib64", "etc", "opt"):
        there = Path("/", name)
        if there.is_symlink():
            (root / name).symlink_to(there.readlink())
        elif there.is_dir():
            _bind(root, Mount(str(there), str(there), read_only=True))
    for prefix in sorted({sys.prefix, sys.base_prefix}):
        if not prefix.startswith("/usr"):
            _bind(root, Mount(prefix, prefix, read_only=True))
    _bind(root, Mount(str(CHECKOUT / "archiver"), f"{CODE}/archiver", read_only=True))
    _bind(root, Mount("/dev", "/dev", read_only=True))
    (root / "proc").mkdir()
    _mount("proc", str(root / "proc"), _MS_NOSUID, "proc")
    for mount in mounts:
        _bind(root, mount)
    _mount("none", str(root), _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    os.chroot(root)
    os.chdir("/")


def _bind(root: Path, mount: Mount) -> None:
    target = root / mount.at.lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    _mount(mount.source, str(target), _MS_BIND)
    if mount.read_only:
        _mount("none", str(target), _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def _become(user: int, group: int) -> None:
    """Somebody whom nobody knows, and who gets no more rights."""
    try:
        pwd.getpwuid(user)
    except KeyError:
        pass
    else:
        raise RuntimeError(f"user {user} has an entry in passwd")
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    os.umask(0o022)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _mount(source: str, target: str, flags: int, kind: str = "none", options: str = "") -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    given = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags))
    if libc.mount(*given, options.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


if __name__ == "__main__":
    main()
