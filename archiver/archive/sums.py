"""SHA256SUMS, as ``sha256sum`` writes and reads it. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from archiver.documents import is_name

# A name with a backslash or a line's end in it has another form, and no file of an archive has one.
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\n]+)")
# Of damaged lines: one that ends before its name; and a name such as backups' files have.
_CUT = re.compile(r"[0-9a-f]{4,64} ?[ *]?")
_LIKE_A_NAME = re.compile(r"[A-Za-z0-9][\w.-]*-\w[\w-]*(\.\w*)?")
_FEW_BYTES: Final = 8
_LEAST_LEFT: Final = 4
_LIKE: Final = 0.6


def parse_sums(data: bytes) -> dict[str, str] | None:
    """The SHA-256 by file name of a SHA256SUMS; None when it is none, or names a file twice."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        return None
    if lines[-1] == "":
        lines.pop()
    found: dict[str, str] = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or not is_name(match[2]) or match[2] in found:
            return None
        found[match[2]] = match[1]
    return found or None


@dataclass(frozen=True, slots=True)
class Salvage:
    """What can be read of a SHA256SUMS: by file name the SHA-256 it gives, several where it names
    a file twice; and the lines that cannot be. ``is_empty``: it says nothing at all."""

    sums: Mapping[str, frozenset[str]]
    unreadable: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.sums and not self.unreadable


def salvage_sums(data: bytes) -> Salvage:
    """All of one that nobody damaged, what can be read of another. A line of zero bytes, as a
    power cut leaves it, is none."""
    found: dict[str, frozenset[str]] = {}
    unreadable: list[str] = []
    for line in data.decode("ascii", "replace").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            unreadable += [line] if line.strip("\0 \t\r") else []
        else:
            found[match[2]] = found.get(match[2], frozenset()) | {match[1]}
    return Salvage(found, tuple(unreadable))


def unexplained(lines: Iterable[str], unnamed: Mapping[str, str]) -> list[str]:
    """Of damaged lines, those that are not what is left of the line of one of the ``unnamed``
    files, each given with its SHA-256: they may name a file that is not here."""
    left, own = list[str](), {_line(name, sha256): name for name, sha256 in unnamed.items()}
    for line in lines:
        rest = line
        for whole in [one for one in own if one in rest]:  # the end of a line may be damaged
            rest = rest.replace(whole, "", 1)
            del own[whole]
        if rest != line and len(rest.strip()) <= 1:
            continue
        whole_line = next((one for one in own if _is_left_of(rest, one, own[one])), None)
        if whole_line is None:
            left.append(rest)
        else:
            del own[whole_line]
    return left


def may_name_a_file(line: str, names: Collection[str]) -> bool:
    """Whether a damaged line is like those of a set whose files have such ``names``."""
    if _CUT.fullmatch(line):
        return True
    name = _name_in(line)
    return _LIKE_A_NAME.fullmatch(name) is not None or any(
        known.startswith(name) or SequenceMatcher(None, name, known).ratio() >= _LIKE
        for known in names
    )


def _is_left_of(line: str, whole: str, name: str) -> bool:
    """Whether ``line`` was ``whole``, the line of ``name``: a few bytes are other ones, its end is
    cut off, or its name or its SHA-256 is as it was. Lines of other files differ in far more."""
    if len(line) == len(whole):
        wrong = sum(one != other for one, other in zip(line, whole, strict=True))
        if wrong <= _FEW_BYTES:
            return True
    if len(line) >= _LEAST_LEFT and whole.startswith(line):
        return True
    said = _name_in(line)
    if said == name:
        return True
    return whole[:64] == line[:64] and _LIKE_A_NAME.fullmatch(said) is None


def _name_in(line: str) -> str:
    return re.split(r"[ *]+", line)[-1]


def format_sums(sums: Mapping[str, str]) -> bytes:
    """What ``sha256sum -c`` reads."""
    return "".join(f"{_line(name, sums[name])}\n" for name in sorted(sums)).encode()


def _line(name: str, sha256: str) -> str:
    return f"{sha256}  {name}"
