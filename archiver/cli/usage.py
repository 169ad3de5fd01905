"""Usage errors in one line, in the same words whether click or a command finds them."""

from collections.abc import Iterable
from difflib import get_close_matches

import click


def nearest(word: str, words: Iterable[str]) -> str:
    """``; did you mean pull?`` if one of ``words`` begins like ``word`` or is spelt much like it;
    otherwise empty."""
    word, words = word.casefold(), list(words)
    near = [one for one in words if word and (one.startswith(word) or word.startswith(one))]
    near = near or get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def text(error: click.UsageError) -> str:
    """The error in one line, which names the option or argument."""
    match error:
        case click.MissingParameter(param=click.Parameter() as param, ctx=click.Context() as ctx):
            shown = param.make_metavar(ctx)
            shown = shown if param.param_type_name == "argument" else f"{param.opts[-1]} {shown}"
            what = f"missing {param.param_type_name}: {shown}"
        case click.BadParameter(param=click.Parameter() as param):
            name = param.get_error_hint(error.ctx).strip("'")  # click quotes arguments
            return f"{name}: {error.message}".replace("\n", " ")
        case click.NoSuchOption():
            near = error.possibilities
            what = f"no such option: {error.option_name}"
            what += f"; did you mean {near[0]}?" if near else ""
        case (
            _
        ):  # a sentence of click's, such as "Option '--to' requires an argument.", or our words
            message = error.message.rstrip(".")
            if isinstance(error, click.BadOptionUsage):
                message = message.replace("'", "")
            return message if message[:2].isupper() else message[:1].lower() + message[1:]
    return what if error.ctx is None else f"{what} (see {error.ctx.command_path} --help)"
