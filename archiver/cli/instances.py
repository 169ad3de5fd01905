"""``archiver instances``."""

import time
from typing import TYPE_CHECKING, Any

from archiver.cli.options import (
    command,
    endpoint_option,
    option,
    output_options,
    retry_option,
    way_options,
)
from archiver.cli.sources import (
    SourceOptions,
    region_option,
    selection_of,
    selection_options,
)

if TYPE_CHECKING:
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.errors import ArchiverError
    from archiver.sources.alibaba.policies import BackupPolicy


@command("instances")
@selection_options
@region_option
@endpoint_option
@way_options
@retry_option
@option(
    "--policies/--no-policies",
    default=True,
    help="Also ask for the backup policy of each instance, which is a call for each.",
)
@output_options
def instances(**given: Any) -> None:
    """List the instances of the regions, and which backups the vendor makes of them.

    Without an option that chooses instances, lists all. What is known since today is not asked for
    again, unless with --refresh.

    \b
    Examples:
      archiver instances --region cn-hangzhou
      archiver instances --region all --tag env=prod --json
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _instances(given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="nothing was changed",
    )


async def _instances(given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from archiver.cli import instances_output as output
    from archiver.cli.ls_output import ended
    from archiver.cli.run import say
    from archiver.cli.words import QUIET
    from archiver.errors import UnknownInstance
    from archiver.events import Failed

    options = SourceOptions.of(given, selection_of(given, is_all=True))
    told = output.Told(QUIET if given["quiet"] else given["verbose"], last.wanted)
    policies: dict[str, BackupPolicy | ArchiverError] = {}
    async with options.open(told.observe) as source:
        found = await options.find(source, told.observe, must_know=True)
        if not found.failures:
            for one in found.unlisted:
                gone = UnknownInstance(f"{one}: no region that was asked has it")
                told.observe(Failed(one, gone))
        if given["policies"]:
            asked = [one for one in found.instances if one.why_no_backups is None]
            minutes = source.calls_for_policies(asked) // options.way.api_rate
            if minutes and not given["quiet"]:
                say(f"asking for the policies takes about {minutes} min (--no-policies: do not)")
            policies = await source.policies(asked)
            told.tell_of(policies)
        age = time.time() - source.asked_at
    rows = output.rows(found.instances, policies)
    if last.wanted:
        output.write_json(rows)
    elif rows:
        output.show_table(rows)
    last.summary = output.summary(rows, age)
    if found.instances and not (last.wanted or given["quiet"]):
        for text in last.summary:
            say(text)
    return ended(told.wrong)
