"""Which of the changes that are not durable a power cut leaves: what matters, or some of it."""

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Final

from tests.faults.posix import LOST, WHOLE, Change, FileSystem, Kept, Rename, Write

# What a disk writes at once.
BLOCK = 512
ZEROS: Final = Kept((), resized=True)


def torn(write: Write) -> list[Kept]:
    """Ways in which a write may be there in part."""
    size = len(write.data)
    ways = [ZEROS, Kept(((0, size // 2),), resized=False)]
    edges = range(BLOCK - write.offset % BLOCK, size, BLOCK)
    blocks = list(itertools.pairwise((0, *edges, size)))
    if len(blocks) > 1:
        ways += [Kept(tuple(blocks[first::2]), resized=True) for first in (0, 1)]
    return [way for way in ways if way != LOST]


def cuts(
    system: FileSystem, dice: random.Random, most_alone: int, at_random: int
) -> Iterator[dict[int, Kept]]:
    """What a cut at this moment may keep: nothing; everything; of names given, names removed and
    bytes any combination; each change alone lost, torn, or kept, for up to ``most_alone`` changes;
    and so many random choices."""
    pending = system.pending()
    whole = dict.fromkeys(pending, WHOLE)
    yield {}
    if not pending:
        return
    yield whole
    groups = (
        {n for n, one in pending.items() if isinstance(one, Rename) and not one.only_removes},
        {n for n, one in pending.items() if isinstance(one, Rename) and one.only_removes},
        {n for n, one in pending.items() if not isinstance(one, Rename)},
    )
    present = [group for group in groups if group]
    for count in range(1, len(present)):
        for chosen in itertools.combinations(present, count):
            yield dict.fromkeys(itertools.chain(*chosen), WHOLE)
    yield from _alone(pending, whole, dice, most_alone)
    for _ in range(at_random):
        share = dice.choice((0.1, 0.5, 0.9))
        yield {n: _way(one, dice) for n, one in pending.items() if dice.random() < share}


def _alone(
    pending: Mapping[int, Change], whole: Mapping[int, Kept], dice: random.Random, most: int
) -> Iterator[dict[int, Kept]]:
    chosen = list(pending)
    if len(chosen) > most:
        chosen = dice.sample(chosen, most)
    for number in chosen:
        yield {n: kept for n, kept in whole.items() if n != number}
        change = pending[number]
        needed = change.after if isinstance(change, Rename) else None
        yield dict.fromkeys((number,) if needed is None else (needed, number), WHOLE)
        for way in torn(change) if isinstance(change, Write) else ():
            yield {**whole, number: way}
            # What has a name shows how its bytes are torn.
            names = {n: WHOLE for n, one in pending.items() if isinstance(one, Rename)}
            yield {**names, number: way}


def _way(change: Change, dice: random.Random) -> Kept:
    return dice.choice([WHOLE, *torn(change)]) if isinstance(change, Write) else WHOLE
