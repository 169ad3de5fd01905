"""Whatever the bytes of a document are, reading them gives a value, or the one error."""

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archiver import documents
from archiver.archive import verified
from archiver.archive.consistency import contradictions
from archiver.archive.record import Record
from archiver.archive.sums import parse_sums
from archiver.commands.verify.statements import Statements
from archiver.documents import Fields, parse
from archiver.errors import ArchiverError, BadDocument, IntegrityError, UnsafeInput
from archiver.report import document as evidence
from archiver.sources.alibaba.fields import read_backup
from archiver.stores import holder
from archiver.stores.local import journal
from archiver.stores.s3 import journal as s3_journal
from tests.archive.test_archive import record

RECORD = record()
MONTH = "r-bp1/2026/11"
RESULTS: dict[str, Any] = {
    "format": 1,
    "tool": "archiver 0",
    "files": {
        "20261124T021500Z-42/a.rdb": {
            "at": "2026-11-24T02:15:00Z", "size": 7, "sha256": "0" * 64,
            "wrong": {"at": "2026-11-25T02:15:00Z", "fault": "changed"},
        }
    },
}  # fmt: skip
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64, -1, 10**39, 10**4000]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", ".", "..", "/", "a/b", "a\0b", "\ud800", "x" * 300, "é" * 150, "~", "\n", "\u2028"]
    ),
    st.sampled_from(
        ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-24T00:00:00+00:00:01",
         "2026-W01-1", "20261124", "24:00", "+2026-11-24"]
    ),
)  # fmt: skip
values = st.recursive(
    odd, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
)


