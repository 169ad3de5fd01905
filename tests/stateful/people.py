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
        f"{one.instance}/{one.started:%Y/%m}/"
        + (one.stem if one.is_standard else f"{one.started:%Y%m%dT%H%M%SZ}-{one.job}"): one
        for one in backups
    }
    moved = False
    for path in sorted(root.glob("*/*/*/*")):
        if path.name in (layout.INDEX_NAME, SUMS):
            continue
        key = path.relative_to(root).as_posix()
        of_standard = fitting.get(key.rpartition(".")[0])
        one = of_standard or fitting.get(key)
        if one is None or one.is_standard != (one is of_standard):
            _remove(path)
            moved = True
        elif one.is_standard:
            _tidy(path)
        else:
            _tidy_set(path, {other.stem for other in backups if other.job == one.job})
    for sums in root.glob(f"*/*/*/{SUMS}"):
        if sums.is_file() and not sums.is_symlink():
            _drop_unknown(sums, _names(sums.parent.relative_to(root).as_posix(), backups))
    return moved


def _names(month: str, backups: Sequence[Backup]) -> set[str]:
    """What SHA256SUMS of a month may name, without suffixes: a cluster's set has its name from any
    of its nodes."""
    found = set[str]()
    for one in backups:
        starts = {other.started for other in backups if other.job == one.job}
        for start in starts:
            if f"{one.instance}/{start:%Y/%m}" == month:
                name = f"{start:%Y%m%dT%H%M%SZ}-{one.job}/{one.stem}"
                found.add(one.stem if one.is_standard else name)
    return found


def forget_results(root: Path) -> None:
    """What was verified, where something is gone on purpose."""
    shutil.rmtree(root / "verified", ignore_errors=True)


def _tidy_set(folder: Path, stems: set[str]) -> None:
    """Take out foreign files, and what :func:`_tidy` does."""
    for path in folder.iterdir():
        if path.stem in stems:
            _tidy(path)
        else:
            _remove(path)


def _tidy(path: Path) -> None:
    """Take out a link, a folder or a pipe in the place of an object. Those in the place of
    documents are for a repair."""
    if not (path.is_file() and not path.is_symlink()) and path.suffix != ".json":
        _remove(path)


def _drop_unknown(sums: Path, known: set[str]) -> None:
    """Lines that name what never was: a repair never removes a name. One of which nothing can be
    read goes whole: nobody but a person knows that it named no others."""
    lines = sums.read_bytes().splitlines(keepends=True)
    stems = {stem.encode() for stem in known}
    kept = [
        line
        for line in lines
        if line[66:].rpartition(b".")[0] in stems or len(line) < _SHORTEST_LINE
    ]
    if not any(line[64:66] == b"  " for line in kept):
        sums.unlink()
    elif kept != lines:
        sums.write_bytes(b"".join(kept))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
