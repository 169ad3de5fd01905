"""Which worker gets the next task, and that one which may kill its worker is alone on it."""

import asyncio

import pytest

from archiver.engines.dask.places import Place, Places


async def waits(places: Places, *, alone: bool = False) -> "asyncio.Task[Place]":
    """A task that has asked for a worker, and has got none."""
    waiting = asyncio.create_task(places.take(alone=alone))
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def test_the_one_with_the_least_to_do_is_next_and_none_has_more_than_its_threads() -> None:
    places = Places()
    places.update({"a": 1, "b": 2})
    taken = [(await places.take()).address for _ in range(3)]
    assert sorted(taken) == ["a", "b", "b"]
    assert places.busy == 2
    waiting = await waits(places)
    places.give(places.all[0])
    assert (await waiting) is places.all[0]


async def test_a_suspect_is_alone() -> None:
    places = Places()
    places.update({"a": 2})
    other = await places.take()
    suspect = await waits(places, alone=True)
    later = await waits(places)  # it would fit, but the suspect would wait for ever
    places.give(other)
    assert (await suspect).address == "a"
    assert not later.done()
    places.give(await suspect)
    assert (await later).address == "a"


async def test_a_suspect_holds_up_one_worker_only() -> None:
    places = Places()
    places.update({"a": 1, "b": 2})
    busy = [await places.take() for _ in range(2)]
    await waits(places, alone=True)
    assert (await places.take()).address == "b"
    assert {place.address for place in busy} == {"a", "b"}


async def test_who_leaves_is_told_and_gets_nothing_more() -> None:
    places = Places()
    places.update({"a": 2})
    place = await places.take()
    places.update({})
    assert place.gone.is_set()
    waiting = await waits(places)
    places.give(place)
    assert not waiting.done()
    places.update({"a": 1})  # started again
    assert (await waiting) is not place


async def test_who_does_not_wait_any_more_takes_nothing() -> None:
    places = Places()
    waiting = await waits(places)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    places.update({"a": 1})
    assert (await places.take()).at_work == 1


def test_workers_of_one_machine_are_counted() -> None:
    places = Places()
    places.update({"tls://10.0.0.1:1": 1, "tls://10.0.0.1:2": 1, "tls://10.0.0.2:1": 1})
    counts = {place.address: places.on_machine_of(place) for place in places.all}
    assert counts == {"tls://10.0.0.1:1": 2, "tls://10.0.0.1:2": 2, "tls://10.0.0.2:1": 1}
