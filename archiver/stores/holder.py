"""What is written in a lock or a lease: who holds it. Pure."""

from typing import Any

from archiver.documents import is_clean, parse
from archiver.errors import BadDocument

# Locks are read again and again, and hold a few fields.
_MOST_BYTES = 4096
_PLAIN = (str, int, type(None))


def parse_holder(data: bytes) -> dict[str, Any] | None:
    """Its fields, each a line of text, a whole number, true, false or null; None for anything
    else, which says of nobody that he holds it."""
    try:
        values = parse("the lock", data, _MOST_BYTES).values
    except BadDocument:
        return None
    for value in values.values():
        if not isinstance(value, _PLAIN) or (isinstance(value, str) and not is_clean(value)):
            return None
    return dict(values)
