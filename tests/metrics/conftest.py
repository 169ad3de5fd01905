"""The command as a process of its own, against an emulator with one backup."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.sample_rdb import rdb
from tests.cli.conftest import environ, run  # noqa: F401
from tests.conftest import INSTANCE


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / INSTANCE).mkdir(parents=True)
    (folder / INSTANCE / f"dump_{datetime.now(UTC):%Y%m%d%H%M%S}.rdb").write_bytes(rdb(1000))
    return folder
