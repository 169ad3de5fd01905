"""Shows a pull or copy while it runs, and sums it up at the end."""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from archiver.archive.archive import Archive
from archiver.cli import jsonlines, words
from archiver.cli.jsonlines import LastLine
from archiver.cli.progress import Progress, choose_progress
from archiver.cli.run import Ended, Printed, announce
from archiver.commands.ls.age import Overdue, held
from archiver.commands.summary import Summary
from archiver.errors import EXIT_OK, BackupFailed, worst_exit_code
from archiver.events import Event, Failed, NothingListed, Planned, RouteChosen, SetIncomplete
from archiver.ids import is_instance_id
from archiver.logs import record

# So many instances of which the same is to be said have a line each; a screen has 24 lines.
_LINES_ALIKE = 4


class SumUp(Protocol):
    """Puts the result of a run in lines."""

    def __call__(
        self, result: Summary, seconds: float, *, finished: bool, dry_run: bool = False
    ) -> list[str]: ...


@dataclass(slots=True)
class Watch:
    """An observer that prints events above the bars.

    Each failure is printed once, when it happens; the summary counts them. Of several backups that
    fail for the same reason, the first is printed, and at the end how many more. Of many instances
    or regions that fail alike, or have no backups, the first few are printed, and at the end the
    names of the others, in a line.
    """

    progress: Progress
    verbosity: int
    as_json: bool
    dry_run: bool
    # Kinds of events that are counted and not printed, since another one says the same better.
    unprinted: tuple[type[Event], ...] = ()
    so_far: Summary = field(default_factory=Summary)
    # By the reason of a failure: the first backup, and how many more.
    _kept_away: dict[str, tuple[str, int]] = field(default_factory=dict)
    # By what is said of them: instances and regions.
    _alike: dict[str, list[str]] = field(default_factory=dict)
    _routes: set[RouteChosen] = field(default_factory=set)
    _why: Printed | None = None
    overdue_instances: int = 0

    def store_found(self, text: str) -> None:
        """What a bucket's server can do."""
        record(logging.INFO, "store", text, None, {})
        if self.verbosity >= words.VERBOSE:
            self.progress.say(text)

    def observe(self, event: Event) -> None:
        self.so_far(event)
        self.progress(event)
        if isinstance(event, Failed | SetIncomplete):
            self._report_failure(event)
        else:
            self._print(event)
        if self.as_json:
            jsonlines.write_event(event)

    def overdue(self, one: Overdue) -> None:
        """Print that an instance has no backup young enough, which is a failure."""
        fields = {"newest": one.newest, "why": str(one)}
        self._why = announce(
            logging.ERROR, "overdue", str(one),
            instance=one.instance_id, say=self.progress.say, **fields,
        )  # fmt: skip
        self.overdue_instances += 1
        if self.as_json:
            jsonlines.write_overdue(one.instance_id, one.newest, str(one))

    def close(self) -> None:
        """Remove the bars, and print how many more backups failed for the same reasons, and which
        instances."""
        self.progress.close()
        for what, names in self._alike.items():
            if left := names[_LINES_ALIKE:]:
                self.progress.say(f"{what} {len(left):,} more, as {names[0]}: {', '.join(left)}")
        for first, more in self._kept_away.values():
            if more:
                self.progress.say(
                    f"failed: {words.times(more, 'more backup')}, for the same reason as {first}"
                )

    def ended(self) -> Ended | None:
        """The worst failure of a run that was not interrupted; None if there was none."""
        code = self.so_far.exit_code
        if self.overdue_instances:
            code = worst_exit_code({code, BackupFailed.exit_code})
        if code == EXIT_OK:
            return None
        return Ended(code, self._why or self.progress.say("archiver: there were failures"))

    def _is_one_of_many(self, what: str, name: str) -> bool:
        """Whether an instance or region is left to the line at the end."""
        names = self._alike.setdefault(what, [])
        names.append(name)
        return len(names) > _LINES_ALIKE

    def _print(self, event: Event) -> None:
        if isinstance(event, self.unprinted):
            return
        if isinstance(event, NothingListed) and self._is_one_of_many(
            "no backups:", event.instance_id
        ):
            return
        if isinstance(event, RouteChosen):
            if event in self._routes:  # a `backup` has several pulls, and each chooses anew
                return
            self._routes.add(event)
        shown = words.line(event)
        if shown is not None and shown[0] <= self.verbosity:
            self.progress.say(shown[1])
        elif self.dry_run and isinstance(event, Planned) and self.verbosity >= words.NORMAL:
            self.progress.say(words.planned(event.backup, with_set=self.verbosity >= words.VERBOSE))

    def _report_failure(self, event: Failed | SetIncomplete) -> None:
        if isinstance(event, Failed) and event.backup is None and is_instance_id(event.subject):
            kind = f"failed ({type(event.error).__name__}):"
            if self._is_one_of_many(kind, event.subject):
                return
        name = words.unnamed(event) if isinstance(event, Failed) else None
        if isinstance(event, Failed) and name is not None:
            first, more = self._kept_away.get(reason := str(event.error), (name, -1))
            self._kept_away[reason] = first, more + 1
            if more >= 0:
                return
        self._why = self.progress.say(words.failure(event))


async def watched(
    given: Mapping[str, Any],
    work: Callable[[Watch], Awaitable[list[str]]],
    last: LastLine,
    sum_up: SumUp = words.summary,
    *,
    is_only_bytes: bool = True,
) -> Ended | None:
    """Do the work and print a summary, however it ends; it also goes to the ``last`` line. The
    summary closes with the lines that ``work`` returns. ``is_only_bytes``: all that the work does
    is to move bytes, so the bar of all of them is shown from the start."""
    watch = Watch(
        progress=choose_progress(
            quiet=given["quiet"], wanted=given["progress"], is_only_bytes=is_only_bytes
        ),
        verbosity=words.QUIET if given["quiet"] else given["verbose"],
        as_json=given["as_json"],
        dry_run=given.get("dry_run", False),
    )
    began, finished, remarks = time.monotonic(), False, list[str]()
    try:
        remarks = await work(watch)
        finished = True
    finally:
        watch.close()
        last.fields = {**jsonlines.summary_fields(watch.so_far), "overdue": watch.overdue_instances}
        last.ended_by = watch.so_far.ended_by
        seconds = time.monotonic() - began
        lines = sum_up(watch.so_far, seconds, finished=finished, dry_run=watch.dry_run)
        last.summary = [*lines, *(remarks if lines else [])]
        if watch.verbosity > words.QUIET:
            for text in last.summary:
                watch.progress.say(text)
    return watch.ended()


async def remarks(
    watch: Watch, archive: Archive, asked: Collection[str], narrowed: list[str]
) -> list[str]:
    """The end of a summary: what was requested, if not everything, and what the archive has of the
    instances ``asked`` for, or of all."""
    newest, now = watch.so_far.newest, datetime.now(UTC)
    count = words.times(len(newest), "instance")
    if asked:
        # The archive may have backups of instances that were not listed in this run.
        here = newest.keys() | await held(archive, [name for name in asked if name not in newest])
        count = f"{len(here):,} of {words.times(len(asked), 'instance')} requested"
    elif narrowed:
        return [*narrowed, f"the archive is {archive.store}"]
    place = str(archive.store)
    named = words.left_out(watch.so_far) if len(asked) > 1 else []
    return [*named, *narrowed, words.holding(place, count, newest, now, is_all=not narrowed)]
