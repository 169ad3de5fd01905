"""Events and requests for :mod:`logging`.

A program that uses this library can add handlers to two loggers:

``archiver``
    The events of runs: those of :mod:`archiver.events`, of verifies and of drills. The message is
    the text that the command line prints. A record has ``event`` (a name like ``archived``),
    ``instance`` (an instance ID, or None) and ``fields`` (a mapping of the event's own fields).
    Backups that are held or planned, and pages of a listing, are logged at DEBUG.
``archiver.requests``
    Every finished request, at DEBUG: to the vendor's API, to services that give credentials, for
    downloads, and to buckets. Each try is a record of its own. ``event`` is ``request``; ``fields``
    has ``method``, ``host``, ``path`` (no query), ``action``, ``status`` (None: no answer),
    ``bytes``, ``seconds``, ``attempt`` (buckets only) and ``error`` (its type, or None).

The library installs no handler. No record has a key, a token or the query of a URL::

    logging.getLogger("archiver").setLevel(logging.INFO)
    logging.getLogger("archiver.requests").setLevel(logging.DEBUG)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")

Requests are logged in the thread that made them.
"""

import dataclasses
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from archiver import words
from archiver.events import Event, Work
from archiver.ids import ID, RESERVED

E_contra = TypeVar("E_contra", contravariant=True)

EVENTS: Final = logging.getLogger("archiver")
REQUESTS: Final = logging.getLogger("archiver.requests")
# Without it, logging prints warnings on stderr if the program has installed no handler.
EVENTS.addHandler(logging.NullHandler())

# An instance's id: alone, where it has a vendor's form, or as the first folder of a key.
_OF_INSTANCE: Final = re.compile(
    rf"(?P<id>[a-z]{{1,4}}-[A-Za-z0-9-]{{1,60}}"
    rf"|(?!({'|'.join(sorted(RESERVED))})/){ID.pattern}(?=/\d{{4}}))"
    r"(/\d{4}(/.*)?)?"
)
_BIG_LETTER: Final = re.compile(r"(?<!^)(?=[A-Z])")


# Events


@dataclass(frozen=True, slots=True)
class Words(Generic[E_contra]):
    """How events of one kind are logged: level and text (None: not logged), and fields."""

    level: Callable[[E_contra], int | None]
    text: Callable[[E_contra], str | None]
    fields: Callable[[E_contra], Mapping[str, Any]]


class Logged(Generic[E_contra]):
    """Logs each event, then passes it to ``observer``."""

    def __init__(self, observer: Callable[[E_contra], None], words_: Words[E_contra]) -> None:
        self._observer: Final = observer
        self._words: Final = words_

    def __call__(self, event: E_contra) -> None:
        level = self._words.level(event)
        if level is not None and EVENTS.isEnabledFor(level):
            text = self._words.text(event)
            if text is not None:
                fields = self._words.fields(event)
                record(level, name_of(event), text, instance_of(fields), fields)
        self._observer(event)


class _Relayed(Logged[E_contra]):
    """An observer in front of one that logs."""

    def __call__(self, event: E_contra) -> None:
        self._observer(event)


def logged(
    observer: Callable[[E_contra], None], words_: Words[E_contra]
) -> Callable[[E_contra], None]:
    """An observer that logs every event before ``observer`` gets it; ``observer`` itself if it
    logs already."""
    return observer if isinstance(observer, Logged) else Logged(observer, words_)


def relayed(observer: Callable[[E_contra], None]) -> Callable[[E_contra], None]:
    """``observer`` marked as one that passes its events to an observer that logs them, so that
    :func:`logged` does not log them twice."""
    return _Relayed(observer, Words(lambda _: None, lambda _: None, fields_of))


def record(
    level: int, event: str, text: str, instance: str | None, fields: Mapping[str, Any]
) -> None:
    """Log something that happened in a run. What no encoding has, such as half of a surrogate pair
    in a listing, is escaped: a handler would fail to write it."""
    written = text.encode("utf-8", "backslashreplace").decode()
    EVENTS.log(level, written, extra={"event": event, "instance": instance, "fields": fields})


def name_of(event: object) -> str:
    """``set_completed`` for SetCompleted."""
    return _BIG_LETTER.sub("_", type(event).__name__).lower()


def fields_of(event: Any) -> Mapping[str, Any]:  # noqa: ANN401 - any dataclass
    """The fields of an event, as they are."""
    return {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}


def instance_of(fields: Mapping[str, Any]) -> str | None:
    """The instance that an event is about, as far as its fields name one."""
    if (backup := fields.get("backup")) is not None:
        return str(backup.instance_id)
    if (instance_id := fields.get("instance_id")) is not None:
        return str(instance_id)
    # Without a backup, a failure is of the instance that it names; else it is the backup's name.
    for name in ("key", "object_key", *(("subject",) if "backup" in fields else ())):
        value = fields.get(name)
        if isinstance(value, str) and (found := _OF_INSTANCE.fullmatch(value)) is not None:
            return found["id"]
    return None


def _text(event: Event) -> str | None:
    shown = words.line(event)
    return None if shown is None else shown[1]


OF_RUNS: Final[Words[Event]] = Words(words.level, _text, fields_of)
OF_WORK: Final[Words[Work]] = Words(words.level, words.work, fields_of)


# Requests


@dataclass(slots=True)
class Request:
    """A request that is under way, logged once by :meth:`ended`.

    ``action`` is the API's or the bucket's name of what is asked for; ``path`` has no query, and
    is ``***`` where the address itself is a secret.
    """

    method: str
    host: str
    path: str
    action: str | None = None
    attempt: int | None = None
    began: float = dataclasses.field(default_factory=time.monotonic)
    status: int | None = None
    size: int = 0

    @classmethod
    def begun(
        cls,
        method: str,
        host: str,
        path: str,
        *,
        action: str | None = None,
        attempt: int | None = None,
    ) -> "Request | None":
        """A request that starts now; None, at hardly any cost, if nobody listens."""
        if not REQUESTS.isEnabledFor(logging.DEBUG):
            return None
        return cls(method, host, path.partition("?")[0], action, attempt)

    def ended(self, error: BaseException | None = None) -> None:
        """Log it. ``status`` is None when no answer came, and ``size`` the bytes of the answer's
        body, or of its own where it sent one."""
        seconds = time.monotonic() - self.began
        failed = None if error is None else type(error).__name__
        answer = "no answer" if self.status is None else str(self.status)
        what = " ".join(filter(None, (self.method, f"{self.host}{self.path}", self.action)))
        tries = f", try {self.attempt}" if (self.attempt or 1) > 1 else ""
        why = f", {failed}" if failed else ""
        size = words.size(self.size)
        record_request(
            f"request: {what}: {answer}, {size} in {seconds:.3f} s{tries}{why}",
            {
                "method": self.method,
                "host": self.host,
                "path": self.path,
                "action": self.action,
                "status": self.status,
                "bytes": self.size,
                "seconds": round(seconds, 6),
                "attempt": self.attempt,
                "error": failed,
            },
        )


def record_request(text: str, fields: Mapping[str, Any]) -> None:
    """Log a finished request."""
    REQUESTS.debug(text, extra={"event": "request", "instance": None, "fields": fields})
