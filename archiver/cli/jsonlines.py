"""Events as JSON, one object a line on stdout."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from archiver import events
from archiver.cli import streams
from archiver.errors import ArchiverError
from archiver.model import Backup
from archiver.summary import Summary


def write_event(event: events.Event) -> None:
    """Observe: everything but the many steps of a transfer."""
    if not isinstance(event, events.Advanced):
        fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
        write_object({"event": _name(event), "time": _now(), **fields})


def write_summary(
    summary: Summary, *, finished: bool, ended_by: ArchiverError | None = None
) -> None:
    """The last line; ``ended_by`` is the error that ended the run before its end, if one did."""
    write_object(
        {
            "event": "summary",
            "time": _now(),
            "held": summary.held,
            "planned": summary.planned,
            "archived": summary.archived,
            "unfinished": summary.unfinished,
            "failed": len(summary.failures),
            "bytes_archived": summary.bytes_archived,
            "bytes_fetched": summary.bytes_fetched,
            "incomplete_sets": len(summary.incomplete),
            "acknowledged": len({subject for subject, _ in summary.acknowledged}),
            "interrupted": not finished and ended_by is None,
            "ended_by": ended_by,
        }
    )


def write_object(value: Mapping[str, Any]) -> bool:
    """One line; whether it got there. A reader that went away must not cost the night's backup."""
    text = json.dumps({key: _plain(inner) for key, inner in value.items()})
    return streams.write(f"{text}\n")


def _plain(value: object) -> object:
    if isinstance(value, Backup):
        return {
            "instance_id": value.instance_id,
            "node_id": value.node_id,
            "backup_id": value.backup_id,
            "job_id": value.job_id,
            "type": value.type,
            "mode": value.mode,
            "started_at": _plain(value.started_at),
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
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return value


def _name(event: events.Event) -> str:
    name = type(event).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
