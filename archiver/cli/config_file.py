"""Reading ``archiver.toml``: archives, fleets, defaults and jobs.

All mistakes are reported at once, a line each with file, line, key and what would be right. What a
key may be comes from the click parameter that it sets; see :mod:`archiver.cli.config_keys`.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from archiver.cli.config_jobs import (
    S3,
    SOURCE,
    Archive,
    Job,
    Jobs,
    check_usable,
    named,
    names_instances,
)
from archiver.cli.config_keys import BUCKET_PREFIX, FLEET_KEYS, Keys, keys_of, kind_of
from archiver.cli.config_tables import BadConfig, Mistake, Mistakes, Setting, Settings
from archiver.cli.config_values import Wrong, checked
from archiver.cli.toml_lines import KeyPath, lines_of
from archiver.cli.usage import nearest
from archiver.errors import UsageError

TABLES: Final = ("archives", "fleets", "defaults", "jobs")
PLACE: Final = "place"


@dataclass(frozen=True, slots=True)
class Config:
    path: Path
    jobs: Mapping[str, Job]

    def job(self, name: str) -> Job:
        """Raises UsageError for a name that no job has."""
        if name not in self.jobs:
            near = nearest(name, self.jobs) or f"; it has {', '.join(self.jobs) or 'none'}"
            raise UsageError(f"{self.path} has no job {name}{near}")
        return self.jobs[name]


def read(path: Path, commands: Mapping[str, click.Command]) -> Config:
    """Read and check the file, whose jobs may run ``commands``.

    Raises UsageError if it cannot be read, BadConfig for mistakes in it.
    """
    text = _text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig([_syntax(path, text, str(error))]) from None
    mistakes = Mistakes(path, lines_of(text))
    for key in document:
        if key not in TABLES:
            mistakes.unknown((key,), TABLES, "table")
    jobs = Jobs(
        mistakes,
        commands,
        _archives(document, mistakes, keys_of(commands["pull"])),
        _fleets(document, mistakes, keys_of(commands["pull"])),
        _defaults(document, mistakes, commands),
    ).read(document)
    if mistakes.found:
        raise BadConfig(mistakes.found)
    return Config(path, jobs)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror}"
        raise UsageError(why, hint="--config FILE names another file") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadConfig([Mistake(path, line, "", "not UTF-8; save it as UTF-8")]) from None
    if text.startswith("\ufeff"):
        why = "begins with a byte order mark; save it as UTF-8 without one"
        raise BadConfig([Mistake(path, 1, "", why)])
    return text


def _syntax(path: Path, text: str, error: str) -> Mistake:
    """A mistake that tomllib found, whose message ends with the place."""
    what, _, where = error.rpartition(" (at ")
    found = re.match(r"line (\d+)", where)
    line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
    written, equals, _ = text.split("\n")[line - 1].partition("=")
    key = written.strip() if equals and re.fullmatch(r"[\w. -]+", written) else ""
    hint = '; texts stand in quotes, as in run = "pull"' if what == "Invalid value" else ""
    return Mistake(path, line, key, f"not TOML: {what[:1].lower()}{what[1:]}{hint}")


def _archives(document: dict[str, Any], mistakes: Mistakes, keys: Keys) -> dict[str, Archive]:
    """Archives by name: each a place, or a table with the place and the options of a bucket."""
    bucket = {key: param for key, param in keys.items() if key.startswith(BUCKET_PREFIX)}
    found = {}
    for name, value in named(document, mistakes, "archives"):
        where: KeyPath = ("archives", name)
        if name == SOURCE:
            mistakes.add(where, "means the vendor; choose another name")
        table = {PLACE: value} if isinstance(value, str) else value
        if not mistakes.is_table(table, where):
            continue
        place, rest = table.get(PLACE), {k: one for k, one in table.items() if k != PLACE}
        settings = mistakes.settings(where, rest, bucket)
        if table is value:
            where = (*where, PLACE)
        if not isinstance(place, str):
            mistakes.add(where, f'needs {PLACE} = "/DIRECTORY" or "s3://bucket/prefix"')
        else:
            check_usable(where, place, mistakes)
            if settings and not place.startswith(S3):
                key = next(iter(settings))
                mistakes.add((*where[:2], key), "works only in a bucket; remove it")
            found[name] = Archive(place, settings)
    return found


def _fleets(document: dict[str, Any], mistakes: Mistakes, keys: Keys) -> dict[str, Settings]:
    """Selections of instances by name."""
    known = {key: keys[key] for key in FLEET_KEYS}
    found = {}
    for name, value in named(document, mistakes, "fleets"):
        where = ("fleets", name)
        if not mistakes.is_table(value, where):
            continue
        found[name] = fleet = mistakes.settings(where, value, known)
        if not value:
            mistakes.add(where, f"chooses nothing; set one of {', '.join(FLEET_KEYS)}")
        narrowing = [key for key in fleet if key not in {"instance", "region", "exclude"}]
        if narrowing and names_instances(fleet):
            why = f"chooses among all instances, but {name} names some; leave out one of the two"
            mistakes.add((*where, narrowing[0]), why)
    return found


def _defaults(
    document: dict[str, Any], mistakes: Mistakes, commands: Mapping[str, click.Command]
) -> dict[str, Settings]:
    """The defaults of each command: those of all commands that have the option, then its own."""
    table = document.get("defaults", {})
    if not mistakes.is_table(table, ("defaults",)):
        table = {}
    options = {name: _options(command) for name, command in commands.items()}
    shared = _shared(table, mistakes, options)
    found = {}
    for name, keys in options.items():
        where, own = ("defaults", name), table.get(name, {})
        mine = mistakes.settings(where, own, keys) if mistakes.is_table(own, where) else {}
        found[name] = {key: one for key, one in shared.items() if key in keys} | mine
    return found


def _options(command: click.Command) -> Keys:
    keys = keys_of(command)
    return {key: param for key, param in keys.items() if isinstance(param, click.Option)}


def _shared(table: Mapping[str, Any], mistakes: Mistakes, options: Mapping[str, Keys]) -> Settings:
    """What ``[defaults]`` sets for all commands, each of which must take it."""
    found: Settings = {}
    for key, value in table.items():
        where = ("defaults", key)
        params = [keys[key] for keys in options.values() if key in keys]
        if key in options:
            continue  # a table of a command
        if isinstance(value, dict):
            mistakes.unknown(where, options, "command")
        elif not params:
            mistakes.unknown(where, dict.fromkeys(one for keys in options.values() for one in keys))
        elif len({kind_of(param) for param in params}) > 1:
            mistakes.add(where, "differs between commands; set it in [defaults.COMMAND]")
        else:
            try:
                [converted, *_] = [checked(param, value) for param in params]
            except Wrong as error:
                mistakes.add(where, str(error))
            else:
                found[key] = Setting(converted, "defaults", mistakes.line(where))
    return found
