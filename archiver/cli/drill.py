"""``archiver drill``."""

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.engines import crew_of, engine_options, patience_of
from archiver.cli.options import command, option, output_options, shard_option
from archiver.cli.params import (
    LATEST,
    AssertionText,
    CleanPath,
    Count,
    Duration,
    InstanceId,
    Moment,
    SetKey,
    Share,
    Size,
)
from archiver.cli.places import bucket_options, check_outside, lock_option, store_at
from archiver.cli.streams import show

if TYPE_CHECKING:
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.progress import WorkProgress
    from archiver.cli.run import Ended, Printed
    from archiver.commands.drill.events import DrillEvent, Observer
    from archiver.commands.drill.options import DrillOptions, Wanted
    from archiver.commands.drill.run import Drilled
    from archiver.events import Work
    from archiver.report.evidence import Evidence

_PATH = CleanPath()


@command("drill")
@click.argument("place", metavar="ARCHIVE")
@option(
    "--instance",
    "instances",
    type=InstanceId(),
    multiple=True,
    help="Only this instance (repeatable).",
)
@shard_option
@option(
    "--at", type=Moment(), default=LATEST, help="Newest set of each instance at this time (UTC)."
)
@option("--random", "random_sets", type=Count(1), metavar="N", help="N random sets.")
@option(
    "--spread",
    type=Count(1),
    metavar="N",
    help="N random sets, spread over all instances.",
)
@option("--seed", help="Seed for the random selection (default: generated and recorded).")
@option("--set", "sets", type=SetKey(), multiple=True, help="This set, by its key (repeatable).")
@option(
    "--server",
    "servers",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="Server program to use (repeatable; default: those found).",
)
@option(
    "--assert",
    "assertions",
    type=AssertionText(),
    multiple=True,
    help="What must hold, e.g. 'dbsize >= 1000' (repeatable).",
)
@option("--tolerance", type=Share(), default="0%", help="Share of keys that may be missing.")
@option("--max-change", type=Share(), help="Maximum change in keys since the last drill.")
@option("--allow-empty", is_flag=True, help="Let a set without keys pass.")
@option("--show-values", is_flag=True, help="Show values that get reads, in the evidence too.")
@option("--rto", type=Duration(), help="Recovery time objective, e.g. 15m.")
@option("--rpo", type=Duration(), help="Recovery point objective: maximum age and gap, e.g. 26h.")
@option("--rpo-window", type=Duration(), default="30d", help="How far back gaps count.")
@option("--server-memory", type=Size(2**20), help="Memory limit per server (default: 4/5 of free).")
@option("--load-timeout", type=Duration(), default="1h", help="Maximum time to load one file.")
@option(
    "--scratch", type=_PATH, metavar="DIRECTORY",
    help="Where to restore files to (default: the system's /tmp).",
)  # fmt: skip
@option("--sample-above", type=Count(1), metavar="N", help="Count by sampling above N keys.")
@option(
    "--evidence", "directory", type=_PATH, metavar="DIRECTORY",
    help="Also store the evidence here.",
)  # fmt: skip
@option("--junit", type=_PATH, metavar="FILE", help="Also write JUnit XML to this file.")
@option("--withhold-identity", is_flag=True, help="Leave user and host out of the evidence.")
@engine_options
@lock_option("10m")
@bucket_options
@option("--progress/--no-progress", default=True, help="Show bars on a terminal, lines in a log.")
@output_options
def drill(place: str, **given: Any) -> None:
    """Prove that backups restore: load them into throwaway servers.

    Takes the newest set of each instance, restores it to a scratch directory, loads every node's
    file into a real server, counts the keys, compares, and removes everything. The evidence is
    stored in the archive, each document linked to the previous one. Only a pass exits with 0.

    \b
    Examples:
      archiver drill ./backups --instance r-bp1 --assert 'dbsize >= 1000'
      archiver drill ./backups --spread 10 --rto 15m --rpo 26h
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _drill(place, given, last),
        last=last,
        verbose=given["verbose"],
        patience=patience_of(given, inline=10.0),  # it has large files to remove
        on_interrupt="servers and files are removed, and no evidence is written",
    )


async def _drill(place: str, given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from archiver.archive.archive import Archive
    from archiver.cli.progress import choose_work_progress
    from archiver.cli.run import Ended, Printed, say
    from archiver.cli.words import QUIET
    from archiver.commands.drill import EvidenceNotKept, find
    from archiver.commands.drill.run import drill as run_drill
    from archiver.concurrency import in_thread
    from archiver.errors import EXIT_OK, worst_exit_code
    from archiver.report.junit import to_junit
    from archiver.shards import EmptyShard
    from archiver.stores.local.disk import store_errors

    progress = choose_work_progress(quiet=given["quiet"], wanted=given["progress"])
    options, crew = _options(given), crew_of(given)
    directory = given["directory"]
    await _check_places(given)
    programs = await find(given["servers"])
    printed: Printed | None
    try:
        try:
            drilled = await run_drill(
                Archive(store_at(place, given)),
                programs,
                options,
                evidence_directory=directory and await in_thread(directory.absolute),
                open_crew=crew,
                observer=_observing(progress, QUIET if given["quiet"] else given["verbose"]),
            )
        finally:
            progress.close()
    except EmptyShard as nothing:
        last.summary, last.fields = [str(nothing)], {}
        if not given["quiet"]:
            say(*last.summary)
        return None
    except EvidenceNotKept as error:
        _rescue(error.data, as_json=given["as_json"])
        printed = say(f"archiver: {error}")
        last.summary = _conclusion(error.evidence)
        _say_conclusion(error.evidence)
        codes = {error.exit_code, error.evidence.conclusion.exit_code}
        data, code = error.data, worst_exit_code(codes)
    else:
        printed = _print(drilled, last, quiet=given["quiet"])
        data, code = drilled.filed.data, drilled.exit_code
    if given["junit"] is not None:
        with store_errors(given["junit"]):
            await in_thread(given["junit"].write_bytes, to_junit(data))
    if code == EXIT_OK:
        return None
    return Ended(code, printed or say("archiver: the drill did not pass"))


async def _check_places(given: dict[str, Any]) -> None:
    """Raises UsageError for output that would be written into an archive."""
    for name in ("evidence", "scratch", "junit"):
        written = given["directory" if name == "evidence" else name]
        if written is not None:
            await check_outside(written, f"--{name}")


def _observing(progress: "WorkProgress", verbosity: int) -> "Observer":
    from archiver.commands.drill.words import line
    from archiver.events import FileLeft, FileWorkedOn, SetBegun

    def observe(event: "DrillEvent | Work") -> None:
        if isinstance(event, SetBegun | FileWorkedOn | FileLeft):
            progress(event)
            return
        level, text = line(event)
        if level <= verbosity:
            progress.say(text)

    return observe


def _rescue(data: bytes, *, as_json: bool) -> None:
    """Print the evidence, which is stored nowhere else, on stdout; if that fails, on stderr."""
    import json
    import sys

    from archiver.cli import streams
    from archiver.cli.jsonlines import write_object

    text = data.decode("ascii")
    if as_json:
        is_out = write_object({"event": "evidence_not_kept", "evidence": json.loads(data)})
    else:
        is_out = streams.write(text)
    if not is_out:
        sys.stderr.write(text)


def _options(given: dict[str, Any]) -> "DrillOptions":
    from archiver.commands.drill import parse
    from archiver.commands.drill.options import DrillOptions

    return DrillOptions(
        wanted=_wanted(given),
        assertions=tuple(parse(text) for text in given["assertions"]),
        tolerance=float(given["tolerance"]),
        max_change=None if given["max_change"] is None else float(given["max_change"]),
        allow_empty=given["allow_empty"],
        show_values=given["show_values"],
        rto_seconds=given["rto"],
        rpo_seconds=given["rpo"],
        rpo_window_seconds=given["rpo_window"],
        server_memory=given["server_memory"],
        scratch=given["scratch"],
        sample_above=given["sample_above"],
        load_seconds=given["load_timeout"],
        withhold_identity=given["withhold_identity"],
        lock_wait=given["lock_wait"],
    )


def _wanted(given: dict[str, Any]) -> "Wanted":
    import secrets

    from archiver.commands.drill.options import Wanted
    from archiver.errors import UsageError
    from archiver.report.evidence import Mode

    at = given["at"] if isinstance(given["at"], datetime) else None
    ways = {
        Mode.RANDOM: given["random_sets"],
        Mode.STRATIFIED: given["spread"],
        Mode.NAMED: given["sets"],
        Mode.AT: at,
    }
    asked = [mode for mode, value in ways.items() if value]
    if len(asked) > 1:
        raise UsageError("only one of --at, --random, --spread and --set can be given")
    mode = asked[0] if asked else Mode.LATEST
    drawn = mode in (Mode.RANDOM, Mode.STRATIFIED)
    return Wanted(
        mode=mode,
        instances=tuple(dict.fromkeys(given["instances"])),
        at=at,
        number=ways[mode] if drawn else 0,
        seed=(given["seed"] or secrets.token_hex(4)) if drawn else None,
        sets=given["sets"],
        shard=given["shard"],
    )


def _print(drilled: "Drilled", last: "LastLine", *, quiet: bool) -> "Printed | None":
    """Print the conclusion on stderr (under --quiet only if it is not a pass), and on stdout the
    paths of the evidence, or JSON with the conclusion in the ``last`` line."""
    from dataclasses import asdict

    from archiver.cli.jsonlines import write_object
    from archiver.cli.run import announce
    from archiver.commands.drill.missed import missed
    from archiver.errors import IntegrityError
    from archiver.logs import record

    evidence, filed = drilled.evidence, drilled.filed
    last.summary = _conclusion(evidence)
    paths = [f"{store}/{filed.key}" for store in filed.stores]
    for path in paths:
        record(logging.INFO, "evidence_kept", f"the evidence is in {path}", None, {"path": path})
    if last.wanted:
        for one in evidence.sets:
            write_object(
                {
                    "event": "set_drilled",
                    "set": one.key,
                    "verdict": one.verdict,
                    "why": one.why,
                    "rto_seconds": one.rto.seconds,
                    "rto_met": one.rto.met,
                    "rpo_met": one.rpo.met,
                    "assertions": [asdict(assertion) for assertion in one.assertions],
                }
            )
        last.event = "drilled"
        last.fields = {
            "id": evidence.id,
            "verdict": evidence.conclusion.verdict,
            "passed": evidence.conclusion.passed,
            "missed": [{**asdict(one), "text": str(one)} for one in missed(evidence)],
            "evidence": paths,
            "chain_faults": [str(finding) for finding in drilled.faults],
        }
    elif not quiet:
        for path in paths:
            show(str(path))
    if any(one.exit_code == IntegrityError.exit_code for one in drilled.faults):
        text = "evidence: find out what changed it; move drills/ away to start a new chain"
        announce(logging.ERROR, "evidence_changed", text)
    if quiet and drilled.exit_code == 0:
        return None
    return _say_conclusion(evidence)


def _say_conclusion(evidence: "Evidence") -> "Printed":
    from archiver.cli.run import say

    return [say(text) for text in _conclusion(evidence)][-1]


def _conclusion(evidence: "Evidence") -> list[str]:
    """Print each missed target, and the conclusion of the drill."""
    from archiver.commands.drill.missed import missed
    from archiver.report.words import headline, verdict_word

    return [*map(str, missed(evidence)), f"{verdict_word(evidence)}: {headline(evidence)}"]
