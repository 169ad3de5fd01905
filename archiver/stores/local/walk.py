"""Lists the objects of a directory archive, and what hides some of them."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from archiver.errors import ArchiverError, IntegrityError, UnreadableObject
from archiver.ignored_names import is_listed
from archiver.model import Kind
from archiver.stores.base import Entry
from archiver.stores.local import reading
from archiver.stores.local.disk import version_of
from archiver.stores.local.layout import RECORD

# The folder of drill evidence. It holds no backups, and a drill reports a file in its place.
_EVIDENCE = "drills"
# The suffixes of files in an archive; no folder of a set has one of them.
_SUFFIXES = (RECORD, *(f".{kind}" for kind in Kind))
_FILES = ("/SHA256SUMS", "/index.jsonl", *_SUFFIXES)
_NO_SUFFIX = "".join(rf"(?<!{re.escape(suffix)})" for suffix in _SUFFIXES)
# A year, month or set below an instance: anything else than a folder there hides one.
_FOLDER = re.compile(
    r"(?!(drills|verified|acknowledged)/)[^/]+/[0-9]{4}"
    rf"(/[0-9]{{2}}(/[0-9]{{8}}T[0-9]{{6}}Z-[^/]+{_NO_SUFFIX})?)?"
)


def entries_below(root: Path, prefix: str) -> Iterator[Entry]:
    """The entries below a prefix (``""`` or ending in ``/``) of the archive in ``root``.

    Something other than a folder among those of the prefix hides what would be in it, just as it
    does in a listing of what is above: all listings agree. Blocks. Raises UnreadableObject and
    StoreError when nothing can be listed.
    """
    folder = root
    for name in prefix.split("/")[:-1]:
        folder /= name
        try:
            kind = reading.folder_obstacle(folder)
        except UnreadableObject:
            break  # reported below
        if kind is not None:
            key = folder.relative_to(root).as_posix()
            if kind == reading.LINK or not (key == _EVIDENCE or key.endswith(_FILES)):
                yield _hidden(key, _not_a_folder(folder, kind))
            return
    yield from _walk(str(folder), prefix)


def folders_at_top(root: Path) -> list[str]:
    """The names of the folders in ``root``, sorted, and of what may hide one. Blocks. Raises
    UnreadableObject, StoreError."""
    return [
        item.name
        for item in _items(str(root))
        if is_folder(item) or ((entry := _entry(item.name, item)) and entry.hides)
    ]


def _walk(folder: str, prefix: str) -> Iterator[Entry]:
    """Files first, then folders, each sorted by name and without litter.

    A folder with the name of a file counts as an entry that is not a file. One that cannot be read
    hides only what is in it.
    """
    try:
        items = _items(folder)
    except UnreadableObject as error:
        if not prefix:
            raise
        yield _hidden(prefix.removesuffix("/"), error)
        return
    folders = []
    for item in items:
        key = f"{prefix}{item.name}"
        if is_folder(item) and (not key.endswith(_FILES) or _FOLDER.fullmatch(key)):
            folders.append(item)
        elif (entry := _entry(key, item)) is not None:
            yield entry
    for below in folders:
        yield from _walk(below.path, f"{prefix}{below.name}/")


def _entry(key: str, item: os.DirEntry[str]) -> Entry | None:
    """The entry of an item; None when it was removed meanwhile."""
    try:
        status = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _unreadable(key, item.path, error)
    is_file = stat.S_ISREG(status.st_mode)
    if is_file and (key.endswith(_FILES) or not _FOLDER.fullmatch(key)):
        return Entry(key, status.st_size, version=version_of(status), modified=status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        return Entry(key, 0, is_file=False, what="a folder")
    kind = reading.kind_of(status.st_mode)
    is_link = stat.S_ISLNK(status.st_mode)
    if _FOLDER.fullmatch(key) or (is_link and not key.endswith(_FILES)):
        return _hidden(key, _not_a_folder(item.path, kind or "a file"))
    return Entry(key, status.st_size, is_file=False, what=kind or "a file")


def _unreadable(key: str, path: str, error: OSError) -> Entry:
    """The entry of an item that the file system does not describe. Raises StoreError for an error
    that concerns the others, too."""
    try:
        with reading.reading_errors(path):
            raise error
    except UnreadableObject as unreadable:
        return _hidden(key, unreadable)


def _hidden(key: str, error: ArchiverError) -> Entry:
    return Entry(key, 0, is_file=False, hides=error)


def _items(folder: str) -> list[os.DirEntry[str]]:
    """What a folder shows, sorted by name; nothing when it is not a folder. Raises
    UnreadableObject, StoreError."""
    with reading.reading_errors(folder):
        try:
            with os.scandir(folder) as listing:
                items = [item for item in listing if is_listed(item.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(items, key=lambda item: item.name)


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether an item is a folder, and no link to one; False if that cannot be seen."""
    try:
        return item.is_dir(follow_symlinks=False)
    except OSError:
        return False  # _entry reports why


def _not_a_folder(path: Path | str, kind: str) -> IntegrityError:
    if kind == reading.LINK:
        return IntegrityError(
            f"{path}: {kind} is in the place of a folder; links are not followed",
            hint="move the folder itself here, or mount it here (mount --bind)",
        )
    return IntegrityError(
        f"{path}: {kind} is in the place of a folder, whose contents are missing",
        hint="move it away, then repair from another archive or the source",
    )
