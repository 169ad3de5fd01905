"""Real RDB files of any size: version 9, one database, string keys, a right checksum."""

import random
from pathlib import Path

from anycrc import Model

_CRC = Model("CRC64-REDIS")


def rdb(size: int, seed: int = 0) -> bytes:
    """A dump of exactly ``size`` bytes that a Redis 5 or later loads; at least 1,000."""
    head = b"REDIS0009" + b"\xfa\x09redis-ver\x056.2.0" + b"\xfe\x00"
    tail = b"\xff"
    body = bytearray(head)
    dice = random.Random(seed)
    index = 0
    while len(body) < size - 9:
        left = size - 9 - len(body)
        key = b"key:%08d" % index
        overhead = 1 + 1 + len(key) + 5  # type, key length, key, 32-bit value length
        take = min(left - overhead, 2**20)
        if 0 < left - overhead - take < overhead + 1:
            take -= overhead + 1  # so that another key fits behind this one
        value = dice.randbytes(take)
        body += b"\x00" + bytes([len(key)]) + key + b"\x80" + take.to_bytes(4, "big") + value
        index += 1
    body += tail
    checksum: int = _CRC.calc(bytes(body))
    return bytes(body) + checksum.to_bytes(8, "little")


def write_rdb(path: Path, size: int, seed: int = 0) -> bytes:
    """Put such a dump at ``path``; its bytes."""
    data = rdb(size, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data
