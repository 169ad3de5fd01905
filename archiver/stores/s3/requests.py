"""The requests of botocore's clients, for the log: each try is one."""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from archiver.logs import Request

_ATTEMPT: Final = re.compile(rb"attempt=(\d+)")


def log_requests(client: Any) -> None:  # noqa: ANN401 - botocore has no types
    """Have each request of a new client logged, with what came of it."""
    # Of all that botocore tells of a request, nothing is told of every one that ends: an answer
    # that is refused before it is parsed is not. They are all sent here.
    log_sent(client._endpoint.http_session)  # noqa: SLF001
    client.meta.events.register("before-send", _name)


def log_sent(session: Any, *, is_secret: bool = False) -> None:  # noqa: ANN401
    """Have all logged that botocore's HTTP ``session`` sends, without the paths of URLs that are
    secrets themselves."""
    session.send = _logging(session.send, is_secret=is_secret)


def _name(request: Any, event_name: str, **_: object) -> None:  # noqa: ANN401
    """For botocore's ``before-send.SERVICE.OPERATION``: only its name says the operation."""
    request.operation = event_name.rpartition(".")[2]


def _logging(send: Callable[[Any], Any], *, is_secret: bool) -> Callable[[Any], Any]:
    def logging(prepared: Any) -> Any:  # noqa: ANN401
        request = _begun(prepared, is_secret=is_secret)
        if request is None:
            return send(prepared)
        try:
            answer = send(prepared)
        except BaseException as error:
            request.ended(error)
            raise
        request.status = answer.status_code
        request.size = _size(prepared, answer)
        request.ended()
        return answer

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


def _size(prepared: Any, answer: Any) -> int:  # noqa: ANN401
    """Bytes of the body that was sent, or else of that which is answered. That of an object is
    still to be read, by somebody else."""
    if prepared.body:
        length = prepared.headers.get("Content-Length", "0")
    elif prepared.method == "HEAD":
        return 0
    elif prepared.stream_output:
        length = answer.headers.get("Content-Length", "0")
    else:
        return len(answer.content)
    text = _bytes(length)
    return int(text) if text.isdigit() else 0


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
