"""A vendor of several regions, which tells each how it is reached."""

from pathlib import Path

import pytest

from archiver.emulator import Emulator
from tests.cli.conftest import environ, run  # noqa: F401
from tests.conftest import EmulatorMaker
from tests.fleet.world import build


@pytest.fixture
def regions(files: Path) -> dict[str, str]:
    """The regions of 20 instances: one of each kind in each of four regions."""
    return build(files, 20)


@pytest.fixture
async def emulator(regions: dict[str, str], files: Path, emulator_of: EmulatorMaker) -> Emulator:
    return await emulator_of(files)
