"""Requests that wait for a bucket can be aborted."""

import socket
import threading
from collections.abc import Iterator

import pytest

from archiver import concurrency
from archiver.errors import StoreError
from archiver.stores.s3.bucket import Bucket
from archiver.stores.s3.options import S3Options
from archiver.stores.s3.outages import OutageBudget


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    # Longer than anybody waits here.
    monkeypatch.setattr("archiver.stores.s3.client.CONNECT_SECONDS", 300)
    monkeypatch.setattr("archiver.stores.s3.client.READ_SECONDS", 300)
    monkeypatch.setattr(concurrency, "_ABORTS", set())  # other tests have buckets of their own
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def given_up(endpoint: str, begun: threading.Event) -> StoreError:
    """The outcome of a request that is aborted once it waits for a response."""
    bucket = Bucket("b", "x/", S3Options(endpoint=endpoint))
    failures: list[StoreError] = []

    def ask() -> None:
        try:
            bucket.head("key")
        except StoreError as error:
            failures.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert begun.wait(60)
    concurrency.abort_pending_calls()
    thread.join(15)  # it would wait for two minutes
    [failure] = failures
    with pytest.raises(StoreError):
        bucket.head("key")  # for good
    return failure


@pytest.mark.parametrize(("scheme", "ahead"), [("http", b"HEAD /b/x/key"), ("https", b"\x16\x03")])
def test_an_answer_and_a_handshake_that_do_not_come(
    listener: socket.socket, scheme: str, ahead: bytes
) -> None:
    begun, opened = threading.Event(), list[socket.socket]()

    def listen() -> None:
        connection, _ = listener.accept()
        opened.append(connection)
        if connection.recv(4096).startswith(ahead):
            begun.set()

    threading.Thread(target=listen, daemon=True).start()
    failure = given_up(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", begun)
    assert "s3://b" in str(failure)
    for connection in opened:
        connection.close()


def test_no_next_try_follows(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a store that refuses connections, which would be retried otherwise."""
    asked: list[object] = []
    monkeypatch.setattr(OutageBudget, "needs_retry", lambda *_, **given: asked.append(given))
    number = listener.getsockname()[1]
    listener.close()
    bucket = Bucket("b", "x/", S3Options(endpoint=f"http://127.0.0.1:{number}"))
    for _ in range(2):
        with pytest.raises(StoreError):
            bucket.head("key")
        assert len(asked) == 1
        concurrency.abort_pending_calls()
