"""Which host serves the R-kvstore API of a region."""

import re

from archiver.errors import UsageError

_REGION = re.compile(r"[a-z]{2,3}(-[a-z0-9]+){1,5}")

# The vendor's SDK (7.0.0) sends these public regions to the central host. Older documentation
# names more; where both answer, either will do, and --endpoint settles it where not.
_CENTRAL = frozenset({"cn-hangzhou", "cn-hangzhou-finance"})


def endpoint_of(region: str) -> str:
    """The API's host in a region. Raises UsageError for what is no region id."""
    if not _REGION.fullmatch(region):
        raise UsageError(
            f"{region!r} is not a region id", hint="they look like cn-hangzhou or ap-southeast-1"
        )
    if region in _CENTRAL:
        return "r-kvstore.aliyuncs.com"
    return f"r-kvstore.{region}.aliyuncs.com"
