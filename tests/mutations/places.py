"""Finds the place of a mutation in the sources, wherever it has moved to.

A place is the qualified name of a definition (a function, a class, or a name that a module or a
class assigns to): ``LocalStaging.commit``. Where several definitions of that name have the text, a
module before it tells them apart: ``verify.run:run``. What is no Python is named by the end of its
path, which has a slash or is a pattern: ``systemd/archiver-pull.timer``, ``*.md``.

White space, comments and commas before a closing bracket do not count when a text is looked for.
So a module may be moved, renamed or formatted otherwise, and no mutation has to follow.
"""

import ast
import functools
import io
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from tests.mutations.mutation import Mutation

CODE = "archiver"
OTHERS = ("archiver", "docs", "examples", "README.md")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IGNORED = re.compile(r"\s+|,(?=\s*[)\]}])")


class NoSuchPlace(ValueError):
    """No place has the text of a mutation, or several have."""


@dataclass(frozen=True)
class Source:
    """A file, and what is looked for in it: its text without what does not count, and where in
    the file each character of that stands."""

    path: Path
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @functools.cached_property
    def line_starts(self) -> list[int]:
        starts = [0]
        for line in self.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    @functools.cached_property
    def positions(self) -> list[int]:
        ignored = bytearray(len(self.text))
        for start, end in self._ignored():
            ignored[start:end] = b"\1" * (end - start)
        return [at for at, is_ignored in enumerate(ignored) if not is_ignored]

    @functools.cached_property
    def squeezed(self) -> str:
        return "".join(self.text[at] for at in self.positions)

    def _ignored(self) -> Iterator[tuple[int, int]]:
        kept, done = [], 0
        for start, end in self._comments():
            kept += [self.text[done:start], " " * (end - start)]
            done = end
        for match in _IGNORED.finditer("".join([*kept, self.text[done:]])):
            yield match.span()

    def _comments(self) -> Iterator[tuple[int, int]]:
        if self.path.suffix != ".py" or "#" not in self.text:
            return
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                start = self.line_starts[token.start[0] - 1] + token.start[1]
                yield start, start + len(token.string)

    def occurrences(self, wanted: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Where ``wanted`` begins and ends between two positions. No part of a word is found."""
        first, last = bisect_right(self.positions, start - 1), bisect_right(self.positions, end - 1)
        at = self.squeezed.find(wanted, first, last)
        while at >= 0:
            begins, ends = self.positions[at], self.positions[at + len(wanted) - 1] + 1
            if not (_is_inside_word(self.text, begins) or _is_inside_word(self.text, ends)):
                yield begins, ends
            at = self.squeezed.find(wanted, at + 1, last)

    def indentation_at(self, at: int) -> str:
        """That of the innermost statement that has the position."""
        nodes: list[ast.stmt] = self.tree.body if self.path.suffix == ".py" else []
        column = 0
        while holder := next(
            (one for one in nodes if self._starts(one) <= at < self._ends(one)), None
        ):
            column = holder.col_offset
            nodes = list(_statements_below(holder))
        return " " * column

    def _starts(self, node: ast.stmt) -> int:
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(one.lineno for one in decorators)])
        return self.line_starts[first - 1]

    def _ends(self, node: ast.stmt) -> int:
        assert node.end_lineno is not None
        return self.line_starts[node.end_lineno]

    def definitions(self) -> Iterator[tuple[str, int, int]]:
        """The qualified name of each definition, and where it begins and ends."""
        above: list[tuple[str, ast.stmt, bool]] = [("", one, False) for one in self.tree.body]
        while above:
            prefix, node, is_local = above.pop()
            for name in _names(node, is_local=is_local):
                yield prefix + name, self._starts(node), self._ends(node)
            if isinstance(node, _DEFINITIONS):
                prefix, is_local = f"{prefix}{node.name}.", not isinstance(node, ast.ClassDef)
            above += [(prefix, one, is_local) for one in _statements_below(node)]


class Sources:
    """All files of a checkout that a mutation may break."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._definitions = dict[str, list[tuple[str, Source, int, int]]]()
        for path in sorted((root / CODE).rglob("*.py")):
            source = Source(path, path.read_text())
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for name, start, end in source.definitions():
                self._definitions.setdefault(name, []).append((module, source, start, end))

    def mutated(self, mutation: Mutation) -> tuple[Path, str]:
        """The file that ``mutation`` changes, and its text then.

        Raises:
            NoSuchPlace: The text of the mutation is not in its place, or not only once.
        """
        wanted = squeezed(mutation.old)
        found = [
            (source, *span)
            for source, start, end in self._candidates(mutation.place)
            for span in source.occurrences(wanted, start, end)
        ]
        if len(found) != 1:
            where = ", ".join(str(source.path.relative_to(self.root)) for source, *_ in found)
            raise NoSuchPlace(
                f"{mutation.name}: {len(found)} places in {mutation.place} have the text: {where}"
            )
        source, start, end = found[0]
        new = mutation.new.replace("\n", "\n" + source.indentation_at(start))
        return source.path, source.text[:start] + new + source.text[end:]

    def _candidates(self, place: str) -> list[tuple[Source, int, int]]:
        if "/" in place or "*" in place:
            return [(one, 0, len(one.text)) for one in self._files(place)]
        module, _, name = place.rpartition(":")
        return [
            (source, start, end)
            for owner, source, start, end in self._definitions.get(name, ())
            if not module or f".{owner}".endswith(f".{module}")
        ]

    def _files(self, pattern: str) -> list[Source]:
        tops = [self.root / name for name in OTHERS]
        paths = [one for top in tops for one in (top.rglob("*") if top.is_dir() else [top])]
        return [Source(one, one.read_text()) for one in paths if PurePath(one).match(pattern)]


def squeezed(text: str) -> str:
    """``text`` without what does not count."""
    return _IGNORED.sub("", text)


def _is_inside_word(text: str, at: int) -> bool:
    return re.fullmatch(r"\w\w", text[max(at - 1, 0) : at + 1]) is not None


def _names(node: ast.stmt, *, is_local: bool) -> list[str]:
    """The names that a statement defines; a local variable is no definition."""
    if isinstance(node, _DEFINITIONS):
        return [node.name]
    if is_local:
        return []
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [one.id for one in targets if isinstance(one, ast.Name)]


def _statements_below(node: ast.AST) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
            yield from _statements_below(child)
