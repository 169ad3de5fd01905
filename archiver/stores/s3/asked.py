"""Whether objects are kept as was asked for: encrypted, locked, in a storage class.

Stores ignore what they do not know, and say so nowhere but in what they tell of an object. Pure.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from archiver.errors import StoreError

_SAYS_NOTHING: Final = "nothing"
# What every store says of a class by not saying anything.
_STANDARD: Final = "STANDARD"
# Stores keep whole seconds, up or down.
_ROUNDED: Final = timedelta(seconds=2)
_HINT: Final = "nothing of it is recorded; leave the option out, or take a store that has it"
_SEES_NO_LOCK: Final = f"{_HINT}; without s3:GetObjectRetention a key sees no lock"


def check_kept(where: str, asked: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """``asked`` are the parameters of a put, ``kept`` those in what the store says of the object.

    Raises StoreError where that is less.
    """
    if (wrong := difference(asked, kept)) is not None:
        name, wanted, found = wrong
        hint = _SEES_NO_LOCK if "Lock" in name else _HINT
        raise StoreError(
            f"{where}: {name} {wanted} was asked for, and the store says {found}", hint=hint
        )


def difference(
    asked: Mapping[str, Any], kept: Mapping[str, Any]
) -> tuple[str, object, object] | None:
    """What is not kept as asked: its name, what was wanted, and what is said of it."""
    for name, (is_kept, without) in _RULES.items():
        if name in asked:
            found = kept.get(name, without)
            if found is None or not is_kept(asked[name], found):
                return name, asked[name], _SAYS_NOTHING if found is None else found
    return None


def _is_equal(asked: object, found: object) -> bool:
    return asked == found


def _is_key(asked: str, found: str) -> bool:
    """Keys are answered in full (``arn:…:key/ID``); an alias is answered with the key it is for."""
    return "alias/" in asked or found.endswith(asked.rpartition("/")[2])


def _is_as_late(asked: datetime, found: datetime) -> bool:
    return found + _ROUNDED >= asked


_RULES: Final[Mapping[str, tuple[Any, str | None]]] = {
    "ServerSideEncryption": (_is_equal, None),
    "SSEKMSKeyId": (_is_key, None),
    "StorageClass": (_is_equal, _STANDARD),
    "ObjectLockMode": (_is_equal, None),
    "ObjectLockRetainUntilDate": (_is_as_late, None),
}