def places(value: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The ways to everything within a document."""
    found = [at]
    inner = value.items() if isinstance(value, dict) else ()
    for name, one in inner:
        found += places(one, (*at, name))
    return found


def changed(value: Any, at: tuple[object, ...], new: object, *, gone: bool) -> Any:
    if not at:
        return new
    copied = dict(value)
    if gone and len(at) == 1:
        del copied[at[0]]
    else:
        copied[at[0]] = changed(value[at[0]], at[1:], new, gone=gone)
    return copied


def nearly(document: Any) -> st.SearchStrategy[bytes]:
    """The document with something in it lost, or something else in its place."""
    return st.builds(
        lambda at, new, gone: json.dumps(changed(document, at, new, gone=gone)).encode(),
        st.sampled_from(places(document)),
        values,
        st.booleans(),
    )


def flipped(data: bytes) -> st.SearchStrategy[bytes]:
    """One bit of it, or a cut."""
    bits = st.builds(
        lambda at, bit: data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :],
        st.integers(0, len(data) - 1),
        st.integers(0, 7),
    )
    return bits | st.integers(0, len(data)).map(lambda cut: data[:cut])


garbage = st.one_of(
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value).encode()),
    st.text().map(lambda text: text.encode("utf-16", "surrogatepass")),
    st.sampled_from([DEEP, b"[" * 100_000, b"\xef\xbb\xbf{}", b'{"a": 1, "a": 1}', b"NaN"]),
    st.sampled_from([b'{"format": 1e999}', b'{"a": "\\ud800"}', b"1" * 5000]),
    st.just(b'{"format": ' + b"9" * 5000 + b"}"),
)


def only(read: Callable[[bytes], object], data: bytes) -> object:
    """What is read; nothing but the one error may be raised, and it names the document."""
    failed: BadDocument | None = None
    try:
        return read(data)
    except BadDocument as error:
        failed = error
    assert isinstance(failed, IntegrityError)
    assert (failed.key, bool(failed.fault)) == ("k", True)
    assert len(str(failed)) < 500
    assert "\n" not in str(failed)
    return None


slow = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@slow
@given(garbage | nearly(dict(RECORD.document)) | flipped(RECORD.encode()))
@example(DEEP)
@example(json.dumps(dict(RECORD.document) | {"size": 1.5}).encode())
@example(json.dumps(dict(RECORD.document) | {"size": True}).encode())
def test_records(data: bytes) -> None:
    """What is read can be used by all that use records, and written again."""
    read = only(lambda given: Record.decode("k", given), data)
    if not isinstance(read, Record):
        return
    assert type(read.size) is int
    assert Record.decode("k", read.encode()) == read
    for text in (read.object_key, read.node_id, read.instance_id, read.backup_id):
        assert documents.is_clean(text)
    assert 1969 < read.started_at.year < 9999
    assert isinstance(Statements(read).crc64, int)
    contradictions(read)
    contradictions(Record.decode(RECORD.key, data))
    with suppress(UnsafeInput):
        read_backup(read.instance_id, read.received)


@slow
@given(garbage | nearly(RESULTS) | flipped(json.dumps(RESULTS).encode()))
def test_results(data: bytes) -> None:
    read = only(lambda given: verified.decode("k", MONTH, given), data)
    for key, result in (read or {}).items():  # type: ignore[attr-defined]
        assert key.startswith(f"{MONTH}/")
        assert key.count("/") == 4
        assert "\0" not in key
        key.encode()
        assert result.at is None or result.at.tzinfo is UTC
        assert type(result.size) is int


@slow
@given(garbage)
def test_formats_and_leases(data: bytes) -> None:
    only(lambda given: parse("k", given).format("format", 1), data)
    for value in holder.parse(data).values():
        assert value is None or isinstance(value, str | int)


@slow
@given(garbage | st.binary().map(lambda raw: b"0" * 64 + b"  " + raw + b"\n"))
def test_sums(data: bytes) -> None:
    for name in parse_sums(data) or {}:
        assert documents.is_name(name)


@slow
@given(garbage)
def test_evidence(data: bytes) -> None:
    with suppress(ArchiverError):
        evidence.decode(data, "k")


def lined(document: object) -> bytes:
    text = json.dumps(document).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


HEAD = {"journal": 1, "size": 9, "etag": None, "crc64": 1, "part_size": 5, "origin": "o",
        "network": "public"}  # fmt: skip
KEPT = HEAD | {"key": "k", "upload_id": "u", "state": None, "parts": [[1, None, 5, "e"]]}


@slow
@given(st.lists(nearly(HEAD) | nearly({"part": 1, "crc64": 7, "bytes": 3}) | garbage, max_size=4))
def test_journals(lines: list[bytes]) -> None:
    """Their lines have the right checksum: somebody wrote them so."""
    data = b"".join(b"%08x %s\n" % (zlib.crc32(one), one) for one in lines)
    for head in (b"", lined(HEAD)):
        read = journal.parse(head + data)
        if read is not None:
            assert type(read.pin.total) is int
            assert all(type(part) is int for part in (*read.crcs, *read.partial))


@slow
@given(nearly(KEPT) | garbage)
def test_journals_of_uploads(text: bytes) -> None:
    read = s3_journal.parse(b"%08x %s" % (zlib.crc32(text), text))
    if read is not None:
        assert read.fits("k", 9) in (True, False)
        assert all(type(part.size) is int for part in read.parts)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (DEEP, "nested"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested"),
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large a number"),
        (b'{"a": ' + b"7" * 5000 + b"}", "more than 40 digits"),
        (b"\xef\xbb\xbf{}", "not JSON, from line 1, column 1 on"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"{" + b"," * 5_000_000 + b"}", "values"),
        (b" " * (documents.MAX_BYTES + 1), "bytes"),
    ],
)
def test_what_is_not_a_document(data: bytes, why: str) -> None:
    with pytest.raises(BadDocument, match=why):
        parse("k", data)


@pytest.mark.parametrize("value", [1.5, 1.0, True, "1", None, -1, 2**63, [], {}])
def test_a_size_is_a_whole_number(value: object) -> None:
    with pytest.raises(BadDocument, match=r"k: it cannot be read: size is "):
        Fields("k", {"size": value}).number("size")


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a\0b", "\ud800", "x" * 201, "a\nb"])
def test_what_is_not_the_name_of_a_file(name: str) -> None:
    with pytest.raises(BadDocument):
        Fields("k", {"object": name}).name("object")


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1969-12-31T23:59:59Z", "soon", ""],
)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(BadDocument):
        Fields("k", {"at": text}).moment("at")


def test_times_of_other_zones() -> None:
    at = Fields("k", {"at": "2026-11-24T10:15:00+08:00"}).moment("at")
    assert at == datetime(2026, 11, 24, 2, 15, tzinfo=UTC)
    assert at.tzinfo is UTC


@pytest.mark.parametrize(
    "change",
    [
        {"BackupSize": 1.5},
        {"BackupSize": True},
        {"BackupSize": 2**63},
        {"BackupSize": "1_0"},
        {"BackupStartTime": "9999-12-31T23:59:59Z"},
        {"New": json.loads("[" * 60 + "]" * 60)},
        {"New": float("inf")},
    ],
)
def test_what_no_record_could_keep_is_not_listed(change: dict[str, object]) -> None:
    """Else a backup would come home and its record could never be read."""
    with pytest.raises(UnsafeInput):
        read_backup("r-bp1", {**RECORD.received, **change})
