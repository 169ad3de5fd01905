"""The archives of the verify tests."""

from tests.verify.conftest import just_pulled, offsite, pulled, vendor

__all__ = ["just_pulled", "offsite", "pulled", "vendor"]
