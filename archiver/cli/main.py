"""The group of commands. Each is imported when it is used, so that ``--version`` is quick."""

import importlib
from typing import Any, Final

import click

from archiver.cli import streams
from archiver.errors import EXIT_INTERRUPTED, UsageError
from archiver.version import __version__

# name → module that holds a click command of that name
_COMMANDS: Final = {
    "pull": "archiver.cli.pull",
    "ls": "archiver.cli.ls",
    "copy": "archiver.cli.copy",
    "uploads": "archiver.cli.uploads",
    "verify": "archiver.cli.verify",
    "ack": "archiver.cli.ack",
    "restore": "archiver.cli.restore",
    "drill": "archiver.cli.drill",
    "emulate": "archiver.cli.emulate",
    "completion": "archiver.cli.completion",
}
_SUMMARIES: Final = {
    "pull": "Bring home every backup that the archive does not hold.",
    "ls": "List backups: what the vendor has, what the archive holds.",
    "copy": "Copy an archive to another place, or say how the two differ.",
    "uploads": "List, or end, what was begun to be uploaded to a bucket and never ended.",
    "verify": "Read back what an archive holds, and say what is wrong; repair it.",
    "ack": "Take note of a night that failed for good, so that it is no failure any more.",
    "restore": "Lay a backup set out for redis-server, and say how to start it.",
    "drill": "Prove that backups restore: load them into throwaway servers, and count.",
    "emulate": "Serve a directory of files as the vendor would, for rehearsals.",
    "completion": "Print the completion script for a shell.",
}


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
            click.echo(f"{ctx.get_help()}\n\narchiver: no command is given", err=True)
            raise SystemExit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while modules were imported: then signals are not caught yet
            click.echo("archiver: interrupted; nothing was begun", err=True)
            raise SystemExit(EXIT_INTERRUPTED) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="archiver")
def main() -> None:
    """Bring every Redis/Tair backup home from Alibaba Cloud, provably intact."""
