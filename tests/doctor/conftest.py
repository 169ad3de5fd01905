"""The command against a vendor over http or https, and what may stand before it."""

import pytest

from archiver.emulator import Emulator
from tests.cli.conftest import Run, run, run_kept_out
from tests.cli.conftest import environ as environ_of_all
from tests.network.conftest import ProxyMaker, authority, proxy_of

__all__ = ["ProxyMaker", "Run", "authority", "environ_of_all", "proxy_of", "run", "run_kept_out"]


@pytest.fixture
def environ(environ_of_all: dict[str, str], emulator: Emulator) -> dict[str, str]:
    """Each test says which endpoint it means."""
    return {
        name: value for name, value in environ_of_all.items() if name != "ARCHIVER_DOCTOR_ENDPOINT"
    }
