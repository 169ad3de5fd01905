"""Faults that the emulator injects."""

import dataclasses
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from archiver.errors import UsageError


@dataclass(frozen=True, slots=True)
class Faults:
    """All off by default. Probabilities are from 0 to 1 and apply to each request or response.

    latency         seconds before each response
    rate            bytes per second of each object body, and so of each connection; None for
                    no limit
    drop            probability that the connection is closed within an object's body
    corrupt         probability that one byte of an object's body is flipped
    expire_after    seconds from its listing until a signed URL expires
    throttle        probability of Throttling.User from the API
    server_errors   probability of a 503 from API and objects
    seed            of the random numbers, to repeat a rehearsal

    Raises UsageError for an invalid value.
    """

    latency: float = 0.0
    rate: int | None = None
    drop: float = 0.0
    corrupt: float = 0.0
    expire_after: int = 3600
    throttle: float = 0.0
    server_errors: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("drop", "corrupt", "throttle", "server_errors"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"fault {name}: {getattr(self, name)} is not a probability from 0 to 1"
                )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or field.name == "seed":
                continue
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"fault {field.name}: {value} is not a number from 0 on")
        if self.rate == 0:
            raise UsageError("fault rate: must be more than 0 bytes per second")


@dataclass(frozen=True, slots=True)
class Fate:
    """The faults of one request. ``flip`` and ``cut`` are positions as fractions of its body."""

    faults: Faults
    throttled: bool
    server_error: bool
    flip: float | None
    cut: float | None


class Dice:
    """Decides by the seed which requests get a fault.

    The n-th request for the same target gets the same faults in every rehearsal with a seed, in
    whatever order concurrent requests arrive: each draws its own random numbers.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults: Final = faults
        self._counts: Final[Counter[str]] = Counter()

    def fate(self, target: str) -> Fate:
        """The faults of the next request for ``target``: an action, or a range of a file."""
        self._counts[target] += 1
        # Not for secrets: the same seed must give the same rehearsal.
        dice = random.Random(f"{self.faults.seed} {target} {self._counts[target]}")  # noqa: S311
        # Always all of them: enabling one fault does not change the others.
        draws = [dice.random() for _ in range(6)]
        return Fate(
            faults=self.faults,
            throttled=draws[0] < self.faults.throttle,
            server_error=draws[1] < self.faults.server_errors,
            flip=draws[3] if draws[2] < self.faults.corrupt else None,
            cut=draws[5] if draws[4] < self.faults.drop else None,
        )
