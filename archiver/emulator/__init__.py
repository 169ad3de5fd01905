"""The API and its object store, served from a directory of real files.

    async with Emulator("vendor", access_key_id="LTAI…", access_key_secret="…") as emulator:
        source = TairSource(emulator.endpoint, …)

For rehearsals, for the demo, and for tests. It refuses what the vendor refuses, and fails on
command.
"""

from archiver.emulator.faults import Faults
from archiver.emulator.server import Emulator
from archiver.emulator.tally import Tally

__all__ = ["Emulator", "Faults", "Tally"]
