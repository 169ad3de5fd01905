"""The suite of tests that every store passes, run on each."""

from pathlib import Path

import pytest

from archiver.stores.local import STAGING, LocalStore
from tests.stores.conformance import Conformance, Place


class TestLocal(Conformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        root = tmp_path / "archive"
        return Place(
            make=lambda: LocalStore(root),
            content=lambda key: (root / key).read_bytes(),
            staged=lambda: [path.name for path in (root / STAGING).iterdir()],
        )
