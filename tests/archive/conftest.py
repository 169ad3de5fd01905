"""The archives of the verify tests."""

from tests.verify.conftest import just_pulled, pulled, vendor

__all__ = ["just_pulled", "pulled", "vendor"]
