"""Becomes a server that dies with its parent, sees no network, and leaves no core.

Run as a program of its own (``python -I -S launch.py PARENT-PID SERVER ARGUMENT…``), which then
executes the server, so that both are one process. Not a ``preexec_fn``: that would run Python
between fork and exec of a process with threads, where a lock may be held for ever. And not
``setpriv --pdeathsig``, which not every system has.

The order matters: the kernel forgets the death signal when credentials change, as they do with a
new user namespace (prctl(2), PR_SET_PDEATHSIG). The signal is sent when the *thread* that started
this program ends.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
OOM_SCORE = b"800"  # of 1000: when memory runs out, the kernel takes the server and not its parent


def main(parent: int, command: list[str]) -> None:
    """Confine this process, then become ``command``. Returns only by exiting."""
    libc = ctypes.CDLL(None, use_errno=True)
    # A network of its own with nothing in it; a user namespace gives the right to one, where
    # unprivileged users may have that. Where neither is allowed the server still has no port.
    with contextlib.suppress(AttributeError):
        if libc.unshare(CLONE_NEWNET) != 0:
            libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the signal was set
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the data
    with contextlib.suppress(OSError):
        adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(adjust, OOM_SCORE)
        os.close(adjust)
    try:
        os.execv(command[0], command)  # noqa: S606 - there is no shell, and there should be none
    except OSError as error:
        sys.stderr.write(f"archiver: cannot execute {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
