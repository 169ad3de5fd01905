"""Command lines, parsed by the command line itself and not run."""

import re
import shlex
from typing import Any

import click

from archiver.cli.config_file import read
from archiver.cli.config_keys import job_commands
from archiver.cli.main import main
from tests.examples.conftest import EXAMPLES

_TOP = click.Context(main, info_name="archiver")


def names() -> list[str]:
    return main.list_commands(_TOP)


def command_of(name: str) -> click.Command:
    """Raises click.UsageError for a name that no command has."""
    command = main.get_command(_TOP, name)
    if command is None:
        raise click.UsageError(f"no command is called {name}")
    return command


def parsed(words: list[str]) -> click.Context:
    """What the command would be told. Raises click.UsageError."""
    name, *rest = words
    return command_of(name).make_context(name, list(rest), parent=_TOP)


def options_of(name: str) -> set[str]:
    command = command_of(name)
    declared = [(*param.opts, *param.secondary_opts) for param in command.params]
    return {one for names in declared for one in names} | {"-h", "--help"}


def writes_to(context: click.Context) -> set[str]:
    """The directories that a command writes to: not buckets."""
    given: dict[str, Any] = context.params
    if context.info_name == "run":
        return {place for job in jobs_of(context) for place in writes_to(job)}
    named = {
        "pull": [given.get("place")],
        "copy": [given.get("place")],
        "verify": [given.get("place")],
        "drill": [given.get("place"), given.get("directory"), given.get("scratch")],
    }[context.info_name or ""]
    return {str(place) for place in named if place and not str(place).startswith("s3://")}


def jobs_of(context: click.Context) -> list[click.Context]:
    """What the commands of the example's jobs, which a run names, would be told."""
    config = read(EXAMPLES / "archiver.toml", job_commands(_TOP))
    found = []
    for job in map(config.job, context.params["names"]):
        command = command_of(job.command)
        defaults = job.defaults(command)
        found.append(command.make_context(job.command, [], parent=_TOP, default_map=defaults))
    return found


def lines_of(text: str) -> list[list[str]]:
    """The words of every ``archiver …`` that a piece of shell or of a page runs.

    Lines that end with a backslash go on; what a shell takes for itself ends a command.
    """
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();|&<>")
        lexer.whitespace_split = True
        words = list(lexer)
        for at, word in enumerate(words):
            is_first = at == 0 or words[at - 1] in {"exec", "&&", ";", "||", "|", "$"}
            if word == "archiver" and is_first:
                rest = words[at + 1 :]
                ends = [n for n, one in enumerate(rest) if set(one) <= set("();|&<>")]
                found.append(rest[: ends[0]] if ends else rest)
    return found
