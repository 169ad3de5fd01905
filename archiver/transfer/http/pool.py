"""Connections that are kept for the next request to the same place."""

import ssl
from typing import Final

from archiver.network import tls_context
from archiver.proxies import Proxies
from archiver.transfer.http.connection import Place, Wire
from archiver.transfer.limits import LeastRate


class Wires:
    """Idle connections by place. Any thread may take one and give it back."""

    def __init__(self, least: LeastRate, proxies: Proxies) -> None:
        self._least: Final = least
        self._proxies: Final = proxies
        self._idle: Final[dict[Place, list[Wire]]] = {}
        self._tls: ssl.SSLContext | None = None

    def idle(self, place: Place) -> Wire | None:
        """One that was kept; None if there is none. The server may close it at any time."""
        while True:
            try:
                wire = self._idle[place].pop()
            except (KeyError, IndexError):
                return None
            if wire.is_quiet:
                return wire
            wire.close()

    def new(self, place: Place) -> Wire:
        """One that is not connected yet."""
        tls = self._context() if place.scheme == "https" else None
        proxy = self._proxies.between(place.scheme, place.host, place.port)
        return Wire(place, self._least, tls, proxy)

    def keep(self, wire: Wire) -> None:
        """Give back a connection on which nothing is left to read."""
        self._idle.setdefault(wire.place, []).append(wire)

    def close(self) -> None:
        """Close those that are kept."""
        for wires in self._idle.values():
            for wire in wires:
                wire.close()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context()
        return self._tls
