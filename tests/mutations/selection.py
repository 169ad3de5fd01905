"""Finds tests by names that stay when a file is moved.

``test_local`` is a file; ``stores/test_local`` where several have the name; ``stores/`` a folder.
``test_local::test_commit[3]`` is a test in it, ``::test_commit[3]`` one in any file.
"""

import functools
import re
from pathlib import Path

_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


class NoSuchTest(ValueError):
    """No test has that name, or several have."""


class Suite:
    """All tests of a checkout."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = sorted((root / "tests").rglob("test_*.py"))

    def arguments(self, words: str) -> list[str]:
        """What pytest is given to run these tests.

        Raises:
            NoSuchTest: A word names no test, or several.
        """
        given = words.split()
        for at, word in enumerate(given):
            if word == "-k":  # what it takes goes as it is
                return [*map(self._found, given[:at]), *given[at:]]
        return [*map(self._found, given)]

    def _found(self, word: str) -> str:
        file, _, test = word.partition("::")
        if file.endswith("/"):
            paths = {one.parent for one in self._files if one.parent.match(file)}
        else:
            name = test.partition("[")[0]
            paths = {
                one
                for one in self._files
                if (not file or one.match(f"{file}.py")) and (not test or name in _tests(one))
            }
        if len(paths) != 1:
            raise NoSuchTest(f"{word}: {len(paths)} of that name")
        path = str(paths.pop().relative_to(self._root))
        return f"{path}::{test}" if test else path


@functools.cache
def _tests(path: Path) -> frozenset[str]:
    return frozenset(_TEST.findall(path.read_text()))
