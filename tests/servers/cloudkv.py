"""A vendor of another shape, as a small HTTP server.

It lists batches, each with a record a shard: without sizes, checksums, ids of files and URLs.
A URL is given for one file at a time. Times are those of Shanghai and have no zone. Objects have
neither ETag nor CRC.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Batch:
    """A backup of an instance: the bytes of each shard by its number, or None for its number in an
    instance without shards."""

    batch_id: str
    started: str
    shards: dict[int | None, bytes]
    status: str = "backup_ok"
    kind: str = "snapshot"
    trigger: str = "timer"


@dataclass(slots=True)
class CloudKv:
    """The vendor's account. ``asked`` counts requests by kind; ``short`` are objects that break off
    before their end; ``takes_ranges`` is whether object storage does."""

    batches: dict[str, list[Batch]] = field(default_factory=dict)
    page_size: int = 2
    takes_ranges: bool = True
    short: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    endpoint: str = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/{instance}/batches", self._list)
        app.router.add_post("/v2/{instance}/batches/{batch}/{shard}/url", self._url)
        app.router.add_get("/objects/{instance}/{batch}/{shard}", self._object)
        return app

    async def _list(self, request: web.Request) -> web.Response:
        self.asked["list"] += 1
        batches = self.batches.get(request.match_info["instance"])
        if batches is None:
            return web.json_response({"error": "no_such_instance"}, status=404)
        offset = int(request.query["offset"])
        shown = [self._shown(one) for one in batches[offset : offset + self.page_size]]
        return web.json_response({"items": shown, "next": offset + self.page_size})

    def _shown(self, batch: Batch) -> dict[str, Any]:
        return {
            "batchId": batch.batch_id,
            "started": batch.started,
            "finished": batch.started,
            "kind": batch.kind,
            "trigger": batch.trigger,
            "product": {"engine": "valkey", "release": "8.0"},
            "records": [{"shard": shard, "status": batch.status} for shard in batch.shards],
        }

    async def _url(self, request: web.Request) -> web.Response:
        self.asked["url"] += 1
        place = "/".join(request.match_info[name] for name in ("instance", "batch", "shard"))
        return web.json_response({"link": f"{self.endpoint}/objects/{place}?token=s3cr3t"})

    async def _object(self, request: web.Request) -> web.StreamResponse:
        self.asked["object"] += 1
        if request.query.get("token") != "s3cr3t":
            return web.Response(status=403)
        wanted = request.match_info
        [batch] = [
            one for one in self.batches[wanted["instance"]] if one.batch_id == wanted["batch"]
        ]
        data = {str(shard): bytes_ for shard, bytes_ in batch.shards.items()}[wanted["shard"]]
        headers = {"Content-Type": "application/octet-stream"}
        status, sent = 200, data
        if self.takes_ranges and request.http_range.start is not None:
            start, stop = request.http_range.start, request.http_range.stop
            status, sent = 206, data[start:stop]
            headers["Content-Range"] = f"bytes {start}-{start + len(sent) - 1}/{len(data)}"
        answer = web.StreamResponse(status=status, headers=headers)
        answer.content_length = len(sent)
        await answer.prepare(request)
        await answer.write(sent[: len(sent) // 2] if self.short else sent)
        if self.short and request.transport is not None:
            request.transport.abort()
        return answer
