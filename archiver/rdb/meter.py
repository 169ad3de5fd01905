"""Measuring a file from its first byte to its last: SHA-256, what it is, and its RDB footer.

RDB layout (Redis rdb.c): ``REDIS`` + 4 digits or ``VALKEY`` + 3, opcodes, 0xFF, then from version
5 on a little-endian CRC-64/Jones over everything before it; zeros when checksums are off.
"""

import base64
import hashlib
import json
from typing import Final, Protocol, Self

from anycrc import Model

from archiver.model import Footer, Kind, RdbVerdict
from archiver.rdb.magic import (
    has_preamble_field,
    looks_like_a_page,
    magic_text,
    rdb_version,
    starts_like_aof,
)

_CRC64_REDIS = Model("CRC64-REDIS")
_EOF_OPCODE = 0xFF
_FOOTER_BYTES = 8
_TAIL_BYTES = 1 + _FOOTER_BYTES  # the EOF opcode, the footer
# The auxiliary fields at the start of an RDB, where an AOF's preamble gives itself away.
_HEAD_BYTES = 1024


class _Sha256(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def copy(self) -> Self: ...
    def hexdigest(self) -> str: ...


class FileMeter:
    """Fed a file of ``size`` bytes in order, in blocks of any length.

    One that is ``portable`` can write down its state, so that another process goes on from there.
    """

    def __init__(self, size: int, *, portable: bool = False) -> None:
        self._sha256: _Sha256 = _PortableSha256() if portable else hashlib.sha256()
        self._size: Final = size
        self._position = 0
        self._head = b""
        self._tail = b""
        self._crc = 0

    def feed(self, data: memoryview) -> None:
        """Take the next bytes. Releases the interpreter lock for the larger part of the work."""
        self._sha256.update(data)
        if len(self._head) < _HEAD_BYTES:
            self._head += bytes(data[: _HEAD_BYTES - len(self._head)])
        if self._head[:1] in b"RV":
            covered = data[: max(0, self._size - _FOOTER_BYTES - self._position)]
            self._crc = _CRC64_REDIS.calc(covered, self._crc)
        self._tail = (self._tail + bytes(data[-_TAIL_BYTES:]))[-_TAIL_BYTES:]
        self._position += len(data)

    def __copy__(self) -> "FileMeter":
        """A meter that goes on from here, apart from this one."""
        twin = FileMeter(self._size)
        twin.__dict__.update(self.__dict__, _sha256=self._sha256.copy())
        return twin

    def state(self) -> str:
        """What :meth:`resume` needs, as JSON; of a portable meter."""
        if not isinstance(self._sha256, _PortableSha256):
            raise TypeError("the state of this meter cannot be written down")
        return json.dumps(
            {
                "sha256": _text64(self._sha256.state()),
                "position": self._position,
                "head": _text64(self._head),
                "tail": _text64(self._tail),
                "crc": self._crc,
            }
        )

    @classmethod
    def resume(cls, size: int, state: str) -> Self:
        """A meter that goes on from a written state. Raises ValueError for one it cannot read."""
        meter = cls(size)
        try:
            read = json.loads(state)
            meter._sha256 = _PortableSha256(base64.b64decode(read["sha256"], validate=True))
            meter._position, meter._crc = int(read["position"]), int(read["crc"])
            meter._head, meter._tail = (base64.b64decode(read[name]) for name in ("head", "tail"))
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"no state of measuring: {error!r}") from None
        return meter

    @property
    def position(self) -> int:
        """Bytes fed so far."""
        return self._position

    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def looks_like_a_page(self) -> bool:
        """An XML or HTML error page instead of a file."""
        return looks_like_a_page(self._head)

    def verdict(self, *, is_log: bool) -> tuple[Kind, RdbVerdict]:
        """What the whole file is, once all of it was fed.

        ``is_log``: the source said that it is a log of commands. One that begins with an RDB, its
        preamble, has that one's footer somewhere within, and may end anywhere, in the preamble,
        too.
        """
        version = rdb_version(self._head)
        if version is None:
            kind = Kind.AOF if starts_like_aof(self._head) else Kind.UNKNOWN
            return kind, RdbVerdict(None, Footer.NONE)
        footer = self._footer(version)
        if footer is Footer.MISMATCH and (is_log or self._is_preamble()):
            return Kind.AOF, RdbVerdict(magic_text(self._head), Footer.NONE)
        return Kind.RDB, RdbVerdict(magic_text(self._head), footer)

    def _is_preamble(self) -> bool:
        """Says of itself that commands follow, and ends as a command does, not as a dump."""
        return has_preamble_field(self._head) and self._tail.endswith(b"\r\n")

    def _footer(self, version: int) -> Footer:
        if version < 5:
            return Footer.NONE
        if len(self._tail) < _TAIL_BYTES or self._tail[0] != _EOF_OPCODE:
            return Footer.MISMATCH
        written = int.from_bytes(self._tail[1:], "little")
        if written == 0:
            return Footer.DISABLED
        return Footer.OK if written == self._crc else Footer.MISMATCH


class _PortableSha256:
    """SHA-256 whose state can be taken along, which OpenSSL's cannot."""

    def __init__(self, state: bytes | None = None) -> None:
        from rehashes import PySha256  # noqa: PLC0415 - a directory never needs it

        self._hash = PySha256() if state is None else PySha256.deserialize(state)

    def update(self, data: memoryview, /) -> None:
        self._hash.update(bytes(data))

    def copy(self) -> "_PortableSha256":
        return _PortableSha256(self.state())

    def hexdigest(self) -> str:
        return str(self._hash.finalize())

    def state(self) -> bytes:
        return bytes(self._hash.serialize())


def _text64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
