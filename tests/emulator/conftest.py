"""The vendor's SDK, sync and async, as a client of the emulator."""

import gc
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster

from tests.emulator.sdk import Ask, async_ask, sync_ask


@pytest.fixture
def garbage_stays_here() -> Iterator[None]:
    """What the SDK left open is collected now, and not blamed on a later test. What was there
    before is not looked at again: that took most of the time."""
    gc.freeze()
    yield
    for _ in range(3):
        gc.collect()
    gc.unfreeze()


@pytest.fixture(params=[sync_ask, async_ask], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest, no_blocking_on_the_loop: BlockBuster) -> Ask:
    no_blocking_on_the_loop.deactivate()  # the SDK blocks in its async calls, too
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def no_clock_skew(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which the emulator's clock is another than the SDK's."""
    monkeypatch.setattr("archiver.emulator.gateway._MAX_SKEW_SECONDS", 10**12)
