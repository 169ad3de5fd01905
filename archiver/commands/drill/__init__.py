"""Proves that backups can be restored, by loading them into throwaway servers.

    programs = await find()
    result = await run_trial(Path("dump.rdb"), programs, assertions=[parse("dbsize >= 1000")])

and for whole archives:

    drilled = await drill(archive, programs, DrillOptions(assertions=(parse("exists user:1"),)))

Nothing here depends on where the files came from, because a recovery must work without the vendor.
"""

from archiver.commands.drill.assertions import (
    Assertion,
    AssertionResult,
    AssertionSyntax,
    check,
    parse,
)
from archiver.commands.drill.census import Census, DatabaseCensus, TypeCount, take_census
from archiver.commands.drill.ledger import EvidenceNotKept
from archiver.commands.drill.options import DrillOptions, Wanted
from archiver.commands.drill.outcome import Cause, Facts, Outcome, Verdict
from archiver.commands.drill.programs import (
    Ability,
    DumpFile,
    Flavour,
    NoServer,
    ServerProgram,
    able_to_load,
    choose,
    find,
    read_dump_file,
)
from archiver.commands.drill.run import Drilled, drill
from archiver.commands.drill.server import Limits, Loading, Server, running
from archiver.commands.drill.teardown import TearDown
from archiver.commands.drill.trial import Attempt, Phase, Timing, Trial, run_trial

__all__ = [
    "Ability",
    "Assertion",
    "AssertionResult",
    "AssertionSyntax",
    "Attempt",
    "Cause",
    "Census",
    "DatabaseCensus",
    "DrillOptions",
    "Drilled",
    "DumpFile",
    "EvidenceNotKept",
    "Facts",
    "Flavour",
    "Limits",
    "Loading",
    "NoServer",
    "Outcome",
    "Phase",
    "Server",
    "ServerProgram",
    "TearDown",
    "Timing",
    "Trial",
    "TypeCount",
    "Verdict",
    "Wanted",
    "able_to_load",
    "check",
    "choose",
    "drill",
    "find",
    "parse",
    "read_dump_file",
    "run_trial",
    "running",
    "take_census",
]
