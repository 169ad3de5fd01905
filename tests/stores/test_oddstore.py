"""The conformance suite on simulations of the S3 servers that people use.

``FAULTS=full`` (``make faults``) takes all of them, else those that differ most.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from archiver.errors import StoreError, StoreForbidden, UsageError
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import Capabilities, ConditionalPuts, UploadListing, probe
from archiver.stores.s3.checksums import ChecksumKind
from archiver.stores.s3.layout import replaced_copy_key
from archiver.stores.s3.lease import BEAT_SECONDS
from archiver.stores.s3.options import MAX_PREFIX_BYTES, parse_url
from archiver.stores.s3.outages import ONE_TRY, OutageBudget
from tests.servers.gateway import Answer, Fault, Request, refuse
from tests.servers.oddstore import AWS, BUCKET, PUBLIC, Habits, OddStore, oddstore
from tests.stores.conformance import (
    Committing,
    Excluding,
    Listing,
    Place,
    PuttingAside,
    Resuming,
)
from tests.sweeps import FULL

PREFIX = "backups/redis"
DIFFERENT = ("Ceph RGW 16", "a small server", "before 2016")
WITHOUT_ETAGS = "behind a proxy that drops ETags"


@pytest.fixture(scope="module")
def server() -> Iterator[OddStore]:
    with oddstore() as server:
        yield server


@pytest.fixture
def odd(server: OddStore, monkeypatch: pytest.MonkeyPatch) -> OddStore:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "open")
    return server


def place_in(odd: OddStore, beat: float = BEAT_SECONDS) -> Place:
    def staged() -> list[str]:
        journals = [key for key in odd.objects if key.startswith(f"{PREFIX}/.staging/")]
        return [
            *odd.open_uploads,
            *(key for key in journals if not key.endswith(("/lock", "/probe"))),
        ]

    return Place(
        make=lambda: S3Store(odd.place(PREFIX), S3Options(endpoint=odd.endpoint), beat=beat),
        content=lambda key: odd.objects[f"{PREFIX}/{key}"].data,
        staged=staged,
        reads_staged=False,
        many=25,
    )


class OnPublicServers:
    @pytest.fixture
    def place(self, odd: OddStore, name: str, monkeypatch: pytest.MonkeyPatch) -> Place:
        # Nobody else writes a lease here.
        monkeypatch.setattr("archiver.stores.s3.lease._SETTLE_MOST_BEATS", 0.0)
        odd.become(PUBLIC[name])
        return place_in(odd)


# Each part of the suite on those that differ most in what it is about. It is not about
# cancellations, which do not depend on the server.


@pytest.mark.parametrize("name", PUBLIC if FULL else ("before 2016",))
class TestListing(OnPublicServers, Listing, PuttingAside):
    """An old server lists otherwise, and keeps and says the least about an object."""


@pytest.mark.parametrize("name", PUBLIC if FULL else ("Ceph RGW 16", "before 2016"))
class TestCommitting(OnPublicServers, Committing):
    """Their digests and conditions differ."""


@pytest.mark.parametrize("name", PUBLIC if FULL else ("a small server",))
class TestResuming(OnPublicServers, Resuming):
    """It lists no uploads, and ends one that gets a wrong part."""


@pytest.mark.parametrize("name", PUBLIC if FULL else ("AWS", *DIFFERENT[:2], WITHOUT_ETAGS))
class TestOneWriterOnPublicServers(Excluding):
    """The usual suite takes those that differ in what a lease goes by; it waits for its beats."""

    @pytest.fixture
    def place(self, odd: OddStore, name: str) -> Place:
        odd.become(PUBLIC[name])
        return place_in(odd, beat=0.4)


STORES = {
    "AWS": Capabilities(ChecksumKind.CRC64NVME, ConditionalPuts.QUOTED, UploadListing.DATED),
    "Ceph RGW 16": Capabilities(ChecksumKind.MD5, ConditionalPuts.BARE, UploadListing.DATED),
    "DigitalOcean Spaces": Capabilities(
        ChecksumKind.MD5, ConditionalPuts.BARE, UploadListing.DATED
    ),
    "rclone serve s3": Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE, UploadListing.DATED),
    "a small server": Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE, UploadListing.NONE),
    "a simulator": Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE, UploadListing.UNDATED),
    "Alibaba OSS": Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE, UploadListing.DATED),
    "MinIO": Capabilities(ChecksumKind.CRC64NVME, ConditionalPuts.QUOTED, UploadListing.NONE),
    "Swift": Capabilities(ChecksumKind.MD5, ConditionalPuts.NONE, UploadListing.DATED),
    "before 2016": Capabilities(ChecksumKind.NONE, ConditionalPuts.NONE, UploadListing.DATED),
    "behind a proxy that packs": Capabilities(
        ChecksumKind.MD5, ConditionalPuts.QUOTED, UploadListing.DATED
    ),
    "behind a proxy that drops ETags": Capabilities(
        ChecksumKind.MD5, ConditionalPuts.NONE, UploadListing.DATED
    ),
}


def bucket_of(odd: OddStore, prefix: str = PREFIX, **options: Any) -> Bucket:
    name, prefix = parse_url(odd.place(prefix))
    return Bucket(name, prefix, S3Options(endpoint=odd.endpoint, **options), OutageBudget(ONE_TRY))


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_probe_finds(odd: OddStore, name: str) -> None:
    odd.become(PUBLIC[name])
    assert probe(bucket_of(odd)) == STORES[name]
    assert list(odd.objects) == [f"{PREFIX}/.staging/probe"]
    assert not odd.open_uploads


ODD = {
    "a right ETag is refused": (Habits(if_match="never"), ConditionalPuts.NONE),
    "a right ETag is taken with quotes alone": (Habits(if_match="quoted"), ConditionalPuts.QUOTED),
    "conditions are refused": (Habits(conditions="not implemented"), ConditionalPuts.NONE),
    "conditions are ignored": (Habits(conditions="ignored"), ConditionalPuts.NONE),
}


@pytest.mark.parametrize("name", ODD)
def test_conditions(odd: OddStore, name: str) -> None:
    habits, expected = ODD[name]
    odd.become(habits)
    capabilities = probe(bucket_of(odd))
    assert capabilities.conditional_puts is expected
    assert str(expected) in str(capabilities)


def test_conditions_while_another_run_asks(odd: OddStore) -> None:
    """With some encryptions the same bytes get another ETag at each put."""
    odd.become(AWS)
    key = f"{PREFIX}/.staging/probe"

    def put_by_another(_: Request, answer: Answer) -> Answer:
        odd.objects[key] = replace(odd.objects[key], etag="of another")
        return answer

    fault = odd.add(Fault("GetObject", 1, change=put_by_another))
    assert probe(bucket_of(odd)).conditional_puts is ConditionalPuts.QUOTED
    assert fault.met


def test_an_upload_that_ends_while_it_is_asked_about(odd: OddStore) -> None:
    """A sweep on another host aborts the probe's upload: that proves nothing."""
    odd.become(AWS)

    def sweep(_: Request, answer: Answer) -> Answer:
        odd.open_uploads.clear()
        return answer

    faults = [Fault("CreateMultipartUpload", 1, change=sweep)]
    faults += [Fault("CreateMultipartUpload", 1, wanted=lambda _: False)]
    odd.add(*faults)
    assert probe(bucket_of(odd)) == STORES["AWS"]
    odd.add(Fault("ListMultipartUploads", 1, instead=lambda r: _ended(odd, r)))
    assert probe(bucket_of(odd)) == STORES["AWS"]


