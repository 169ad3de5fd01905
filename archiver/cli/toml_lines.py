"""In which line of a TOML document a key is.

tomllib does not say, and neither does tomlkit. So the document is cut into its statements, each
the fewest lines that tomllib can parse, and tomllib says of each which keys it sets: nothing here
knows the grammar of TOML.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str, ...]


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line, from 1 on, in which each table and key of a valid document is first named. A key
    within a value that takes several lines has the line in which the value begins."""
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for line, statement, parsed in _statements(text):
        if is_header := statement.lstrip().startswith("["):
            table = ()
        paths = [(*table, *path) for path in _paths(parsed)]
        for path in paths:
            found.setdefault(path, line)
        if is_header:
            table = paths[-1]
    return found


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement with its first line, and as tomllib parses it alone."""
    first, statement = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            first = number
        statement += f"{line}\n"
        if line.rstrip().endswith(",") and "#" not in line:
            continue  # within a long list: it would be parsed again and again
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # it goes on
        yield first, statement, parsed
        statement = ""


def _paths(parsed: dict[str, Any]) -> Iterator[KeyPath]:
    """The paths of all keys, those of a table after its own."""
    for key, value in parsed.items():
        yield (key,)
        if isinstance(value, dict):
            for path in _paths(value):
                yield (key, *path)
