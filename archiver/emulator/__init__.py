"""The vendor's API and object store, served from a directory of real files.

    async with Emulator("vendor", access_key_id="LTAI…", access_key_secret="…") as emulator:
        source = TairSource(emulator.endpoint, …)

For rehearsals, the demo and tests. It refuses what the vendor refuses, and injects faults.
"""

from archiver.emulator.faults import Faults
from archiver.emulator.server import Emulator, Tally

__all__ = ["Emulator", "Faults", "Tally"]
