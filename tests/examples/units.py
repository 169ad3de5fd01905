"""Reads a unit file as systemd does: systemd.syntax(7), systemd.service(5), systemd.exec(5)."""

import re
from dataclasses import dataclass
from pathlib import Path

# What the examples may use. systemd itself only warns of what it does not know, and goes on.
KNOWN = {
    "Unit": {"Description", "Documentation", "After", "Wants", "OnFailure"},
    "Service": {
        "Type", "User", "Environment", "EnvironmentFile", "ExecStart", "SuccessExitStatus",
        "TimeoutStopSec", "NoNewPrivileges", "PrivateNetwork", "PrivateTmp", "ProtectHome",
        "ProtectSystem", "ReadWritePaths",
    },
    "Timer": {"OnCalendar", "RandomizedDelaySec", "Persistent"},
    "Install": {"WantedBy"},
}  # fmt: skip
_BOOLEANS = {"NoNewPrivileges", "PrivateNetwork", "PrivateTmp", "Persistent"}
_SECTION = re.compile(r"\[(\w+)\]")
_WORD = re.compile(r"""(?:[^\s"'\\]+|"(?:[^"\\]|\\.)*"|'[^']*'|\\.)+""")
_SPECIFIER = re.compile(r"%(.?)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\$))")


class BadUnit(ValueError):
    """systemd would refuse the unit, or ignore a part of it."""


@dataclass(frozen=True)
class Unit:
    """Every value of every key, in order, by section and key."""

    name: str
    values: dict[tuple[str, str], list[str]]

    def all(self, section: str, key: str) -> list[str]:
        return self.values.get((section, key), [])

    def one(self, section: str, key: str) -> str:
        [value] = self.all(section, key)
        return value

    def environ(self) -> dict[str, str]:
        """What ``Environment=`` says."""
        words = [word for line in self.all("Service", "Environment") for word in _words(line)]
        return dict(self._expanded(word).split("=", 1) for word in words)

    def command(self, environ: dict[str, str]) -> list[str]:
        """The words of ``ExecStart=``, with specifiers and variables in their place."""
        line = self.one("Service", "ExecStart")
        words = [self._expanded(word) for word in _words(line)]
        if not words[0].startswith("/"):
            raise BadUnit(
                f"{self.name}: {words[0]} is no absolute path: no PATH is searched for it"
            )
        return [_VARIABLE.sub(lambda m: "$" if m[2] else environ[m[1]], word) for word in words]

    def _expanded(self, word: str) -> str:
        known = {"%": "%", "n": self.name, "i": "archiver-pull.service", "H": "host"}

        def value(match: re.Match[str]) -> str:
            if match[1] not in known:
                raise BadUnit(f"{self.name}: %{match[1]} stands for something; write %% for a %")
            return known[match[1]]

        return _SPECIFIER.sub(value, word)


def read(path: Path) -> Unit:
    """A unit file. Raises BadUnit for any section, key or value that is not known to be right."""
    section, values = "", dict[tuple[str, str], list[str]]()
    for line in _lines(path.read_text()):
        if (header := _SECTION.fullmatch(line)) is not None:
            section = header[1]
            if section not in KNOWN:
                raise BadUnit(f"{path.name}: no section is called {section}")
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or key not in KNOWN.get(section, ()):
            raise BadUnit(f"{path.name}: nothing in [{section}] is called {key}")
        if key in _BOOLEANS and value not in {"yes", "no"}:
            raise BadUnit(f"{path.name}: {key}={value} is neither yes nor no")
        values.setdefault((section, key), []).append(value)
    return Unit(path.name, values)


def _lines(text: str) -> list[str]:
    """Lines without comments; one that ends with a backslash goes on behind those between."""
    lines, begun = list[str](), ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        begun += line.strip().removesuffix("\\")
        if line.endswith("\\"):
            begun += " "
            continue
        lines.append(begun)
        begun = ""
    if begun:
        raise BadUnit(f"{begun!r} goes on behind the end of the file")
    return lines


def _words(line: str) -> list[str]:
    """As in a shell: blanks between words, quotes around what has some."""
    if _WORD.sub("", line).strip():
        raise BadUnit(f"{line!r} cannot be split into words")

    def bare(match: re.Match[str]) -> str:
        return match[0][1:-1] if match[0][0] in "\"'" else match[0][-1]

    return [
        re.sub(r"""("(?:[^"\\]|\\.)*"|'[^']*'|\\.)""", bare, word) for word in _WORD.findall(line)
    ]
