"""``archiver config``."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli import streams
from archiver.cli.config_keys import (
    is_count,
    is_list,
    is_switch,
    job_commands,
    keys_of,
    long_option,
)
from archiver.cli.options import command, config_option
from archiver.cli.params import Word
from archiver.errors import UsageError

if TYPE_CHECKING:
    from archiver.cli.config_file import Config
    from archiver.cli.config_jobs import Job
    from archiver.cli.config_values import Value


@command("config")
@click.argument("action", metavar="check|show|schema", type=Word(["check", "show", "schema"]))
@click.argument("names", metavar="[JOB]...", nargs=-1)
@config_option
@click.pass_context
def config(ctx: click.Context, action: str, names: tuple[str, ...], config: Path) -> None:
    """Check archiver.toml, show what its jobs run, or print its JSON Schema.

    check prints every mistake, one per line. show prints the command of each JOB (default: all),
    and where each value comes from.

    \b
    Examples:
      archiver config check --config ./archiver.toml
      archiver config show nightly
      archiver config schema > archiver.schema.json
    """
    if names and action != "show":
        raise click.UsageError(f"config {action} takes no JOB")
    if action == "schema":
        from archiver.cli.config_schema import schema

        click.echo(json.dumps(schema(job_commands(ctx)), indent=2))
        return
    found = read_or_exit(config, ctx)
    if action == "check":
        streams.show(f"{found.path}: no mistakes; jobs: {', '.join(found.jobs) or 'none'}")
        return
    commands = job_commands(ctx)
    try:
        jobs = [found.job(name) for name in names or found.jobs]
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    for job in jobs:
        streams.show(*_shown(job, commands[job.command], found.path))


def read_or_exit(path: Path, ctx: click.Context) -> "Config":
    """The file, or an exit after a line for each mistake in it."""
    from archiver.cli.config_file import read
    from archiver.cli.config_tables import BadConfig

    try:
        return read(path, job_commands(ctx))
    except BadConfig as error:
        for mistake in error.mistakes:
            click.echo(f"archiver: {streams.safe(str(mistake))}", err=True)
        sys.exit(error.exit_code)
    except UsageError as error:
        raise click.UsageError(str(error)) from None


def _shown(job: "Job", command: click.Command, path: Path) -> list[str]:
    """The command of a job as it would be typed, and a line for each value."""
    words, lines = ["archiver", job.command], list[str]()
    for key, param in keys_of(command).items():
        variable = str(param.envvar or "")
        if os.environ.get(variable):
            lines.append(f"  {key}: from {variable} in the environment")  # it may be a secret
        elif key in job.settings:
            setting = job.settings[key]
            typed = words_of(param, setting.value)
            words += typed
            where = f"{path}:{setting.line} [{setting.table}]"
            lines.append(f"  {key}: {shlex.join(typed) or 'default'}  ({where})")
    return [f"{job.name}: {shlex.join(words)}", *lines]


def words_of(param: click.Parameter, value: "Value") -> list[str]:
    """The words that set a parameter on the command line."""
    if isinstance(param, click.Argument):
        return [str(one) for one in (value if isinstance(value, tuple) else (value,))]
    name = long_option(param)
    if is_switch(param):
        return [name] if value else param.secondary_opts[:1]
    if is_count(param):
        return [name] * int(str(value))
    values = value if is_list(param) and isinstance(value, tuple) else (value,)
    return [
        word
        for one in map(str, values)
        for word in ([f"{name}={one}"] if one.startswith("-") else [name, one])
    ]
