"""``archiver completion``."""

import click
from click.shell_completion import get_completion_class

from archiver.cli.options import command
from archiver.cli.params import Word


@command("completion")
@click.argument("shell", metavar="SHELL", type=Word(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Examples:
      archiver completion bash > ~/.archiver-completion; . ~/.archiver-completion
      archiver completion zsh > "${fpath[1]}/_archiver"
      archiver completion fish > ~/.config/fish/completions/archiver.fish
    """
    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise click.UsageError(f"no completion for {shell}")
    root = ctx.find_root()
    click.echo(shell_class(root.command, {}, "archiver", "_ARCHIVER_COMPLETE").source())
