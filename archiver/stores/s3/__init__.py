"""An archive in an S3-compatible bucket."""

from archiver.stores.s3.options import Addressing, LockMode, S3Lock, S3Options
from archiver.stores.s3.store import S3Store

__all__ = ["Addressing", "LockMode", "S3Lock", "S3Options", "S3Store"]
