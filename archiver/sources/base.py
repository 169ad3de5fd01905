"""What a source of backups must do."""

from collections.abc import AsyncGenerator
from typing import Protocol

from archiver.model import Backup, Page, Query


class Source(Protocol):
    """Lists backups, and finds one again when its URL no longer works."""

    def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """Stream pages of the listing; every backup in exactly one of them.

        Raises AccessError, UsageError or SourceError.
        """
        ...

    async def again(self, backup: Backup) -> Backup:
        """The same backup with fresh URLs. Raises BackupGone, and what ``pages`` raises."""
        ...
