"""The connections of botocore's client, which can be given up.

Nothing in botocore wakes a thread that waits for an answer: its connections are known here, by two
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

_LOOK_SECONDS = 0.1


class Connections:
    """Those of one client: once given up, all requests fail, those under way as well."""

    def __init__(self, where: str) -> None:
        self._where: Final = where
        self._sockets: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()
        self._given_up: Final = threading.Event()
        self._lock: Final = threading.Lock()

    @property
    def is_given_up(self) -> bool:
        return self._given_up.is_set()

    def watch(self, client: Any) -> None:  # noqa: ANN401 - botocore's
        """Know the connections of a new client."""
        # Not for typed callers: the session has no other way to be given its kinds of connection.
        session = client._endpoint.http_session  # noqa: SLF001
        session._pool_classes_by_scheme.update(self._pools())  # noqa: SLF001

    def give_up(self) -> None:
        """From any thread, and more than once."""
        with self._lock:
            self._given_up.set()
            opened = list(self._sockets)
        for one in opened:
            with suppress(OSError):
                # Not SSLSocket's own: that forgets the TLS of a thread that reads.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def connect(self, connect: Callable[[], object]) -> None:
        """Wait for a connection to be made, as long as nobody gave up: a resolver, an address that
        does not answer and a handshake are waited for in a thread that is then left to itself."""
        made: Future[object] = Future()

        def work() -> None:
            try:
                made.set_result(connect())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                made.set_exception(error)

        self._check()
        threading.Thread(target=work, name="connecting", daemon=True).start()
        while not made.done():
            wait([made], timeout=_LOOK_SECONDS)
            self._check()
        made.result()

    def add(self, opened: socket.socket) -> None:
        """Know a connection that was made. Raises ConnectionClosedError."""
        with self._lock:
            self._sockets.add(opened)
        self._check()

    def _check(self) -> None:
        if self._given_up.is_set():
            raise ConnectionClosedError(endpoint_url=self._where)

    def _pools(self) -> dict[str, type]:
        known = self

        class Plain(AWSHTTPConnection):  # type: ignore[misc] # botocore has no types
            def connect(self) -> None:
                known.connect(super().connect)
                known.add(self.sock)

        class Secure(AWSHTTPSConnection):  # type: ignore[misc]
            def connect(self) -> None:
                known.connect(super().connect)
                known.add(self.sock)

        class PlainPool(AWSHTTPConnectionPool):  # type: ignore[misc]
            ConnectionCls = Plain

        class SecurePool(AWSHTTPSConnectionPool):  # type: ignore[misc]
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}
