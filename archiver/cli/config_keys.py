"""The options and arguments of commands as keys of ``archiver.toml``.

A key is the long name of an option with ``_`` for ``-``, or the name that ``--help`` shows of an
argument in lower case. All that is known of a key comes from its click parameter.
"""

from collections.abc import Mapping
from typing import Final

import click

# They run jobs, or no job would end, or they are for typing.
_NOT_JOBS: Final = {"run", "config", "emulate", "completion", "man"}
# How --help names an argument or option that is an archive.
_ARCHIVES: Final = {"ARCHIVE", "SRC", "DST", "OTHER"}
_READ_ONLY: Final = {"SRC", "OTHER"}
# Options that choose instances, which a fleet consists of.
FLEET_KEYS: Final = ("instance", "region", "tag", "name", "resource_group", "exclude")
# Options of a bucket, which an archive may have.
BUCKET_PREFIX: Final = "s3_"

Keys = Mapping[str, click.Parameter]


def job_commands(context: click.Context) -> dict[str, click.Command]:
    """The commands that a job may run, by name."""
    root = context.find_root()
    group = root.command
    if not isinstance(group, click.Group):
        return {}
    found = {name: group.get_command(root, name) for name in group.list_commands(root)}
    return {
        name: one
        for name, one in found.items()
        if one is not None and not isinstance(one, click.Group) and name not in _NOT_JOBS
    }


def keys_of(command: click.Command) -> dict[str, click.Parameter]:
    """The parameters of a command by key, arguments first, else in the order of its help."""
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    options = [one for one in command.params if isinstance(one, click.Option)]
    return {key_of(one): one for one in (*arguments, *options)}


def key_of(param: click.Parameter) -> str:
    """The key of a parameter."""
    if isinstance(param, click.Argument):
        return _shown(param).lower()
    return long_option(param).lstrip("-").replace("-", "_")


def long_option(param: click.Parameter) -> str:
    """The name of an option on the command line."""
    return max(param.opts, key=len)


def is_switch(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and param.is_flag


def is_count(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and param.count


def is_list(param: click.Parameter) -> bool:
    """Whether it takes several values."""
    return param.multiple or param.nargs == -1


def is_archive(param: click.Parameter) -> bool:
    """Whether its value is an archive, which may be given by its name in ``[archives]``."""
    return _shown(param) in _ARCHIVES


def is_read_only(param: click.Parameter) -> bool:
    """Whether its value is an archive that is only read."""
    return _shown(param) in _READ_ONLY


def kind_of(param: click.Parameter) -> tuple[object, ...]:
    """What is the same for parameters that mean the same."""
    words = tuple(param.type.choices) if isinstance(param.type, click.Choice) else ()
    return type(param.type), words, is_switch(param), is_list(param), param.metavar


def _shown(param: click.Parameter) -> str:
    """The metavar without the signs for optional and repeatable, and without alternatives."""
    return (param.metavar or "").strip("[].").partition("|")[0]
