"""What the evidence says of a drill as a whole: its phases, its place, who and what made it."""

import getpass
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.report import evidence
from archiver.report.evidence import Comparison, Phases
from archiver.version import __version__


def phases(seconds: Sequence[Mapping[str, float]]) -> Phases:
    """Sums over the files, which are restored one after the other: on machines of their own the
    nodes of a cluster would recover side by side. A phase that a file did not reach has none."""
    names = [one.name for one in fields(Phases)]
    reached = {name: [one.get(name) for one in seconds] for name in names}
    sums: dict[str, float | None] = {}
    for name, values in reached.items():
        known = [value for value in values if value is not None]
        sums[name] = sum(known) if known and len(known) == len(values) else None
    return Phases(**sums)


def compared(last_id: str, then: int, now: int, most_change: float | None) -> Comparison:
    """An instance's keys beside those of its last drill, ``last_id``."""
    change = now - then
    fraction = change / then if then else None
    within = most_change is None or abs(change) <= most_change * then
    return Comparison(last_id, then, now, change, fraction, within)


def place(archive: Archive) -> evidence.ArchivePlace:
    """Which archive, with nothing in its address that grants access."""
    where = evidence.without_secrets(str(archive.store))
    return evidence.ArchivePlace(where, layout.FORMAT)


def tool() -> evidence.Tool:
    """This program."""
    python, system = platform.python_implementation(), platform.system()
    runtime = f"{python} {platform.python_version()}, {system} {platform.machine()}"
    return evidence.Tool("archiver", __version__, runtime)


def who(*, withhold: bool) -> evidence.Who:
    """On whose behalf, and where. May read the system's user database."""
    if withhold:
        return evidence.Who(None, None)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name in any place: a container's bare number
        user = str(os.geteuid())
    return evidence.Who(user, platform.node() or None)
