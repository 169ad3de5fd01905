"""The texts that people read: of retries, and of what a library or the system calls a failure."""

import errno
import socket
import ssl
from collections.abc import Mapping

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from botocore import exceptions

from archiver import words
from archiver.errors import SourceUnavailable, StoreError
from archiver.events import Retrying
from archiver.network import failure_in_words
from archiver.stores.s3.errors import bucket_errors

KEY = ConnectionKey(
    "h", 1, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)
REFUSED = OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 19999)")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (REFUSED, "connection refused"),
        (aiohttp.ClientConnectorError(KEY, REFUSED), "connection refused"),
        (
            aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")),
            "its name cannot be resolved",
        ),
        (aiohttp.ServerTimeoutError(), "it did not answer in time"),
        (aiohttp.ServerDisconnectedError(), "the connection broke off"),
        (aiohttp.ClientPayloadError("https://host/?Signature=x"), "the connection broke off"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset by peer"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "the TLS handshake failed"),
        (UnicodeError("label too long"), "its name cannot be resolved"),
        (OSError(), "the connection broke off"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_told_in_plain_words(error: Exception, said: str) -> None:
    assert failure_in_words(error) == said


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (exceptions.EndpointConnectionError, {}, "no response from h:1: it cannot be connected to"),
        (exceptions.ConnectTimeoutError, {}, "no response from h:1: it did not answer in time"),
        (exceptions.ReadTimeoutError, {}, "no response from h:1: it did not answer in time"),
        (exceptions.ConnectionClosedError, {}, "no response from h:1: the connection broke off"),
        (
            exceptions.HTTPClientError,
            {"error": REFUSED},
            "no response from h:1: connection refused",
        ),
        (
            exceptions.ProxyConnectionError,
            {"proxy_url": "http://user:hunter2@proxy"},
            "no response from h:1: the proxy cannot be connected to",
        ),
    ],
)
def test_no_response_from_a_bucket(
    kind: type[exceptions.BotoCoreError], given: Mapping[str, object], said: str
) -> None:
    error = kind(endpoint_url="https://h:1", **{"error": OSError(), **given})
    with pytest.raises(StoreError) as caught, bucket_errors("s3://b/k"):
        raise error
    assert caught.value.message == f"s3://b/k: {said}"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("r-x-1: it broke", "retry 2 in 0.5 s: r-x-1: it broke"),
        ("it broke", "retry 2 in 0.5 s: r-x-1: it broke"),
    ],
)
def test_a_retry_names_its_subject_once(message: str, said: str) -> None:
    event = Retrying("r-x-1", SourceUnavailable(message), 2, 0.5, "r-x")
    assert words.line(event) == (words.VERBOSE, said)
