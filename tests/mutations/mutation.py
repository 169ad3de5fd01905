"""A mutation, and how the lists write it down.

    a record that contradicts its key is copied
    at Archive.readable
    -if wrong := contradictions(record):
    +if wrong := ():
    by archive/test_reading ::test_a_copy

The name; the place (see ``places``); the break as a diff, whose lines may be parts of lines and are
indented as much as they are below the statement that the first is in; the tests of which one has to
fail (see ``selection``). Each further line that begins with ``by`` is a run of its own: those tests
have to find the break, too. Empty lines stand between mutations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LISTS = Path(__file__).parent / "lists"


@dataclass(frozen=True)
class Mutation:
    """A break: ``old`` becomes ``new``; each of ``runs`` is tests that find it."""

    name: str
    place: str
    old: str
    new: str
    runs: tuple[str, ...]


def read_all(folder: Path = LISTS) -> list[Mutation]:
    """Every mutation of every list.

    Raises:
        ValueError: A text is no mutation, or two have one name.
    """
    found = dict[str, Mutation]()
    for path in sorted(folder.glob("*.txt")):
        for mutation in parse(path.read_text()):
            if mutation.name in found:
                raise ValueError(f"{path.name}: a second mutation has the name: {mutation.name}")
            found[mutation.name] = mutation
    return list(found.values())


def parse(text: str) -> Iterator[Mutation]:
    """The mutations of a list."""
    for block in text.strip("\n").split("\n\n"):
        name, *rest = block.splitlines()
        places = [line.removeprefix("at ") for line in rest if line.startswith("at ")]
        runs = tuple(line.removeprefix("by ") for line in rest if line.startswith("by "))
        changes = [line for line in rest if line[0] in "-+ "]
        old = "\n".join(line[1:] for line in changes if line[0] != "+")
        new = "\n".join(line[1:] for line in changes if line[0] != "-")
        if len(places) != 1 or not runs or not old or 1 + len(runs) + len(changes) != len(rest):
            raise ValueError(f"no mutation: {block}")
        yield Mutation(name, places[0], old, new, runs)
