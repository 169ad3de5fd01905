"""``archiver restore``."""

import logging
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.options import command, option, output_options
from archiver.cli.params import LATEST, CleanPath, InstanceId, Moment, SetKey
from archiver.cli.places import bucket_options, check_outside, store_at
from archiver.cli.streams import plain, show
from archiver.times import format_minute

if TYPE_CHECKING:
    from archiver.archive.backupsets import BackupSet
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.progress import WorkProgress
    from archiver.cli.run import Ended, Printed
    from archiver.commands.restore.choice import DamagedSet
    from archiver.commands.restore.run import Ask
    from archiver.commands.restore.writer import Restored, RestoredFile


@command("restore")
@click.argument("place", metavar="ARCHIVE")
@option("--instance", type=InstanceId(), help="Instance to restore.")
@option("--set", "set_key", type=SetKey(), help="Backup set, by its key, instead of an instance.")
@option(
    "--at", type=Moment(), default=LATEST, help="Newest complete set at or before this time (UTC)."
)
@option(
    "--to", "directory", type=CleanPath(), metavar="DIRECTORY",
    help="Target directory; each node gets a folder in it.",
)  # fmt: skip
@option("--partial", is_flag=True, help="With --set: restore an incomplete set as far as it goes.")
@option("--skip-damaged", is_flag=True, help="If a set is damaged, take the next older good one.")
@option("--list", "listing", is_flag=True, help="List the backup sets; restore nothing.")
@bucket_options
@option("--progress/--no-progress", default=True, help="Show bars on a terminal, lines in a log.")
@output_options
def restore(place: str, **given: Any) -> None:
    """Restore a backup set to a directory and print the start commands.

    Finds the newest complete set at or before a time, checks every byte while copying it, and
    prints one redis-server command per node on stdout. Existing dumps are never overwritten; run
    it again to resume. If that set is damaged, it names the next older one, and asks on a terminal.

    \b
    Examples:
      archiver restore ./backups --instance r-bp1 --to ./restored
      archiver restore ./backups --instance r-bp1 --at 2026-11-20 --to ./old
      archiver restore ./backups --instance r-bp1 --to ./restored --skip-damaged
      archiver restore ./backups --instance r-bp1 --list
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    last = LastLine(given["as_json"])
    run(
        lambda: _restore(place, given, last),
        last=last,
        verbose=given["verbose"],
        on_interrupt="run the same command again to resume",
    )


async def _restore(place: str, given: dict[str, Any], last: "LastLine") -> "Ended | None":
    from archiver.archive.archive import Archive
    from archiver.cli.progress import choose_work_progress
    from archiver.cli.run import Ended, say
    from archiver.commands.restore import run as restoring
    from archiver.commands.restore.choice import DamagedSet, damaged_set
    from archiver.errors import EXIT_OK, UsageError

    archive = Archive(store_at(place, given))
    at = given["at"] if isinstance(given["at"], datetime) else None
    if given["listing"]:
        await _list(archive, given["instance"], at, as_json=given["as_json"])
        return None
    if not given["directory"]:
        raise UsageError("missing option: --to DIRECTORY")
    await check_outside(given["directory"], "--to")
    progress = choose_work_progress(quiet=given["quiet"], wanted=given["progress"])
    try:
        restored = await restoring.restore(
            archive,
            given["directory"],
            instance_id=given["instance"],
            at=at,
            set_key=given["set_key"],
            partial=given["partial"],
            skip_damaged=given["skip_damaged"],
            ask=_asking(progress) if sys.stdin.isatty() and sys.stderr.isatty() else None,
            observer=progress,
        )
    except DamagedSet as error:
        if given["as_json"]:
            _write_damaged(error)
        _tell_in_detail(error, verbose=bool(given["verbose"]))
        hints = [error.hint, None if given["verbose"] else "-v tells more"]
        hint = "; ".join(filter(None, hints)) or None
        raise damaged_set(error.damaged, error.following, hint) from None
    finally:
        progress.close()
    _write_json(restored) if given["as_json"] else _write_commands(restored)
    lacks = _announce_what_lacks(restored)
    last.summary = _summary(restored)
    if not given["quiet"]:
        for text in last.summary:
            say(text)
    if restored.exit_code == EXIT_OK:
        return None
    return Ended(
        restored.exit_code, lacks[0] if lacks else say("archiver: the restored set is not complete")
    )


def _asking(progress: "WorkProgress") -> "Ask":
    async def ask(damaged: "BackupSet", following: "BackupSet") -> bool:
        progress.close()
        return await _ask(damaged, following)

    return ask


async def _ask(damaged: "BackupSet", following: "BackupSet") -> bool:
    """Ask on the terminal whether to take the next set; an empty answer means no."""
    import anyio

    from archiver.commands.restore.choice import older

    click.echo(
        f"{_when(damaged)} {damaged.fault} ({plain(damaged.why_not)}). "
        f"Next good: {_when(following)}, {older(damaged, following)}. Use it? [y/N] ",
        nl=False,
        err=True,
    )
    await anyio.wait_readable(sys.stdin)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _write_damaged(error: "DamagedSet") -> None:
    from archiver.cli.jsonlines import write_object

    damaged, following = error.damaged, error.following
    fields: dict[str, object] = {"next": None, "next_started_at": None, "older_seconds": None}
    if following is not None:
        started_at = following.folder.started_at
        seconds = (damaged.folder.started_at - started_at).total_seconds()
        fields = {"next": following.key, "next_started_at": started_at, "older_seconds": seconds}
    write_object({"event": "damaged_set", **_state(damaged), **fields})


def _tell_in_detail(error: "DamagedSet", *, verbose: bool) -> None:
    """Log all that is wrong with a set and what can be done; print it if ``verbose``."""
    from archiver.cli.run import say
    from archiver.commands.restore.choice import partial_hint
    from archiver.logs import record

    damaged, following = error.damaged, error.following
    lines = [f"damaged: {why}" for why in damaged.damaged]
    lines += [f"not complete: {damaged.key}: {why}" for why in damaged.gaps]
    if following is not None:
        lines.append(f"the next complete set is {following.key}")
        lines.append(f"to restore that one: {_command_for(following)}")
    lines += [hint] if (hint := partial_hint(damaged)) is not None else []
    for text in lines:
        record(logging.INFO, "damaged", text, damaged.folder.instance_id, {})
        if verbose:
            say(text)


def _command_for(following: "BackupSet") -> str:
    """The command that restores the next set."""
    from archiver.commands.restore.instructions import shell_line

    words = [word for word in sys.argv[1:] if word != "--skip-damaged"]
    if any(word == "--set" or word.startswith("--set=") for word in words):
        words = _with_set(words, following.key)
    else:
        words.append("--skip-damaged")
    return shell_line(["archiver", *words])


def _with_set(words: list[str], key: str) -> list[str]:
    """The arguments with another set, and without ``--partial``."""
    changed, replace_next = list[str](), False
    for word in words:
        if replace_next:
            changed.append(key)
        elif word.startswith("--set="):
            changed.append(f"--set={key}")
        elif word != "--partial":
            changed.append(word)
        replace_next = word == "--set"
    return changed


def _when(one: "BackupSet") -> str:
    return f"{format_minute(one.folder.started_at)} UTC"


async def _list(archive: Any, instance: str | None, at: datetime | None, *, as_json: bool) -> None:
    from archiver.archive.backupsets import newest_first
    from archiver.cli.jsonlines import write_object
    from archiver.cli.words import size, times
    from archiver.errors import UsageError

    if instance is None:
        raise UsageError("missing option: --instance ID")
    await archive.expect()
    async for one in newest_first(archive, instance, at):
        total = sum(record.size for record in one.records)
        if one.folder.unreadable is not None:  # it may hide any number of sets
            if as_json:
                write_object({"event": "damaged", "key": one.key, "why": one.why_not})
            else:
                show(f"damaged: {one.why_not}")
            continue
        if as_json:
            fields = {"started_at": one.folder.started_at, "nodes": one.nodes, "size": total}
            write_object({"event": "set", **_state(one), **fields, "missing": one.missing})
            continue
        state = one.state if one.is_complete else f"{one.state}: {one.why_not}"
        state = "; note: ".join([state, *one.notes])
        show(f"{one.key}  {times(len(one.nodes), 'node')}  {size(total)}  {state}")


def _write_commands(restored: "Restored") -> None:
    for file in restored.files:
        if file.command is not None:
            click.echo(file.command)


def _write_json(restored: "Restored") -> None:
    from archiver.cli.jsonlines import write_object

    key = restored.backup_set.key
    for newer in restored.passed_over:
        write_object({"event": "skipped", **_state(newer), "missing": newer.missing})
    for text in restored.backup_set.notes:
        write_object({"event": "note", "set": key, "text": text})
    for record in restored.left_out:
        fields = {"node_id": record.node_id, "object": record.object_key}
        write_object({"event": "left_out", "set": key, **fields})
    for node, why in restored.damaged.items():
        write_object({"event": "damaged", "set": key, "node_id": node, "why": why})
    for file in restored.files:
        write_object(
            {
                "event": "restored",
                "set": key,
                "node_id": file.node_id,
                "backup_id": file.record.backup_id,
                "started_at": file.record.started_at,
                "path": str(file.copied.path),
                "size": file.record.size,
                "sha256": file.record.sha256,
                "rdb": file.copied.rdb.version,
                "command": file.command,
                "needs": file.needs,
                "was_there": file.copied.existed,
                "log": _log(file),
            }
        )


def _log(file: "RestoredFile") -> dict[str, object] | None:
    """How much of a log of commands is whole; None for a dump."""
    if file.log is None:
        return None
    commands = file.log.log
    return {
        "verdict": file.log.verdict,
        "reason": file.log.reason,
        "good_until": None if commands is None else commands.good_until,
        "commands": None if commands is None else commands.commands,
    }


def _state(one: "BackupSet") -> dict[str, object]:
    return {"set": one.key, "state": one.state, "why": None if one.is_complete else one.why_not}


def _summary(restored: "Restored") -> list[str]:
    from archiver.cli.words import size, times

    lines = list[str]()
    for file in restored.files:
        how = "already there, checked" if file.copied.existed else "copied and checked"
        lines.append(f"{file.node_id}: {size(file.record.size)} {how}; needs {file.needs}")
    return [*lines, f"restored {times(len(restored.files), 'node')} of {restored.backup_set.key}"]


def _announce_what_lacks(restored: "Restored") -> "list[Printed]":
    """Print every problem; returns those that make the exit code other than 0."""
    from archiver.cli.run import announce
    from archiver.commands.restore.instructions import describe_cut

    one, instance = restored.backup_set, restored.backup_set.folder.instance_id

    def say(level: int, event: str, text: str) -> "Printed":
        return announce(level, event, f"{event.replace('_', ' ')}: {text}", instance=instance)

    printed = list["Printed"]()
    for newer in restored.passed_over:
        text = f"{newer.key} is newer, but {newer.state}: {newer.why_not}"
        printed.append(say(logging.WARNING, "skipped", text))
    for text in one.notes:
        say(logging.INFO, "note", f"{one.key}: {text}")
    for record in restored.left_out:
        text = f"{record.object_key}: its node has a newer or fuller file"
        say(logging.INFO, "left_out", text)
    for node, why in restored.damaged.items():
        printed.append(say(logging.ERROR, "damaged", f"{node} was not restored: {why}"))
    for file in restored.files:
        if file.command is None:
            text = f"{file.copied.path} needs {file.needs}"
            printed.append(say(logging.ERROR, "no_command", text))
        if (cut := describe_cut(file.log)) is not None:
            say(logging.WARNING, "cut_short", f"{file.copied.path}: {cut}")
    if not one.is_complete or restored.damaged:
        lacks = "; ".join(one.gaps) or f"without {', '.join(filter(None, restored.damaged))}"
        printed.append(say(logging.ERROR, "partial", f"{one.key}: {lacks}"))
    return printed
