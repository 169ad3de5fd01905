"""SHA256SUMS, as ``sha256sum`` writes and reads it. Pure."""

import re
from collections.abc import Mapping

_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\n]+)")


def parse_sums(data: bytes) -> dict[str, str] | None:
    """The SHA-256 by file name of a SHA256SUMS; None when it is none."""
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError:
        return None
    matches = [_LINE.fullmatch(line) for line in lines]
    if not lines or not all(matches):
        return None
    return {match[2]: match[1] for match in matches if match}


def readable_sums(data: bytes) -> dict[str, str]:
    """Those lines of a SHA256SUMS that can be read; all of one that nobody damaged."""
    lines = data.decode("ascii", "replace").splitlines()
    return {match[2]: match[1] for line in lines if (match := _LINE.fullmatch(line))}


def format_sums(sums: Mapping[str, str]) -> bytes:
    """What ``sha256sum -c`` reads."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
