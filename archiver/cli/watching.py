"""A run that brings backups home, shown as it goes and summed up at its end."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from archiver.cli import jsonlines, words
from archiver.cli.progress import Progress, choose_progress
from archiver.errors import ArchiverError
from archiver.events import Event, Failed, Planned
from archiver.summary import Summary


@dataclass(slots=True)
class Watch:
    """Observes; ``say`` writes a line above the bars when it is wanted with -v."""

    progress: Progress
    verbosity: int
    as_json: bool
    dry_run: bool
    so_far: Summary = field(default_factory=Summary)
    reasons: set[str] = field(default_factory=set)

    def say(self, text: str) -> None:
        if self.verbosity >= words.VERBOSE:
            self.progress.say(text)

    def observe(self, event: Event) -> None:
        self.so_far(event)
        self.progress(event)
        told = None if self._was_told(event) else words.line(event)
        if told is not None and told[0] <= self.verbosity:
            self.progress.say(told[1])
        elif self.dry_run and isinstance(event, Planned) and self.verbosity >= words.NORMAL:
            self.progress.say(f"would fetch: {event.backup} {words.size(event.backup.size)}")
        if self.as_json:
            jsonlines.write_event(event)

    def _was_told(self, event: Event) -> bool:
        """Whether what keeps several backups away was told when it kept the first: the summary
        counts them."""
        if not isinstance(event, Failed) or words.unnamed(event) is None:
            return False
        text = str(event.error)
        was_told = text in self.reasons
        self.reasons.add(text)
        return was_told


async def watched(given: Mapping[str, Any], work: Callable[[Watch], Awaitable[object]]) -> int:
    """Do the work; its exit code. The summary is told however it ends."""
    watch = Watch(
        progress=choose_progress(quiet=given["quiet"], wanted=given["progress"]),
        verbosity=words.QUIET if given["quiet"] else given["verbose"],
        as_json=given["as_json"],
        dry_run=given.get("dry_run", False),
    )
    began, finished = time.monotonic(), False
    ended_by: ArchiverError | None = None
    try:
        await work(watch)
        finished = True
    except ArchiverError as error:
        ended_by = error
        raise
    finally:
        watch.progress.close()
        if watch.as_json:
            jsonlines.write_summary(watch.so_far, finished=finished, ended_by=ended_by)
        if watch.verbosity > words.QUIET:
            seconds = time.monotonic() - began
            for text in words.summary(
                watch.so_far, seconds, finished=finished, dry_run=watch.dry_run
            ):
                watch.progress.say(text)
    return watch.so_far.exit_code
