"""Connections that are kept for the next request to the same endpoint."""

import ssl
from typing import Final

from archiver.network import tls_context
from archiver.proxies import Proxies
from archiver.transfer.http.connection import Endpoint, HttpConnection
from archiver.transfer.limits import MinimumRate


class ConnectionPool:
    """Idle connections by endpoint. Any thread may take one and give it back."""

    def __init__(self, minimum: MinimumRate, proxies: Proxies) -> None:
        self._minimum: Final = minimum
        self._proxies: Final = proxies
        self._idle: Final[dict[Endpoint, list[HttpConnection]]] = {}
        self._tls: ssl.SSLContext | None = None

    def take_idle(self, endpoint: Endpoint) -> HttpConnection | None:
        """Take a kept connection; None if there is none. The server may close it at any time."""
        while True:
            try:
                connection = self._idle[endpoint].pop()
            except (KeyError, IndexError):
                return None
            if connection.is_reusable:
                return connection
            connection.close()

    def new(self, endpoint: Endpoint) -> HttpConnection:
        """Make a connection that is not connected yet."""
        tls = self._tls_context() if endpoint.scheme == "https" else None
        proxy = self._proxies.between(endpoint.scheme, endpoint.host, endpoint.port)
        return HttpConnection(endpoint, self._minimum, tls, proxy)

    def give_back(self, connection: HttpConnection) -> None:
        """Keep a connection on which nothing is left to read."""
        connection.log_end()
        self._idle.setdefault(connection.endpoint, []).append(connection)

    def close(self) -> None:
        """Close all kept connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = tls_context()
        return self._tls
