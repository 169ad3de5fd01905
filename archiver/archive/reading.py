"""Reading an archive's documents for use: the one way to do so.

A record counts when it can be read, belongs where it lies and agrees with itself. Whoever plans,
copies, lists, restores or repairs by a record gets it here, so that what one command refuses, all
of them do. Only a verify looks closer, to say what is wrong with it.
"""

from archiver.archive import layout
from archiver.archive.consistency import contradictions
from archiver.archive.record import Record
from archiver.archive.sums import parse_sums
from archiver.errors import BadDocument
from archiver.stores.base import Store


async def read_record(store: Store, key: str) -> Record | None:
    """The record under ``key``; None when there is none.

    Raises BadDocument for one that must not be used, UnreadableObject, StoreError.
    """
    data = await store.read(key)
    if data is None:
        return None
    record = Record.decode(key, data)
    if wrong := contradictions(record):
        raise BadDocument(
            key,
            f"this record contradicts {'its place' if wrong[0].is_misplaced else 'itself'}: "
            f"{wrong[0].text}",
            hint="somebody moved or edited it: run verify, then repair",
        )
    return record


async def read_sums(store: Store, folder: str) -> dict[str, str] | None:
    """The SHA-256 by file name in the SHA256SUMS of a set; None when there is none.

    Raises BadDocument, UnreadableObject, StoreError.
    """
    key = layout.sums_key(folder)
    data = await store.read(key)
    if data is None:
        return None
    sums = parse_sums(data)
    if sums is None:
        raise BadDocument(key, "it cannot be read", hint="repair writes it anew")
    return sums
