"""The command as a process of its own, for stores as it meets them."""

from tests.cli.conftest import environ  # noqa: F401
