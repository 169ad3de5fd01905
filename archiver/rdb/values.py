"""Skips a key and its value, for every type of value that a dump can hold.

The numbers and layouts are those of rdb.h and rdb.c: Redis up to 8.2 (version 12), Valkey 9.0
(``VALKEY080``). Redis and Valkey differ from type 22 on, so the magic selects the table. Lengths
come from the file: no code here allocates memory by one, and each turn of a loop reads on.
"""

from collections.abc import Callable, Sequence
from typing import Final

from archiver.rdb.packed import count_expiring
from archiver.rdb.window import InvalidData, UnsupportedType, Window

Expiring = tuple[int, int]
"""The number of fields of a hash that have an expiry, and the earliest of these (ms since the
epoch): from then on the hash may shrink, and be gone once all of its fields have expired."""

Skip = Callable[[Window], Expiring | None]
"""Skips a key and its value; returns the expiring fields of a hash that has some."""

ALWAYS: Final = -(2**63)
NEVER: Final = 2**63 - 1
TYPE_MODULE_1: Final = 6
TYPE_MODULE_2: Final = 7

# A server keeps a hash of up to 512 fields (the default) as one listpack: some 70 KB.
_MOST_LISTPACK_BYTES = 4 * 2**20


def _string(window: Window) -> None:
    window.strings(2)


def _list(window: Window) -> None:
    window.strings(1)
    window.strings(window.length())


def _hash(window: Window) -> None:
    window.strings(1)
    window.strings(2 * window.length())


def _zset_text(window: Window) -> None:
    """Scores as text, up to version 7: a length byte, where 253 to 255 are NaN and infinities."""
    window.strings(1)
    for _ in range(window.length()):
        window.strings(1)
        size = window.byte()
        window.skip(size if size < 253 else 0)


def _zset_binary(window: Window) -> None:
    window.strings(1)
    window.strings(window.length(), trailer=8)


def _quicklist_2(window: Window) -> None:
    """Nodes: a container (1: one large element, 2: a listpack), then its bytes."""
    window.strings(1)
    for _ in range(window.length()):
        start = window.offset
        container = window.length()
        if container not in {1, 2}:
            raise InvalidData(start, f"unknown container {container} in a list node")
        window.strings(1)


def _expiring_hash(window: Window) -> Expiring | None:
    """Redis 7.4: the first expiry, then expiry (relative to it; 0 for none), field, value."""
    window.strings(1)
    return _expiring_fields(window, window.integer(8))


def _expiring_hash_rc(window: Window) -> Expiring | None:
    """Release candidates of 7.4: no first expiry."""
    window.strings(1)
    return _expiring_fields(window, ALWAYS)


def _expiring_fields(window: Window, first: int) -> Expiring | None:
    expiring = 0
    for _ in range(window.length()):
        if window.length():
            expiring += 1
        window.strings(2)
    return (expiring, first) if expiring else None


def _expiring_listpack(window: Window) -> Expiring | None:
    window.strings(1)
    return _expiring_packed(window, window.integer(8))


def _expiring_listpack_rc(window: Window) -> Expiring | None:
    window.strings(1)
    return _expiring_packed(window, ALWAYS)


def _expiring_packed(window: Window, first: int) -> Expiring | None:
    start = window.offset
    listpack = window.string(_MOST_LISTPACK_BYTES)
    if listpack is None:
        raise UnsupportedType(start, f"a listpack larger than {_MOST_LISTPACK_BYTES} bytes")
    try:
        expiring = count_expiring(listpack)
    except ValueError as error:
        raise InvalidData(start, str(error)) from None
    return (expiring, first) if expiring else None


def _valkey_hash(window: Window) -> Expiring | None:
    """Valkey 9: field, value, expiry (ms; -1 for none)."""
    window.strings(1)
    expiring, first = 0, NEVER
    for _ in range(window.length()):
        window.strings(2)
        time = window.integer(8)
        if time != -1:
            expiring, first = expiring + 1, min(first, time)
    return (expiring, first) if expiring else None


def _stream(layout: int) -> Skip:
    """Layout 2 (Redis 7.0) adds the first id, the largest deleted id and the number of ids, and a
    counter per group; layout 3 (7.2) adds the time when a consumer was last active."""

    def skip(window: Window) -> None:
        window.strings(1)
        window.strings(2 * window.length())  # the first id of a node, and its listpack
        _lengths(window, 3 if layout < 2 else 8)
        for _ in range(window.length()):
            _group(window, layout)

    return skip


def _group(window: Window, layout: int) -> None:
    window.strings(1)
    _lengths(window, 2 if layout < 2 else 3)
    for _ in range(window.length()):  # pending: id, time of delivery, deliveries
        window.skip(16 + 8)
        window.length()
    for _ in range(window.length()):  # consumers, and the ids pending with each
        window.strings(1, trailer=8 if layout < 3 else 16)
        window.skip(16 * window.length())


def _lengths(window: Window, count: int) -> None:
    for _ in range(count):
        window.length()


def skip_module_value(window: Window) -> None:
    """Skip the data of a module: pieces with a kind each, ended by kind 0 (version 2 modules)."""
    while True:
        start = window.offset
        kind = window.length()
        if kind == 0:
            return
        if kind in {1, 2}:
            window.length()
        elif kind in {3, 4}:
            window.skip(4 if kind == 3 else 8)
        elif kind == 5:
            window.strings(1)
        else:
            raise InvalidData(start, f"unknown kind {kind} of module data")


_COMMON: Final = {
    0: ("string", _string),
    1: ("list", _list),
    2: ("set", _list),
    3: ("zset", _zset_text),
    4: ("hash", _hash),
    5: ("zset", _zset_binary),
    9: ("hash", _string),  # zipmap
    10: ("list", _string),  # ziplist
    11: ("set", _string),  # intset
    12: ("zset", _string),  # ziplist
    13: ("hash", _string),  # ziplist
    14: ("list", _list),  # quicklist of ziplists
    15: ("stream", _stream(1)),
    16: ("hash", _string),  # listpack
    17: ("zset", _string),  # listpack
    18: ("list", _quicklist_2),
    19: ("stream", _stream(2)),
    20: ("set", _string),  # listpack
    21: ("stream", _stream(3)),
}
_REDIS: Final = _COMMON | {
    22: ("hash", _expiring_hash_rc),
    23: ("hash", _expiring_listpack_rc),
    24: ("hash", _expiring_hash),
    25: ("hash", _expiring_listpack),
}
_VALKEY: Final = _COMMON | {22: ("hash", _valkey_hash)}

TYPE_NAMES: Final = {code: name for code, (name, _) in _REDIS.items()}
"""What the TYPE command returns for each type of value."""


def _table(types: dict[int, tuple[str, Skip]]) -> Sequence[Skip | None]:
    return [types[code][1] if code in types else None for code in range(256)]


REDIS_VALUES: Final = _table(_REDIS)
VALKEY_VALUES: Final = _table(_VALKEY)
