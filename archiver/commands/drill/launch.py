"""Becomes a server that is nobody, dies with its parent, sees no network, and leaves no core.

Run as a program of its own (``python -I -S launch.py PARENT-PID USER:GROUP LARGEST-FILE SERVER
ARGUMENT…``), which then executes the server, so that both are one process. Not a ``preexec_fn``:
that would run Python between fork and exec of a process with threads, where a lock may be held for
ever. And not ``setpriv``, which not every system has.

The order matters: the kernel forgets the death signal when credentials change, as they do with
another user or a new user namespace (prctl(2), PR_SET_PDEATHSIG). The signal is sent when the
*thread* that started this program ends.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

SAME_USER = "-"
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
OOM_SCORE = b"800"  # of 1000: when memory runs out, the kernel takes the server and not its parent
FILES = 1024  # that it may have open, sockets included


def main(parent: int, user: str, largest_file: int, command: list[str]) -> None:
    """Confine this process, then become ``command``. Returns only by exiting."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):
        adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(adjust, OOM_SCORE)
        os.close(adjust)
    # A network of its own with nothing in it; a user namespace gives the right to one, where
    # unprivileged users may have that. Where neither is allowed the server still has no port.
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
        os.execv(command[0], command)  # noqa: S606 - there is no shell, and there should be none
    except OSError as error:
        _fail(f"cannot execute {command[0]}: {error.strerror}")


def _unshare(libc: ctypes.CDLL, what: int) -> int:
    try:
        return int(libc.unshare(what))
    except AttributeError:
        return -1


def _become(user: int, group: int) -> None:
    """Somebody else, for good."""
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except OSError as error:
        _fail(f"cannot execute the server as user {user}: {error.strerror}")


def _limit(largest_file: int) -> None:
    """Not the number of processes: those of nobody are counted over the whole machine. Memory is
    watched from outside, by what is in use."""
    for what, most in (
        (resource.RLIMIT_CORE, 0),  # a core would hold the data
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
