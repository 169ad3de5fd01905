"""Tables of ``archiver.toml``, and the mistakes in them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard

from archiver.cli.config_keys import Keys
from archiver.cli.config_values import KEYS_OF_SECRETS, Value, Wrong, checked
from archiver.cli.toml_lines import KeyPath
from archiver.cli.usage import nearest
from archiver.errors import UsageError

_MOST_KNOWN: Final = 6


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong at a key, and what would be right; ``key`` may be empty."""

    path: Path
    line: int
    key: str
    why: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.path}:{self.line}: {key}{self.why}"


class BadConfig(UsageError):
    """A file with mistakes, in the order of their lines. The message has a line for each."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda one: one.line)
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of a key, and the table and line in which it is written."""

    value: Value
    table: str
    line: int


Settings = dict[str, Setting]


@dataclass(slots=True)
class Mistakes:
    """Collects the mistakes of a file, whose keys are in ``lines``."""

    path: Path
    lines: Mapping[KeyPath, int]
    found: list[Mistake] = field(default_factory=list)

    def add(self, where: KeyPath, why: str) -> None:
        self.found.append(Mistake(self.path, self.line(where), ".".join(where), why))

    def line(self, where: KeyPath) -> int:
        """That of the key, or else of the table that it is missing in."""
        paths = (where[:n] for n in range(len(where), 0, -1))
        return next((self.lines[path] for path in paths if path in self.lines), 1)

    def unknown(self, where: KeyPath, known: Iterable[str], what: str = "key") -> None:
        """Add that the last key of ``where`` is none of ``known``."""
        key, known = where[-1], list(known)
        if KEYS_OF_SECRETS.search(key):
            self.add(where, "secrets are not kept in this file; set them in the environment")
        elif key[:3] == "no_" and key[3:] in known:
            self.add(where, f"no such {what}; write {key[3:]} = false")
        else:
            near = nearest(key.replace("-", "_"), known) or _some(known)
            self.add(where, f"no such {what}{near}")

    def is_table(self, value: object, where: KeyPath) -> TypeGuard[dict[str, Any]]:
        """Whether a value is a table; it is a mistake if not."""
        if isinstance(value, dict):
            return True
        self.add(where, f"must be a table: [{'.'.join(where)}]")
        return False

    def settings(self, where: KeyPath, table: Mapping[str, Any], keys: Keys) -> Settings:
        """The keys of a table that are right."""
        found: Settings = {}
        for key, value in table.items():
            at = (*where, key)
            if key not in keys:
                self.unknown(at, keys)
                continue
            try:
                found[key] = Setting(checked(keys[key], value), ".".join(where), self.line(at))
            except Wrong as error:
                self.add(at, str(error))
        return found


def _some(known: list[str]) -> str:
    """What there is, for an error message."""
    if len(known) <= _MOST_KNOWN:
        return f"; known are {', '.join(known)}"
    return f"; known are {', '.join(known[:_MOST_KNOWN])} and more (see archiver config schema)"
