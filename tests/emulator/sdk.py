"""Asks an emulator with the vendor's own SDK."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from alibabacloud_r_kvstore20150101 import models
from alibabacloud_r_kvstore20150101.client import Client
from alibabacloud_tea_openapi.utils_models import Config
from anyio import to_thread

from archiver.emulator import Emulator
from tests.conftest import KEY_ID, KEY_SECRET

SDK_WARNINGS = [
    # The SDK leaves its sessions and connectors to the garbage collector.
    pytest.mark.usefixtures("garbage_stays_here"),
    pytest.mark.filterwarnings("ignore:.*[Uu]nclosed.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Body = Any  # the SDK's types are its own affair
Ask = Callable[..., Awaitable[Body]]

_METHODS = {name.replace("_", ""): name for name in dir(Client)}


async def sync_ask(emulator: Emulator, action: str, **given: object) -> Body:
    """The body of the response to an action. ``key_id`` and ``secret`` are those of the caller, the
    rest are fields of the SDK's request."""
    client, request = _prepared(emulator, action, given)
    method = getattr(client, _METHODS[action.lower()])
    return (await to_thread.run_sync(method, request)).body


async def async_ask(emulator: Emulator, action: str, **given: object) -> Body:
    """As :func:`sync_ask`, with the other half of the SDK."""
    client, request = _prepared(emulator, action, given)
    return (await getattr(client, f"{_METHODS[action.lower()]}_async")(request)).body


def _prepared(emulator: Emulator, action: str, given: dict[str, Any]) -> tuple[Client, object]:
    config = Config(
        access_key_id=given.pop("key_id", KEY_ID),
        access_key_secret=given.pop("secret", KEY_SECRET),
        endpoint=f"127.0.0.1:{emulator.port}",
        protocol="http",
        connect_timeout=5000,
        read_timeout=5000,
    )
    return Client(config), getattr(models, f"{action}Request")(**given)


async def refused(asked: Awaitable[Body]) -> Any:
    """The SDK's exception for an error response."""
    with pytest.raises(Exception, match=r"code") as caught:
        await asked
    return caught.value
