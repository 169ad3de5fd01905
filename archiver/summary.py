"""What a pull or a copy came to."""

from dataclasses import dataclass, field
from datetime import datetime

from archiver import events
from archiver.errors import (
    EXIT_OK,
    EXIT_PRECEDENCE,
    BackupFailed,
    IntegrityError,
    SourceError,
    StoreError,
)
from archiver.model import Backup, Network

# Codes that count though they are of a single backup.
_OF_ONE_BACKUP = frozenset((IntegrityError.exit_code, StoreError.exit_code))


@dataclass(slots=True)
class Summary:
    """What a pull came to, told by its events; bytes as they came over each network.

    ``acknowledged`` are sets and backups that are no failures for that: by the subject of what was
    acknowledged, and the identity of the backup, where it is about one.
    ``kept`` are the bytes of files that are not home yet and that a later run goes on with, by the
    backup's identity. ``newest`` is when the newest backup began that was held or came home, by
    instance.
    """

    held: int = 0
    planned: int = 0
    archived: int = 0
    unfinished: int = 0
    bytes_planned: int = 0
    bytes_archived: int = 0
    bytes_fetched: dict[Network, int] = field(default_factory=dict)
    failures: list[events.Failed] = field(default_factory=list)
    incomplete: list[events.SetIncomplete] = field(default_factory=list)
    acknowledged: dict[tuple[str, tuple[str, str] | None], events.Acknowledged] = field(
        default_factory=dict
    )
    kept: dict[tuple[str, str], int] = field(default_factory=dict)
    newest: dict[str, datetime] = field(default_factory=dict)

    def __call__(self, event: events.Event) -> None:  # noqa: C901 - a table
        """Observe."""
        match event:
            case events.Held(backup):
                self.held += 1
                self._here(backup)
            case events.Planned(backup):
                self.planned += 1
                self.bytes_planned += backup.size
            case events.Unfinished():
                self.unfinished += 1
            case events.Failed():
                self.failures.append(event)
                if event.backup is not None and not isinstance(event.error, SourceError):
                    self.kept.pop(event.backup.identity, None)
            case events.Kept(backup, size):
                self.kept[backup.identity] = size
            case events.SetIncomplete():
                self.incomplete.append(event)
            case events.Acknowledged(subject, backup=backup):
                self.acknowledged[subject, backup.identity if backup else None] = event
            case events.Archived():
                self.archived += 1
                self.bytes_archived += event.size
                self.kept.pop(event.backup.identity, None)
                self._here(event.backup)
            case events.Advanced() if event.network is not None:
                so_far = self.bytes_fetched.get(event.network, 0)
                self.bytes_fetched[event.network] = so_far + event.fetched
            case _:
                pass

    def _here(self, backup: Backup) -> None:
        newest = self.newest.get(backup.instance_id, backup.started_at)
        self.newest[backup.instance_id] = max(newest, backup.started_at)

    @property
    def exit_code(self) -> int:
        """0, or the worst of what failed (README, *Exit codes*). One backup's trouble is 1, but
        for its integrity, which is 3, and for what the store does not give or take, which is 6; a
        set that lacks files is 1."""
        codes = {_exit_code(failure) for failure in self.failures}
        codes |= {BackupFailed.exit_code for _ in self.incomplete}
        return next((code for code in EXIT_PRECEDENCE if code in codes), EXIT_OK)


def _exit_code(failure: events.Failed) -> int:
    code = failure.error.exit_code
    return code if failure.backup is None or code in _OF_ONE_BACKUP else 1
