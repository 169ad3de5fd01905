"""A source for that vendor: all that anybody knows of its fields is here."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import aiohttp

from archiver import received
from archiver.errors import BackupGone, UnknownInstance, UnsafeInput
from archiver.model import (
    Backup,
    BackupMode,
    BackupType,
    Engine,
    Network,
    NodesExpected,
    Page,
    Query,
    SourceName,
    Status,
)
from archiver.secret import Secret

SOURCE: Final = SourceName("cloudkv", "list batches v2")
_ZONE = timezone(timedelta(hours=8))
_STATES = {"backup_ok": Status.SUCCESS, "backup_broken": Status.FAILED}
_TYPES = {"snapshot": BackupType.FULL, "stream": BackupType.INCREMENTAL}
_MODES = {"timer": BackupMode.AUTOMATED, "hand": BackupMode.MANUAL}


def read_entry(instance_id: str, entry: Mapping[str, Any]) -> Backup:
    """One record of a batch, with what the batch says of all of them."""
    try:
        record, shards, product = entry["record"], entry["shards"], entry["product"]
        shard = record["shard"]
        return Backup(
            source=SOURCE,
            instance_id=instance_id,
            node_id=instance_id if shard is None else f"{instance_id}-shard-{shard}",
            # The vendor's files have no ids.
            backup_id=f"{entry['batchId']}.{shard or 0}",
            set_id=entry["batchId"],
            started_at=_moment(entry["started"]),
            status=_STATES.get(record["status"], Status.UNFINISHED),
            type=_TYPES.get(entry["kind"]),
            mode=_MODES.get(entry["trigger"]),
            ended_at=_moment(entry["finished"]),
            engine=Engine(product["engine"], product["release"]),
            nodes_expected=NodesExpected(shards, "the records of its batch"),
            received=entry,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnsafeInput(f"{instance_id}: a batch that cannot be read ({error!r})") from None


received.register(SOURCE, read_entry)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=_ZONE).astimezone(UTC)


def _entries(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shared = {name: value for name, value in batch.items() if name != "records"}
    for record in batch["records"]:
        yield {**shared, "shards": len(batch["records"]), "record": record}


class CloudKvSource:
    def __init__(self, endpoint: str, session: aiohttp.ClientSession) -> None:
        self._endpoint: Final = endpoint
        self._session: Final = session

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        number, offset, url = 1, 0, f"{self._endpoint}/v2/{query.instance_id}/batches"
        while True:
            async with self._session.get(url, params={"offset": str(offset)}) as answer:
                if answer.status == 404:
                    raise UnknownInstance(f"{query.instance_id}: no such instance")
                listed = await answer.json()
            if not listed["items"]:
                return
            backups = [
                read_entry(query.instance_id, entry)
                for batch in listed["items"]
                for entry in _entries(batch)
            ]
            yield Page(number, len(backups), len(backups), tuple(backups))
            number, offset = number + 1, listed["next"]

    async def again(self, backup: Backup) -> Backup:
        shard = backup.received["record"]["shard"]
        place = f"{backup.instance_id}/batches/{backup.set_id}/{shard}"
        async with self._session.post(f"{self._endpoint}/v2/{place}/url") as answer:
            if answer.status == 404:
                raise BackupGone(f"{backup}: the vendor no longer has it")
            link = (await answer.json())["link"]
        return replace(backup, urls={Network.PUBLIC: Secret(link)})
