"""``archiver backup``."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from archiver.cli.options import (
    Way,
    command,
    endpoint_option,
    option,
    output_options,
    way_options,
)
from archiver.cli.params import Duration, InstanceId, Retention, WaitFor
from archiver.cli.places import (
    check_part_size,
    store_at,
    writing_options,
    written_to,
)
from archiver.cli.pull import download_options, pull_options
from archiver.cli.sources import SourceOptions, region_option
from archiver.errors import ArchiverError, UsageError
from archiver.events import Failed, Observer
from archiver.retry import RETRIES

if TYPE_CHECKING:
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import Ended
    from archiver.cli.watching import Watch
    from archiver.commands.backup.run import Home
    from archiver.sources.alibaba.fleet import FleetSource, Found
    from archiver.sources.base import Source

# What a command that goes on says anew.
_ANEW: Final = ("instances", "jobs", "retention")
# The user and password of a proxy.
_PASSWORD: Final = re.compile(r"(?<=://)[^/@]*(?=@)")


@command("backup")
@option(
    "--instance",
    "instances",
    type=InstanceId(),
    multiple=True,
    help="Instance to back up, by its ID (repeatable).",
)
@option(
    "--wait-for",
    "jobs",
    type=WaitFor(),
    multiple=True,
    metavar="INSTANCE:JOB",
    help="Make no backup; wait for one that an earlier run began (repeatable).",
)
@option(
    "--retention",
    type=Retention(),
    metavar="DAYS",
    help="Days that the vendor keeps the backup, 7 to 730, or 'forever'.  [default: its policy]",
)
@option(
    "--timeout",
    type=Duration(),
    default=f"{RETRIES.backup_job.total / 3600:g}h",
    help="How long to wait for each backup.",
)
@option("--pull", "is_pull", is_flag=True, help="Then download exactly these backups; needs --to.")
@option("--to", "place", metavar="ARCHIVE", help="Directory, or s3://bucket/prefix, for --pull.")
@region_option
@endpoint_option
@way_options
@download_options
@option("--progress/--no-progress", default=True, help="Show bars on a terminal, lines in a log.")
@writing_options
@output_options
def backup(**given: Any) -> None:
    """Have the vendor make backups now, and wait until they are made.

    Ends when each backup is listed; with --pull, when it is in the archive. A run that is
    interrupted prints the command that goes on.

    \b
    Examples:
      archiver backup --instance r-bp1 --region cn-hangzhou
      archiver backup --instance r-bp1 --retention 90 --pull --to ./backups
      archiver backup --wait-for r-bp1:1022 --pull --to ./backups
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last, left = LastLine(given["as_json"]), _Left(_asked(given), _from_the_environment())
    run(
        lambda: _backup(given, left, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt=left.advice,
    )


async def _backup(given: dict[str, Any], left: "_Left", last: "LastLine") -> "Ended | None":
    from archiver.cli import words
    from archiver.cli.watching import Watch, remarks, watched
    from archiver.commands.backup.run import BackupOptions
    from archiver.commands.backup.run import backup as make_backups
    from archiver.sources.alibaba.ondemand import TairMaker
    from archiver.sources.alibaba.selection import Selection

    _check(given)
    asked, way = list(left.jobs), Way.of(given)
    options = BackupOptions(given["retention"], given["timeout"])
    where = SourceOptions.of(given, Selection(tuple(asked)))

    async def work(watch: Watch) -> list[str]:
        async with where.open(watch.observe) as fleet:
            found = await fleet.find(where.selection, must_know=True)
            _drop_homeless(fleet, found, left.jobs, watch.observe)
            maker, home = TairMaker(fleet.call, fleet), _home(given, way, watch, fleet)
            await make_backups(maker, left.jobs, options, watch.observe, home)
        return [] if home is None else await remarks(watch, home.archive, asked, [])

    sum_up = words.made_and_pulled if given["is_pull"] else words.made
    try:
        return await watched(given, work, last, sum_up, is_only_bytes=False)
    finally:
        left.say()
        last.fields = {**(last.fields or {}), "left": left.jobs, "go_on": left.command()}


def _check(given: Mapping[str, Any]) -> None:
    """Raises UsageError, before anything is sent."""
    instances, jobs = set(given["instances"]), [instance_id for instance_id, _ in given["jobs"]]
    if not instances and not jobs:
        raise UsageError("missing option: --instance ID, or --wait-for INSTANCE:JOB")
    twice = [one for one in jobs if one in instances or jobs.count(one) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice: name its jobs in one --wait-for, with commas")
    if given["retention"] is not None and not instances:
        raise UsageError("--retention is for new backups: it needs --instance")
    if given["is_pull"] != (given["place"] is not None):
        raise UsageError("--pull and --to ARCHIVE need each other")
    if given["is_pull"]:
        check_part_size(given["place"], given["part_size"])


def _drop_homeless(
    fleet: "FleetSource",
    found: "Found",
    left: dict[str, tuple[str, ...]],
    observer: Observer,
) -> None:
    """Report, before anything is begun, each instance that no region has, or that one of several
    may have, and take it out of ``left``. Why a region could not be asked matters only then."""
    told = list[ArchiverError]()
    for instance_id in found.unlisted:
        try:
            fleet.home_of(instance_id)
        except ArchiverError as error:
            del left[instance_id]
            observer(Failed(instance_id, error))
            told.append(error)
    for name, why in found.failures.items():
        if told and why not in told:
            observer(Failed(name, why))


def _home(given: dict[str, Any], way: Way, watch: "Watch", source: "Source") -> "Home | None":
    from archiver.commands.backup.run import Home

    if not given["is_pull"]:
        return None
    archive = written_to(store_at(given["place"], given, watch), given)
    return Home(source, archive, pull_options(given, way))


def _asked(given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The jobs of each instance; none where a backup is to be made."""
    return {**dict.fromkeys(given["instances"], ()), **dict(given["jobs"])}


def _from_the_environment() -> list[str]:
    """The variables that would apply to a command that goes on, too."""
    context = click.get_current_context()
    return [
        str(param.envvar)
        for param in context.command.params
        if param.name in _ANEW
        and context.get_parameter_source(param.name) is ParameterSource.ENVIRONMENT
    ]


class _Left:
    """What is left to do, and the command that does it. ``jobs`` are those of the instances that
    are left, none where no backup is known to be begun; ``variables`` must not apply to it."""

    def __init__(self, jobs: dict[str, tuple[str, ...]], variables: Sequence[str]) -> None:
        self.jobs: Final = jobs
        self._asked: Final = dict(jobs)
        self._variables: Final = variables
        self._said: str | None = None

    def command(self) -> str | None:
        """None if nothing is left, or everything still is."""
        from archiver.commands.restore.instructions import shell_line

        if not self.jobs or self.jobs == self._asked:
            return None
        unset = [word for name in self._variables for word in ("-u", name)]
        words = [*(["env", *unset] if unset else []), "archiver"]
        words += going_on(sys.argv[1:], self.jobs)
        return shell_line(words)

    def advice(self) -> str:
        """For an interrupted run."""
        self._said = command = self.command()
        again = "run the same command again; a backup that is under way is waited for"
        return f"to go on: {command}" if command else again

    def say(self) -> None:
        """Print the command, unless it was printed as it is now."""
        from archiver.cli.run import say

        command = self.command()
        if command is not None and command != self._said:
            say(f"to go on: {command}")


def going_on(words: Sequence[str], left: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The arguments ``words`` with what is left instead of what was asked for (pure). No password
    is repeated."""
    kept = list(_without(words, {"--instance", "--wait-for"}))
    if all(left.values()):
        kept = list(_without(kept, {"--retention"}))
    for instance_id, job_ids in left.items():
        waited = f"{instance_id}:{','.join(job_ids)}"
        kept += ["--wait-for", waited] if job_ids else ["--instance", instance_id]
    return [_PASSWORD.sub("***", word) for word in kept]


def _without(words: Iterable[str], options: set[str]) -> Iterator[str]:
    """The arguments without some options and their values."""
    is_value = False
    for word in words:
        if not is_value and word.partition("=")[0] not in options:
            yield word
        is_value = not is_value and word in options
