"""The archives of the verify tests, to be repaired."""

from tests.verify.conftest import offsite, pulled, vendor

__all__ = ["offsite", "pulled", "vendor"]
