"""What a region said of its instances and their policies, kept for the day in the user's cache.

A file belongs to one access key, endpoint and region, and says so. It holds no key, no URL and no
address. Whatever cannot be read or belongs to somebody else counts as not there, and a cache that
cannot be written is done without.
"""

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from archiver.concurrency import in_thread
from archiver.sources.alibaba.rpc import Credentials

# Shorter than a day by more than a nightly run is ever late: each night asks anew, and what is run
# again in the morning does not.
MAX_AGE_SECONDS: Final = 20 * 3600
# What is compared with a later answer, and never used instead of asking, is kept for longer: a
# weekly run, and one that was left out, still find it. In a month much may change and change back.
COMPARED: Final = "compared:"
MAX_AGE_COMPARED_SECONDS: Final = 30 * 86400
_FORMAT: Final = 1
_MAX_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose view of what a cache holds: the SHA-256 of the access key's id, and the origin
    (scheme, host, port) of the region's endpoint."""

    identity: str
    endpoint: str
    region: str

    @classmethod
    def of(cls, credentials: Credentials, endpoint: str, region: str) -> "Owner | None":
        """None for temporary credentials, which do not say whose they are: two roles of different
        accounts look alike."""
        if credentials.security_token is not None or credentials.expires_at is not None:
            return None
        key_id = credentials.access_key_id.reveal()
        return cls(hashlib.sha256(key_id.encode()).hexdigest(), endpoint, region)

    def head(self, body: bytes) -> dict[str, Any]:
        """The first line of the file; ``body`` is the rest."""
        return {
            "format": _FORMAT,
            "identity": self.identity,
            "endpoint": self.endpoint,
            "region": self.region,
            "sha256": hashlib.sha256(body).hexdigest(),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that JSON has, and when it was asked for, in seconds since the epoch."""

    at: float
    value: Any


class Cache:
    """Values by name, for the ``owner``; without one, or without a ``folder``, for this run only.

    ``fresh``: what an earlier run left is not used, except names that begin with COMPARED.
    ``clock`` returns seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path | None,
        owner: Owner | None,
        *,
        fresh: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._owner: Final = owner
        self._fresh: Final = fresh
        self._clock: Final = clock
        self._entries: dict[str, Entry] = {}
        self._is_changed = False
        self._path: Path | None = None
        if folder is not None and owner is not None:
            name = hashlib.sha256(orjson.dumps(owner.head(b""))).hexdigest()
            self._path = folder / f"{name[:32]}.json"

    async def load(self) -> None:
        """Read what an earlier run left."""
        if self._path is not None:
            self._entries = await in_thread(self._read, self._path)

    @property
    def is_kept(self) -> bool:
        """Whether a later run may find what is remembered."""
        return self._path is not None

    def get(self, name: str) -> Entry | None:
        """The value under a name; None where there is none that is young enough."""
        return self._entries.get(name)

    def put(self, name: str, value: object) -> Entry:
        """Remember a value from now on."""
        self._is_changed = True
        self._entries[name] = entry = Entry(self._clock(), value)
        return entry

    def save(self) -> None:
        """Write what has changed. Blocks. A cache that cannot be written is no failure."""
        if self._path is not None and self._owner is not None and self._is_changed:
            entries = {name: [one.at, one.value] for name, one in self._entries.items()}
            body = orjson.dumps(entries)
            data = orjson.dumps(self._owner.head(body)) + b"\n" + body
            with suppress(OSError):
                _replace(self._path, data)
            self._is_changed = False

    def _read(self, path: Path) -> dict[str, Entry]:
        try:
            head, _, body = _own_bytes(path).partition(b"\n")
            if self._owner is None or orjson.loads(head) != self._owner.head(body):
                return {}
            found = {name: Entry(*entry) for name, entry in orjson.loads(body).items()}
        except (OSError, ValueError):
            return {}
        return {name: one for name, one in found.items() if self._is_good(name, one.at)}

    def _is_good(self, name: str, at: float) -> bool:
        """Whether it is young enough; not from the future, either: then a clock was wrong."""
        if name.startswith(COMPARED):
            return 0 <= self._clock() - at < MAX_AGE_COMPARED_SECONDS
        return not self._fresh and 0 <= self._clock() - at < MAX_AGE_SECONDS


def cache_folder(environ: Mapping[str, str], home: Path | None) -> Path | None:
    """Where this user's caches are (XDG); None for a user without a home folder."""
    given = Path(environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "archiver"
    return None if home is None else home / ".cache" / "archiver"


def _own_bytes(path: Path) -> bytes:
    """The bytes of a regular file that nobody but this user can have written. Raises OSError, and
    ValueError for any other."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        is_own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not is_own or found.st_mode & 0o022 or found.st_size > _MAX_BYTES:
            raise ValueError(f"{path} is not this user's")
        return file.read()


def _replace(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, at once or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
