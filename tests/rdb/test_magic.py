"""What a file is, by its first bytes."""

import pytest

from archiver.rdb.magic import is_cut_short, rdb_version, starts_like_aof


@pytest.mark.parametrize(
    ("head", "version"),
    [
        (b"REDIS0001", 1),
        (b"REDIS0012\xfa", 12),
        (b"VALKEY080", 80),
        (b"REDIS001", None),
        (b"REDIS00x1", None),
        (b"redis0011", None),
        (b"VALKEY08", None),
        (b"", None),
    ],
)
def test_versions(head: bytes, version: int | None) -> None:
    assert rdb_version(head) == version


def test_logs() -> None:
    assert starts_like_aof(b"*2\r\n$6\r\nSELECT\r\n")
    assert starts_like_aof(b"#TS:1628217470\r\n")
    assert not starts_like_aof(b"*2\r\n")
    assert not starts_like_aof(b"*\r\n$1\r\n")
    assert not starts_like_aof(b"#!/bin/sh\n")


def test_beginnings() -> None:
    for begun in (b"R", b"REDIS", b"REDIS001", b"VALKEY", b"VALKEY08", b"*", b"*12\r\n", b"#T"):
        assert is_cut_short(begun)
    for other in (b"X", b"REDIX", b"REDISX", b"REDIS0011", b"*x", b"*12\n\n", b"#X"):
        assert not is_cut_short(other)
