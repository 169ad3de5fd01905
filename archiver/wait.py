"""How long a server asks us to wait."""

import email.utils
import math
import time
from collections.abc import Callable, Mapping


def wait_asked(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds, from Retry-After in both its forms (RFC 9110 §10.2.3), or x-acs-retry-after (ms)."""
    named = {name.lower(): value for name, value in headers.items()}
    try:
        if (milliseconds := named.get("x-acs-retry-after")) is not None:
            return _sane(float(milliseconds) / 1000)
        if (after := named.get("retry-after")) is None:
            return None
        if after.strip().isdigit():
            return _sane(float(after))
        return _sane(email.utils.parsedate_to_datetime(after).timestamp() - now())
    except (ValueError, TypeError, OverflowError):
        return None


def _sane(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) else None
