"""Back up Redis and Tair of Alibaba Cloud, verify the backups, and prove that they restore.

    async with TairSource(endpoint, chain.get) as source:
        summary = await pull(source, Archive(LocalStore("backups")), [query], observer=print)

What is named here is the public API; everything else may change.
"""

from typing import TYPE_CHECKING, Any

from archiver import received
from archiver.model import SourceName
from archiver.version import __version__

if TYPE_CHECKING:
    from archiver.archive.archive import Archive, Beginning
    from archiver.archive.record import Record
    from archiver.commands.adopt.run import adopt
    from archiver.commands.pull.plan import PullOptions
    from archiver.commands.pull.run import pull
    from archiver.commands.restore.run import restore
    from archiver.commands.summary import Summary
    from archiver.commands.verify.model import VerifyOptions, VerifySummary
    from archiver.commands.verify.run import verify
    from archiver.errors import ArchiverError
    from archiver.events import Event
    from archiver.model import Backup, Query
    from archiver.proxies import Proxies
    from archiver.retry import RetryPolicy
    from archiver.sources.alibaba.credentials import CredentialChain, default_chain, static_chain
    from archiver.sources.alibaba.fleet import FleetSource
    from archiver.sources.alibaba.rpc import Credentials
    from archiver.sources.alibaba.selection import Selection
    from archiver.sources.alibaba.source import TairSource
    from archiver.stores.local.store import LocalStore
    from archiver.times import TimeRange
    from archiver.transfer.engine import TransferOptions

# How to read again what each source sent, for those who check a record of it. Here, since every
# process passes here, whichever command it runs: all of them must judge a record alike.
_RECEIVED = {
    SourceName("alibaba", "DescribeBackups 2015-01-01"): (
        "archiver.sources.alibaba.fields:read_backup"
    ),
    SourceName("alibaba", "DescribeClusterBackupList 2015-01-01"): (
        "archiver.sources.alibaba.clusters:read_shard"
    ),
    SourceName("files", "adopt 1"): "archiver.sources.files.fields:read_backup",
}
for _source, _read in _RECEIVED.items():
    received.register(_source, _read)

# Imported when first used: ``archiver --version`` should not load an HTTP client.
_HOMES = {
    "Archive": "archiver.archive.archive",
    "ArchiverError": "archiver.errors",
    "Backup": "archiver.model",
    "Beginning": "archiver.archive.archive",
    "CredentialChain": "archiver.sources.alibaba.credentials",
    "Credentials": "archiver.sources.alibaba.rpc",
    "Event": "archiver.events",
    "FleetSource": "archiver.sources.alibaba.fleet",
    "LocalStore": "archiver.stores.local.store",
    "Proxies": "archiver.proxies",
    "PullOptions": "archiver.commands.pull.plan",
    "Query": "archiver.model",
    "Record": "archiver.archive.record",
    "RetryPolicy": "archiver.retry",
    "Selection": "archiver.sources.alibaba.selection",
    "Summary": "archiver.commands.summary",
    "TairSource": "archiver.sources.alibaba.source",
    "TimeRange": "archiver.times",
    "TransferOptions": "archiver.transfer.engine",
    "VerifyOptions": "archiver.commands.verify.model",
    "VerifySummary": "archiver.commands.verify.model",
    "adopt": "archiver.commands.adopt.run",
    "default_chain": "archiver.sources.alibaba.credentials",
    "pull": "archiver.commands.pull.run",
    "restore": "archiver.commands.restore.run",
    "static_chain": "archiver.sources.alibaba.credentials",
    "verify": "archiver.commands.verify.run",
}

__all__ = [
    "Archive",
    "ArchiverError",
    "Backup",
    "Beginning",
    "CredentialChain",
    "Credentials",
    "Event",
    "FleetSource",
    "LocalStore",
    "Proxies",
    "PullOptions",
    "Query",
    "Record",
    "RetryPolicy",
    "Selection",
    "Summary",
    "TairSource",
    "TimeRange",
    "TransferOptions",
    "VerifyOptions",
    "VerifySummary",
    "__version__",
    "adopt",
    "default_chain",
    "pull",
    "restore",
    "static_chain",
    "verify",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute may be anything
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    return getattr(importlib.import_module(_HOMES[name]), name)
