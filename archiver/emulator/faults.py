"""What can be made to go wrong."""

import dataclasses
import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from archiver.errors import UsageError


@dataclass(frozen=True, slots=True)
class Faults:
    """All off by default. Probabilities are from 0 to 1 for each request or answer.

    latency         seconds before any answer
    rate            bytes per second of each object body, and so of each connection; None for
                    no limit
    drop            probability that an object's connection is cut after some bytes of its body
    corrupt         probability that one byte of an object's body is flipped
    expire_after    seconds that a signed URL lives from its listing on
    throttle        probability that the API answers Throttling.User
    server_errors   probability of a 503, of API and objects
    seed            of the dice, so that a rehearsal can be repeated

    Raises UsageError for a value that makes no sense.
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
                raise UsageError(f"fault {name}: {getattr(self, name)} is no probability")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None or field.name == "seed":
                continue
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"fault {field.name}: {value} is no number from 0 on")
        if self.rate == 0:
            raise UsageError("fault rate: 0 bytes per second never ends")


@dataclass(frozen=True, slots=True)
class Fate:
    """What goes wrong with one request; ``flip`` and ``cut`` as fractions of its body."""

    faults: Faults
    throttled: bool
    server_error: bool
    flip: float | None
    cut: float | None


class Dice:
    """Decides, by the faults' seed, which requests go wrong.

    The n-th request for the same thing has the same fate in every rehearsal with a seed, in
    whatever order concurrent requests arrive: each is thrown for by itself.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults: Final = faults
        self._asked: Final[Counter[str]] = Counter()

    def fate(self, subject: str) -> Fate:
        """``subject`` is what is asked for: an action, or a range of a file."""
        self._asked[subject] += 1
        # Not for secrets: the same seed must give the same rehearsal.
        dice = random.Random(f"{self.faults.seed} {subject} {self._asked[subject]}")  # noqa: S311
        # All are thrown, always: turning one fault on leaves the others where they were.
        throws = [dice.random() for _ in range(6)]
        return Fate(
            faults=self.faults,
            throttled=throws[0] < self.faults.throttle,
            server_error=throws[1] < self.faults.server_errors,
            flip=throws[3] if throws[2] < self.faults.corrupt else None,
            cut=throws[5] if throws[4] < self.faults.drop else None,
        )
