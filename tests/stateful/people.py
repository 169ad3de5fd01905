"""What a verify names and a repair leaves alone: a person puts it in order, as advised."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from archiver.archive import layout
from tests.stateful.disk import SUMS
from tests.stateful.truth import Backup

# Shorter lines of SHA256SUMS are none: 64 digits, two blanks, a name.
_SHORTEST_LINE = 68


def put_in_order(root: Path, backups: Sequence[Backup]) -> bool:
    """Take out of an archive what is no backup's; whether that was a whole set."""
    fitting = {
        f"{one.instance}/{one.started:%Y/%m/%Y%m%dT%H%M%SZ}-{one.job}": one for one in backups
    }
    moved = False
    for path in sorted(root.glob("*/*/*/*")):
        if path.name == layout.INDEX_NAME:
            continue
        one = fitting.get(path.relative_to(root).as_posix())
        if one is None:
            _remove(path)
            moved = True
        else:
            _tidy_set(path, {other.stem for other in backups if other.job == one.job})
    return moved


def forget_results(root: Path) -> None:
    """What was verified, where something is gone on purpose."""
    shutil.rmtree(root / "verified", ignore_errors=True)


def _tidy_set(folder: Path, stems: set[str]) -> None:
    """Take out foreign files, and links, folders and pipes in the place of objects. Those in the
    place of documents are for a repair."""
    for path in folder.iterdir():
        is_file = path.is_file() and not path.is_symlink()
        is_document = path.name == SUMS or path.suffix == ".json"
        if not (path.stem in stems or path.name == SUMS) or not (is_file or is_document):
            _remove(path)
        elif path.name == SUMS and is_file:
            _drop_unknown(path, stems)


def _drop_unknown(sums: Path, stems: set[str]) -> None:
    """Lines that name what never was: a repair never removes a name. One of which nothing can be
    read goes whole: nobody but a person knows that it named no others."""
    lines = sums.read_bytes().splitlines(keepends=True)
    if not any(line[64:66] == b"  " for line in lines):
        sums.unlink()
        return
    known = {stem.encode() for stem in stems}
    kept = [
        line
        for line in lines
        if line[66:].rpartition(b".")[0] in known or len(line) < _SHORTEST_LINE
    ]
    if kept and kept != lines:
        sums.write_bytes(b"".join(kept))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
