"""``archiver completion``."""

import os
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from archiver.cli.options import command
from archiver.cli.params import Word

_SHELLS: Final = ("bash", "zsh", "fish")


@command("completion")
@click.argument("shell", metavar="SHELL|install", type=Word([*_SHELLS, "install"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL (bash, zsh or fish), or install it.

    With install, the script is written to where the user's own shell ($SHELL) looks for it.

    \b
    Examples:
      archiver completion install
      archiver completion bash > ~/.archiver-completion; . ~/.archiver-completion
    """
    if shell != "install":
        click.echo(_script(ctx, shell))
        return
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in _SHELLS:
        raise click.UsageError(
            f"install: SHELL in the environment is none of {', '.join(_SHELLS)}; "
            "write what archiver completion SHELL prints to where it looks"
        )
    try:
        _install(shell, f"{_script(ctx, shell)}\n")
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        raise click.UsageError(f"install: {error}") from None


def _script(ctx: click.Context, shell: str) -> str:
    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise click.UsageError(f"no completion for {shell}")
    return shell_class(ctx.find_root().command, {}, "archiver", "_ARCHIVER_COMPLETE").source()


def _install(shell: str, script: str) -> None:
    """Write the script and say where, unless it is there. Raises OSError, RuntimeError."""
    place = _place(shell)
    if place.exists() and place.read_text(encoding="utf-8") == script:
        click.echo(f"{place} is up to date")
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(script, encoding="utf-8")
        click.echo(f"wrote {place}; new shells use it")
    if shell == "zsh":
        click.echo(f"needed in ~/.zshrc before compinit: fpath=({place.parent} $fpath)")


def _place(shell: str) -> Path:
    """The file that the shell reads at the first completion. Raises RuntimeError."""
    home = Path.home()
    if shell == "bash":
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
        return data / "bash-completion/completions/archiver"
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return config / "fish/completions/archiver.fish"
    return home / ".zfunc/_archiver"
