"""Finds characters that shells, editors and env files leave around a value or in it."""

import unicodedata
from collections.abc import Mapping

from archiver.errors import UsageError

# Quotes that people and shells put around a value; no value begins or ends with one itself.
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"


def stray_characters_in(
    text: str, *, quotes_at_end: bool = False, separators: str = ""
) -> str | None:
    """Describe stray characters around or in a path or the value of a variable; None if there are
    none. The description quotes at most one control character.

    With ``quotes_at_end`` the text may end with a quote. ``separators`` are control characters
    that may stand between several values.
    """
    if "\r" in text:
        return "it contains a carriage return, as files from Windows do"
    if text != text.strip() or text[:1] == "\ufeff" or text[-1:] == "\ufeff":
        return "there are blanks around it"
    if (text and text[0] in _QUOTES) or (text and text[-1] in _QUOTES and not quotes_at_end):
        return "there are quotes around it, which no shell removed"
    odd = [char for char in text if unicodedata.category(char) == "Cc" and char not in separators]
    return f"it contains the control character {odd[0]!a}" if odd else None


def access_key_problem(text: str) -> str | None:
    """What is wrong with a part of an access key; None if it may be valid."""
    if (problem := stray_characters_in(text)) is not None:
        return problem
    if not text:
        return "it is empty"
    is_possible = text.isascii() and text.isprintable() and " " not in text
    return None if is_possible else "it contains blanks or characters that no access key has"


def clean_variable(environ: Mapping[str, str], name: str) -> str | None:
    """The value of a variable; None when it is unset or empty. Raises UsageError for stray
    characters, without quoting the value."""
    value = environ.get(name) or None
    if value is not None and (problem := stray_characters_in(value)) is not None:
        raise UsageError(f"{name} in the environment: {problem}")
    return value
