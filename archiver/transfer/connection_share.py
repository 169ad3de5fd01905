"""How many connections a file gets.

What comes over one connection passes the file's meter on its way to the disk. Over several it
comes out of order, and most of it is read back to be measured: a fifth more time and CPU over https
(benchmarks/README.md), which pays only while connections, not this machine, hold a file up.
"""

from typing import Final

# Bytes per second over one connection from which on a second one is not worth that.
ENOUGH = 32 * 2**20


class Lanes:
    """The connections at work over all files of a run, of which ``files`` are under way at once,
    with at most ``each`` connections."""

    def __init__(self, files: int, each: int) -> None:
        self.each: Final = each
        # Fewer than this leave the machine idle, whatever they bring.
        self._room: Final = max(files, each)
        self._at_work = 0

    def opened(self) -> None:
        """One more is at work."""
        self._at_work += 1

    def closed(self) -> None:
        """One less."""
        self._at_work -= 1

    @property
    def has_room(self) -> bool:
        """Whether one more is of use however fast they are."""
        return self._at_work < self._room

    @property
    def is_crowded(self) -> bool:
        """Whether there are more than are of use unless they are slow."""
        return self._at_work > self._room
