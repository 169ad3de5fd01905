"""Which hosts a listing may send us to. Pure.

An answer of the API names the hosts that the files are fetched from. Whoever can forge one, or
stands at another endpoint, could have us fetch from within our own network.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from archiver.errors import UnsafeInput, UsageError
from archiver.model import Backup
from archiver.network import is_metadata
from archiver.secret import SignedUrl

# Object storage, in every region, over the public network and within.
_VENDOR: Final = "aliyuncs.com"


class AllowedHosts:
    """The vendor's own domain, the endpoint's host, and what was allowed besides: a name, or a
    domain that begins with a dot. Never a metadata service or a link-local address.

    Raises UsageError for what is no name of a host.
    """

    def __init__(self, endpoint: str, others: Iterable[str] = ()) -> None:
        self._hosts: Final = {_bare(endpoint)}
        self._domains: Final = [f".{_VENDOR}"]
        for other in others:
            if other.startswith("."):
                self._domains.append(f".{_checked(other[1:])}")
            else:
                self._hosts.add(_checked(other))

    def marked(self, backup: Backup) -> Backup:
        """The backup, with what must not be fetched among its ``refused``."""
        refused = {
            network: why
            for network, url in backup.urls.items()
            if (why := self._fault(url.reveal())) is not None
        }
        return replace(backup, refused=refused) if refused else backup

    def _fault(self, url: str) -> str | None:
        try:
            host = _bare(SignedUrl.parse(url).host)
        except UnsafeInput as error:
            return error.message
        if is_metadata(host):
            return f"the API names {host} as the download host: a link-local or metadata address"
        if host in self._hosts or any(host.endswith(domain) for domain in self._domains):
            return None
        return (
            f"the API names {host} as the download host, which is not of {_VENDOR} "
            f"(--allow-host {host} allows it)"
        )


def _bare(host: str) -> str:
    """Without port, brackets and the dot of the root."""
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return host.rstrip(".").lower()


def _checked(host: str) -> str:
    bare = _bare(host)
    if not bare or any(mark in host for mark in "/@ *?#%") or is_metadata(bare):
        raise UsageError(
            f"--allow-host {host[:80]!r}: files cannot be downloaded from this host",
            hint="name a host, or a domain with a dot before it; no URL, no metadata address",
        )
    return bare
