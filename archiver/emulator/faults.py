"""What can be made to go wrong."""

import dataclasses
import random
from dataclasses import dataclass
from typing import Final

from archiver.errors import UsageError


@dataclass(frozen=True, slots=True)
class Faults:
    """All off by default. Probabilities are from 0 to 1 for each request or answer.

    latency         seconds before any answer
    rate            bytes per second of each object body; None for no limit
    drop            probability that an object's connection is cut somewhere in its body
    corrupt         probability that one byte of an object's body is flipped
    expire_after    seconds that a signed URL lives from its listing on
    throttle        probability that the API answers Throttling.User
    server_errors   probability of a 503, of API and objects
    seed            of the dice, so that a rehearsal can be repeated
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
            if value is not None and value < 0:
                raise UsageError(f"fault {field.name}: {value} is negative")
        if self.rate == 0:
            raise UsageError("fault rate: 0 bytes per second never ends")


class Dice:
    """Decides, by the faults' seed, which requests go wrong."""

    def __init__(self, faults: Faults) -> None:
        self.faults: Final = faults
        # Not for secrets: the same seed must give the same rehearsal.
        self._random: Final = random.Random(faults.seed)  # noqa: S311

    def falls(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def somewhere(self, length: int) -> int:
        """An offset below ``length``."""
        return self._random.randrange(max(1, length))
