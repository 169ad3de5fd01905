"""The JSON Schema of ``archiver.toml``, made from the commands themselves.

Draft 7, and a job is one of its forms by its command: editors know that best. What a text of an
option may be is checked when the file is read.
"""

from collections.abc import Mapping
from typing import Any, Final

import click

from archiver.cli.config_file import PLACE, TABLES
from archiver.cli.config_jobs import FLEET, NAME, RUN
from archiver.cli.config_keys import (
    BUCKET_PREFIX,
    FLEET_KEYS,
    Keys,
    is_count,
    is_list,
    is_switch,
    keys_of,
    kind_of,
)

Schema = dict[str, Any]
_TEXT: Final[Schema] = {"type": "string", "minLength": 1}


def schema(commands: Mapping[str, click.Command]) -> Schema:
    """The schema of a file whose jobs may run ``commands``."""
    keys = {name: keys_of(command) for name, command in commands.items()}
    made = _Properties()
    bucket = {key: one for key, one in keys["pull"].items() if key.startswith(BUCKET_PREFIX)}
    fleet = {key: keys["pull"][key] for key in FLEET_KEYS}
    place = _TEXT | {"description": "Directory, or s3://bucket/prefix."}
    archive = _table(made.of("pull", bucket) | {PLACE: place}, [PLACE])
    jobs = [_job(name, own, made) for name, own in keys.items()]
    tables = {
        "archives": _named({"anyOf": [place, archive]}, "Archives by name."),
        "fleets": _named(_table(made.of("pull", fleet)), "Selections of instances by name."),
        "defaults": _defaults(keys, made),
        "jobs": _named({"oneOf": jobs}, "Jobs by name."),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "archiver.toml",
        **_table({name: tables[name] for name in TABLES}),
        "definitions": made.definitions,
    }


class _Properties:
    """Properties for keys; each is defined once, however many commands have it."""

    def __init__(self) -> None:
        self.definitions: Final = Schema()

    def of(self, command: str, keys: Keys) -> Schema:
        return {key: {"$ref": self._defined(command, key, one)} for key, one in keys.items()}

    def _defined(self, command: str, key: str, param: click.Parameter) -> str:
        wanted = _property(param)
        name = key if self.definitions.setdefault(key, wanted) == wanted else f"{command}.{key}"
        self.definitions[name] = wanted
        return f"#/definitions/{name}"


def _table(properties: Schema, required: list[str] | None = None) -> Schema:
    needed = {"required": required} if required else {}
    return {
        "type": "object",
        "additionalProperties": False,
        **needed,
        "properties": properties,
    }


def _named(one: Schema, description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "patternProperties": {f"^{NAME}$": one},
    }


def _property(param: click.Parameter) -> Schema:
    """What a key may be, with the help of its option."""
    text = getattr(param, "help", None)
    described = {"description": text} if text else {"description": f"{param.metavar}"}
    if is_switch(param):
        return described | {"type": "boolean"}
    if is_count(param):
        return described | {"type": "integer", "minimum": 0}
    one = _one(param.type)
    return described | (
        {"anyOf": [one, {"type": "array", "items": one}]} if is_list(param) else one
    )


def _one(kind: click.ParamType[Any]) -> Schema:
    """One value of an option."""
    if isinstance(kind, click.Choice):
        return {"enum": [str(one) for one in kind.choices]}
    if isinstance(kind, click.IntRange | click.FloatRange):
        bounds = {"minimum": kind.min, "maximum": kind.max}
        number = "integer" if isinstance(kind, click.IntRange) else "number"
        return {"type": number, **{name: one for name, one in bounds.items() if one is not None}}
    # A size or duration may be a bare number, a range a date.
    return {"type": ["string", "number"], "minLength": 1}


def _defaults(keys: Mapping[str, Keys], made: _Properties) -> Schema:
    """The options that mean the same for all commands, and a table for each command."""
    options = {
        name: {key: one for key, one in own.items() if isinstance(one, click.Option)}
        for name, own in keys.items()
    }
    every: dict[str, list[click.Parameter]] = {}
    for own in options.values():
        for key, param in own.items():
            every.setdefault(key, []).append(param)
    shared = {
        key: params[0]
        for key, params in every.items()
        if len({kind_of(param) for param in params}) == 1
    }
    of_commands = {
        name: _table(made.of(name, own)) | {"description": f"Of jobs that run {name}."}
        for name, own in options.items()
    }
    description = "Options of all jobs; those of a command in a table of its own."
    return _table(made.of("defaults", shared) | of_commands) | {"description": description}


def _job(name: str, keys: Keys, made: _Properties) -> Schema:
    """A job of a command. What it needs may come from elsewhere, but for the command."""
    fleet = _TEXT | {"description": "A fleet by its name."}
    has_fleet = {FLEET: fleet} if "instance" in keys else {}
    return _table({RUN: {"const": name}, **has_fleet, **made.of(name, keys)}, [RUN])
