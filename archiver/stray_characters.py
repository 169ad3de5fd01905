"""What shells, editors and files of variables leave around a value, or in it."""

import unicodedata
from collections.abc import Mapping

from archiver.errors import UsageError

# What people and shells put around a value, and what a value never begins or ends with.
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"


def flaw(text: str, *, quotes_at_end: bool = False, separators: str = "") -> str | None:
    """What is wrong with a path, or a value from a file of variables, that a shell or an editor
    has left around it or in it; None when nothing is. It quotes no more than one control character.

    ``quotes_at_end``: it may end with a quote. ``separators`` may stand between several values.
    """
    if "\r" in text:
        return "it has a carriage return in it, as a file from Windows does"
    if text != text.strip() or text[:1] == "\ufeff" or text[-1:] == "\ufeff":
        return "there are blanks around it"
    if (text and text[0] in _QUOTES) or (text and text[-1] in _QUOTES and not quotes_at_end):
        return "there are quotes around it that no shell has taken off"
    odd = [char for char in text if unicodedata.category(char) == "Cc" and char not in separators]
    return f"it has the control character {odd[0]!a} in it" if odd else None


def flaw_of_key(text: str) -> str | None:
    """What is wrong with a part of an access key; None when nothing is."""
    if (wrong := flaw(text)) is not None:
        return wrong
    if not text:
        return "it is empty"
    is_possible = text.isascii() and text.isprintable() and " " not in text
    return None if is_possible else "it has blanks or other characters in it that none has"


def clean_variable(environ: Mapping[str, str], name: str) -> str | None:
    """What a variable is set to, None when it is unset or empty. Raises UsageError, which does not
    quote it."""
    value = environ.get(name) or None
    if value is not None and (wrong := flaw(value)) is not None:
        raise UsageError(f"{name} in the environment: {wrong}")
    return value
