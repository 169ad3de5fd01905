"""Sequences: drawn by a seed, and made shorter.

add INSTANCE CONTENT DAY SEED     a backup set appears at the vendor
vendor TROUBLE DICE | heal        see vendor.TROUBLES and vendor.NOISE
damage ARCHIVE DAMAGE DICE        see damages.DAMAGES
snapshot ARCHIVE                  as cp -al makes it
pull ARCHIVE | copy ARCHIVE FROM | verify ARCHIVE | repair ARCHIVE FROM | restore ARCHIVE,
    the first four followed by a sabotage or not: kill N, cancel N, eio N, enospc N
agree                             the answers of all that only read, side by side
settle vendor | A                 heal; the tool brings B home from there; all must be whole
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random

from tests.stateful.damages import DAMAGES
from tests.stateful.sabotage import MODES
from tests.stateful.truth import DAYS, Content
from tests.stateful.vendor import NOISE, TROUBLES

_DICE = 1000
_BYTES = ("flip", "cut", "pad", "delete", "swap", "swap-records", "swap-backups", "forge", "suffix")
_SORTS = {
    "bytes": (8, _BYTES),
    "record": (6, [name for name in DAMAGES if name.startswith("record-")]),
    "sums": (3, [name for name in DAMAGES if name.startswith("sums-")]),
    "others": (
        5,
        [n for n in DAMAGES if n not in _BYTES and not n.startswith(("record-", "sums-"))],
    ),
}
# Small numbers first: most operations have few calls.
_CALLS = (12, 40, 150)


def every_damage(seed: int) -> Iterator[tuple[str, ...]]:
    """Each damage before each operation that may meet it."""
    dice = Random(seed)
    for damage in DAMAGES:
        for met in ("verify A", "pull A", "copy B A", "repair A vendor", "repair A B", "agree"):
            yield (
                _added(dice),
                "pull A",
                *(("copy B A",) if met != "copy B A" or dice.random() < 0.5 else ()),
                *(("verify A",) if damage.startswith("results-") else ()),
                f"damage A {damage} {dice.randrange(_DICE)}",
                met,
                _settled(dice),
            )


def drawn(seed: int) -> tuple[str, ...]:
    """The sequence of a seed, one of three sorts by turns."""
    dice = Random(seed)
    kinds = (_damaged_once, _mixed, _interrupted)
    return tuple(kinds[seed % len(kinds)](dice))


def _damaged_once(dice: Random) -> list[str]:
    """An archive and its copy are whole; little goes wrong; a repair must be enough."""
    steps = [_added(dice) for _ in range(dice.choice((1, 1, 2)))]
    steps += ["pull A", dice.choice(("copy B A", "pull B"))]
    steps += ["verify A"] * (dice.random() < 0.5) + ["snapshot A"] * (dice.random() < 0.2)
    steps += [f"damage A {_damage(dice)}" for _ in range(dice.choice((1, 1, 2)))]
    steps += ["agree", f"repair A {dice.choice(('vendor', 'B'))}"]
    return [*steps, _settled(dice)]


def _mixed(dice: Random) -> list[str]:
    """Anything after anything."""
    steps = [_added(dice) for _ in range(dice.choice((1, 2, 3)))]
    steps += ["pull A"] * (dice.random() < 0.8)
    for _ in range(dice.randint(4, 12)):
        steps.append(dice.choices((_trouble, _operation, _added, _looked), (9, 9, 1, 1))[0](dice))
    return [*steps, _settled(dice)]


def _interrupted(dice: Random) -> list[str]:
    """The same, and most operations do not come to their end."""
    steps = [_added(dice) for _ in range(dice.choice((1, 2)))]
    for _ in range(dice.randint(3, 9)):
        step = dice.choices((_trouble, _operation), (3, 7))[0](dice)
        if step.split()[0] in ("pull", "copy", "verify", "repair") and dice.random() < 0.7:
            step += f" {dice.choice(MODES)} {dice.randint(1, dice.choice(_CALLS))}"
        steps.append(step)
    return [*steps, _settled(dice)]


def _added(dice: Random) -> str:
    instance = dice.choice(("standard", "cluster"))
    content = dice.choices(list(Content), (7, 1, 1, 1, 1))[0]
    return f"add {instance} {content} {dice.randrange(DAYS)} {dice.randrange(_DICE)}"


def _damage(dice: Random) -> str:
    """Of the sorts by weight, not by how many damages each has."""
    [sort] = dice.choices(list(_SORTS), [weight for weight, _ in _SORTS.values()])
    return f"{dice.choice(_SORTS[sort][1])} {dice.randrange(_DICE)}"


def _trouble(dice: Random) -> str:
    roll = dice.random()
    if roll < 0.1:
        return f"snapshot {dice.choice('AB')}"
    if roll < 0.3:
        names = [*TROUBLES, *NOISE, "heal"]
        name = dice.choice(names)
        return "vendor heal" if name == "heal" else f"vendor {name} {dice.randrange(_DICE)}"
    return f"damage {dice.choice('AAAB')} {_damage(dice)}"


def _operation(dice: Random) -> str:
    here, other = dice.choice((("A", "B"), ("A", "B"), ("B", "A")))
    return dice.choices(
        (
            f"pull {here}",
            f"copy {other} {here}",
            f"verify {here}",
            f"repair {here} {dice.choice(('vendor', other))}",
            f"restore {here}",
        ),
        (5, 4, 3, 5, 1),
    )[0]


def _looked(_: Random) -> str:
    return "agree"


def _settled(dice: Random) -> str:
    return f"settle {dice.choice(('vendor', 'A'))}"


async def shortened(
    steps: Sequence[str], fails: Callable[[tuple[str, ...]], Awaitable[bool]], tries: int
) -> tuple[str, ...]:
    """Leave out what a failure does not need: halves, then quarters, down to single lines."""
    shortest, size = tuple(steps), max(1, len(steps) // 2)
    while size:
        at, shorter = 0, False
        while at < len(shortest):
            less = shortest[:at] + shortest[at + size :]
            tries -= 1
            if tries < 0:
                return shortest
            if less and await fails(less):
                shortest, shorter = less, True
            else:
                at += size
        if not shorter or size > 1:
            size //= 2
    return shortest
