"""The command group. Commands are imported when used, so that ``--version`` is quick."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, Final

import click

from archiver.cli import streams, usage
from archiver.errors import EXIT_INTERRUPTED, UsageError
from archiver.version import __version__

# By purpose: each command with its summary, in a module with a click command of its name.
_SECTIONS: Final = {
    "Get backups in": {
        "pull": "Download backups that are not in the archive yet.",
        "backup": "Have the vendor make backups now, wait for them, and download them.",
        "adopt": "Take dumps and logs from a directory or bucket into the archive.",
        "copy": "Copy an archive, or show how two archives differ.",
    },
    "Look and check": {
        "status": "Show which backups were expected, what came, and what is wrong.",
        "ls": "List the backups in an archive, at the vendor, or both.",
        "instances": "List instances, and which backups the vendor makes of them.",
        "verify": "Check every file in an archive, and optionally repair it.",
    },
    "Recover": {
        "restore": "Restore a backup set to a directory and print the start commands.",
        "drill": "Prove that backups restore: load them into throwaway servers.",
    },
    "Operate": {
        "run": "Run jobs of archiver.toml, one after the other.",
        "config": "Check archiver.toml, show what its jobs run, or print its JSON Schema.",
        "ack": "Acknowledge a backup that failed for good.",
        "uploads": "List or abort unfinished multipart uploads.",
        "doctor": "Check what a pull and a drill need, and say what to do.",
        "emulate": "Serve a directory as the vendor's API and object store would.",
        "completion": "Install the completion for a shell, or print its script.",
        "man": "Write the manual pages.",
    },
}
_COMMANDS: Final = [name for section in _SECTIONS.values() for name in section]
_MODULES: Final = {"run": "run_jobs"}


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Exit on a usage error, after one line about it."""
    try:
        yield
    except click.UsageError as error:
        click.echo(f"archiver: {usage.text(error)}", err=True)
        raise SystemExit(error.exit_code) from None


class _Commands(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        streams.guard()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if not isinstance(end.code, int):
                raise
            raise SystemExit(streams.ended_with(end.code)) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(f"{ctx.get_help()}\n\narchiver: missing command", err=True)
            raise SystemExit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _refusing():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _refusing():
                return super().invoke(ctx)
        except KeyboardInterrupt:  # while importing modules: signals are not handled yet
            click.echo("archiver: interrupted; nothing was started", err=True)
            raise SystemExit(EXIT_INTERRUPTED) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and not (ctx.resilient_parsing or args[0].startswith("-")):
            near = usage.nearest(args[0], _COMMANDS)
            raise click.UsageError(f"no such command: {args[0]}{near} (see archiver --help)")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = f"archiver.cli.{_MODULES.get(cmd_name, cmd_name)}"
        command = getattr(importlib.import_module(module), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, _COMMANDS))
        for purpose, commands in _SECTIONS.items():
            with formatter.section(purpose):
                formatter.write_dl([(f"{name:{widest}}", what) for name, what in commands.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="archiver")
def main() -> None:
    """Back up Redis and Tair of Alibaba Cloud, verify the backups, and prove that they restore."""
