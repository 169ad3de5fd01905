"""Listings of anything at all: nothing is raised but errors of ours, and the rest comes home."""

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archiver import Archive, LocalStore, PullOptions, Query, TransferOptions, events, pull
from archiver.cli import jsonlines, words
from archiver.commands.ls import listing
from archiver.commands.summary import Summary
from archiver.emulator import Emulator
from archiver.errors import ArchiverError
from archiver.model import Network
from archiver.sources.alibaba.clusters import read_cluster_page
from archiver.sources.alibaba.source import TairSource
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, QUICK, everything, source_of

OPTIONS = PullOptions(transfer=TransferOptions(retry=QUICK))
DATES = (
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00Z", "9998-12-31T23:59:59Z", "2026-11-24",
    "2026-11-24T02:15:00", "2026-13-45T99:99:99Z", "20261124T021500Z", "2026-W48-2", "", "Z",
    "2026-11-24T02:15:00.999999999Z", "2026-11-24T24:00:00Z", "now",
    "\uff12\uff10\uff12\uff16-11-24T02:15:00Z",
)  # fmt: skip
URLS = (
    "http://[v6]/x", "http://[::1", "http://", "://", "file:///etc/passwd", "x", "http:///x",
    "http://127.0.0.1:99999/x", "http://127.0.0.1:x/x", "http://127.0.0.1:1/x?Signature=s",
    "http://127.0.0.1/\u00e9 \x0b?a b", "http://u:p@127.0.0.1:1/x", "http://169.254.169.254/x",
    "http://100.100.100.200/latest", "http://a..aliyuncs.com/x", f"http://{'a' * 300}.aliyuncs.com",
    "http://evil.example/x", "https://127.0.0.1:1/x?Expires=99999999999999999999999",
    "http://127.0.0.1:1/x?x-oss-date=20261124T021500Z&x-oss-expires=9e9", "http://\udc80/x",
    "gopher://127.0.0.1:1/x", "http://[fe80::1%25eth0]/x", "http://127.0.0.1:1/%zz%00%ff",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2**31, 2**63, 2**64, 10**60, -(10**60), 1.5, 1e308, math.inf, math.nan, True, False,
)  # fmt: skip
WORDS = (
    "", "0", "..", "/", "a/b", "../../x", "\x00", "x\ny", "\udc80", "-", "x" * 500, "Success",
    "Failed", "FullBackup", "IncrementalBackup", "None", "\u202e", "1" * 50, "archive.json",
)  # fmt: skip
FIELDS = (
    "BackupId", "BackupJobID", "BackupJobId", "NodeInstanceId", "BackupStatus", "BackupType",
    "BackupMode", "BackupStartTime", "BackupEndTime", "ExpectExpireTime", "BackupSize",
    "BackupDownloadURL", "BackupIntranetDownloadURL", "EngineVersion", "Unknown",
)  # fmt: skip

