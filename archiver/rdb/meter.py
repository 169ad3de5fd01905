"""Computes a file's SHA-256 and checks its RDB footer, while the bytes pass in order.

RDB layout (Redis rdb.c): ``REDIS`` + 4 digits or ``VALKEY`` + 3, opcodes, 0xFF, and from version
5 on the CRC-64/Jones of everything before it (little-endian; zero if checksums are disabled).
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
_HEAD_BYTES = 1024  # has the auxiliary fields that tell an AOF's preamble from a dump


class _Sha256(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def copy(self) -> Self: ...
    def hexdigest(self) -> str: ...


class FileMeter:
    """Takes the bytes of a file of ``size`` bytes in order, in blocks of any length.

    The state of a ``portable`` meter can be saved, so that another process can continue.
    """

    def __init__(self, size: int, *, portable: bool = False) -> None:
        self._sha256: _Sha256 = _PortableSha256() if portable else hashlib.sha256()
        self._size: Final = size
        self._position = 0
        self._head = b""
        self._tail = b""
        self._crc = 0

    def feed(self, data: memoryview) -> None:
        """Take the next bytes. Releases the GIL during most of the work."""
        self._sha256.update(data)
        if len(self._head) < _HEAD_BYTES:
            self._head += bytes(data[: _HEAD_BYTES - len(self._head)])
        if self._head[:1] in b"RV":
            covered = data[: max(0, self._size - _FOOTER_BYTES - self._position)]
            self._crc = _CRC64_REDIS.calc(covered, self._crc)
        self._tail = (self._tail + bytes(data[-_TAIL_BYTES:]))[-_TAIL_BYTES:]
        self._position += len(data)

    def __copy__(self) -> "FileMeter":
        """Return an independent meter with the same state."""
        twin = FileMeter(self._size)
        twin.__dict__.update(self.__dict__, _sha256=self._sha256.copy())
        return twin

    def state(self) -> str:
        """Return the state for :meth:`resume`, as JSON. Only a portable meter has one."""
        if not isinstance(self._sha256, _PortableSha256):
            raise TypeError("only the state of a portable meter can be saved")
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
        """Return a meter that continues from a saved state. Raises ValueError if it is invalid."""
        meter = cls(size)
        try:
            read = json.loads(state)
            meter._sha256 = _PortableSha256(base64.b64decode(read["sha256"], validate=True))
            meter._position, meter._crc = int(read["position"]), int(read["crc"])
            meter._head, meter._tail = (base64.b64decode(read[name]) for name in ("head", "tail"))
        except (KeyError, TypeError, OverflowError, RecursionError):
            raise ValueError("the saved state of its checksums cannot be read") from None
        return meter

    @property
    def position(self) -> int:
        """The number of bytes taken so far."""
        return self._position

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes taken so far, in hex."""
        return self._sha256.hexdigest()

    def looks_like_a_page(self) -> bool:
        """Whether the file begins like an XML or HTML error page."""
        return looks_like_a_page(self._head)

    def verdict(self, *, is_log: bool) -> tuple[Kind, RdbVerdict]:
        """Return the kind of the file and the verdict on its footer, after its last byte.

        ``is_log``: the source says that this is an AOF. If it begins with an RDB preamble, the
        preamble's footer is somewhere within the file, and the log may end anywhere, even in the
        preamble: then there is no footer to check.
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
        """Whether it announces commands, and ends like a command instead of like a dump."""
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
    """A SHA-256 whose state can be saved, which OpenSSL does not allow."""

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
