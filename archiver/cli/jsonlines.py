"""Events as JSON, one object per line on stdout."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from archiver import events
from archiver.archive.catalogue import CatalogueEntry
from archiver.archive.record import Record
from archiver.cli import streams
from archiver.commands.summary import Summary
from archiver.errors import EXIT_INTERRUPTED, EXIT_OK, ArchiverError
from archiver.model import Backup
from archiver.times import format_iso

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def write_event(event: events.Event) -> None:
    """Write an event; the many steps of a transfer are left out."""
    if not isinstance(event, events.Advanced):
        fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
        write_object({"event": _name(event), "time": _now(), **fields})


@dataclass(slots=True)
class LastLine:
    """The last line of a command's output under ``--json`` (``wanted`` if that was given).

    A command with a summary puts it into ``fields`` and always has a last line; other commands
    have one if their exit code is not 0. ``ended_by`` is the error that ended the run early. The
    log gets the lines of ``summary``, which people read on stderr, even under --quiet. ``metrics``
    adds what the command has beside them to those of ``--metrics-file``.
    """

    wanted: bool = False
    event: str = "summary"
    fields: Mapping[str, object] | None = None
    summary: Sequence[str] = ()
    ended_by: ArchiverError | None = None
    metrics: "Callable[[CollectorRegistry], None] | None" = None

    def write(self, code: int, why: str | None) -> None:
        """``why`` is the line on stderr that goes with an exit code other than 0."""
        if not self.wanted or (self.fields is None and code == EXIT_OK):
            return
        write_object(
            {
                "event": self.event,
                "time": _now(),
                **(self.fields or {}),
                "interrupted": code == EXIT_INTERRUPTED,
                "ended_by": self.ended_by,
                "exit_code": code,
                "why": why,
            }
        )


def summary_fields(summary: Summary) -> dict[str, object]:
    """The result of a pull, a copy or a backup."""
    return {
        "held": summary.held,
        "planned": summary.planned,
        "archived": summary.archived,
        "unfinished": summary.unfinished,
        "made": summary.made,
        "bytes_made": summary.bytes_made,
        "failed": len(summary.failures),
        "failures": Counter(type(one.error).__name__ for one in summary.failures),
        "bytes_archived": summary.bytes_archived,
        "bytes_fetched": summary.bytes_fetched,
        "incomplete_sets": len(summary.incomplete),
        "acknowledged": len({subject for subject, _ in summary.acknowledged}),
        "failed_instances": summary.troubled,
        "not_backed_up": list(summary.not_backed_up),
    }


def write_overdue(instance_id: str, newest: datetime | None, why: str) -> None:
    """Write that an instance has no backup young enough; the ``newest`` one started then."""
    fields = {"instance_id": instance_id, "newest": newest, "why": why}
    write_object({"event": "overdue", "time": _now(), **fields})


def write_object(value: Mapping[str, Any]) -> bool:
    """Write one line; returns whether it was written. A reader that went away must not cost the
    night's backup."""
    return write_objects([value])


def write_objects(values: Iterable[Mapping[str, Any]]) -> bool:
    """Write a line for each, as :func:`write_object` does."""
    plainly = ({key: plain(inner) for key, inner in value.items()} for value in values)
    return streams.write("".join(f"{json.dumps(value)}\n" for value in plainly))


def plain(value: object) -> object:
    """The nouns of a run as JSON has them; anything else as it is."""
    if isinstance(value, Backup | Record | CatalogueEntry):
        return {
            "instance_id": value.instance_id,
            "node_id": value.node_id,
            "backup_id": value.backup_id,
            "set_id": value.set_id,
            "type": value.type,
            "mode": None if isinstance(value, CatalogueEntry) else value.mode,
            "started_at": plain(value.started_at),
            "size": value.size,
        }
    if isinstance(value, ArchiverError):
        return {
            "type": type(value).__name__,
            "message": value.message,
            "hint": value.hint,
            "exit_code": value.exit_code,
        }
    if isinstance(value, datetime):
        return format_iso(value)
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    return value


def _name(event: events.Event) -> str:
    name = type(event).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _now() -> str:
    return format_iso(datetime.now(UTC), "milliseconds")
