"""Which releases load which RDB versions. Pure."""

from typing import Final

# The highest RDB version that a Redis loads, from its release on: RDB_VERSION in its rdb.h, and
# what DUMP writes (8.2: 12 [measured]; 8.6 still writes 12, valkey-doc #419).
REDIS_LOADS: Final = (
    ((7, 4), 12),
    ((7, 2), 11),
    ((7, 0), 10),
    ((5, 0), 9),
    ((4, 0), 8),
    ((3, 2), 7),
    ((0, 0), 6),
)
VALKEY_LOADS: Final = 11  # of Redis's versions; its own begin at 80, with Valkey 9.0
VALKEY_OWN: Final = 80
# Databases to start a server with: Tair allows 256, Redis as many as one configures, 16 by default,
# and a dump of more than that ends a server that was not told.
DATABASES: Final = 1024
FOREIGN: Final = range(12, 80)  # what `rdb-version-check relaxed` dares (valkey #2543, in 9.0)


def needed(magic: str | None, version: int | None) -> str:
    """The servers that load a file beginning with ``magic`` (``REDIS0011``), as words for people.

    ``magic`` and ``version`` are None for a log of commands.
    """
    if magic is None or version is None:
        return "Redis 7.0 or newer, or Valkey, with the commands that the log uses"
    if not magic.startswith("REDIS"):
        return "Valkey 9.0 or newer" if version <= VALKEY_OWN else "a Valkey newer than 9"
    releases = [since for since, loads in REDIS_LOADS if loads >= version]
    if not releases:
        return f"a server that knows RDB version {version}: newer than Redis 8"
    since = min(releases)
    redis = f"Redis {since[0]}.{since[1]} or newer" if since > (0, 0) else "any Redis"
    if version <= VALKEY_LOADS:
        return f"{redis}, or Valkey"
    return f"{redis}; or, with --rdb-version-check relaxed, Valkey 9.0 if it has no new types"
