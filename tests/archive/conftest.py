"""The archives of the verify tests."""

from tests.verify.conftest import pulled, vendor

__all__ = ["pulled", "vendor"]
