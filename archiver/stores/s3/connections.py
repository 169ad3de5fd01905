"""The connections of botocore's client, which can be aborted from another thread.

botocore cannot wake a thread that waits for a response. So its connections are tracked here, by two
attributes that it does not document.
"""

import socket
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Final

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.exceptions import ConnectionClosedError

_POLL_SECONDS = 0.1


class Connections:
    """The connections of one client. After :meth:`abort` all its requests fail, those in progress
    as well."""

    def __init__(self, url: str) -> None:
        self._url: Final = url
        self._sockets: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()
        self._aborted: Final = threading.Event()
        self._lock: Final = threading.Lock()

    @property
    def is_aborted(self) -> bool:
        return self._aborted.is_set()

    def attach(self, client: Any) -> None:  # noqa: ANN401 - botocore's
        """Track the connections of a new client."""
        # The session offers no other way to set its connection classes.
        session = client._endpoint.http_session  # noqa: SLF001
        session._pool_classes_by_scheme.update(  # noqa: SLF001
            http=self._pool(AWSHTTPConnectionPool, AWSHTTPConnection),
            https=self._pool(AWSHTTPSConnectionPool, AWSHTTPSConnection),
        )

    def abort(self) -> None:
        """Close all connections for good. May be called from any thread, and more than once."""
        with self._lock:
            self._aborted.set()
            sockets = list(self._sockets)
        for opened in sockets:
            with suppress(OSError):
                # Not SSLSocket's own shutdown: that drops the TLS state of a thread that reads.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)

    def connect(self, connect: Callable[[], object]) -> None:
        """Connect, and raise ConnectionClosedError at an abort.

        Name resolution, the connection attempt and the handshake run in a thread, which is left
        alone after an abort.
        """
        done: Future[object] = Future()

        def work() -> None:
            try:
                done.set_result(connect())
            except BaseException as error:  # noqa: BLE001 - raised by the caller below
                done.set_exception(error)

        self._check()
        threading.Thread(target=work, name="connecting", daemon=True).start()
        while not done.done():
            wait([done], timeout=_POLL_SECONDS)
            self._check()
        done.result()

    def add(self, opened: socket.socket) -> None:
        """Track a new connection. Raises ConnectionClosedError."""
        with self._lock:
            self._sockets.add(opened)
        self._check()

    def _check(self) -> None:
        if self._aborted.is_set():
            raise ConnectionClosedError(endpoint_url=self._url)

    def _pool(self, pool: type[Any], connection: type[Any]) -> type:
        """A kind of connection pool whose connections are tracked here."""
        connections = self

        class Tracked(connection):  # type: ignore[misc] # botocore has no types
            def connect(self) -> None:
                connections.connect(super().connect)
                connections.add(self.sock)

        return type(f"Tracked{pool.__name__}", (pool,), {"ConnectionCls": Tracked})
