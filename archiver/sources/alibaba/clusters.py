"""What DescribeClusterBackupList (R-kvstore, 2015-01-01) says of backup sets. Pure.

It lists the backups of cloud-native clusters. An entry is a set with its shards; each shard becomes
a backup, which keeps the entry without the other shards as it was received.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from archiver.documents import check_value
from archiver.errors import ArchiverError, BackupFailed, SourceError, UnsafeInput
from archiver.ids import check_backup, safe
from archiver.model import Backup, BackupType, NodesExpected, Page, Refused, SourceName, Status
from archiver.secret import Secret
from archiver.sources.alibaba.fields import (
    MODES,
    UNREADABLE,
    engine_of,
    fault_of,
    id_text,
    meaning,
    size_of,
    time_of,
    urls_of,
    without_query,
)
from archiver.times import parse_document_time

ACTION: Final = "DescribeClusterBackupList"
SOURCE: Final = SourceName("alibaba", f"{ACTION} 2015-01-01")

# Documented, and below what is asked for: a page of so many may be a full one of that size.
_PAGE_SIZES: Final = (5, 10, 15, 20, 30)
_SHARDS = "Backups"
_RUNNING = "RUNNING"
_STATES = {"OK": Status.SUCCESS, "ERROR": Status.FAILED}


def read_shard(instance_id: str, item: Mapping[str, Any]) -> Backup:
    """An entry of ``ClusterBackups`` with one shard. Raises UnsafeInput when what we need is not in
    it."""
    try:
        check_value(item)
        [shard] = item[_SHARDS]
        return Backup(
            source=SOURCE,
            instance_id=instance_id,
            node_id=_node(instance_id, shard["InstanceName"]),
            backup_id=id_text(shard["BackupId"]),
            set_id=_set_id(item),
            started_at=parse_document_time(
                shard.get("BackupStartTime") or item["ClusterBackupStartTime"]
            ),
            status=_status(item, shard),
            type=BackupType.FULL,
            mode=meaning(MODES, item.get("ClusterBackupMode")),
            ended_at=time_of(shard.get("BackupEndTime")),
            expires_at=time_of(item.get("ExpectExpireTime")),
            engine=engine_of((shard.get("ExtraInfo") or {}).get("CustinsDbVersion")),
            size=size_of(shard.get("BackupSize")),
            urls=urls_of(shard),
            received={name: without_query(name, value) for name, value in item.items()},
        )
    except UNREADABLE as error:
        raise UnsafeInput(
            f"{instance_id}: a shard of {_name(item)} cannot be read: {fault_of(error)}"
        ) from None


def _node(instance_id: str, name: object) -> str:
    # A file of the instance itself would be a set of its own.
    if not isinstance(name, str) or name in ("", instance_id):
        raise ValueError(f"InstanceName {name!r:.40} is not that of a shard")
    return name


def _set_id(item: Mapping[str, Any]) -> str:
    set_id = item["ClusterBackupId"]
    if not isinstance(set_id, str) or not set_id:
        raise ValueError(f"ClusterBackupId is {set_id!r:.40}")
    return set_id


def _status(item: Mapping[str, Any], shard: Mapping[str, Any]) -> Status:
    if item.get("ClusterBackupStatus") == _RUNNING:
        return Status.UNFINISHED
    return meaning(_STATES, shard.get("BackupStatus")) or Status.UNFINISHED


def _name(item: object) -> str:
    """What to call an entry in an error."""
    set_id = item.get("ClusterBackupId", "?") if isinstance(item, Mapping) else "?"
    return f"the set {set_id!r:.80}"


def read_cluster_page(
    instance_id: str, answer: Mapping[str, Any], of_instance: NodesExpected | None = None
) -> Page:
    """The page in an answer; ``of_instance`` is how many nodes the instance has now, if known.

    There is no total: the last page is one that is not full. Entries that cannot be used are kept
    apart. Raises SourceError when the answer has not the shape of a page at all.
    """
    try:
        number, size = int(answer["PageNumber"]), int(answer["PageSize"])
        items = list(answer["ClusterBackups"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise SourceError(
            f"{instance_id}: the answer to {ACTION} is not a page of backup sets",
            hint="is --endpoint the R-kvstore API?",
        ) from None
    backups: list[Backup] = []
    refused: list[Refused] = []
    for item in items:
        try:
            found = _read_set(instance_id, item, of_instance)
        except ArchiverError as error:
            refused.append(_refused(item, error))
            continue
        backups += [one for one in found if isinstance(one, Backup)]
        refused += [one for one in found if isinstance(one, Refused)]
    is_short = len(items) < max(size, 1)
    is_last = None if is_short and len(items) in _PAGE_SIZES else is_short
    return Page(number, size, None, tuple(backups), tuple(refused), is_last)


def _read_set(
    instance_id: str, item: Mapping[str, Any], of_instance: NodesExpected | None
) -> list[Backup | Refused]:
    """The shards of one set; raises ArchiverError for a set that cannot be used at all."""
    try:
        _set_id(item)
        entries = list(item.get(_SHARDS) or ())
        is_running = item.get("ClusterBackupStatus") == _RUNNING
    except UNREADABLE as error:
        raise UnsafeInput(
            f"{instance_id}: {_name(item)} cannot be read: {fault_of(error)}"
        ) from None
    if not entries and not is_running:
        raise BackupFailed(f"{instance_id}: {_name(item)} failed at the vendor: it has no shards")
    expected = _nodes_expected(item, entries, of_instance)
    found: list[Backup | Refused] = []
    for entry in entries:
        one = {**item, _SHARDS: [entry]}
        try:
            backup = check_backup(read_shard(instance_id, one))
            found.append(check_backup(replace(backup, nodes_expected=expected)))
        except ArchiverError as error:
            found.append(_refused(one, error))
    return found


def _nodes_expected(
    item: Mapping[str, Any], entries: Sequence[object], of_instance: NodesExpected | None
) -> NodesExpected | None:
    """How many nodes a set should have.

    The instance may have had another number of shards when the set was made. So where the set
    itself says that all of them are there, and lists another number, nothing is expected: the sets
    around it tell. Where it says that some are not, and none of those listed has failed, at least
    one more is expected.
    """
    if item.get("ClusterBackupStatus") == _RUNNING:
        return None
    shards = [entry if isinstance(entry, Mapping) else {} for entry in entries]
    said = {str(one.get("IsAvail")) for one in (item, *shards)}
    has_failed = any(one.get("BackupStatus") != "OK" for one in shards)
    is_whole = "0" not in said
    word = "IsAvail 0"
    if is_whole and str(item.get("IsAvail")) != "1":
        word = "ClusterBackupStatus"
        is_whole = item.get(word) in ("OK", None)
    count = 0 if of_instance is None else of_instance.count
    if not is_whole and not has_failed and count <= len(shards):
        return NodesExpected(len(shards) + 1, f"{word} of {ACTION} (perhaps more)")
    return None if said == {"1"} and count != len(shards) else of_instance


def _refused(item: object, error: ArchiverError) -> Refused:
    """What can be read of an entry that cannot be used."""
    set_id = started_at = None
    if isinstance(item, Mapping):
        with suppress(*UNREADABLE, UnsafeInput):
            set_id = safe(_set_id(item))
        with suppress(*UNREADABLE):
            started_at = parse_document_time(item["ClusterBackupStartTime"])
    return Refused(error, set_id, started_at)


def over_tls(backup: Backup) -> Backup:
    """The same backup; this action gives http URLs, and the files are there over https, too."""
    urls = {network: Secret(_https(url.reveal())) for network, url in backup.urls.items()}
    return replace(backup, urls=urls)


def _https(url: str) -> str:
    scheme, slashes, rest = url.partition("://")
    if scheme.lower() != "http" or not slashes:
        return url
    host, slash, path = rest.partition("/")
    return f"https://{host.removesuffix(':80')}{slash}{path}"
