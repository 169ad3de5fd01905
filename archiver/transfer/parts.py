"""Cutting a file into parts, and folding their checksums back into the whole's. Pure."""

from collections.abc import Iterable

from anycrc import Model

from archiver.model import Part

# What a kill may cost for each connection; and what a store without files holds in memory.
DEFAULT_PART_SIZE = 8 * 2**20
MOST_PARTS = 10_000  # as many as a multipart upload may have

_CRC64_XZ = Model("CRC64-XZ")


def plan_parts(size: int, part_size: int) -> tuple[Part, ...]:
    """Equal parts that cover ``size`` bytes once, in order; an empty file has one empty part."""
    if size == 0:
        return (Part(0, 0, 0),)
    return tuple(
        Part(index, start, min(start + part_size, size))
        for index, start in enumerate(range(0, size, part_size))
    )


def fitting_part_size(size: int, wanted: int) -> int:
    """``wanted`` bytes, doubled until a file of ``size`` has at most MOST_PARTS parts."""
    while -(-size // wanted) > MOST_PARTS:
        wanted *= 2
    return wanted


def fold_crc64(parts: Iterable[tuple[int, int]]) -> int:
    """CRC-64/XZ of the whole from each part's (checksum, size), in order."""
    whole = 0
    for crc, size in parts:
        whole = _CRC64_XZ.combine(whole, crc, size)
    return whole
