"""The workers of a cluster, and which of them gets the next task."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from archiver.engines.dask.line import Line


@dataclass(slots=True, eq=False)
class Place:
    """A worker, by its address. It runs so many tasks at once as it has ``threads``.

    ``is_alone``: the one task that it has must be the only one. ``line`` is there once it takes
    part in the run.
    """

    address: str
    threads: int
    line: "Line | None" = None
    at_work: int = 0
    is_alone: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, eq=False)
class _Waiting:
    alone: bool
    place: Place | None = None
    served: asyncio.Event = field(default_factory=asyncio.Event)


class Places:
    """Gives tasks to workers, each to the one that has the least to do.

    A task that was at work when a worker died may have killed it, or not. It is tried again alone:
    if that worker dies as well, no other task can be blamed, and none is lost with it.
    """

    def __init__(self) -> None:
        self._places: Final[dict[str, Place]] = {}
        self._waiting: Final[list[_Waiting]] = []

    @property
    def all(self) -> list[Place]:
        return list(self._places.values())

    @property
    def busy(self) -> int:
        """How many workers have something to do."""
        return sum(place.at_work > 0 for place in self._places.values())

    def on_machine_of(self, place: Place) -> int:
        """How many workers have the same host as one of them, itself among them."""
        hosts = [urlsplit(one.address).hostname for one in self._places.values()]
        return max(1, hosts.count(urlsplit(place.address).hostname))

    def update(self, threads: dict[str, int]) -> None:
        """Take note of the workers that there are now, with their threads."""
        for address in self._places.keys() - threads.keys():
            self._places.pop(address).gone.set()
        for address in threads.keys() - self._places.keys():
            self._places[address] = Place(address, threads[address])
        self._serve()

    async def take(self, *, alone: bool = False) -> Place:
        """Wait for a worker that has a thread free, or if ``alone`` nothing else to do."""
        waiting = _Waiting(alone)
        self._waiting.append(waiting)
        self._serve()
        try:
            await waiting.served.wait()
        except BaseException:
            if waiting.place is not None:
                self.give(waiting.place)
            else:
                self._waiting.remove(waiting)
            raise
        if waiting.place is None:
            raise RuntimeError("served without a worker")
        return waiting.place

    def give(self, place: Place) -> None:
        """A task that a worker got has ended."""
        place.at_work -= 1
        place.is_alone = False
        self._serve()

    def _serve(self) -> None:
        for waiting in sorted(self._waiting, key=lambda one: not one.alone):
            place = self._free(alone=waiting.alone)
            if place is not None:
                self._waiting.remove(waiting)
                place.at_work += 1
                place.is_alone = waiting.alone
                waiting.place = place
                waiting.served.set()

    def _free(self, *, alone: bool) -> Place | None:
        """The worker for the next task, if there is one."""
        open_ = [
            place
            for place in self._places.values()
            if not place.is_alone and not place.gone.is_set()
        ]
        if alone:
            return next((place for place in open_ if place.at_work == 0), None)
        if open_ and any(one.alone for one in self._waiting):
            # Until it has nothing to do.
            open_.remove(min(open_, key=lambda place: (place.at_work, place.threads)))
        free = [place for place in open_ if place.at_work < place.threads]
        return min(free, key=lambda place: place.at_work / place.threads, default=None)
