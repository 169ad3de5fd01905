"""The command as a process of its own."""

from tests.cli.conftest import environ, run  # noqa: F401
