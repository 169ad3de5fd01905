"""What is written to a bucket is verified, and never at the cost of the object that was there."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from fastcrc import crc64

from archiver.errors import LockLost, StoreError, StoreForbidden
from archiver.model import Kind
from archiver.stores.base import Leftover
from archiver.stores.commit import drive, sync_each
from archiver.stores.s3 import S3Options, S3Store
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.capabilities import Capabilities, ConditionalPuts, probe
from archiver.stores.s3.checksums import ChecksumKind
from archiver.stores.s3.layout import (
    ReplacedCopy,
    is_journal,
    is_own_upload,
    journal_key,
    parse_replaced_copy,
    quarantine_key,
    rejected_key,
    replaced_copy_key,
)
from archiver.stores.s3.outages import ONE_TRY, OutageBudget
from archiver.stores.s3.replacing import replacing
from archiver.stores.s3.staging import S3Staging
from archiver.stores.s3.unfinished import own_uploads, sweep
from archiver.stores.s3.writing import VerifiedWriter
from archiver.transfer.parts import plan_parts
from tests.servers import gateway as gates
from tests.servers.gateway import Answer, Fault, Gateway, Request, gateway
from tests.servers.seaweedfs import SeaweedFS
from tests.stores.conformance import (
    FOLDER,
    PART,
    RECEIPT,
    STEM,
    file_of,
    pin_of,
    receipt_of,
    record,
)

PREFIX = "redis/"
OBJECT = f"{PREFIX}{STEM}.rdb"
FLAT = STEM.replace("/", "~")
OLD, NEW = b"REDIS0011" + file_of(3_000, 1), b"REDIS0011" + file_of(4_000, 2)
LARGE = b"REDIS0011" + file_of(PART + 1_000, 3)


class Killed(BaseException):
    """Nothing comes after it."""


@pytest.fixture
def gate(seaweed: SeaweedFS, s3_writer: None) -> Iterator[Gateway]:
    with gateway(seaweed.port) as gate:
        yield gate


def writer_at(
    gate: Gateway, bucket: str, check: ChecksumKind = ChecksumKind.MD5, **options: Any
) -> VerifiedWriter:
    place = Bucket(bucket, PREFIX, S3Options(gate.endpoint, **options), OutageBudget(ONE_TRY))
    return VerifiedWriter(place, Capabilities(check, ConditionalPuts.QUOTED))


@pytest.fixture
def writer(gate: Gateway, bucket: str) -> VerifiedWriter:
    return writer_at(gate, bucket)


def staged(writer: VerifiedWriter, data: bytes) -> S3Staging:
    """All of it is staged, and nothing committed."""
    staging = S3Staging(writer, STEM, len(data))
    staging.open()
    if len(data) > PART:
        staging.begin(pin_of(data), RECEIPT.provenance, PART)
    for part in plan_parts(len(data), PART):
        staging.write(part.start, memoryview(data)[part.start : part.stop])
        staging.save_hash_state(part, "measured")
        staging.save_part(part, crc64.xz(data[part.start : part.stop]))
    return staging


def commit(writer: VerifiedWriter, data: bytes, kind: Kind = Kind.RDB) -> None:
    staging = staged(writer, data)
    drive([staging.commit(receipt_of(data, kind), record)], sync_each)
    staging.close()


def put(seaweed: SeaweedFS, bucket: str, key: str, data: bytes) -> None:
    seaweed.client().put_object(Bucket=bucket, Key=key, Body=data)


def below(seaweed: SeaweedFS, bucket: str, folder: str) -> list[str]:
    return list(seaweed.objects(bucket, f"{PREFIX}{folder}/"))


def swept(writer: VerifiedWriter) -> list[Leftover]:
    """By a new process."""
    fresh = VerifiedWriter(writer.bucket, writer.capabilities)
    return list(sweep(fresh, "r-x", lambda: None, own_uploads(fresh)))


Change = Callable[[bytes], bytes | None]
CHANGES: dict[str, Change] = {
    "nothing": lambda _: None,
    "half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
}


def keeps(
    seaweed: SeaweedFS, bucket: str, data: bytes, change: Change, suffix: str, *, honest: bool
) -> Fault:
    """The store responds 200 to the put of ``data`` and stores something else; ``honest``: its ETag
    is that of what it stored."""
    kept = change(data)

    def answer(request: Request) -> Answer:
        if kept is not None:
            put(seaweed, bucket, request.path.removeprefix(f"/{bucket}/"), kept)
        of = kept or b"" if honest else data
        return Answer(200, [("ETag", f'"{hashlib.md5(of).hexdigest()}"')])

    def wanted(request: Request) -> bool:
        return request.path.endswith(suffix) and "retention" not in request.query

    return Fault("PutObject", None, wanted, instead=answer)


@pytest.mark.parametrize("check", [ChecksumKind.MD5, ChecksumKind.CRC64NVME])
@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_an_object_that_is_not_kept_as_sent(
    seaweed: SeaweedFS, gate: Gateway, bucket: str, check: ChecksumKind, change: str, honest: bool
) -> None:
    """An object that replaces another is looked at; one that does not is in no listing, or in one
    with another ETag."""
    writer = writer_at(gate, bucket, check)
    if not honest:
        put(seaweed, bucket, OBJECT, OLD)
    gate.add(keeps(seaweed, bucket, NEW, CHANGES[change], ".rdb", honest=honest))
    with pytest.raises(StoreError, match="the store has"):
        commit(writer, NEW)
    assert not [key for key in seaweed.objects(bucket) if key.endswith(".json")]


@pytest.mark.parametrize("check", [ChecksumKind.MD5, ChecksumKind.CRC64NVME])
@pytest.mark.parametrize("change", CHANGES)
def test_a_document_that_is_not_kept_as_sent(
    seaweed: SeaweedFS, gate: Gateway, bucket: str, check: ChecksumKind, change: str
) -> None:
    writer = writer_at(gate, bucket, check)
    [(_, data)] = record(type("S", (), {"key": f"{STEM}.rdb"})())
    gate.add(keeps(seaweed, bucket, data, CHANGES[change], ".json", honest=True))
    with pytest.raises(StoreError, match="is not what was sent"):
        commit(writer, NEW)


@pytest.mark.parametrize("check", [ChecksumKind.MD5, ChecksumKind.CRC64NVME])
def test_a_part_that_is_another_when_it_is_completed(
    seaweed: SeaweedFS, gate: Gateway, bucket: str, check: ChecksumKind
) -> None:
    writer, client = writer_at(gate, bucket, check), seaweed.client()

    def complete(request: Request) -> Answer:
        named = {"Bucket": bucket, "Key": OBJECT, "UploadId": request.query["uploadId"]}
        listed = client.list_parts(**named)["Parts"]
        etags = {part["PartNumber"]: part["ETag"] for part in listed}
        other = bytes(len(LARGE) - PART)
        etags[2] = client.upload_part(**named, PartNumber=2, Body=other)["ETag"]
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in sorted(etags.items())]
        client.complete_multipart_upload(**named, MultipartUpload={"Parts": parts})
        return Answer(200, body=b"<CompleteMultipartUploadResult/>")

    gate.add(Fault("CompleteMultipartUpload", instead=complete))
    with pytest.raises(StoreError, match="is not what was sent"):
        commit(writer, LARGE)
    assert len(seaweed.content(bucket, OBJECT)) == len(LARGE)


@pytest.mark.parametrize("check", [ChecksumKind.MD5, ChecksumKind.CRC64NVME])
@pytest.mark.parametrize("data", [NEW, LARGE], ids=["small", "in parts"])
def test_what_is_proven_is_not_read_back(
    seaweed: SeaweedFS, gate: Gateway, bucket: str, check: ChecksumKind, data: bytes
) -> None:
    """The response to a put proves it; an upload costs one HEAD."""
    commit(writer_at(gate, bucket, check), data)
    assert seaweed.content(bucket, OBJECT) == data
    assert gate.counts["HeadObject"] == (data is LARGE)
    assert gate.bytes_down["GetObject"] < 500  # no journal: an error
    assert below(seaweed, bucket, ".staging") == below(seaweed, bucket, ".quarantine") == []


@pytest.mark.parametrize("data", [NEW, LARGE], ids=["small", "in parts"])
def test_an_etag_that_is_not_an_md5_proves_nothing(
    seaweed: SeaweedFS, gate: Gateway, bucket: str, data: bytes
) -> None:
    def other(_: Request, answer: Answer) -> Answer:
        fields = [(n, f'"{"a" * 32}"' if n.lower() == "etag" else v) for n, v in answer.fields]
        return replace(answer, fields=fields)

    for kind in ("HeadObject", "PutObject"):
        gate.add(Fault(kind, None, change=other))
    gate.add(gates.refuse_headers("If-Match"))
    writer = writer_at(gate, bucket)
    staging = staged(writer, data)
    # The stream that reads it back is of this ETag, too, which the server does not know.
    writer.bucket.stream = _any_etag(writer.bucket)  # type: ignore[method-assign]
    drive([staging.commit(receipt_of(data), record)], sync_each)
    assert gate.bytes_down["GetObject"] >= len(data)


def _any_etag(bucket: Bucket) -> Callable[..., Any]:
    stream = bucket.stream
    return lambda key, start, stop, _: stream(key, start, stop, "")


def test_a_store_that_gives_back_something_else_is_not_written_to(
    seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    gate.add(Fault("PutObject", None, instead=lambda _: Answer(200, [("ETag", '"x"')])))
    with pytest.raises(StoreError, match="does not return it"):
        probe(writer_at(gate, bucket).bucket)


# What is replaced


@pytest.mark.parametrize("data", [NEW, LARGE], ids=["small", "in parts"])
def test_over_what_is_there(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str, data: bytes
) -> None:
    put(seaweed, bucket, OBJECT, OLD)
    put(seaweed, bucket, f"{PREFIX}{STEM}.bin", OLD)
    staging = S3Staging(writer, STEM, len(data))
    staging.open()
    assert staging.existing == {f"{STEM}.rdb": len(OLD), f"{STEM}.bin": len(OLD)}
    assert (staging.resumable, staging.can_read_back, staging.can_rewrite_parts) == (
        None,
        False,
        False,
    )
    commit(writer, data)
    assert seaweed.content(bucket, OBJECT) == data
    assert f"{PREFIX}{STEM}.bin" not in seaweed.objects(bucket)
    assert below(seaweed, bucket, ".quarantine") == []


def test_a_successor_that_is_garbled_does_not_cost_the_old_bytes(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    put(seaweed, bucket, OBJECT, OLD)
    gate.add(keeps(seaweed, bucket, NEW, CHANGES["zeros"], ".rdb", honest=False))
    with pytest.raises(StoreError, match="is not what was sent"):
        commit(writer, NEW)
    assert seaweed.content(bucket, OBJECT) == OLD
    assert below(seaweed, bucket, ".quarantine") == []
    gate.faults.clear()
    commit(writer, NEW)
    assert seaweed.content(bucket, OBJECT) == NEW


@pytest.mark.parametrize("later", [False, True], ids=["at once", "by a later run"])
def test_what_is_put_back_is_kept_as_it_was(
    seaweed: SeaweedFS, gate: Gateway, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """Locked and in its own storage class, whatever the options of this run; this server forgets
    the lock of a copy."""
    name = seaweed.make_bucket(f"kept-as-it-was-{later:d}", object_lock=True)
    client, until = seaweed.client(), datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    client.put_object(
        Bucket=name, Key=OBJECT, Body=OLD, StorageClass="STANDARD_IA", Metadata={"mtime": "1"},
        ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until,
    )  # fmt: skip
    writer = writer_at(gate, name, storage_class="GLACIER_IR")
    if later:
        kill_at(writer, "verify", monkeypatch)
        put(seaweed, name, OBJECT, bytes(len(NEW)))
        assert "was restored to" in swept(writer)[0].why
    else:
        gate.add(keeps(seaweed, name, NEW, CHANGES["zeros"], ".rdb", honest=False))
        with pytest.raises(StoreError, match="is not what was sent"):
            commit(writer, NEW)
    assert seaweed.content(name, OBJECT) == OLD
    head = client.head_object(Bucket=name, Key=OBJECT)
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", until)
    assert head["Metadata"] == {"mtime": "1"}
    back = [request for request, _ in gate.requests if request.kind == "CopyObject"][-1]
    assert back.headers.get("x-amz-storage-class") == "STANDARD_IA"


def test_a_lock_that_has_ended_is_not_given_again(
    seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    put(seaweed, bucket, OBJECT, OLD)
    ended = {
        "ObjectLockMode": "GOVERNANCE",
        "ObjectLockRetainUntilDate": datetime(2020, 1, 1, tzinfo=UTC),
    }
    writer_at(gate, bucket).bucket.copy_as_object(f"{STEM}.rdb", f"{STEM}.bin", len(OLD), ended)
    [copied] = [request for request, _ in gate.requests if request.kind == "CopyObject"]
    assert "x-amz-object-lock-mode" not in copied.headers


def test_a_sweep_stops_when_the_lease_is_lost(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(seaweed, bucket, OBJECT, OLD)
    kill_at(writer, "put", monkeypatch)

    def lost() -> None:
        raise LockLost("somebody else has it")

    with pytest.raises(LockLost):
        list(sweep(VerifiedWriter(writer.bucket, writer.capabilities), "r-x", lost, []))
    assert len(below(seaweed, bucket, ".quarantine")) == 1


def test_what_was_replaced_costs_no_listing_each(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    for data in (OLD, NEW, OLD, NEW):
        commit(writer, data)
    listed = [request for request, _ in gate.requests if request.kind == "ListObjectsV2"]
    assert sum(".quarantine/" in request.query["prefix"] for request in listed) == 1


def kill_at(writer: VerifiedWriter, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends in the middle of a commit."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(writer if method == "verify" else writer.bucket, method, killed)
        with pytest.raises(Killed):
            commit(writer, NEW)


@pytest.mark.parametrize(
    ("method", "left", "why"),
    [
        ("put", OLD, "from when it was replaced"),
        ("verify", NEW, "from when it was replaced"),
        ("delete_if_allowed", NEW, "from when it was replaced"),
    ],
)
def test_killed_while_it_is_replaced(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch,
    method: str, left: bytes, why: str,
) -> None:  # fmt: skip
    put(seaweed, bucket, OBJECT, OLD)
    kill_at(writer, method, monkeypatch)
    assert len(below(seaweed, bucket, ".quarantine")) == 1
    assert seaweed.content(bucket, OBJECT) == left
    [leftover] = swept(writer)
    assert leftover.why.endswith(why)
    assert seaweed.content(bucket, OBJECT) == left
    assert swept(writer) == []
    assert below(seaweed, bucket, ".quarantine") == []
    commit(writer, NEW)
    assert seaweed.content(bucket, OBJECT) == NEW


@pytest.mark.parametrize("after", ["garbled", "missing"])
def test_killed_before_it_was_compared(
    writer: VerifiedWriter,
    seaweed: SeaweedFS,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    after: str,
) -> None:
    put(seaweed, bucket, OBJECT, OLD)
    kill_at(writer, "verify", monkeypatch)
    if after == "garbled":
        put(seaweed, bucket, OBJECT, bytes(len(NEW)))
    else:
        seaweed.client().delete_object(Bucket=bucket, Key=OBJECT)
    [leftover] = swept(writer)
    assert "was restored to" in leftover.why
    assert seaweed.content(bucket, OBJECT) == OLD
    assert swept(writer) == []
    kept = [seaweed.content(bucket, key) for key in below(seaweed, bucket, ".quarantine")]
    assert kept == ([bytes(len(NEW))] if after == "garbled" else [])


@pytest.mark.parametrize("data", [NEW, LARGE], ids=["small", "in parts"])
def test_a_writer_that_wakes_after_another_has_come(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str, data: bytes
) -> None:
    """It lost its lease in a sleep, and the other has written the object. It changes nothing."""
    staging = staged(writer, data)

    def lost() -> None:
        raise LockLost("somebody else has it")

    put(seaweed, bucket, OBJECT, data)
    before = seaweed.objects(bucket)
    staging._check = lost  # type: ignore[misc]
    for stops in (
        lambda: staging.quarantine("it is wrong"),
        lambda: drive([staging.commit(receipt_of(data), record)], sync_each),
    ):
        with pytest.raises(LockLost):
            stops()
    assert seaweed.content(bucket, OBJECT) == data
    assert seaweed.objects(bucket) == before


def test_a_writer_that_leaves_ends_no_upload_of_another(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str
) -> None:
    first = staged(writer, LARGE)
    assert first._upload is not None
    first._upload.parts.clear()
    first._upload._states.clear()

    def lost() -> None:
        raise LockLost("somebody else has it")

    first._check = lost  # type: ignore[misc]
    with pytest.raises(LockLost):
        first.restart()
    first.close()
    assert len(list(writer.bucket.multipart.unfinished())) == 1
    assert len(below(seaweed, bucket, ".staging")) == 1


@pytest.mark.parametrize("how", ["clear", "move_to_quarantine"])
def test_an_object_goes_only_when_its_copy_is_one(
    seaweed: SeaweedFS, gate: Gateway, bucket: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Night after night; and where nothing may be deleted, it says so."""
    monkeypatch.setattr("archiver.stores.s3.store.MAX_BYTES", 100)
    key = f"{STEM}.json"
    put(seaweed, bucket, f"{PREFIX}{key}", OLD)
    store = S3Store(f"s3://{bucket}/{PREFIX}", S3Options(gate.endpoint))

    async def move() -> str | None:
        async with store.exclusive("r-x"):
            return await getattr(store, how)(key)  # type: ignore[no-any-return]

    def half(request: Request) -> Answer:
        target = request.path.removeprefix(f"/{bucket}/")
        put(seaweed, bucket, target, OLD[:1_000])
        return Answer(200, body=b"<CopyObjectResult><ETag>&quot;1&quot;</ETag></CopyObjectResult>")

    gate.add(Fault("CopyObject", None, instead=half))
    gate.add(refuse_to_delete := gates.refuse(403, "AccessDenied", kind="DeleteObject", times=None))
    refuse_to_delete.wanted = lambda request: "quarantine" in request.path or key in request.path
    for _ in range(2):
        with pytest.raises(StoreError, match="is not what was sent"):
            anyio.run(move)
        assert seaweed.content(bucket, f"{PREFIX}{key}") == OLD
    gate.faults[0] = gates.refuse(403, "AccessDenied", kind="CopyObject", times=1)
    with pytest.raises(StoreForbidden):  # it may not be copied: nothing goes, and none is named
        anyio.run(move)
    assert seaweed.content(bucket, f"{PREFIX}{key}") == OLD
    gate.faults.remove(gate.faults[0])
    if how == "move_to_quarantine":
        with pytest.raises(StoreForbidden, match="this access key may not delete"):
            anyio.run(move)
    assert seaweed.content(bucket, f"{PREFIX}{key}") == OLD
    gate.faults.clear()
    kept = anyio.run(move)
    assert seaweed.content(bucket, f"{PREFIX}{kept}") == OLD
    assert f"{PREFIX}{key}" not in seaweed.objects(bucket)