odd = st.sampled_from([*DATES, *URLS, *NUMBERS, *WORDS, None])
anything = st.recursive(
    odd | st.integers() | st.text(max_size=20) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
LIKELY = {"Time": st.sampled_from(DATES), "URL": st.sampled_from(URLS), "Size": st.integers()}


def field_of(name: str) -> st.SearchStrategy[Any]:
    """What has the shape of the field, more often than not."""
    likely = [one for suffix, one in LIKELY.items() if name.endswith(suffix)]
    return st.one_of(*likely, odd, anything)


# Fields that differ from those of an honest entry; and what is no entry.
changes = st.fixed_dictionaries({}, optional={name: field_of(name) for name in FIELDS})
entries = changes | anything


async def pulled(source: TairSource, archive: Archive) -> Summary:
    """A pull that is told of as a command would, to people and in JSON."""

    def observe(event: events.Event) -> None:
        words.line(event)
        jsonlines.write_event(event)

    with contextlib.redirect_stdout(io.StringIO()):
        summary = await pull(source, archive, [everything()], OPTIONS, observe)
        jsonlines.LastLine(wanted=True, fields=jsonlines.summary_fields(summary)).write(0, None)
    words.summary(summary, 1.0, finished=True)
    return summary


async def comes_home(garbage: list[Any], folder: Path) -> None:
    files = folder / "vendor"
    (files / INSTANCE).mkdir(parents=True)
    write_rdb(files / INSTANCE / "a.rdb", 2000)
    emulator = Emulator(files, access_key_id=KEY_ID, access_key_secret=KEY_SECRET)
    async with emulator, source_of(emulator) as source:
        ask, honest_ids = source._call, set[str]()

        async def call(action: str, params: Mapping[str, str]) -> dict[str, Any]:
            answer = await ask(action, params)
            [honest] = answer["Backups"]["Backup"]
            honest_ids.add(str(honest["BackupId"]))
            odd_ones = [
                {**honest, "BackupId": 7000 + n, **one} if isinstance(one, dict) else one
                for n, one in enumerate(garbage)
            ]
            if "BackupId" not in params:
                answer["Backups"]["Backup"] = [*odd_ones, honest]
                answer["TotalCount"] = len(odd_ones) + 1
            # As it comes over the wire.
            return dict(json.loads(json.dumps(answer)))

        source._call = call  # type: ignore[method-assign]
        archive = Archive(LocalStore(folder / "archive"))
        [page] = [page async for page in source.pages(everything())]
        summary = await pulled(source, archive)
        held = {row.backup_id for row in await listing.archived_rows(archive, ())}
        assert honest_ids <= held
        assert summary.exit_code in (0, 1, 3)
        again = await pulled(source, archive)
        assert again.archived == 0
        rows = await listing.compared_rows(archive, page.backups)
        assert listing.vendor_rows(page.backups)
        assert rows


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(entries, max_size=6))
@example([{"BackupStartTime": "0001-01-01T00:00:00Z"}, {"BackupStartTime": "9999-12-31T23:59:59Z"}])
@example([{"BackupEndTime": date} for date in DATES])
@example([{"ExpectExpireTime": date} for date in DATES])
@example([{"BackupDownloadURL": url, "BackupIntranetDownloadURL": None} for url in URLS])
@example([{"BackupDownloadURL": None, "BackupIntranetDownloadURL": url} for url in URLS])
@example([{"BackupSize": number} for number in NUMBERS])
@example([{"BackupId": word} for word in WORDS])
@example([{"NodeInstanceId": word} for word in WORDS])
@example([{"BackupJobID": word} for word in WORDS])
@example([None, [], "x", 5, [[]], {}])
def test_entries_of_anything(garbage: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(comes_home, garbage, Path(folder))


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(["TotalCount", "PageNumber", "PageSize", "Backups"]), anything)
)
@example({"TotalCount": 10**30, "PageNumber": 1, "PageSize": -5, "Backups": {"Backup": []}})
@example({"TotalCount": 5, "PageNumber": 1, "PageSize": 30, "Backups": {"Backup": "xyz"}})
@example({"TotalCount": 5, "PageNumber": 1, "PageSize": 30, "Backups": {"Backup": {"a": 1}}})
def test_answers_of_anything(answer: dict[str, Any]) -> None:
    """A listing ends, and with an error of ours if it is none."""

    async def listed() -> None:
        source = TairSource("http://127.0.0.1:1", lambda: None)  # type: ignore[arg-type,return-value]
        calls = 0

        async def call(action: str, params: Mapping[str, str]) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            assert calls < 500
            return dict(json.loads(json.dumps(answer)))

        source._call = call  # type: ignore[method-assign]
        with contextlib.suppress(ArchiverError):
            async for page in source.pages(Query(INSTANCE, "a", "b")):
                for backup in page.backups:
                    assert set(backup.urls) | set(backup.refused) <= set(Network)

    anyio.run(listed)


@settings(max_examples=100)
@given(st.lists(anything, max_size=3), st.lists(anything, max_size=3))
@example([None, 5, "x"], [])
def test_sets_of_anything(sets: list[Any], shards: list[Any]) -> None:
    """Of a cluster: what can be read is, and all else is kept apart."""
    honest = {"ClusterBackupId": "cb-1", "Backups": [*shards, {"IsAvail": shards}]}
    items = json.loads(json.dumps([*sets, honest]))
    page = read_cluster_page(INSTANCE, {"PageNumber": 1, "PageSize": 30, "ClusterBackups": items})
    assert page.is_last
    assert len(page.refused) >= 1
