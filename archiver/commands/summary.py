"""What a pull or a copy came to."""

from bisect import bisect
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from archiver import events
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    IntegrityError,
    SourceError,
    SourceUnreachable,
    StoreError,
    UnknownInstance,
    worst_exit_code,
)
from archiver.ids import is_instance_id
from archiver.model import Named, Network

# Nodes of one set begin within seconds of each other.
_NODES_APART: Final = timedelta(minutes=30)
_STARTS_KEPT: Final = 8


@dataclass(slots=True)
class Summary:
    """What a pull came to, by its events; bytes as they came over each network. ``unsized``
    counts the planned backups whose source says no size.

    ``acknowledged`` are sets and backups that are no failures for that: by the subject of what was
    acknowledged, and the identity of the backup, where it is about one.
    ``kept`` are the bytes of files that are not stored yet and a later run goes on with, by the
    backup's identity. ``starts`` are by instance when the last few sets of dumps began that were
    held or archived, the newest last. ``made`` counts instances whose backup on demand is made.
    ``not_backed_up`` are instances of which the source makes no backups, and why.
    """

    held: int = 0
    planned: int = 0
    archived: int = 0
    unfinished: int = 0
    made: int = 0
    bytes_made: int = 0
    bytes_planned: int = 0
    unsized: int = 0
    bytes_archived: int = 0
    bytes_fetched: dict[Network, int] = field(default_factory=dict)
    failures: list[events.Failed] = field(default_factory=list)
    incomplete: list[events.SetIncomplete] = field(default_factory=list)
    acknowledged: dict[tuple[str, tuple[str, str] | None], events.Acknowledged] = field(
        default_factory=dict
    )
    kept: dict[tuple[str, str], int] = field(default_factory=dict)
    starts: dict[str, list[datetime]] = field(default_factory=dict)
    not_backed_up: dict[str, str] = field(default_factory=dict)
    _came_later: bool = False  # something was archived after a failure

    def __call__(self, event: events.Event) -> None:  # noqa: C901, PLR0912 - a table
        """Observe."""
        match event:
            case events.Held(backup):
                self.held += 1
                self._here(backup)
            case events.Planned(backup):
                self.planned += 1
                self.bytes_planned += backup.size or 0
                self.unsized += backup.size is None
            case events.Unfinished():
                self.unfinished += 1
            case events.BackupMade(backups=backups):
                self.made += 1
                self.bytes_made += sum(backup.size or 0 for backup in backups)
            case events.Failed():
                self.failures.append(event)
                if event.backup is not None and not isinstance(event.error, SourceError):
                    self.kept.pop(event.backup.identity, None)
            case events.NotBackedUp(instance_id, why):
                self.not_backed_up[instance_id] = why
            case events.Kept(backup, size):
                self.kept[backup.identity] = size
            case events.SetIncomplete():
                self.incomplete.append(event)
            case events.Acknowledged(subject, backup=backup):
                self.acknowledged[subject, backup.identity if backup else None] = event
            case events.Archived():
                self.archived += 1
                self._came_later = bool(self.failures)
                self.bytes_archived += event.size
                self.kept.pop(event.backup.identity, None)
                self._here(event.backup)
            case events.Advanced() if event.network is not None:
                so_far = self.bytes_fetched.get(event.network, 0)
                self.bytes_fetched[event.network] = so_far + event.fetched
            case _:
                pass

    def _here(self, backup: Named) -> None:
        if backup.is_log:
            return
        starts = self.starts.setdefault(backup.instance_id, [])
        add_start(starts, backup.started_at)
        del starts[:-_STARTS_KEPT]

    @property
    def ended_by(self) -> ArchiverError | None:
        """What the source would have said of all else, too: nothing more was asked of it."""
        ends = (one.error for one in self.failures if one.backup is None)
        return next((error for error in ends if error.concerns_all), None)

    @property
    def troubled(self) -> list[str]:
        """The instances, and regions of them, of which something failed or is incomplete."""
        found = [one.backup.instance_id if one.backup else one.subject for one in self.failures]
        found += [one.key for one in self.incomplete]
        names = dict.fromkeys(name.partition("/")[0] for name in found)
        return [name for name in names if is_instance_id(name)]

    @property
    def unknown_instances(self) -> list[str]:
        """The instances that the source does not have."""
        failed = (one for one in self.failures if isinstance(one.error, UnknownInstance))
        return [one.subject for one in failed]

    @property
    def newest(self) -> dict[str, datetime]:
        """When the newest set of dumps began, by instance."""
        return {instance_id: starts[-1] for instance_id, starts in self.starts.items()}

    @property
    def exit_code(self) -> int:
        """0, or the worst of what failed (README, *Exit codes*). One backup's trouble is 1, but
        for its integrity, which is 3, and for what the store does not give or take, which is 6, or
        4 where it denies access; a set that lacks files is 1. Where nobody answered for anything
        that failed, and nothing came after that, it is 5."""
        codes = {_exit_code(failure) for failure in self.failures}
        codes |= {BackupFailed.exit_code for _ in self.incomplete}
        errors = [failure.error for failure in self.failures]
        nobody = all(isinstance(error, SourceUnreachable) for error in errors)
        if errors and nobody and not self._came_later:
            codes.add(SourceUnreachable.exit_code)  # no backup's trouble, but that of them all
        return worst_exit_code(codes)


def add_start(starts: list[datetime], start: datetime) -> None:
    """Add when a backup began to ``starts``, sorted, unless it is of the same night as one there:
    a node of the same set, or another backup at the same time."""
    at = bisect(starts, start)
    if all(abs(start - one) > _NODES_APART for one in starts[max(at - 1, 0) : at + 1]):
        starts.insert(at, start)


def _exit_code(failure: events.Failed) -> int:
    error = failure.error
    counts = failure.backup is None or isinstance(error, IntegrityError | StoreError)
    return error.exit_code if counts else BackupFailed.exit_code
