"""Whom a throwaway server runs as.

It reads a file that a stranger may have made, and old servers have faults. So where this process is
root the server is nobody: it can read the system's public files and its own directory, and write to
that alone. A process that is not root has nobody else to be: there, the server is the same user.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from archiver.commands.drill import launch

_NOBODY = 65534
# capabilities(7): to hand a directory over, to look into it and remove it, to become somebody else
# and to end his processes. Containers may have taken some away from root.
_CHOWN, _DAC_OVERRIDE, _FOWNER, _KILL, _SETGID, _SETUID = 0, 1, 3, 5, 6, 7
_NEEDED = sum(1 << bit for bit in (_CHOWN, _DAC_OVERRIDE, _FOWNER, _KILL, _SETGID, _SETUID))


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers of a user and a group."""

    user: int
    group: int

    def own(self, path: Path) -> None:
        """Hand a file or directory over. Raises OSError."""
        os.chown(path, self.user, self.group, follow_symlinks=False)

    def __str__(self) -> str:
        return f"{self.user}:{self.group}"


def nobody() -> Identity | None:
    """The user to become; None where this process is not root, or may not become another."""
    if os.geteuid() != 0 or _capabilities() & _NEEDED != _NEEDED:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Identity(_NOBODY, _NOBODY)
    # A system may have made it something else than nobody.
    return Identity(entry.pw_uid or _NOBODY, entry.pw_gid or _NOBODY)


def named(identity: Identity | None) -> str:
    """As :mod:`archiver.commands.drill.launch` is told."""
    return launch.SAME_USER if identity is None else str(identity)


def _capabilities() -> int:
    """Those in effect (proc_pid_status(5))."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
