"""Proof that a file restores: a throwaway server loads it, is judged, counted, and taken away.

    programs = await find()
    result = await run_trial(Path("dump.rdb"), programs, assertions=[parse("dbsize >= 1000")])

and of whole archives:

    drilled = await drill(archive, programs, DrillOptions(assertions=(parse("exists user:1"),)))

One file, one procedure: choose a server, start it, load, judge, count, check, tear down. Nothing
here knows where the file came from: recovery has to work with the vendor gone.
"""

from archiver.commands.drill.assertions import (
    Assertion,
    AssertionResult,
    AssertionSyntax,
    check,
    parse,
)
from archiver.commands.drill.census import Census, DatabaseCensus, TypeCount, take
from archiver.commands.drill.dump import Subject, look
from archiver.commands.drill.ledger import EvidenceNotKept
from archiver.commands.drill.outcome import Cause, Facts, Outcome, Verdict
from archiver.commands.drill.run import Drilled, DrillOptions, drill
from archiver.commands.drill.selection import Wanted
from archiver.commands.drill.server import Limits, Loading, Server, running
from archiver.commands.drill.servers import (
    Ability,
    Flavour,
    NoServer,
    ServerProgram,
    able_to_load,
    choose,
    find,
)
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
    "Subject",
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
    "look",
    "parse",
    "run_trial",
    "running",
    "take",
]
