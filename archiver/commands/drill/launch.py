"""Confines a server: another user, no network, no core dumps, dies with its parent.

A server reads a file that a stranger may have made, and old servers have bugs. So if this process
is root, the server runs as nobody: it can read public files and its own directory, and write to the
latter only. A process that is not root cannot switch users: its server runs as the same user.

This module is also a program (``python -I -S launch.py PARENT-PID USER:GROUP LARGEST-FILE SERVER
ARGUMENT…``) that confines itself and then executes the server, so it imports only the standard
library. It is not a ``preexec_fn``, because that would run Python between fork and exec of a
process with threads, where a lock may be held forever; and not ``setpriv``, because not every
system has it.

The order of the steps matters: the kernel clears the death signal when credentials change, which
happens with another user or a new user namespace (prctl(2), PR_SET_PDEATHSIG). The kernel sends
that signal when the *thread* that started this program ends.
"""

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

SAME_USER = "-"
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
OOM_SCORE = b"800"  # of 1000: without memory, the kernel kills the server before its parent
FILES = 1024  # limit for open files, including sockets
_NOBODY = 65534
# capabilities(7) needed to give a directory away, look into it and remove it, switch to another
# user and end that user's processes. A container may have taken some of them from root.
_CHOWN, _DAC_OVERRIDE, _FOWNER, _KILL, _SETGID, _SETUID = 0, 1, 3, 5, 6, 7
_NEEDED = sum(1 << bit for bit in (_CHOWN, _DAC_OVERRIDE, _FOWNER, _KILL, _SETGID, _SETUID))


@dataclass(frozen=True, slots=True)
class Identity:
    """The numeric ids of a user and a group."""

    user: int
    group: int

    def own(self, path: Path) -> None:
        """Change the owner of a file or directory to this user. Raises OSError."""
        os.chown(path, self.user, self.group, follow_symlinks=False)

    def __str__(self) -> str:
        return f"{self.user}:{self.group}"


def nobody() -> Identity | None:
    """Return the user to run servers as; None if this process cannot switch users."""
    if os.geteuid() != 0 or _capabilities() & _NEEDED != _NEEDED:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Identity(_NOBODY, _NOBODY)
    # On some systems "nobody" is not an unprivileged user.
    return Identity(entry.pw_uid or _NOBODY, entry.pw_gid or _NOBODY)


def confined(identity: Identity | None, largest_file: int, command: list[str]) -> list[str]:
    """Return the command that runs ``command`` confined; ``largest_file`` is in bytes."""
    user = SAME_USER if identity is None else str(identity)
    options = [str(os.getpid()), user, str(largest_file)]
    return [sys.executable, "-I", "-S", __file__, *options, *command]


def main(parent: int, user: str, largest_file: int, command: list[str]) -> None:
    """Confine this process, then execute ``command``. Returns only by exiting."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):
        adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(adjust, OOM_SCORE)
        os.close(adjust)
    # An empty network namespace. Root may create one; others may in a user namespace of their own,
    # where the system allows that. Without either, the server still listens on no port.
    has_network = _unshare(libc, CLONE_NEWNET) != 0
    if user != SAME_USER:
        _become(*map(int, user.split(":")))
    if has_network:
        _unshare(libc, CLONE_NEWUSER | CLONE_NEWNET)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the signal was set
        os._exit(1)
    _limit(largest_file)
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        _fail(f"cannot execute {command[0]}: {error.strerror}")


def _capabilities() -> int:
    """Return the effective capabilities of this process (proc_pid_status(5))."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def _unshare(libc: ctypes.CDLL, what: int) -> int:
    try:
        return int(libc.unshare(what))
    except AttributeError:
        return -1


def _become(user: int, group: int) -> None:
    """Switch to another user permanently."""
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except OSError as error:
        _fail(f"cannot execute the server as user {user}: {error.strerror}")


def _limit(largest_file: int) -> None:
    """Limit core dumps, file sizes and open files.

    The number of processes is not limited, because the kernel counts those of nobody over the whole
    machine. Memory is watched from outside (:class:`.process.MemoryGuard`).
    """
    for what, most in (
        (resource.RLIMIT_CORE, 0),  # a core dump would contain the data
        (resource.RLIMIT_FSIZE, largest_file),
        (resource.RLIMIT_NOFILE, FILES),
    ):
        _, hard = resource.getrlimit(what)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))


def _fail(what: str) -> None:
    sys.stderr.write(f"archiver: {what}\n")
    sys.stderr.flush()
    os._exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
