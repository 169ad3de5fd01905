"""An archive in an S3-compatible bucket."""

from archiver.stores.s3.options import S3Lock, S3Options, parse_place
from archiver.stores.s3.store import S3Store

__all__ = ["S3Lock", "S3Options", "S3Store", "parse_place"]
