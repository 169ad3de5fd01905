"""Where things that are no part of the archive lie in a bucket."""

STAGING = ".staging/"
QUARANTINE = ".quarantine/"
LOCK_KEY = f"{STAGING}lock"
PROBE_KEY = f"{STAGING}probe"
# Key parts never hold it, and it is plain in every shell.
SEPARATOR = "~"
# For all parts but the last (S3 API, UploadPart).
LEAST_PART_BYTES = 5 * 2**20
_ASIDE = ".aside"


def aside(key: str) -> str:
    """Where an object lies that is to be replaced."""
    return f"{QUARANTINE}{key.replace('/', SEPARATOR)}{_ASIDE}"
