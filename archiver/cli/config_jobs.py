"""Jobs of ``archiver.toml``: commands with their options, archives and fleets."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from archiver.cli.config_keys import (
    BUCKET_PREFIX,
    FLEET_KEYS,
    Keys,
    is_archive,
    is_read_only,
    key_of,
    keys_of,
)
from archiver.cli.config_tables import Mistakes, Setting, Settings
from archiver.cli.config_values import Value, Wrong, checked, secret_in
from archiver.cli.params import ALL_INSTANCES
from archiver.cli.places import KEEPING, check_place
from archiver.cli.toml_lines import KeyPath
from archiver.cli.usage import nearest
from archiver.errors import UsageError

NAME: Final = "[A-Za-z0-9_-]{1,64}"
RUN, FLEET = "run", "fleet"
S3: Final = "s3://"
# What --repair-from takes that is no archive.
SOURCE: Final = "source"


@dataclass(frozen=True, slots=True)
class Job:
    """A command, and what the file says of its options and arguments, by key."""

    name: str
    command: str
    settings: Mapping[str, Setting]

    def defaults(self, command: click.Command) -> dict[str, Value]:
        """The values as click's defaults, which the environment and options override."""
        keys = keys_of(command)
        return {str(keys[key].name): one.value for key, one in self.settings.items()}


@dataclass(frozen=True, slots=True)
class Archive:
    place: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Jobs:
    """Reads jobs, which use the other tables."""

    mistakes: Mistakes
    commands: Mapping[str, click.Command]
    archives: Mapping[str, Archive]
    fleets: Mapping[str, Settings]
    defaults: Mapping[str, Settings]

    def read(self, document: dict[str, Any]) -> dict[str, Job]:
        """The jobs of the document; with mistakes, those that could be read."""
        jobs = [self._job(*one) for one in named(document, self.mistakes, "jobs")]
        return {job.name: job for job in jobs if job is not None}

    def _job(self, name: str, table: Any) -> Job | None:
        where = ("jobs", name)
        if not self.mistakes.is_table(table, where):
            return None
        command = table.get(RUN)
        if command is None:
            self.mistakes.add(where, f'needs {RUN} = "pull" or another command')
            return None
        if not isinstance(command, str) or command not in self.commands:
            near = nearest(str(command), self.commands)
            known = near or f"; known are {', '.join(self.commands)}"
            self.mistakes.add((*where, RUN), f"no job can run {command!r}{known}")
            return None
        keys = keys_of(self.commands[command])
        rest = {key: value for key, value in table.items() if key not in {RUN, FLEET}}
        own = self.mistakes.settings(where, rest, keys)
        settings = self.defaults[command] | own
        if FLEET in table:
            settings = {key: one for key, one in settings.items() if key not in FLEET_KEYS}
            settings |= own | self._of_fleet(where, table[FLEET], keys, own)
        settings = self._with_archives(where, settings, keys, own)
        for key, param in keys.items():
            if param.required and not {key} & {*settings, *table} and not _is_in_environment(param):
                self.mistakes.add(where, f"needs {key} = …, {_shown(param, command)}")
        return Job(name, command, settings)

    def _of_fleet(self, where: KeyPath, name: object, keys: Keys, own: Settings) -> Settings:
        """What a fleet sets of a job."""
        at, fleet = (*where, FLEET), self.fleets.get(str(name))
        if fleet is None:
            known = nearest(str(name), self.fleets) or f"; known are {', '.join(self.fleets)}"
            self.mistakes.add(at, f"no fleet is called {name!r}{known if self.fleets else ''}")
            return {}
        dispensable = {"region"} if names_instances(fleet) else set[str]()
        for key in fleet:
            if key in own:
                why = f"fleet {name} sets it, too; leave out one of the two"
                self.mistakes.add((*where, key), why)
            if key not in keys and key not in dispensable:
                why = f"fleet {name} chooses by {key}, which this command cannot; name instances"
                self.mistakes.add(at, why)
                break
        found = {key: one for key, one in fleet.items() if key in keys}
        for key, one in found.items():
            values = list(one.value) if isinstance(one.value, tuple) else one.value
            try:
                checked(keys[key], values)
            except Wrong as error:
                self.mistakes.add(at, f"{key}: {error}")
        return found

    def _with_archives(
        self, where: KeyPath, settings: Settings, keys: Keys, own: Settings
    ) -> Settings:
        """The settings with places for the names of archives, and with the buckets' options."""
        settings = dict(settings)
        used: list[tuple[click.Parameter, Archive]] = []
        for key, one in list(settings.items()):
            if is_archive(keys[key]):
                at = (*one.table.split("."), key)
                names = one.value if isinstance(one.value, tuple) else (str(one.value),)
                found = [self._archive(at, name, keys[key]) for name in names]
                places = tuple(archive.place for archive in found)
                value = places if isinstance(one.value, tuple) else places[0]
                settings[key] = Setting(value, one.table, one.line)
                used += [(keys[key], archive) for archive in found]
        buckets = [(param, one) for param, one in used if one.place.startswith(S3)]
        for key in (key for key in keys if key.startswith(BUCKET_PREFIX) and key not in own):
            that = [one for param, one in buckets if key not in KEEPING or not is_read_only(param)]
            if len({_value(one.settings.get(key)) for one in that}) > 1:
                why = f"its buckets differ in {key}, and a command has one for all; set {key} here"
                self.mistakes.add(where, why)
            elif that and (setting := that[0].settings.get(key)) is not None:
                settings[key] = setting
        return settings

    def _archive(self, where: KeyPath, name: str, param: click.Parameter) -> Archive:
        """The archive of that name, or at that place."""
        if name in self.archives:
            return self.archives[name]
        if "/" in name:
            check_usable(where, name, self.mistakes)
        elif name != SOURCE or key_of(param) != "repair_from":
            near = nearest(name, self.archives)
            why = f"no archive is called {name!r}{near or f'; a directory has a slash: ./{name}'}"
            self.mistakes.add(where, why)
        return Archive(name, {})


def _value(setting: Setting | None) -> Value | None:
    return None if setting is None else setting.value


def _is_in_environment(param: click.Parameter) -> bool:
    return isinstance(param.envvar, str) and bool(os.environ.get(param.envvar))


def _shown(param: click.Parameter, command: str) -> str:
    """What a parameter is on the command line."""
    if isinstance(param, click.Argument):
        return f"the {param.metavar} of archiver {command}"
    return f"as --{key_of(param).replace('_', '-')} of archiver {command}"


def named(document: dict[str, Any], mistakes: Mistakes, table: str) -> list[tuple[str, Any]]:
    """What a table has by name."""
    value = document.get(table, {})
    if not mistakes.is_table(value, (table,)):
        return []
    for name in value:
        if not re.fullmatch(NAME, name):
            mistakes.add((table, name), "a name has only letters, digits, _ and -")
    return list(value.items())


def check_usable(where: KeyPath, place: str, mistakes: Mistakes) -> None:
    """Add a mistake for an unusable place, or one with a secret."""
    try:
        check_place(place)
    except UsageError as error:
        mistakes.add(where, str(error))
    if (secret := secret_in(place)) is not None:
        mistakes.add(where, secret)


def names_instances(fleet: Settings) -> bool:
    ids = fleet["instance"].value if "instance" in fleet else ()
    return isinstance(ids, tuple) and bool(ids) and ALL_INSTANCES not in ids
