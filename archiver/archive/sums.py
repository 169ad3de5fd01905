"""SHA256SUMS, as ``sha256sum`` writes and reads it, with the names of a month's files: ``<file>``,
or ``<set>/<file>``. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from archiver.documents import is_name
from archiver.model import Kind

# sha256sum writes names with backslashes or line breaks differently; no file of an archive has one.
_LINE = re.compile(r"([0-9a-f]{64}) [ *]((?:[^/\\\n]+/)?[^/\\\n]+)")
# What a line has beside the name: the SHA-256, two spaces and the line's end.
LINE_BYTES: Final = 67
# Of damaged lines: one that ends before its name; and a name such as backups' files have.
_CUT = re.compile(r"[0-9a-f]{4,64} ?[ *]?")
_LIKE_A_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*-\w[\w-]*(\.\w*)?")
_FEW_BYTES: Final = 8
_FEWEST_OF_A_LINE: Final = 60
_SUFFIXES: Final = tuple(f".{kind}" for kind in Kind)
_ZEROS: Final = re.compile(rf"\0{{{_FEW_BYTES + 1},}}")
_LEAST_LEFT: Final = 4
_LEAST_END: Final = 9  # more than a suffix, which all have
_LIKE: Final = 0.6
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME_AT: Final = 66  # where the name begins in a line
_LEAST_BEGUN: Final = 32
_PIECE: Final = 7  # of nine in the 64 digits of a SHA-256
_MOST_SEARCHES: Final = 5000
_MOST_NAMES: Final = 2000  # with which a damaged name is compared
_AND: Final = " and "
# A damaged line in which a set's name can be read: its folder's, or its one file's.
_OF_A_SET: Final = re.compile(r".{0,66}?([0-9]{8}T[0-9]{6}Z-[\w.-]+?)(?:/[^/.]*)?(?:\.[^/.]{0,4})?")


def as_one(hashes: Collection[str]) -> str:
    """What SHA256SUMS says of one file: its SHA-256. Several are joined to a text that equals none,
    so that it contradicts whatever is compared with it."""
    return _AND.join(sorted(hashes))


def given_by(said: str) -> list[str]:
    """The SHA-256 that :func:`as_one` joined."""
    return said.split(_AND)


def parse_sums(data: bytes) -> dict[str, str] | None:
    """The SHA-256 by file name of a SHA256SUMS; None when it cannot be read, names a file twice, or
    has lost its end."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return None
    if lines.pop() != "":
        return None
    found: dict[str, str] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or not _is_path(match[2]) or match[2] in found:
            return None
        found[match[2]] = match[1]
    return found or None


def _is_path(text: str) -> bool:
    return all(map(is_name, text.split("/")))


