"""Logs the requests of botocore's clients, each try by itself."""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from archiver.logs import Request

_ATTEMPT: Final = re.compile(rb"attempt=(\d+)")


def log_requests(client: Any) -> None:  # noqa: ANN401 - botocore has no types
    """Log each request of a new client, with its result."""
    # No event of botocore is emitted for every request: none is for a response that is refused
    # before it is parsed. All requests are sent here.
    log_sent(client._endpoint.http_session)  # noqa: SLF001
    client.meta.events.register("before-send", _name)


def log_sent(session: Any, *, is_secret: bool = False) -> None:  # noqa: ANN401
    """Log what botocore's HTTP ``session`` sends. With ``is_secret`` the paths of its URLs are
    left out."""
    session.send = _logging(session.send, is_secret=is_secret)


def _name(request: Any, event_name: str, **_: object) -> None:  # noqa: ANN401
    """Handler of botocore's ``before-send.SERVICE.OPERATION``, whose name has the operation."""
    request.operation = event_name.rpartition(".")[2]


def _logging(send: Callable[[Any], Any], *, is_secret: bool) -> Callable[[Any], Any]:
    def logging(prepared: Any) -> Any:  # noqa: ANN401
        request = _begun(prepared, is_secret=is_secret)
        if request is None:
            return send(prepared)
        try:
            response = send(prepared)
        except BaseException as error:
            request.ended(error)
            raise
        request.status = response.status_code
        request.size = _size(prepared, response)
        request.ended()
        return response

    return logging


def _begun(prepared: Any, *, is_secret: bool) -> Request | None:  # noqa: ANN401
    url = urlsplit(prepared.url)
    attempt = _ATTEMPT.search(_bytes(prepared.headers.get("amz-sdk-request", "")))
    return Request.begun(
        prepared.method,
        url.netloc.rpartition("@")[2],
        "/***" if is_secret else url.path,
        action=getattr(prepared, "operation", None),
        attempt=None if attempt is None else int(attempt[1]),
    )


def _size(prepared: Any, response: Any) -> int:  # noqa: ANN401
    """Bytes of the body that was sent, or else of the response. The body of an object is read
    later, so its announced length counts."""
    if prepared.body:
        length = prepared.headers.get("Content-Length", "0")
    elif prepared.method == "HEAD":
        return 0
    elif prepared.stream_output:
        length = response.headers.get("Content-Length", "0")
    else:
        return len(response.content)
    text = _bytes(length)
    return int(text) if text.isdigit() else 0


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
