"""The vendor's API and object store, served from a directory of real files.

    async with Emulator("vendor", access_key_id="LTAI…", access_key_secret="…") as emulator:
        source = TairSource(emulator.endpoint, …)

For rehearsals, the demo and tests. It refuses what the vendor refuses, enforces the RAM policies of
its keys and quotas, and injects faults.
"""

from archiver.emulator.faults import Faults
from archiver.emulator.gateway import Key
from archiver.emulator.quotas import Quota
from archiver.emulator.ram import Policy
from archiver.emulator.server import Emulator, Tally

__all__ = ["Emulator", "Faults", "Key", "Policy", "Quota", "Tally"]
