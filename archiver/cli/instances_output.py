"""What ``archiver instances`` shows: rows as a table or as JSON, and what is wrong."""

import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from archiver.cli import jsonlines
from archiver.cli.run import Ended, say
from archiver.cli.streams import show
from archiver.cli.words import line, times
from archiver.errors import ArchiverError, PermissionDenied
from archiver.events import Event, Failed
from archiver.sources.alibaba.instances import Instance
from archiver.sources.alibaba.policies import WEEK, BackupPolicy
from archiver.words import known_since

_NARROWEST, _WIDEST = 80, 120
_LEAST_OF_NAME: Final = 12
_HEADER: Final = (
    "INSTANCE", "REGION", "KIND", "SHARDS", "ENGINE", "KEPT", "BACKUPS (UTC)", "ENDS", "NAME, TAGS",
)  # fmt: skip

Policies = Mapping[str, BackupPolicy | ArchiverError]


@dataclass(slots=True)
class Told:
    """What went wrong, printed at once."""

    verbosity: int
    as_json: bool
    wrong: list[Ended] = field(default_factory=list)

    def observe(self, event: Event) -> None:
        shown = line(event)
        if shown is not None and shown[0] <= self.verbosity:
            printed = say(shown[1])
            if isinstance(event, Failed):
                self.wrong.append(Ended(event.error.exit_code, printed))
        if self.as_json and isinstance(event, Failed):
            jsonlines.write_event(event)

    def tell_of(self, policies: Policies) -> None:
        """Tell of policies that were not given; the table says where they may not be read."""
        for name, one in policies.items():
            if isinstance(one, ArchiverError) and not isinstance(one, PermissionDenied):
                self.observe(Failed(name, one))


class Row(NamedTuple):
    """An instance and its policy, or why there is none; None where it was not asked for."""

    instance: Instance
    policy: BackupPolicy | ArchiverError | None


def rows(instances: Sequence[Instance], policies: Policies) -> list[Row]:
    """A row for each instance."""
    return [Row(one, policies.get(one.instance_id)) for one in instances]


def write_json(found: Sequence[Row]) -> None:
    """An object for each row."""
    jsonlines.write_objects(
        {
            **{name: getattr(one, name) for name in one.__slots__},
            "tags": dict(one.tags),
            "why_no_backups": one.why_no_backups,
            "policy": _policy_fields(policy),
            "why_no_policy": str(policy) if isinstance(policy, ArchiverError) else None,
        }
        for one, policy in found
    )


def _policy_fields(policy: BackupPolicy | ArchiverError | None) -> dict[str, object] | None:
    if not isinstance(policy, BackupPolicy):
        return None
    return {name: getattr(policy, name) for name in policy.__slots__}


def show_table(found: Sequence[Row]) -> None:
    """Write the table, as wide as the terminal within its bounds. A column that says nothing of any
    instance is left out, and so is that of the region where there is one."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST
    lines = [_HEADER, *map(_cells, found)]
    columns = list(zip(*lines, strict=True))
    shown = [
        column
        for column in columns
        if set(column[1:]) != {"-"} and (column[0] != "REGION" or len(set(column[1:])) > 1)
    ]
    widths = [max(map(len, column)) for column in shown[:-1]]
    left = min(max(width, _NARROWEST), _WIDEST) - sum(widths) - 2 * len(widths)
    last = [_cut(text, max(left, _LEAST_OF_NAME)) for text in shown[-1]]
    line_of = "  ".join([*(f"{{:<{n}}}" for n in widths), "{}"])
    show(*(line_of.format(*cells).rstrip() for cells in zip(*shown[:-1], last, strict=True)))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _cells(row: Row) -> tuple[str, ...]:
    one, policy = row
    kept = policy.kept_days if isinstance(policy, BackupPolicy) else None
    ends = min((t for t in (one.ends_at, one.destroyed_at) if t is not None), default=None)
    return (
        one.instance_id,
        one.region or "-",
        f"{'cloud ' if one.is_cloud_native else ''}{one.architecture}" or "-",
        str(one.shards or "-"),
        f"{one.engine} {one.engine_version}".strip() or "-",
        "-" if kept is None else f"{kept} d",
        _schedule(row),
        "-" if ends is None else f"{ends:%Y-%m-%d}",
        " ".join([one.name, *(f"{key}={value}" for key, value in sorted(one.tags.items()))]),
    )


def _schedule(row: Row) -> str:
    if row.instance.why_no_backups is not None:
        return "never"
    if isinstance(row.policy, PermissionDenied):
        return "denied"
    if not isinstance(row.policy, BackupPolicy):
        return "-" if row.policy is None else "failed"
    days = row.policy.days
    on = "daily" if days == WEEK else ",".join(day[:2] for day in days)
    return f"{on} {row.policy.time.partition('Z')[0]}"


def summary(found: Sequence[Row], seconds: float) -> list[str]:
    """How many instances there are, how old what is known of them is, and what is left out."""
    regions = len({row.instance.region for row in found})
    where = f"{times(len(found), 'instance')} in {times(regions, 'region')}"
    lines = [f"{where}{known_since(seconds)}"]
    reasons = Counter(row.instance.why_no_backups for row in found)
    lines += [f"never: {times(n, 'instance')}: {why}" for why, n in reasons.items() if why]
    if denied := [row for row in found if isinstance(row.policy, PermissionDenied)]:
        what = f"the policies of {times(len(denied), 'instance')}"
        lines.append(f"denied: {what}, as {denied[0].policy}")
    return lines
