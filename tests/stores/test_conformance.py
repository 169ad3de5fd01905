"""Runs the conformance suite on every store.

``FAULTS=full`` (``make faults``) takes all of it over TLS, too, and is cancelled at more moments.
"""

from pathlib import Path

import pytest

from archiver.stores.local.layout import STAGING
from archiver.stores.local.store import LocalStore
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3.lease import BEAT_SECONDS
from tests.servers.seaweedfs import SeaweedFS
from tests.stores.conformance import (
    Cancelling,
    Committing,
    Conformance,
    Excluding,
    Listing,
    Place,
    PuttingAside,
    Resuming,
    SettingAside,
)
from tests.sweeps import FULL


class TestLocal(Conformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        root = tmp_path / "archive"
        return Place(
            make=lambda: LocalStore(root),
            content=lambda key: (root / key).read_bytes(),
            staged=lambda: [path.name for path in (root / STAGING).rglob("*") if path.is_file()],
        )


def in_a_bucket(server: SeaweedFS, bucket: str, beat: float = BEAT_SECONDS) -> Place:
    prefix = "backups/redis"

    def staged() -> list[str]:
        uploads = [str(upload) for upload in server.uploads(bucket)]
        journals = server.objects(bucket, f"{prefix}/.staging/")
        return uploads + [key for key in journals if not key.endswith(("/lock", "/probe"))]

    return Place(
        make=lambda: S3Store(
            f"s3://{bucket}/{prefix}", S3Options(endpoint=server.endpoint), beat=beat
        ),
        content=lambda key: server.content(bucket, f"{prefix}/{key}"),
        staged=staged,
        reads_staged=False,
    )


class TestS3(Listing, Committing, Resuming, PuttingAside, Cancelling, SettingAside):
    @pytest.fixture
    def place(self, seaweed: SeaweedFS, bucket: str, s3_writer: None) -> Place:
        return in_a_bucket(seaweed, bucket)


class TestOneWriterInS3(Excluding):
    """The lease has a shorter beat than usual, since a new writer waits for beats."""

    @pytest.fixture
    def place(self, seaweed: SeaweedFS, bucket: str, s3_writer: None) -> Place:
        return in_a_bucket(seaweed, bucket, beat=1.0)


class OverTls:
    @pytest.fixture
    def place(self, seaweed_tls: SeaweedFS, bucket_tls: str, s3_writer: None) -> Place:
        return in_a_bucket(seaweed_tls, bucket_tls)


class TestS3OverTls(OverTls):
    """What takes every kind of request, and more runs."""

    test_again_and_again = Resuming.test_again_and_again


if FULL:

    class TestAllOfS3OverTls(
        OverTls, Listing, Committing, Resuming, PuttingAside, Excluding, Cancelling, SettingAside
    ):
        """All the same."""