@dataclass(frozen=True, slots=True)
class Salvage:
    """What can be read of a SHA256SUMS: by file name the SHA-256, several where it names a file
    twice; and the lines that cannot be read. A power cut leaves zeros where lines were: a run of
    them is one line."""

    sums: Mapping[str, frozenset[str]]
    unreadable: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing at all, or too little to know what it named."""
        return not self.sums and sum(map(len, self.unreadable)) < _FEWEST_OF_A_LINE


@dataclass(frozen=True, slots=True)
class Unexplained:
    """Damaged ``lines`` that may name a file that is not here; and the ``room`` that is left for
    noise: the bytes of lines that should be there, and of which nothing is."""

    lines: tuple[str, ...]
    room: int

    def without_noise(self, names: Collection[str]) -> list[str]:
        """Those that look like a line of a month whose files have such ``names``. Others are noise;
        they count as lines where they have more bytes than what is missing."""
        left, noise = list[str](), list[str]()
        for line in self.lines:
            if _may_name_a_file(line, names):
                left.append(line)
            elif not _LINE.fullmatch(line):
                noise.append(line)
        is_little = sum(len(line) + 1 for line in noise) < self.room + _FEWEST_OF_A_LINE
        return left if is_little else [*left, *noise]


def salvage_sums(data: bytes) -> Salvage:
    """What can be read of a SHA256SUMS."""
    found: dict[str, frozenset[str]] = {}
    unreadable: list[str] = []
    text = _ZEROS.sub(r"\n\g<0>\n", data.decode("ascii", "replace"))
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        if match is not None and _is_path(match[2]):
            found[match[2]] = found.get(match[2], frozenset()) | {match[1]}
        elif line.strip("\0 \t\r") or _ZEROS.fullmatch(line):
            unreadable.append(line)
    return Salvage(found, tuple(unreadable))


def unexplained(
    lines: Iterable[str],
    unnamed: Mapping[str, str],
    named: Mapping[str, str] | None = None,
    new: Collection[str] = (),
) -> Unexplained:
    """The damaged lines that are not the rest of a line of one of the ``unnamed`` files, each given
    with its SHA-256, nor a part of a line of the ``named``, beside the whole one. Files that are
    ``new`` need not have had a line."""
    left, own, whole_ones = list[str](), _Lines(unnamed), _Lines(named or {})
    room = {one: len(one) + 1 for one, name in own.names.items() if name not in new}
    for line in lines:
        rest = line
        for whole in own.within(line):  # the end of a line may be damaged
            rest = rest.replace(whole, "", 1)
            room.pop(whole, None)
            own.drop(whole)
        if rest != line and len(rest.strip()) <= 1:
            continue
        whole_line = own.left_as(rest)
        if whole_line is not None:
            if whole_line in room:
                room[whole_line] -= len(rest)
            own.drop(whole_line)
        elif not whole_ones.has_begun(rest):
            left.append(rest)
    return Unexplained(tuple(left), max(sum(room.values()), 0))


class DamagedLines:
    """Damaged lines of a month, by the name of the set that can be read in them: a month may have
    ten thousand, and as many files that are asked about."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._by_set: Final[dict[str, list[str]]] = {}
        for line in lines:
            match = _OF_A_SET.fullmatch(line)
            self._by_set.setdefault("" if match is None else match[1], []).append(line)

    def may_name(self, set_name: str, others: Collection[str]) -> bool:
        """Whether one may be that of a file in the folder of this name. It is not when it has the
        name of one of the ``others``, which lie beside it, and no more than one line has; nor when
        it is whole, and the name in it differs in more than a few characters."""
        return any(
            _may_be_of(line, set_name, others)
            for name, lines in self._by_set.items()
            if name == set_name or name not in others
            for line in lines
        )


def _may_be_of(line: str, set_name: str, others: Collection[str]) -> bool:
    match = _LINE.fullmatch(line)
    if match is None:
        return True
    begins = match[2][: len(set_name)]
    is_of_other = begins != set_name and begins in others
    return not is_of_other and (set_name.startswith(begins) or _is_nearly(begins, set_name))


def recognized(lines: Iterable[str], unnamed: Mapping[str, str]) -> set[str]:
    """The ``unnamed`` files, each given with its SHA-256, whose lines are here except for a few
    bytes: the rest of the line confirms that SHA-256."""
    own = _Lines(unnamed)
    return {own.names[whole] for line in lines for whole in own.nearly(line)}


