"""Quotas: how many calls of an action a region takes in a time."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from archiver.errors import UsageError

ANY = "*"


@dataclass(frozen=True, slots=True)
class Quota:
    """At most ``calls`` within any ``seconds``; further ones get the error ``code``, with
    x-acs-retry-after if ``tells_wait``. Raises UsageError for a negative or zero value."""

    calls: int
    seconds: float = 60.0
    code: str = "Throttling.User"
    tells_wait: bool = False

    def __post_init__(self) -> None:
        if self.calls < 1 or not self.seconds > 0:
            raise UsageError("a quota is at least 1 call in more than 0 seconds")


class Meter:
    """Counts calls by region and action, for all access keys together. Thread-safe.

    ``quotas`` has keys (region, action); ``*`` stands for any, and the more exact key counts, the
    action before the region. ``clock`` returns seconds.
    """

    def __init__(self, quotas: Mapping[tuple[str, str], Quota], clock: Callable[[], float]) -> None:
        self._quotas: Final = dict(quotas)
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._calls: Final[defaultdict[tuple[str, str], deque[float]]] = defaultdict(deque)

    def take(self, region: str, action: str) -> tuple[Quota, float] | None:
        """Count a call. If its quota is used up, the call is not counted, and the quota is
        returned with the seconds until there is room again."""
        quota = self._quota(region, action)
        if quota is None:
            return None
        with self._lock:
            now, calls = self._clock(), self._calls[region, action]
            while calls and calls[0] <= now - quota.seconds:
                calls.popleft()
            if len(calls) >= quota.calls:
                return quota, calls[0] + quota.seconds - now
            calls.append(now)
            return None

    def _quota(self, region: str, action: str) -> Quota | None:
        for key in ((region, action), (ANY, action), (region, ANY), (ANY, ANY)):
            if key in self._quotas:
                return self._quotas[key]
        return None