def test_what_another_wrote_is_not_overwritten(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str
) -> None:
    """The lease was lost while an object was being replaced."""
    put(seaweed, bucket, OBJECT, OLD)

    def lost() -> None:
        raise LockLost("somebody else has it")

    def replace_it() -> None:
        with replacing(writer, [f"{STEM}.rdb"], "1" * 64, lost):
            put(seaweed, bucket, OBJECT, NEW)
            raise StoreError("the store does not answer")

    with pytest.raises(LockLost):
        replace_it()
    assert seaweed.content(bucket, OBJECT) == NEW
    assert len(below(seaweed, bucket, ".quarantine")) == 1


def test_refused_bytes_do_not_take_the_place_of_an_object(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    """Not for a moment: rejected bytes are discarded when they cannot be kept otherwise."""
    put(seaweed, bucket, OBJECT, OLD)
    staging = staged(writer, LARGE)
    assert staging.quarantine("it is wrong") is None
    assert seaweed.content(bucket, OBJECT) == OLD
    assert gate.counts["CompleteMultipartUpload"] == 0
    assert below(seaweed, bucket, ".quarantine") == below(seaweed, bucket, ".staging") == []
    assert list(writer.bucket.multipart.unfinished()) == []


def test_a_copy_that_the_store_does_not_keep_costs_nothing(
    writer: VerifiedWriter,
    seaweed: SeaweedFS,
    gate: Gateway,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second copy is verified before the first one is deleted."""
    put(seaweed, bucket, OBJECT, OLD)
    kill_at(writer, "verify", monkeypatch)
    later = b"brought and proven by a later run"
    put(seaweed, bucket, OBJECT, later)
    said = json.dumps({"sha256": hashlib.sha256(later).hexdigest()}).encode()
    put(seaweed, bucket, f"{OBJECT.rpartition('.')[0]}.json", said)
    copied = b"<CopyObjectResult><ETag>&quot;1&quot;</ETag></CopyObjectResult>"
    gate.add(Fault("CopyObject", None, instead=lambda _: Answer(200, body=copied)))
    swept(writer)
    kept = [seaweed.content(bucket, key) for key in below(seaweed, bucket, ".quarantine")]
    assert kept == [OLD]


def test_others_that_died_meanwhile_are_settled_by_the_same_store(
    seaweed: SeaweedFS, gate: Gateway, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process that runs for long and opens the archive repeatedly."""
    store = S3Store(f"s3://{bucket}/{PREFIX}", S3Options(gate.endpoint))

    async def run() -> list[Leftover]:
        async with store.exclusive("r-x"):
            return await store.sweep("r-x")

    put(seaweed, bucket, OBJECT, OLD)
    assert anyio.run(run) == []
    kill_at(writer_at(gate, bucket), "verify", monkeypatch)
    put(seaweed, bucket, OBJECT, bytes(len(NEW)))
    [leftover] = anyio.run(run)
    assert "was restored to" in leftover.why
    assert seaweed.content(bucket, OBJECT) == OLD


def test_a_record_that_is_wrong_does_not_cost_the_right_object(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run died while its key had another object, without a record."""
    put(seaweed, bucket, OBJECT, OLD)
    kill_at(writer, "verify", monkeypatch)
    put(seaweed, bucket, OBJECT, b"what nobody knows")
    said = json.dumps({"sha256": "2" * 64}).encode()
    put(seaweed, bucket, f"{OBJECT.rpartition('.')[0]}.json", said)
    swept(writer)
    assert seaweed.content(bucket, OBJECT) == OLD


@pytest.mark.parametrize("recorded", [True, False])
def test_a_later_run_had_downloaded_another(
    writer: VerifiedWriter,
    seaweed: SeaweedFS,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    """The old object never replaces one that its record names."""
    put(seaweed, bucket, OBJECT, OLD)
    kill_at(writer, "verify", monkeypatch)
    later = b"brought and proven by a later run"
    put(seaweed, bucket, OBJECT, later)
    if recorded:
        record = json.dumps({"sha256": hashlib.sha256(later).hexdigest()}).encode()
        put(seaweed, bucket, f"{OBJECT.rpartition('.')[0]}.json", record)
    swept(writer)
    assert seaweed.content(bucket, OBJECT) == (later if recorded else OLD)
    kept = [seaweed.content(bucket, key) for key in below(seaweed, bucket, ".quarantine")]
    assert kept == [OLD if recorded else later]
    assert swept(writer) == []


def test_a_copy_that_is_there_refuses_nothing(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again, without a sweep between."""
    put(seaweed, bucket, OBJECT, OLD)
    for method in ("put", "verify", "verify"):
        kill_at(writer, method, monkeypatch)
    commit(writer, NEW)
    assert seaweed.content(bucket, OBJECT) == NEW
    swept(writer)
    assert seaweed.content(bucket, OBJECT) == NEW
    assert below(seaweed, bucket, ".quarantine") == []


def test_a_key_that_may_not_delete(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    """The copy is emptied instead, and later runs ignore it."""
    gate.add(gates.refuse(403, "AccessDenied", kind="DeleteObject", times=None))
    put(seaweed, bucket, OBJECT, OLD)
    commit(writer, NEW)
    assert seaweed.content(bucket, OBJECT) == NEW
    [kept] = below(seaweed, bucket, ".quarantine")
    assert seaweed.content(bucket, kept) == b""
    gate.forget()
    assert swept(writer) == []
    assert gate.counts["GetObject"] == gate.counts["HeadObject"] == 0


def test_bytes_that_nothing_contradicts_are_kept_in_quarantine(
    writer: VerifiedWriter, seaweed: SeaweedFS, bucket: str
) -> None:
    put(seaweed, bucket, OBJECT, OLD)
    staging = staged(writer, NEW)
    kept = staging.copy_to_quarantine(f"{STEM}.rdb", "the source says otherwise: “ß”")
    assert staging.copy_to_quarantine(f"{STEM}.rdb", "again") == kept
    assert seaweed.content(bucket, OBJECT) == OLD
    drive([staging.commit(receipt_of(NEW), record)], sync_each)
    swept(writer)
    assert seaweed.content(bucket, OBJECT) == NEW
    assert seaweed.content(bucket, f"{PREFIX}{kept}") == OLD
    note = json.loads(seaweed.content(bucket, f"{PREFIX}{kept.removesuffix('.data')}.json"))
    assert note == {"key": f"{STEM}.rdb", "size": len(OLD), "why": "again"}
    put(seaweed, bucket, f"{PREFIX}{kept}", b"somebody wrote here")
    put(seaweed, bucket, OBJECT, OLD)
    other = staged(writer, NEW).copy_to_quarantine(f"{STEM}.rdb", "once more")
    assert seaweed.content(bucket, f"{PREFIX}{kept}") == b"somebody wrote here"
    assert seaweed.content(bucket, f"{PREFIX}{other}") == OLD


def test_an_object_that_is_here_is_recorded_and_never_written(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    staged(writer, LARGE).close()  # an upload that was to bring it
    put(seaweed, bucket, OBJECT, LARGE)
    staging = S3Staging(writer, STEM, len(LARGE))
    staging.open()
    assert staging.resumable is not None
    gate.forget()
    drive([staging.record(f"{STEM}.rdb", receipt_of(LARGE), record)], sync_each)
    staging.close()
    assert not [r for r, _ in gate.requests if r.method == "PUT" and r.path.endswith(".rdb")]
    assert f"{PREFIX}{STEM}.json" in seaweed.objects(bucket)
    assert seaweed.uploads(bucket) == []
    assert below(seaweed, bucket, ".staging") == []


# What belongs to others


def test_a_sweep_leaves_what_is_of_others(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    others = {
        f"{PREFIX}.staging/notes.json": b"{}",
        f"{PREFIX}.staging/r-x/{FLAT}.json": b'00000000 {"journal": 1}',
        f"{PREFIX}.staging/r-x/{FLAT}.data": b"x",
        f"{PREFIX}.quarantine/r-x/{FLAT}.data": b"of somebody who has the same idea",
        f"{PREFIX}.quarantine/r-x/{FLAT}.json": b'{"key": "another"}',
        f"{PREFIX}.quarantine/report.replaced": b"x",
    }
    for key, data in others.items():
        put(seaweed, bucket, key, data)
    uploads = [OBJECT, f"{PREFIX}.quarantine/x", f"{PREFIX}.staging/x", f"{PREFIX}x.bin"]
    for key in uploads:
        seaweed.client().create_multipart_upload(Bucket=bucket, Key=key)
    assert swept(writer) == []
    commit(writer, NEW)
    assert {key: seaweed.content(bucket, key) for key in others} == others
    assert {key for key, _ in seaweed.uploads(bucket)} == set(uploads)


def test_an_upload_of_nobody_is_ended_when_it_is_old(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    for key in (OBJECT, f"{PREFIX}x.bin"):
        seaweed.client().create_multipart_upload(Bucket=bucket, Key=key)

    def long_ago(_: Request, answer: Answer) -> Answer:
        began = b"<Initiated>2020-01-01T00:00:00Z</Initiated>"
        return replace(answer, body=re.sub(rb"<Initiated>.*?</Initiated>", began, answer.body))

    gate.add(Fault("ListMultipartUploads", None, change=long_ago))
    [leftover] = swept(writer)
    assert leftover.key == f"{STEM}.rdb"
    assert "2020-01-01" in leftover.why
    assert [key for key, _ in seaweed.uploads(bucket)] == [f"{PREFIX}x.bin"]


def test_an_upload_is_known_for_ours_before_it_is_created(
    writer: VerifiedWriter, seaweed: SeaweedFS, gate: Gateway, bucket: str
) -> None:
    """Killed right after that: no part was uploaded, and the next run aborts it."""
    gate.add(gates.drop_answer("CreateMultipartUpload"))
    with pytest.raises(StoreError):
        staged(writer, LARGE)
    assert [key for key, _ in seaweed.uploads(bucket)] == [OBJECT]
    assert {leftover.key for leftover in swept(writer)} == {
        f"{STEM}.rdb", f".staging/r-x/{FLAT}.json",
    }  # fmt: skip
    assert seaweed.uploads(bucket) == []
    assert below(seaweed, bucket, ".staging") == []


@pytest.mark.parametrize("stem", [STEM, FOLDER])
def test_what_is_ours_is_known_by_its_name(stem: str) -> None:
    """Of a cluster's node, and of a standard instance, whose backup lies in its month."""
    key, tag, successor = f"{stem}.rdb", "0" * 16, "1" * 64
    assert is_own_upload(key)
    assert is_own_upload(rejected_key(stem))
    assert is_own_upload(quarantine_key(key, tag))
    assert is_journal(journal_key(stem))
    copy_key = replaced_copy_key(key, tag, successor)
    assert is_own_upload(copy_key)
    assert parse_replaced_copy(copy_key) == ReplacedCopy(key, tag, successor)
    for other in (f"{stem}/x/y.rdb", f"{stem}.txt", "r-x/2026/11/x.rdb", f"x/{key}"):
        assert not is_own_upload(other)
