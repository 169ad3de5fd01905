"""What a source of backups must do.

A vendor is a package beside this module. It lists backups as :class:`~archiver.model.Backup`, which
has the terms that all commands use, and keeps in ``received`` what the vendor sent. Beside its
:class:`Source` it registers a function that reads ``received`` again (:mod:`archiver.received`; for
the built-in ones the table in ``archiver/__init__``). No other module knows the vendor's fields.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from archiver.model import Backup, Page, Query


class Source(Protocol):
    """Lists backups, and gives the URLs of one when it has none or they no longer work."""

    def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """Stream pages of the listing; every backup in exactly one of them. A backup without URLs
        is asked for by ``again`` before it is fetched.

        Raises AccessError, UsageError or SourceError.
        """
        ...

    async def again(self, backup: Backup) -> Backup:
        """The same backup with fresh URLs. Raises BackupGone, and what ``pages`` raises."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A backup that a source makes, or has made, on demand.

    ``ids`` are several where the source has a job for each node. ``began_at`` is by the source's
    clock, None while it is not known. ``instead``: why it may not be the backup that was asked for.
    """

    instance_id: str
    ids: tuple[str, ...]
    began_at: datetime | None = None
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is: ``state`` in the source's own words. ``is_under_way`` is False where the
    source says nothing of it: then the listing decides. ``nodes`` are those it is known to back
    up."""

    state: str
    percent: int
    is_under_way: bool
    began_at: datetime | None = None
    nodes: frozenset[str] = frozenset()


class BackupMaker(Protocol):
    """Has backups made now. Each method raises what ``Source.pages`` raises."""

    async def begin(self, instance_id: str, retention_days: int | None) -> Job:
        """Have a backup made, which is kept for so many days: None for what the instance's policy
        says, -1 for as long as the instance lives. Never has two made: where another one is being
        made, or nobody can know whether this one is, the job that is under way is returned.

        Raises BackupRefused, and BackupFailed where no job can be found.
        """
        ...

    async def progress(self, job: Job) -> JobProgress:
        """How far a job is, this one or one of an earlier run."""
        ...

    async def listed(self, job: Job) -> list[Backup]:
        """What is listed of the backup by now, whatever came of it."""
        ...
