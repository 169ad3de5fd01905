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
    bucket = {key: one for key, one in keys["pull"].items() if key.startswith(BUCKET_PREFIX)}
    fleet = {key: keys["pull"][key] for key in FLEET_KEYS}
    place = _TEXT | {"description": "Directory, or s3://bucket/prefix."}
    archive = _table(_properties(bucket) | {PLACE: place}, [PLACE])
    tables = {
        "archives": _named({"anyOf": [place, archive]}, "Archives by name."),
        "fleets": _named(_table(_properties(fleet)), "Selections of instances by name."),
        "defaults": _defaults(keys),
        "jobs": _named({"oneOf": [_job(*one) for one in keys.items()]}, "Jobs by name."),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "archiver.toml",
        **_table({name: tables[name] for name in TABLES}),
    }


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


def _properties(keys: Keys) -> Schema:
    return {key: _property(param) for key, param in keys.items()}


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


def _defaults(keys: Mapping[str, Keys]) -> Schema:
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
        name: _table(_properties(own)) | {"description": f"Of jobs that run {name}."}
        for name, own in options.items()
    }
    description = "Options of all jobs; those of a command in a table of its own."
    return _table(_properties(shared) | of_commands) | {"description": description}


def _job(name: str, keys: Keys) -> Schema:
    """A job of a command. What it needs may come from elsewhere, but for the command."""
    fleet = _TEXT | {"description": "A fleet by its name."}
    has_fleet = {FLEET: fleet} if "instance" in keys else {}
    return _table({RUN: {"const": name}, **has_fleet, **_properties(keys)}, [RUN])
