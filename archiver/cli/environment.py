"""Options in the environment: ``ARCHIVER_``, the command, and the option's long name.

Each command has its own variables, so that a setting for one never narrows another. An unknown
variable is an error: it was meant to do something.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Final

import click

PREFIX: Final = "ARCHIVER_"

# Kubernetes sets these in every pod for a service called archiver, or archiver-something.
_SERVICE = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_SERVICE_VALUE = re.compile(r"(tcp|udp|sctp)(://\S+)?|[0-9a-fA-F.:]+")


def variable(command: str, option: str) -> str:
    """The name of the variable for an option, by its long name without dashes."""
    return f"{PREFIX}{command}_{option.replace('-', '_')}".upper()


def check(ctx: click.Context, environ: Mapping[str, str]) -> None:
    """Raises click.UsageError for variables that no command knows."""
    own = _variables(ctx.command)
    strange = sorted(name for name in environ if name.startswith(PREFIX) and name not in own)
    strange = [name for name in strange if not _is_of_a_service(name, environ[name])]
    if not strange:
        return
    known = {ctx.command.name or "": own, **_variables_of_all(ctx)}
    every = {name for names in known.values() for name in names}
    wrong = [_what_to_write(name, known, ctx) for name in strange if name not in every]
    if wrong:
        raise click.UsageError("; ".join(wrong), ctx)


def _variables(command: click.Command) -> set[str]:
    return {param.envvar for param in command.params if isinstance(param.envvar, str)}


def _variables_of_all(ctx: click.Context) -> dict[str, set[str]]:
    root, group = ctx.find_root(), ctx.find_root().command
    if not isinstance(group, click.Group):
        return {}
    commands = {name: group.get_command(root, name) for name in group.list_commands(root)}
    return {name: _variables(one) for name, one in commands.items() if one is not None}


def _what_to_write(name: str, known: Mapping[str, set[str]], ctx: click.Context) -> str:
    """The error message for an unknown variable."""
    wanted = name.removeprefix(PREFIX)
    own = ctx.command.name or ""
    meant = {command: variable(command, wanted) for command in known}
    of_commands = [one for command, one in meant.items() if one in known[command]]
    if of_commands:
        here = meant[own]
        what = here if here in of_commands else " or ".join(sorted(of_commands))
        return f"{name} is set, but each command has its own variables: use {what}"
    every = sorted(one for names in known.values() for one in names)
    near = difflib.get_close_matches(name, [*sorted(known[own]), *every], n=1, cutoff=0.0)
    return f"{name} is set, but there is no such variable: the nearest is {near[0]}"


def _is_of_a_service(name: str, value: str) -> bool:
    return _SERVICE.fullmatch(name) is not None and _SERVICE_VALUE.fullmatch(value) is not None
