"""Objects behind signed URLs: served and refused as OSS does."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from fastcrc import crc64
from yarl import URL

from archiver import TairSource
from archiver.emulator import Emulator, objects
from archiver.emulator.oss import oss_v1_url, satisfiable
from archiver.model import Network
from examples.sample_rdb import write_rdb
from tests.conftest import INSTANCE, KEY_ID, KEY_SECRET, EmulatorMaker, everything, source_of

SIZE = 100_000


@pytest.fixture
def data(files: Path) -> bytes:
    return write_rdb(files / INSTANCE / "a.rdb", SIZE)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(skip_auto_headers=("Content-Type",)) as session:
        yield session


async def url_of(source: TairSource) -> str:
    [page] = [page async for page in source.pages(everything())]
    return page.backups[0].urls[Network.PUBLIC].reveal()


async def ask(
    session: aiohttp.ClientSession, url: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.request(method, URL(url, encoded=True), headers=named) as answer:
        seen = {name.lower(): value for name, value in answer.headers.items()}
        return answer.status, await answer.read(), seen


def code(page: bytes) -> str:
    found = re.search(rb"<Code>(\w+)</Code>", page)
    assert found is not None, page
    return found[1].decode()


async def test_the_whole_object(
    data: bytes, source: TairSource, session: aiohttp.ClientSession
) -> None:
    status, body, headers = await ask(session, await url_of(source))
    assert (status, body) == (200, data)
    assert headers["etag"] == f'"{hashlib.md5(data).hexdigest().upper()}"'
    assert headers["x-oss-hash-crc64ecma"] == str(crc64.xz(data))
    assert headers["content-length"] == str(SIZE)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("bytes=0-9", (0, 10)),
        (f"bytes=99990-{SIZE - 1}", (99_990, SIZE)),
        ("bytes=5-", (5, SIZE)),
        ("bytes=-10", (99_990, SIZE)),
    ],
)
async def test_ranges(
    data: bytes,
    source: TairSource,
    session: aiohttp.ClientSession,
    text: str,
    span: tuple[int, int],
) -> None:
    status, body, headers = await ask(session, await url_of(source), Range=text)
    assert (status, body) == (206, data[slice(*span)])
    assert headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/{SIZE}"
    # The whole object's checksum, on a part of it, too.
    assert headers["x-oss-hash-crc64ecma"] == str(crc64.xz(data))


@pytest.mark.parametrize(
    "text",
    [f"bytes=0-{SIZE}", f"bytes={SIZE}-", "bytes=9-5", "bytes=-", "lines=1-2", "bytes=0-1,3-4"],
)
def test_a_range_out_of_bounds_is_the_whole_object(text: str) -> None:
    assert satisfiable(text, SIZE) is None


async def test_conditions(data: bytes, source: TairSource, session: aiohttp.ClientSession) -> None:
    url = await url_of(source)
    etag = (await ask(session, url))[2]["etag"]
    assert (await ask(session, url, If_Match=etag))[0] == 200
    status, page, _ = await ask(session, url, If_Match='"other"')
    assert (status, code(page)) == (412, "PreconditionFailed")
    assert (await ask(session, url, If_None_Match=etag))[0] == 304


@pytest.mark.parametrize("headers", [{"x_oss_meta_a": "b"}, {"Content_Type": "text/plain"}])
async def test_headers_that_break_the_signature(
    data: bytes, source: TairSource, session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    status, page, _ = await ask(session, await url_of(source), **headers)
    assert (status, code(page)) == (403, "SignatureDoesNotMatch")


async def test_head_is_refused(
    data: bytes, source: TairSource, session: aiohttp.ClientSession
) -> None:
    assert (await ask(session, await url_of(source), "HEAD"))[0] == 403


async def test_tampering(data: bytes, source: TairSource, session: aiohttp.ClientSession) -> None:
    url = await url_of(source)
    for wrong, expected in (
        (re.sub(r"Signature=..", "Signature=xx", url), "SignatureDoesNotMatch"),
        (re.sub(r"Expires=\d", "Expires=9", url), "SignatureDoesNotMatch"),
        (re.sub(r"Expires=\d+", "Expires=%C2%B2", url), "AccessDenied"),
        (re.sub(r"/hins\d", "/hins0", url), "SignatureDoesNotMatch"),
        (re.sub(r"OSSAccessKeyId=.", "OSSAccessKeyId=x", url), "InvalidAccessKeyId"),
        (url.partition("?")[0], "AccessDenied"),
    ):
        status, page, _ = await ask(session, wrong)
        assert (status, code(page)) == (403, expected)
        for tag in (b"Message", b"RequestId", b"HostId", b"EC"):
            assert re.search(b"<%s>[^<]+</%s>" % (tag, tag), page)


async def test_expiry(files: Path, data: bytes, emulator_of: EmulatorMaker) -> None:
    late = [0.0]
    emulator = await emulator_of(files, clock=lambda: time.time() + late[0])
    async with source_of(emulator) as source, aiohttp.ClientSession() as session:
        url = await url_of(source)
        assert (await ask(session, url))[0] == 200
        late[0] = 3601
        status, page, _ = await ask(session, url)
    assert (status, code(page)) == (403, "AccessDenied")
    assert b"<EC>0002-00000069</EC>" in page


async def test_gone(
    files: Path, data: bytes, source: TairSource, session: aiohttp.ClientSession
) -> None:
    url = await url_of(source)
    (files / INSTANCE / "a.rdb").unlink()
    status, page, _ = await ask(session, url)
    assert (status, code(page)) == (404, "NoSuchKey")


async def test_nothing_outside_the_directory(
    files: Path, tmp_path: Path, data: bytes, source: TairSource, session: aiohttp.ClientSession
) -> None:
    """A link that leads out is not a backup, nor an object when it replaces one."""
    (tmp_path / "secret").write_bytes(b"secret")
    (files / INSTANCE / "link.rdb").symlink_to(tmp_path / "secret")
    url = await url_of(source)
    (files / INSTANCE / "a.rdb").unlink()
    (files / INSTANCE / "a.rdb").symlink_to(tmp_path / "secret")
    status, page, _ = await ask(session, url)
    assert (status, code(page)) == (404, "NoSuchKey")


@pytest.mark.parametrize("resource", ["/b/../../secret", "/b", "/custins1/x", "/b/a%2Fb", "//"])
async def test_keys_that_there_are_not(
    data: bytes, emulator: Emulator, session: aiohttp.ClientSession, resource: str
) -> None:
    signed = oss_v1_url(KEY_ID, KEY_SECRET, resource, int(time.time()) + 60)
    status, page, _ = await ask(session, f"{emulator.endpoint}{signed}")
    assert (status, code(page)) == (404, "NoSuchKey")


async def test_a_url_outlives_the_emulator(
    files: Path, data: bytes, emulator_of: EmulatorMaker, session: aiohttp.ClientSession
) -> None:
    """Another emulator, which has listed nothing yet, serves URLs that the first one signed."""
    async with Emulator(files, access_key_id=KEY_ID, access_key_secret=KEY_SECRET) as first:
        async with source_of(first) as source:
            url = await url_of(source)
        port = first.port
    await emulator_of(files, port=port)
    assert (await ask(session, url))[:2] == (200, data)


async def test_a_file_that_changes_is_another_object(
    files: Path, data: bytes, source: TairSource, session: aiohttp.ClientSession
) -> None:
    url = await url_of(source)
    etag = (await ask(session, url))[2]["etag"]
    other = write_rdb(files / INSTANCE / "a.rdb", SIZE, seed=1)
    assert (await ask(session, url, If_Match=etag))[0] == 412
    assert (await ask(session, url))[1] == other


async def test_one_read_for_many_ranges(
    data: bytes,
    source: TairSource,
    session: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = await url_of(source)
    measured: list[Path] = []
    real = objects._compute_meta

    def measure(path: Path) -> objects.ObjectMeta:
        measured.append(path)
        return real(path)

    monkeypatch.setattr(objects, "_compute_meta", measure)
    ranges = [ask(session, url, Range=f"bytes={n}-{n + 9}") for n in range(20)]
    answers = await asyncio.gather(*ranges)
    assert [body for _, body, _ in answers] == [data[n : n + 10] for n in range(20)]
    assert len(measured) == 1


async def test_a_client_that_leaves_early_is_not_an_error(
    data: bytes,
    source: TairSource,
    emulator: Emulator,
    session: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is printed, and above all no traceback."""

    async def gone(*_: object) -> None:
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(emulator._objects, "respond", gone)
    url = URL(await url_of(source), encoded=True)
    async with session.get(url) as response:
        await response.read()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
