"""Proves that backups can be restored, by loading them into throwaway servers.

    drilled = await drill(archive, await find(), DrillOptions(assertions=(parse("exists user:1"),)))

Nothing here depends on where the files came from, because a recovery must work without the vendor.
"""

from archiver.commands.drill.assertions import Assertion, AssertionSyntax, parse
from archiver.commands.drill.ledger import EvidenceNotKept
from archiver.commands.drill.options import DrillOptions, Wanted
from archiver.commands.drill.programs import NoServer, ServerProgram, find
from archiver.commands.drill.run import Drilled, drill

__all__ = [
    "Assertion",
    "AssertionSyntax",
    "DrillOptions",
    "Drilled",
    "EvidenceNotKept",
    "NoServer",
    "ServerProgram",
    "Wanted",
    "drill",
    "find",
    "parse",
]
