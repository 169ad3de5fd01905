"""``archiver ack``."""

import logging
from typing import TYPE_CHECKING, Any

import click

from archiver.cli.options import command, option, output_options
from archiver.cli.places import check_keeping, keeping_options, lock_option, store_at
from archiver.cli.streams import show
from archiver.times import format_day

if TYPE_CHECKING:
    from archiver.archive.acknowledged import Acknowledged, Acknowledgement
    from archiver.archive.archive import Archive
    from archiver.cli.run import Ended
    from archiver.events import Event


@command("ack")
@click.argument("place", metavar="ARCHIVE")
@click.argument("subjects", metavar="[SET|BACKUP]...", nargs=-1)
@option("--reason", metavar="TEXT", help="Why it will stay incomplete; auditors read this.")
@option("--by", metavar="NAME", help="Who acknowledges it.  [default: user@host]")
@option(
    "--nothing-came",
    is_flag=True,
    help="Also acknowledge a set, or a node's backup, of which the archive has nothing.",
)
@option("--withdraw", is_flag=True, help="Count it as a failure again.")
@option(
    "--list", "listing", is_flag=True, help="List acknowledgements and whether they still hold."
)
@lock_option("0s")
@keeping_options
@output_options
def ack(place: str, subjects: tuple[str, ...], **given: Any) -> None:
    """Acknowledge a backup that failed for good, so that it no longer counts as a failure.

    SET is the key of a backup set that lacks files, BACKUP a backup that failed at the vendor, as
    pull names them, or one that is gone for good, as a repair names it. The acknowledgement is
    stored in the archive, shown by ls, verify and drill, and copied. It holds until the set
    changes, and never covers damage.

    \b
    Examples:
      archiver ack ./backups r-bp1/2026/11/20261124T021500Z-42 --reason 'ticket 7'
      archiver ack ./backups r-bp1-db-0-1187423 --reason 'ticket 7'
      archiver ack ./backups --list
      archiver ack ./backups r-bp1-db-0-1187423 --withdraw
    """
    from archiver.cli.jsonlines import LastLine
    from archiver.cli.run import run

    run(
        lambda: _ack(place, subjects, given),
        last=LastLine(given["as_json"]),
        verbose=given["verbose"],
        on_interrupt="run the same command again",
    )


async def _ack(place: str, subjects: tuple[str, ...], given: dict[str, Any]) -> "Ended | None":
    from archiver.archive.acknowledged import Acknowledged, acknowledge, check_subject, withdraw
    from archiver.archive.archive import Archive, Beginning
    from archiver.stores.scope import WHOLE

    store = store_at(place, given)
    check_keeping(store, given)
    archive = Archive(store, lock_wait=given["lock_wait"], beginning=Beginning.NEVER)
    subjects = tuple(subject.removesuffix("/") for subject in subjects)
    _check(subjects, given)
    await archive.expect()
    if given["listing"]:
        return await _list(await Acknowledged(archive).read(), subjects, as_json=given["as_json"])
    for subject in subjects:
        check_subject(subject)
        if not (given["withdraw"] or given["nothing_came"]):
            await _check_spelling(archive, subject)
    by, done = given["by"] or await _who(), list["Acknowledgement"]()
    async with archive.writing(WHOLE):
        for subject in subjects:
            if given["withdraw"]:
                done.append(await withdraw(archive, subject, by=by))
            else:
                reason = given["reason"]
                done.append(
                    await acknowledge(archive, subject, by=by, reason=reason, observer=_say)
                )
            _print(archive, done[-1], given)
    return None


def _say(event: "Event") -> None:
    """Print that something else was in its place, and where that is now."""
    from archiver.cli.run import say
    from archiver.cli.words import line

    shown = line(event)
    if shown is not None:
        say(shown[1])


def _check(subjects: tuple[str, ...], given: dict[str, Any]) -> None:
    """Raises UsageError for options that contradict each other or are missing."""
    from archiver.errors import UsageError

    if given["listing"] and (given["withdraw"] or given["reason"]):
        raise UsageError("--list cannot be combined with --withdraw or --reason")
    if given["listing"]:
        return
    if not subjects:
        raise UsageError("missing argument: SET or BACKUP", hint="as pull and verify name them")
    if given["withdraw"] and given["reason"]:
        raise UsageError("--withdraw cannot be combined with --reason")
    if not given["withdraw"] and not given["reason"]:
        raise UsageError("missing option: --reason TEXT", hint="auditors read it")


async def _who() -> str:
    from archiver.commands.drill.conclusion import who
    from archiver.concurrency import in_thread

    found = await in_thread(lambda: who(withhold=False))
    return "@".join(part for part in (found.user, found.host) if part)


async def _check_spelling(archive: "Archive", subject: str) -> None:
    """Raises UsageError for a set, or a node's backup, of which the archive has nothing."""
    from archiver.archive.acknowledged import names_like
    from archiver.cli.usage import nearest
    from archiver.errors import UsageError

    names = await names_like(archive, subject)
    if names is not None:
        what = "the set" if "/" in subject else "the node of backup"
        raise UsageError(
            f"{archive.store} has nothing of {what} {subject}{nearest(subject, names)}",
            hint="if nothing of it came, --nothing-came acknowledges it",
        )


def _print(archive: "Archive", one: "Acknowledgement", given: dict[str, Any]) -> None:
    """Print what was done."""
    from archiver.cli.jsonlines import write_object
    from archiver.cli.run import say
    from archiver.logs import record

    what = "acknowledged" if one.withdrawn is None else "withdrawn"
    text = f"{what}: {one.subject} (stored as {archive.store}/{one.key})"
    record(logging.INFO, what, text, None, _fields(one))
    if given["as_json"]:
        write_object({"event": what, **_fields(one)})
    if given["quiet"]:
        return
    say(text)
    if one.withdrawn is None and one.is_of_a_set and not one.missing:
        say(
            "note: no other set tells which nodes are missing: "
            "acknowledge each failed backup by its own name"
        )


async def _list(
    known: "Acknowledged", subjects: tuple[str, ...], *, as_json: bool
) -> "Ended | None":
    """Print the acknowledgements, newest last; exit code 1 if a document is unusable."""
    from archiver.cli.jsonlines import write_event, write_object
    from archiver.cli.run import Ended, announce
    from archiver.errors import worst_exit_code
    from archiver.events import Failed

    ended = {one.subject for one in await known.ended()}
    for one in sorted(known.by_key.values(), key=lambda one: (one.at, one.subject)):
        if subjects and one.subject not in subjects:
            continue
        state = "ended" if one.subject in ended else "holds"
        if one.withdrawn is not None:
            state = f"withdrawn by {one.withdrawn.by} on {format_day(one.withdrawn.at)}"
        if as_json:
            write_object({"event": "acknowledgement", **_fields(one), "state": state.split()[0]})
        else:
            show(f"{one.subject}  {one}  ({state})")
    printed = [
        announce(logging.ERROR, "damaged", f"damaged: {error}", error=error)
        for error in known.bad.values()
    ]
    for key, error in known.bad.items() if as_json else ():
        write_event(Failed(key, error))
    if not printed:
        return None
    return Ended(worst_exit_code({error.exit_code for error in known.bad.values()}), printed[0])


def _fields(one: "Acknowledgement") -> dict[str, object]:
    return {
        "subject": one.subject,
        "at": one.at,
        "by": one.by,
        "reason": one.reason,
        "missing": list(one.missing),
        "sealed": one.sealed,
        "files": dict(one.files),
    }
