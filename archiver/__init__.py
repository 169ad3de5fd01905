"""Bring every Redis/Tair backup home from Alibaba Cloud, provably intact.

    async with TairSource(endpoint, chain.get) as source:
        summary = await pull(source, Archive(LocalStore("backups")), [query], observer=print)

What is named here is the public API; everything else may change.
"""

from typing import TYPE_CHECKING, Any

from archiver.version import __version__

if TYPE_CHECKING:
    from archiver.archive.archive import Archive, Beginning
    from archiver.archive.record import Record
    from archiver.archive.restoring import restore
    from archiver.errors import ArchiverError
    from archiver.events import Event
    from archiver.line import PullOptions, pull
    from archiver.model import Backup, Query
    from archiver.proxies import Proxies
    from archiver.retry import RetryPolicy
    from archiver.scrub.model import VerifyOptions, VerifySummary
    from archiver.scrub.verify import verify
    from archiver.sources.credentials import CredentialChain, default_chain, static_chain
    from archiver.sources.rpc import Credentials
    from archiver.sources.tair import TairSource
    from archiver.stores.local import LocalStore
    from archiver.summary import Summary
    from archiver.timerange import TimeRange
    from archiver.transfer.engine import TransferOptions

# Imported when first used: ``archiver --version`` should not load an HTTP client.
_HOMES = {
    "Archive": "archiver.archive.archive",
    "ArchiverError": "archiver.errors",
    "Backup": "archiver.model",
    "Beginning": "archiver.archive.archive",
    "CredentialChain": "archiver.sources.credentials",
    "Credentials": "archiver.sources.rpc",
    "Event": "archiver.events",
    "LocalStore": "archiver.stores.local",
    "Proxies": "archiver.proxies",
    "PullOptions": "archiver.line",
    "Query": "archiver.model",
    "Record": "archiver.archive.record",
    "RetryPolicy": "archiver.retry",
    "Summary": "archiver.summary",
    "TairSource": "archiver.sources.tair",
    "TimeRange": "archiver.timerange",
    "TransferOptions": "archiver.transfer.engine",
    "VerifyOptions": "archiver.scrub.model",
    "VerifySummary": "archiver.scrub.model",
    "default_chain": "archiver.sources.credentials",
    "pull": "archiver.line",
    "restore": "archiver.archive.restoring",
    "static_chain": "archiver.sources.credentials",
    "verify": "archiver.scrub.verify",
}

__all__ = [
    "Archive",
    "ArchiverError",
    "Backup",
    "Beginning",
    "CredentialChain",
    "Credentials",
    "Event",
    "LocalStore",
    "Proxies",
    "PullOptions",
    "Query",
    "Record",
    "RetryPolicy",
    "Summary",
    "TairSource",
    "TimeRange",
    "TransferOptions",
    "VerifyOptions",
    "VerifySummary",
    "__version__",
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
