"""A hostile server, at every position: what comes is intact or the failure is loud, and a clean
run afterwards converges."""

import asyncio
import email.utils
import gzip
import json
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archiver import Archive, PullOptions, Summary, TransferOptions, pull
from archiver.emulator import Emulator
from archiver.transfer.limits import MinimumRate
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, QUICK, everything, source_of
from tests.faults.hostile import Asked, Fault, Hostile
from tests.sweeps import FULL

PART = 64 * 1024
SIZE = 5 * PART + 1234
OPTIONS = PullOptions(
    transfer=TransferOptions(
        part_size=PART, connections=2, retry=QUICK, minimum_rate=MinimumRate(50_000, 0.4)
    )
)


def cut(asked: Asked, writer: asyncio.StreamWriter) -> bool:
    writer.write(asked.answer()[: -len(asked.body) // 2])
    return True


def reset(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.answer()[: -len(asked.body) // 3])
    writer.transport.abort()


def longer(asked: Asked, writer: asyncio.StreamWriter) -> bool:
    writer.write(asked.answer(Content_Length=len(asked.body)) + b"and more")
    return True


def longer_and_says_so(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.answer(asked.body + b"and more"))


def wrong_range(asked: Asked, writer: asyncio.StreamWriter) -> None:
    span = f"bytes {asked.start + 1}-{asked.stop}/{len(asked.data)}"
    writer.write(asked.answer(Content_Range=span))


def wrong_total(asked: Asked, writer: asyncio.StreamWriter) -> None:
    span = f"bytes {asked.start}-{asked.stop - 1}/{len(asked.data) + 1}"
    writer.write(asked.answer(Content_Range=span))


def whole(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.answer(asked.data, "200 OK", Content_Range=None))


def flipped(asked: Asked, writer: asyncio.StreamWriter) -> None:
    body = bytearray(asked.body)
    body[len(body) // 2] ^= 0x40
    writer.write(asked.answer(bytes(body)))


def other_bytes(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.answer(bytes(len(asked.body))))


def chunked(asked: Asked, writer: asyncio.StreamWriter) -> bool:
    size = f"{len(asked.body):x}\r\n".encode()
    body = size + asked.body + b"\r\n0\r\n\r\n"
    writer.write(asked.answer(body, Content_Length=None, Transfer_Encoding="chunked"))
    return True


def gzipped(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.answer(gzip.compress(asked.body), Content_Encoding="gzip"))


def gzipped_whole(asked: Asked, writer: asyncio.StreamWriter) -> None:
    body = gzip.compress(asked.data)
    writer.write(asked.answer(body, "200 OK", Content_Encoding="gzip", Content_Range=None))


def page(asked: Asked, writer: asyncio.StreamWriter) -> None:
    body = b"<!DOCTYPE html><html>Please sign in to the hotel's network</html>"
    writer.write(asked.answer(body, "200 OK", Content_Range=None, Content_Type="text/html"))


def long_page(asked: Asked, writer: asyncio.StreamWriter) -> None:
    body = b"<html>" + b" " * (len(asked.data) - 6)
    writer.write(asked.answer(body, "200 OK", Content_Range=None, x_oss_hash_crc64ecma=None))


def redirect_to(location: str) -> Fault:
    def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(asked.answer(b"", "302 Found", Location=location, Content_Range=None))

    return answer


def endless_head(_: Asked, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 206 Partial Content\r\n" + b"X-More: of the same\r\n" * 10_000)
    return True


async def drip(asked: Asked, writer: asyncio.StreamWriter) -> bool:
    answer = asked.answer()
    split = len(answer) - len(asked.body)
    writer.write(answer[:split])
    for byte in asked.body[:40]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)
    return True


async def silence(_: Asked, __: asyncio.StreamWriter) -> bool:
    await asyncio.sleep(2)
    return True


def busy(status: str, **headers: object) -> Fault:
    def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(asked.answer(b"", status, Content_Range=None, **headers))

    return answer


def expired(asked: Asked, writer: asyncio.StreamWriter) -> None:
    body = b"<Error><Code>AccessDenied</Code><EC>0002-00000069</EC></Error>"
    writer.write(asked.answer(body, "403 Forbidden", Content_Range=None))


def hang_up(_: Asked, __: asyncio.StreamWriter) -> bool:
    return True


def rubbish(_: Asked, writer: asyncio.StreamWriter) -> bool:
    writer.write(os.urandom(500))
    return True


def moved(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(asked.answer(ETag='"E2"'))


LATER = email.utils.formatdate(time.time() + 1, usegmt=True)
FAULTS: dict[str, Fault] = {
    "cut": cut,
    "reset": reset,
    "longer": longer,
    "longer, and says so": longer_and_says_so,
    "wrong range": wrong_range,
    "wrong total": wrong_total,
    "whole": whole,
    "flipped": flipped,
    "other bytes": other_bytes,
    "chunked": chunked,
    "gzipped": gzipped,
    "gzipped whole": gzipped_whole,
    "page": page,
    "long page": long_page,
    "redirect elsewhere": redirect_to("http://127.0.0.1:1/elsewhere"),
    "redirect in a loop": redirect_to("/"),
    "redirect to another scheme": redirect_to("ftp://127.0.0.1/x"),
    "endless head": endless_head,
    "drip": drip,
    "silence": silence,
    "429": busy("429 Too Many Requests", Retry_After=0),
    "503": busy("503 Service Unavailable", Retry_After=LATER),
    "500": busy("500 Internal Server Error"),
    "403": expired,
    "404": busy("404 Not Found"),
    "416": busy("416 Range Not Satisfiable"),
    "hang up": hang_up,
    "rubbish": rubbish,
    "etag moves": moved,
}
# After one of these, the same pull must have the file all the same.
PASSING = {
    "cut", "reset", "longer", "whole", "flipped", "other bytes", "page", "endless head", "drip",
    "silence", "429", "503", "500", "403", "hang up", "rubbish",
}  # fmt: skip


@pytest.fixture
async def hostile(files: Path) -> AsyncIterator[Hostile]:
    data = write_rdb(files / INSTANCE / "a_20261124021500.rdb", SIZE)
    async with Hostile(data).serve() as hostile:
        point_to(files, f"http://127.0.0.1:{hostile.port}/b/k?Signature=s")
        yield hostile


def point_to(files: Path, url: str) -> None:
    fields = {"BackupDownloadURL": url, "BackupIntranetDownloadURL": ""}
    (files / INSTANCE / "backups.json").write_text(json.dumps({"a_20261124021500.rdb": fields}))


async def attempt(emulator: Emulator, archive: Archive) -> Summary:
    async with source_of(emulator, allow_hosts=["localhost"]) as source:
        return await pull(source, archive, [everything()], OPTIONS)


def kept(archive: Archive) -> list[bytes]:
    root = Path(str(archive.store)) / INSTANCE
    return [path.read_bytes() for path in root.rglob("*.rdb")] if root.exists() else []


POSITIONS = (0, 1, 3, 5)
# Each at the first, which asks what there is, and at one of the others.
EACH = [(name, at) for n, name in enumerate(FAULTS) for at in (0, POSITIONS[1 + n % 3])]
EVERYWHERE = [(name, at) for name in FAULTS for at in POSITIONS]


@pytest.mark.parametrize(("name", "position"), EVERYWHERE if FULL else EACH)
async def test_one_fault_at_a_position(
    hostile: Hostile, emulator: Emulator, archive: Archive, name: str, position: int
) -> None:
    hostile.faults = {position: FAULTS[name]}
    summary = await attempt(emulator, archive)
    if summary.failures:
        assert name not in PASSING, str(summary.failures[0].error)
        assert summary.exit_code in (1, 3)
        assert kept(archive) == []
        hostile.faults = {}
        summary = await attempt(emulator, archive)
    assert summary.failures == []
    assert kept(archive) == [hostile.data]


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_that_stays(
    hostile: Hostile, emulator: Emulator, archive: Archive, name: str
) -> None:
    hostile.always = FAULTS[name]
    summary = await attempt(emulator, archive)
    if summary.failures:
        assert kept(archive) == []
        assert "\n" not in str(summary.failures[0].error)
        assert "Signature" not in str(summary.failures[0].error)
    else:
        assert kept(archive) == [hostile.data]
    hostile.always = None
    summary = await attempt(emulator, archive)
    assert summary.failures == []
    assert kept(archive) == [hostile.data]
    assert not list((Path(str(archive.store)) / ".staging").iterdir())


async def test_the_object_changes_between_parts(
    hostile: Hostile, files: Path, emulator: Emulator, archive: Archive
) -> None:
    """The vendor replaces the file while it is fetched: from the start, once, with the new one."""

    def replaced(asked: Asked, writer: asyncio.StreamWriter) -> None:
        hostile.data, hostile.etag = write_rdb(files / "other.rdb", SIZE, 7), '"E2"'
        writer.write(asked.answer())

    hostile.faults = {1: replaced}
    summary = await attempt(emulator, archive)
    assert summary.failures == []
    assert kept(archive) == [hostile.data]


async def test_tls_with_a_wrong_name(
    files: Path,
    tmp_path: Path,
    emulator: Emulator,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    data = write_rdb(files / INSTANCE / "a_20261124021500.rdb", SIZE)
    async with Hostile(data).serve(tls) as hostile:
        point_to(files, f"https://127.0.0.1:{hostile.port}/b/k?Signature=s")
        summary = await attempt(emulator, archive)
        assert "the certificate is not trusted" in str(summary.failures[0].error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        summary = await attempt(emulator, archive)
        assert "the certificate is not trusted" in str(summary.failures[0].error), "a wrong name"
        point_to(files, f"https://localhost:{hostile.port}/b/k?Signature=s")
        summary = await attempt(emulator, archive)
        assert summary.failures == []
    assert kept(archive) == [data]
