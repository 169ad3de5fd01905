"""Where a process can be reached over the network, as another user sees it.

Also a program of its own (``python -I -S reachable.py PID USER:GROUP``), which becomes that user
and prints it as JSON: root in a container may lack the right to look at a process of somebody
else, and the user itself has it.
"""

import contextlib
import json
import os
import sys
from dataclasses import dataclass

_LISTEN = "0A"  # TCP_LISTEN, in /proc/net/tcp
_SOCKET = "socket:["


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a process can be reached over TCP: nowhere, if all is well.

    ``own_network`` says whether it lives in a network namespace of its own. ``ports`` are its
    listening sockets as ``/proc`` writes them (hex). None stands for what cannot be read.
    """

    own_network: bool | None
    ports: tuple[str, ...] | None


def listening(number: int) -> Listening:
    """The TCP sockets on which a process listens, by what this one may see."""
    own: bool | None = None
    with contextlib.suppress(OSError):
        mine, its = (os.readlink(f"/proc/{who}/ns/net") for who in ("self", number))  # noqa: PTH115
        own = mine != its
    listeners = {}
    for family in ("tcp", "tcp6"):
        for line in _lines(f"/proc/{number}/net/{family}")[1:]:
            _, address, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == _LISTEN:
                listeners[inode] = address
    try:
        inodes = _sockets(number)
    except OSError:
        # Alone in its network, all of the network's sockets are its own.
        return Listening(own, tuple(listeners.values()) if own else None)
    return Listening(own, tuple(listeners[inode] for inode in inodes if inode in listeners))


def main(number: int, user: int, group: int) -> None:
    """Print what the user sees."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    seen = listening(number)
    sys.stdout.write(json.dumps([seen.own_network, seen.ports]))


def _sockets(number: int) -> list[str]:
    directory = f"/proc/{number}/fd"
    links = []
    for name in os.listdir(directory):  # noqa: PTH208 - /proc is no tree of files
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"{directory}/{name}"))  # noqa: PTH115
    return [link[len(_SOCKET) : -1] for link in links if link.startswith(_SOCKET)]


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:  # noqa: PTH123 - quick to begin
            return file.readlines()
    except OSError:
        return []


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(int, sys.argv[2].split(":")))
