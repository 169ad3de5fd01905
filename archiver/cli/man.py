"""``archiver man``: manual pages, from what ``--help`` shows."""

from collections.abc import Iterator
from pathlib import Path

import click

from archiver.cli.options import command, option
from archiver.cli.params import CleanPath
from archiver.version import __version__


@command("man")
@option(
    "--to",
    "folder",
    type=CleanPath(),
    required=True,
    metavar="DIR",
    help="Directory for the pages; it is created.",
)
@click.pass_context
def man(ctx: click.Context, folder: Path) -> None:
    """Write a manual page for archiver and one for each command, from what --help shows.

    \b
    Examples:
      archiver man --to ~/.local/share/man/man1
      man archiver-pull
    """
    root = ctx.find_root()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages(root).items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"--to: {folder}: {error.strerror}") from None


def pages(root: click.Context) -> dict[str, str]:
    """The pages by their file names."""
    group = root.command
    found = {"archiver.1": _page(group, click.Context(group, info_name="archiver"))}
    if isinstance(group, click.Group):
        for name in group.list_commands(root):
            one = group.get_command(root, name)
            if one is not None:
                ctx = click.Context(one, info_name=name, parent=root)
                found[f"archiver-{name}.1"] = _page(one, ctx)
    return found


def _page(one: click.Command, ctx: click.Context) -> str:
    title = "archiver" if ctx.parent is None else f"archiver-{ctx.info_name}"
    help_ = (one.help or "").replace("\r", "")
    first, _, rest = help_.partition("\n\n")
    usage = " ".join(one.collect_usage_pieces(ctx))
    lines = [
        f'.TH "{title.upper()}" "1" "" "archiver {__version__}" "archiver"',
        ".SH NAME",
        f"{_escaped(title)} \\- {_escaped(' '.join(first.split()))}",
        ".SH SYNOPSIS",
        f".B {_escaped(title.replace('-', ' ', 1))}",
        _escaped(usage),
        *((".SH DESCRIPTION", *_paragraphs(rest)) if rest else ()),
        ".SH OPTIONS",
        *_definitions(
            record
            for param in one.get_params(ctx)
            if (record := param.get_help_record(ctx)) is not None
        ),
    ]
    if isinstance(one, click.Group):
        rows = ((name, one.get_command(ctx, name)) for name in one.list_commands(ctx))
        lines += [".SH COMMANDS"]
        lines += _definitions(
            (f"archiver-{name}(1)", made.get_short_help_str(300)) for name, made in rows if made
        )
    if one.epilog:
        lines += [".SH ENVIRONMENT", _escaped(one.epilog)]
    return "\n".join(lines) + "\n"


def _definitions(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield ".TP"
        yield f"\\fB{_escaped(term)}\\fR"
        yield _escaped(" ".join(text.split()))


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a help text; one that begins with click's mark keeps its lines."""
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        yield ".PP"
        if lines and lines[0].strip() == "\b":
            yield ".nf"
            yield from (_escaped(line) for line in lines[1:])
            yield ".fi"
        else:
            yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Text that roff prints as it is, hyphens too."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text