def _ended(odd: OddStore, request: Request) -> Answer:
    odd.open_uploads.clear()
    return odd._do(request, b"")


@pytest.mark.parametrize("kind", ["CreateMultipartUpload", "UploadPart", "ListMultipartUploads"])
@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument"), (404, "NoSuchUpload")]
)
def test_a_probe_ends_with_an_answer(odd: OddStore, kind: str, status: int, code: str) -> None:
    odd.become(AWS)
    odd.add(refuse(status, code, kind=kind, times=None))
    capabilities = probe(bucket_of(odd))
    assert capabilities.conditional_puts is ConditionalPuts.QUOTED
    assert capabilities != STORES["AWS"]


def test_a_listing_that_lags(odd: OddStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.stores.s3.capabilities._LISTING_SECONDS", (0.0,) * 3)
    odd.become(Habits(lag=3))
    assert probe(bucket_of(odd)) == STORES["AWS"]
    odd.become(Habits(lag=1000))
    with pytest.raises(StoreError, match="does not list it"):
        probe(bucket_of(odd))


def test_no_put_waits_for_a_continue(odd: OddStore) -> None:
    odd.become(Habits(continues=False))
    probe(bucket_of(odd))
    assert not [request for request, _ in odd.requests if "expect" in request.headers]


def test_errors_name_the_operation(odd: OddStore) -> None:
    odd.become(Habits(forbids=frozenset(["ListMultipartUploads"])))
    with pytest.raises(StoreForbidden, match="ListMultipartUploads: 403 AccessDenied"):
        probe(bucket_of(odd))


def test_a_prefix_that_cannot_be_signed(odd: OddStore) -> None:
    odd.become(Habits(signs="plain"))
    with pytest.raises(StoreForbidden, match="prefix of plain letters"):
        probe(bucket_of(odd, "100%"))
    assert not odd.objects


PREFIXES = {
    "too long": ("p" * 300 + "/" + "q" * 301, "leaves no room"),
    "too long in UTF-8": ("夢" * 201, "604 bytes"),
    "a line end": ("redis\r", "characters that cannot be printed"),
    "half a character": ("redis\udce4", "characters that cannot be printed"),
    "a backslash": ("redis\\x", "backslash"),
    "upwards": ("../redis", "not of the form"),
    "hidden": (".redis", "begins with a dot"),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_prefixes_that_no_archive_can_have(name: str) -> None:
    prefix, says = PREFIXES[name]
    with pytest.raises(UsageError, match=says) as caught:
        S3Store(f"s3://{BUCKET}/{prefix}")
    assert str(caught.value).isprintable()


def test_the_longest_prefix_has_room_for_the_longest_name() -> None:
    name, node = "n" * 64, "b" * 64
    key = f"{name}/2026/11/20261124T021500Z-b{name}/{node}-{name}.rdb"
    longest = f"{'p' * (MAX_PREFIX_BYTES - 1)}/{replaced_copy_key(key, 't' * 16, 's' * 64)}"
    assert len(longest) <= 1024


@pytest.mark.parametrize(
    "prefix", ["100%", "a%2Fb", "a b", "why?", "a+b", "a#b", "a&b=c", "夢", "a;b", "a'\"b", "!$()*"]
)
def test_prefixes_of_every_kind(odd: OddStore, prefix: str) -> None:
    odd.become(AWS)
    bucket = bucket_of(odd, prefix)
    assert probe(bucket) == STORES["AWS"]
    bucket.put("x/a", b"1")
    bucket.copy("x/a", "x/b", 1)
    assert {key: size for key, size, *_ in bucket.listing("x/")} == {"x/a": 1, "x/b": 1}
    bucket.multipart.create("x/c")
    assert [upload.key for upload in bucket.multipart.unfinished("x/")] == ["x/c"]
    assert bucket.get("x/b") == (b"1", f'"{odd.objects[f"{prefix}/x/b"].etag}"')
