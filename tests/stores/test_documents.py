"""A store reads no more of a document than its maximum size."""

import os
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from archiver.documents import MAX_BYTES
from archiver.errors import (
    InstanceForbidden,
    NoDocument,
    PlaceTaken,
    StoreError,
    StoreForbidden,
    UnreadableObject,
)
from archiver.stores.local import reading
from archiver.stores.local.store import LocalStore
from archiver.stores.s3 import S3Options, S3Store

LARGE = 6 * 2**30
KEY = "r-x/2026/11/20261124T021500Z-1/r-x-7.json"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "document.json"


def test_a_sparse_file_is_not_read(path: Path) -> None:
    path.touch()
    os.truncate(path, LARGE)
    tracemalloc.start()
    try:
        with pytest.raises(NoDocument, match="6,442,450,944 bytes, far too many"):
            reading.read_document(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_does_not_say_how_large_it_is() -> None:
    """Such as those of /proc, which have no size, and files that grow meanwhile."""
    assert reading.read_document("/proc/self/status", 2**20)
    with pytest.raises(NoDocument, match="far too many"):
        reading.read_document("/proc/self/status", 10)


@pytest.mark.parametrize("most", [0, 1, 10, 2**20])
def test_up_to_its_most(path: Path, most: int) -> None:
    path.write_bytes(bytes(most))
    assert reading.read_document(path, most) == bytes(most)
    path.write_bytes(bytes(most + 1))
    with pytest.raises(NoDocument):
        reading.read_document(path, most)


def test_what_is_not_a_file_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(NoDocument, match="a FIFO is in its place"):
        reading.read_document(path)
    with pytest.raises(NoDocument, match="a device is in its place"):
        reading.read_document("/dev/zero")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(NoDocument, match="a symbolic link is in its place"):
        reading.read_document(path)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "half \ud800"])
async def test_a_name_that_nothing_can_have(tmp_path: Path, name: str) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(UnreadableObject) as caught:
        await store.read(name)
    assert not caught.value.ends_run
    with pytest.raises(UnreadableObject):
        await store.size(name)


async def test_a_file_in_the_place_of_a_folder_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "r-x").write_text("?")
    store = LocalStore(tmp_path)
    assert await store.read(KEY) is None
    with pytest.raises(PlaceTaken) as caught:
        async with store.exclusive("r-x"):
            await store.put(KEY, b"{}")
    assert not caught.value.ends_run


async def test_what_is_in_the_way_is_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    async with store.exclusive("r-x"):
        for number in range(2):  # a second time, too
            (tmp_path / KEY).mkdir(parents=True)
            (tmp_path / KEY / "mine").write_text(str(number))
            kept = await store.clear(KEY)
            assert kept is not None
            assert (tmp_path / kept / "mine").read_text() == str(number)
        await store.put(KEY, b"{}")
        assert await store.clear(KEY) is None
        assert await store.clear("r-x/nothing.json") is None
    assert await store.read(KEY) == b"{}"
    assert [entry.key async for entry in store.entries("")] == [KEY]


def test_a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
    with pytest.raises(NoDocument, match="a socket is in its place"):
        reading.read_document(path)


class Bucket(BaseHTTPRequestHandler):
    """Responds to every GET in the same way."""

    code: ClassVar[tuple[int, str]] = (200, "")

    def do_GET(self) -> None:
        status, code = self.code
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else bytes(2**20)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if code else LARGE))
        self.end_headers()
        self.wfile.write(body)
        if not code:
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def bucket(status: int, code: str = "") -> Iterator[S3Store]:
    handler = type("Answering", (Bucket,), {"code": (status, code)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield S3Store("s3://b/p", S3Options(f"http://127.0.0.1:{server.server_port}"))
        finally:
            server.shutdown()
            serving.join()


async def test_a_huge_object_is_not_read(s3_writer: None) -> None:
    with bucket(200) as store, pytest.raises(NoDocument, match="6,442,450,944 bytes"):
        await store.read(KEY)
    assert MAX_BYTES < LARGE


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("InvalidObjectState", UnreadableObject),
        ("AccessDenied", InstanceForbidden),
        ("InvalidAccessKeyId", StoreForbidden),
    ],
)
async def test_an_object_that_is_kept_back(
    s3_writer: None, code: str, error: type[StoreError]
) -> None:
    """One object in an archive class does not affect the others, nor does an instance whose keys
    the policy of the bucket denies. A wrong access key does."""
    with bucket(403, code) as store, pytest.raises(error) as caught:
        await store.read(KEY)
    assert caught.value.ends_run is (code == "InvalidAccessKeyId")


async def test_what_is_denied_of_the_whole_archive(s3_writer: None) -> None:
    with bucket(403, "AccessDenied") as store, pytest.raises(StoreForbidden) as caught:
        await store.read("archive.json")
    assert caught.value.ends_run
