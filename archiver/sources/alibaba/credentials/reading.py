"""Small text files, read without blocking the event loop."""

from pathlib import Path

import aiofiles

from archiver.errors import UsageError


async def read_text(path: Path | None) -> str | None:
    """The text of a file, None when there is none. Raises UsageError when it cannot be read."""
    if path is None:
        return None
    try:
        # An editor on Windows puts a mark before the text, which no parser wants.
        async with aiofiles.open(path, encoding="utf-8-sig") as file:
            return str(await file.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        why = type(error).__name__
    # Not raised in the handler: a decoding error carries the bytes of the file with it.
    raise UsageError(f"{path} cannot be read ({why})")
