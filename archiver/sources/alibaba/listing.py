"""Reading one answer of DescribeBackups (R-kvstore, 2015-01-01) into pages."""

from collections.abc import Mapping
from typing import Any

from archiver.errors import ArchiverError, SourceError
from archiver.ids import check_backup
from archiver.model import Backup, Page, Refused
from archiver.sources.alibaba.fields import read_backup, read_refused


def read_page(instance_id: str, answer: Mapping[str, Any]) -> Page:
    """The page in an answer. Entries that cannot be used are kept apart.

    Raises SourceError when the answer has not the shape of a page at all.
    """
    try:
        total = int(answer["TotalCount"])
        number, size = int(answer["PageNumber"]), int(answer["PageSize"])
        items = list(answer["Backups"]["Backup"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SourceError(
            f"{instance_id}: the answer to DescribeBackups is not a page of backups",
            hint="is --endpoint the R-kvstore API?",
        ) from None
    backups: list[Backup] = []
    refused: list[Refused] = []
    for item in items:
        try:
            backups.append(check_backup(read_backup(instance_id, item)))
        except ArchiverError as error:
            refused.append(read_refused(item, error))
    return Page(number, size, total, tuple(backups), tuple(refused))
