"""Which servers this machine has for a drill."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from archiver.commands.drill import programs
from archiver.errors import UsageError
from archiver.findings import Finding, Verdict
from archiver.rdb.magic import REDIS_LOADS

_CHECK: Final = "drill servers"


async def check_servers(given: Sequence[Path] = ()) -> Finding:
    """Which servers are found, and whether one loads the newest Redis dumps. A machine that only
    pulls needs none."""
    try:
        found = await programs.find(given)
        if found:
            programs.choose(found, "REDIS", REDIS_LOADS[0][1])
    except UsageError as error:
        is_given = Verdict.FAIL if given else Verdict.WARN
        return Finding.of(_CHECK, error, is_given)
    if not found:
        return Finding.of(_CHECK, programs.no_programs(), Verdict.WARN)
    return Finding(_CHECK, Verdict.OK, ", ".join(map(str, found)))
