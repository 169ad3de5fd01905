"""Builds the evidence of a whole drill from that of its sets."""

import getpass
import os
import platform
from collections.abc import Sequence
from datetime import datetime

from archiver.archive import layout
from archiver.archive.archive import Archive
from archiver.commands.drill.options import DrillOptions
from archiver.report import evidence
from archiver.report.evidence import Evidence, Selection, SetEvidence
from archiver.report.verdict import conclude
from archiver.version import __version__


def draft_evidence(
    archive: Archive,
    options: DrillOptions,
    selection: Selection,
    sets: Sequence[SetEvidence],
    acknowledged: tuple[evidence.Acknowledged, ...],
    began: datetime,
    finished: datetime,
    *,
    failure_exit_code: int,
) -> Evidence:
    """Return the evidence without its position in the chain: ``id`` is empty, ``previous`` None."""
    return Evidence(
        id="",
        tool=_tool(),
        who=who(withhold=options.withhold_identity),
        started_at=began,
        finished_at=finished,
        archive=evidence.ArchivePlace(evidence.without_secrets(str(archive.store)), layout.FORMAT),
        selection=selection,
        reference_clock=began,
        targets=evidence.Targets(
            options.rto_seconds,
            options.rpo_seconds,
            options.rpo_window_seconds,
            options.tolerance,
        ),
        conclusion=conclude(selection, sets, failure_exit_code=failure_exit_code),
        sets=tuple(sets),
        previous=None,
        acknowledged=acknowledged,
    )


def who(*, withhold: bool) -> evidence.Who:
    """Return the user and the host of this process. May read the system's user database."""
    if withhold:
        return evidence.Who(None, None)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a user may have only a number
        user = str(os.geteuid())
    return evidence.Who(user, platform.node() or None)


def _tool() -> evidence.Tool:
    python, system = platform.python_implementation(), platform.system()
    runtime = f"{python} {platform.python_version()}, {system} {platform.machine()}"
    return evidence.Tool("archiver", __version__, runtime)
