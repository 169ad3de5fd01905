"""What a source of backups must do.

A vendor is a package beside this module. It lists backups as :class:`~archiver.model.Backup`, which
has the terms that all commands use, and keeps in ``received`` what the vendor sent. Beside its
:class:`Source` it registers a function that reads ``received`` again (:mod:`archiver.received`; for
the built-in ones the table in ``archiver/__init__``). No other module knows the vendor's fields.
"""

from collections.abc import AsyncGenerator
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
