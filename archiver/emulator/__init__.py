"""The API and its object store, served from a directory of real files.

For rehearsals, for the demo, and for tests. It refuses what the vendor refuses, and fails on
command.
"""

from archiver.emulator.faults import Faults
from archiver.emulator.server import Emulator, Tally

__all__ = ["Emulator", "Faults", "Tally"]