class _Lines:
    """The whole lines of files, to find the one that a damaged line was: a month may have ten
    thousand, and as many damaged ones. ``names`` are the names of the files, by line."""

    def __init__(self, sums: Mapping[str, str]) -> None:
        self.names: Final = {_line(name, sha256): name for name, sha256 in sums.items()}
        self._by_name: Final = {name: line for line, name in self.names.items()}
        self._by_piece: Final[dict[tuple[int, str], list[str]]] = {}
        for line in self.names:
            for piece in _pieces(line):
                self._by_piece.setdefault(piece, []).append(line)
        self._searches = 0

    def drop(self, line: str) -> None:
        """Search for a line no more: it was found."""
        self._by_name.pop(self.names.pop(line), None)

    def within(self, line: str) -> list[str]:
        """Those that are whole within a damaged line."""
        hashes = {match[0] for match in _SHA256.finditer(line)}
        found = [one for sha256 in hashes for one in self._by_piece.get(_pieces(sha256)[0], ())]
        return [one for one in dict.fromkeys(found) if one in self.names and one in line]

    def nearly(self, line: str) -> list[str]:
        """Those that differ from a line in few bytes: a piece of the SHA-256, of nine, is right."""
        found = [one for piece in _pieces(line) for one in self._by_piece.get(piece, ())]
        return [one for one in dict.fromkeys(found) if one in self.names and _is_nearly(line, one)]

    def left_as(self, line: str) -> str | None:
        """The line that this was: a few bytes differ, only its beginning or end is left, or its
        name or its SHA-256 is right. Lines of other files differ in far more. After some thousand
        searches none is found any more."""
        found = self.nearly(line) or self._named_as(line)
        if found or self._searches >= _MOST_SEARCHES:
            return found[0] if found else None
        self._searches += 1
        is_begin, is_end = len(line) >= _LEAST_LEFT, len(line) >= _LEAST_END
        found = [
            one
            for one in self.names
            if (is_begin and one.startswith(line)) or (is_end and one.endswith(line))
        ]
        return found[0] if found else None

    def has_begun(self, line: str) -> bool:
        """Whether a line is the first part of one of these, at least half of its SHA-256. A few
        bytes of that may differ, and the suffix of the name."""
        begun = line.rstrip()
        found = [one for piece in _pieces(begun) for one in self._by_piece.get(piece, ())]
        name = begun[_NAME_AT:]
        return len(begun) >= _LEAST_BEGUN and any(
            _differ(begun[:_NAME_AT], one) <= _FEW_BYTES
            and (one.startswith(name, _NAME_AT) or name.startswith(_without_suffix(one)))
            for one in found
        )

    def _named_as(self, line: str) -> list[str]:
        """The line with the same name, or those with the same SHA-256 where no name is left."""
        name = _name_in(line)
        if (named := self._by_name.get(name)) is not None:
            return [named]
        if _LIKE_A_NAME.fullmatch(name) is not None:
            return []
        same = self._by_piece.get((0, line[:_PIECE]), ())
        return [one for one in same if one in self.names and one[:64] == line[:64]]


def _pieces(line: str) -> list[tuple[int, str]]:
    """Nine pieces of the SHA-256 at the beginning of a line, each with its place."""
    return [(at, line[at : at + _PIECE]) for at in range(0, 9 * _PIECE, _PIECE)]


def _is_nearly(line: str, whole: str) -> bool:
    if len(line) != len(whole):
        return False
    return _differ(line, whole) <= _FEW_BYTES


def _differ(begun: str, whole: str) -> int:
    """How many characters of a line differ from those of another one, which may be longer."""
    return sum(one != other for one, other in zip(begun, whole, strict=False))


def _without_suffix(line: str) -> str:
    """The name in a whole line, up to the dot of its suffix."""
    return line[_NAME_AT:].rpartition(".")[0] + "."


def _may_name_a_file(line: str, names: Collection[str]) -> bool:
    """Whether a damaged line is like those of a month whose files have such ``names``."""
    if _ZEROS.fullmatch(line):
        return False
    if _CUT.fullmatch(line) or line.endswith(_SUFFIXES):
        return True
    name = _name_in(line)
    if _LIKE_A_NAME.fullmatch(name) is not None or len(names) > _MOST_NAMES:
        return True
    return any(
        known.startswith(name) or SequenceMatcher(None, name, known).ratio() >= _LIKE
        for known in names
    )


def _name_in(line: str) -> str:
    return re.split(r"[ *]+", line)[-1]


def format_sums(sums: Mapping[str, str]) -> bytes:
    """What ``sha256sum -c`` reads."""
    return "".join(f"{_line(name, sums[name])}\n" for name in sorted(sums)).encode()


def _line(name: str, sha256: str) -> str:
    return f"{sha256}  {name}"
