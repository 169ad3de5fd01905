"""What a file is, by its bytes; held against real files."""

import csv
import hashlib
from copy import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.model import Footer, Kind, RdbVerdict
from archiver.rdb.magic import rdb_version
from archiver.rdb.meter import FileMeter
from examples.sample_rdb import rdb
from tests.conftest import DATA

with (DATA / "LIST.tsv").open() as listing:
    LIST = {row["name"]: row for row in csv.DictReader(listing, delimiter="\t")}
DAMAGED = {"librdb__invalid_chksum_v8.rdb", "librdb__future_v19.rdb"}


def measured(data: bytes, block: int = 1000) -> FileMeter:
    meter = FileMeter(len(data))
    view = memoryview(data)
    for start in range(0, len(data), block):
        meter.feed(view[start : start + block])
    return meter


@pytest.mark.parametrize("path", sorted(DATA.glob("*.rdb")), ids=lambda path: path.name)
def test_real_dumps(path: Path) -> None:
    data = path.read_bytes()
    meter = measured(data, 7)
    kind, verdict = meter.verdict(is_log=False)
    assert meter.sha256() == LIST[path.name]["sha256"]
    assert kind is Kind.RDB
    written = LIST[path.name]["rdb_version"]
    assert verdict.version == (written if written.startswith("VALKEY") else f"REDIS{written}")
    if path.name in DAMAGED:
        assert verdict.footer is Footer.MISMATCH
    else:
        old = (rdb_version(data) or 0) < 5
        assert verdict.footer in ((Footer.NONE,) if old else (Footer.OK, Footer.DISABLED))


@pytest.mark.parametrize("path", sorted(DATA.glob("*.aof")), ids=lambda path: path.name)
def test_real_aofs(path: Path) -> None:
    kind, verdict = measured(path.read_bytes()).verdict(is_log=False)
    assert (kind, verdict.footer) == (Kind.AOF, Footer.NONE)


@given(st.data())
def test_any_flipped_byte_shows(data: st.DataObject) -> None:
    good = rdb(1500)
    position = data.draw(st.integers(9, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 255))
    assert measured(bytes(bad)).verdict(is_log=False)[1].footer is Footer.MISMATCH


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\x00", lambda d: d[:12]])
def test_cut_and_padded(change: object) -> None:
    data = change(rdb(5000))  # type: ignore[operator]
    assert measured(data).verdict(is_log=False)[1].footer is Footer.MISMATCH


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_the_block_size_does_not_matter(data: bytes, block: int) -> None:
    one, many = measured(data, 10**6), measured(data, block)
    assert one.sha256() == many.sha256() == hashlib.sha256(data).hexdigest()
    assert one.verdict(is_log=False) == many.verdict(is_log=False)


def test_checksums_off() -> None:
    data = rdb(5000)
    assert measured(data[:-8] + bytes(8)).verdict(is_log=False)[1].footer is Footer.DISABLED
    assert measured(data[:-9] + bytes(9)).verdict(is_log=False)[1].footer is Footer.MISMATCH


def test_an_aof_with_an_rdb_preamble() -> None:
    preamble = bytearray(rdb(2000))
    preamble[9:9] = b"\xfa\x0caof-preamble\xc0\x01"
    kind, verdict = measured(bytes(preamble) + b"*1\r\n$4\r\nPING\r\n").verdict(is_log=False)
    assert (kind, verdict) == (Kind.AOF, RdbVerdict("REDIS0009", Footer.NONE))


@pytest.mark.parametrize("field", [b"\xfa\x0caof-preamble\xc0\x01", b"\xfa\x08aof-base\xc0\x01"])
def test_a_log_may_end_anywhere_and_a_dump_may_not(field: bytes) -> None:
    preamble = b"REDIS0009" + field + rdb(1200)[9:]
    data = preamble + b"*1\r\n$4\r\nPING\r\n"
    for end in range(9, len(data) + 1):
        meter = measured(data[:end])
        assert meter.verdict(is_log=True) == (Kind.AOF, RdbVerdict("REDIS0009", Footer.NONE))
        if not data[:end].endswith(b"\r\n"):
            kind, verdict = meter.verdict(is_log=False)
            assert (kind, verdict.footer) == (Kind.RDB, Footer.MISMATCH)


def test_a_log_that_is_a_whole_dump_is_confirmed_by_its_checksum() -> None:
    assert measured(rdb(1200)).verdict(is_log=True)[1].footer is Footer.OK


@pytest.mark.parametrize("data", [b"", b"R", b"REDIS00", b"\x00" * 100, b"REDISabcd" + b"x" * 20])
def test_something_else(data: bytes) -> None:
    assert measured(data).verdict(is_log=False) == (Kind.UNKNOWN, RdbVerdict(None, Footer.NONE))


@pytest.mark.parametrize(
    "page", [b"<?xml version", b"\xef\xbb\xbf<?xml", b"\n <!DOCTYPE html>", b"<HTML>", b"<Error>x"]
)
def test_error_pages(page: bytes) -> None:
    assert measured(page).looks_like_a_page()
    assert not measured(b"REDIS0009" + page).looks_like_a_page()


def test_a_copy_goes_its_own_way() -> None:
    meter = measured(b"abc")
    twin = copy(meter)
    twin.feed(memoryview(b"def"))
    assert meter.sha256() == hashlib.sha256(b"abc").hexdigest()
    assert twin.sha256() == hashlib.sha256(b"abcdef").hexdigest()
