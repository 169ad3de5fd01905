"""Metrics of a run (``--metrics-file``), for the textfile collector of node_exporter.

The file is replaced as a whole when the run ends, whatever its exit code. A file is one job: the
label ``name`` is its name without suffix, so that files of several jobs have no series in common.
What a run cannot know any more, the time of the last success, is taken over from the file before.
"""

import contextlib
import importlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from archiver.cli.jsonlines import LastLine
from archiver.cli.runlog import NoLog, RunLog
from archiver.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Say = Callable[[str], object]

_SUCCESS: Final = "archiver_last_success_timestamp_seconds"
# A file that was written here has some hundred bytes, and for `status` some for each instance.
_MAX_BYTES: Final = 64 * 2**20
_MODE: Final = 0o644  # the collector is another user
_LABELS: Final = ("command", "name")
# Fields of the last line of `--json`: what they count, and the label of what has several counts.
_FIELDS: Final[tuple[tuple[str, str, str, str | None], ...]] = (
    ("bytes_fetched", "bytes", "Bytes that the last run downloaded.", "network"),
    ("bytes_archived", "archived_bytes", "Bytes of the files that the last run archived.", None),
    ("held", "held", "Backups that the archive had before the last run.", None),
    ("archived", "archived", "Backups that the last run archived.", None),
    ("failed", "failed", "Backups and instances that failed in the last run.", None),
    ("failures", "failures", "The same by the class of the error.", "class"),
    ("incomplete_sets", "incomplete_sets", "Sets that the last run left incomplete.", None),
    ("overdue", "overdue", "Instances without a backup as young as --max-age.", None),
    ("read", "read_files", "Files that the last verify read.", None),
    ("bytes_read", "read_bytes", "Bytes that the last verify read.", None),
    ("faults", "faults", "What the last verify found wrong.", "fault"),
    ("passed", "drill_passed", "Whether the last drill passed: 1 or 0.", None),
)


@contextlib.contextmanager
def metrics_to(given: Mapping[str, Any], command: str, say: Say) -> Iterator[RunLog]:
    """What writes the metrics of a run, if an option asks for them; ``say`` prints a line.

    Raises UsageError if the file cannot be written.
    """
    path = given.get("metrics_file")
    if path is None:
        yield NoLog()
    else:
        _check(path)
        importlib.import_module("prometheus_client")  # not when a signal ends the run
        yield MetricsFile(path, command, say)


def _check(path: Path) -> None:
    from archiver.cli.places import archive_around

    if (archive := archive_around(path)) is not None:
        raise UsageError(
            f"--metrics-file {path}: that is inside an archive, {archive}",
            hint="choose a place outside of it",
        )
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"--metrics-file {path}: it cannot be written",
            hint="name a file in an existing folder that can be written",
        )


class MetricsFile:
    """Writes the file when the run ends. That this fails is told, and changes no exit code."""

    def __init__(self, path: Path, command: str, say: Say) -> None:
        self._path: Final = path
        self._labels: Final = {"command": command, "name": path.stem}
        self._began: Final = time.monotonic()
        self._say: Final = say
        self._is_ended = False

    def ended(self, code: int, why: str | None, last: LastLine) -> None:
        """See RunLog."""
        if self._is_ended:
            return
        self._is_ended = True
        try:
            replace(self._path, self._text(code, last))
        except Exception as error:  # noqa: BLE001 - the run has ended, and what it did counts
            self._say(f"archiver: the metrics {self._path} could not be written: {error}")

    def _text(self, code: int, last: LastLine) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        now = time.time()
        success = now if code == EXIT_OK else last_success(self._path, self._labels)
        self._add(registry, "archiver_last_attempt_timestamp_seconds", "When the job ran.", now)
        if success is not None:
            self._add(registry, _SUCCESS, "When the job last ended with exit code 0.", success)
        seconds = time.monotonic() - self._began
        self._add(registry, "archiver_last_duration_seconds", "How long the job ran.", seconds)
        self._add(registry, "archiver_last_exit_code", "How the job ended.", code)
        for field, name, what, label in _FIELDS:
            value = (last.fields or {}).get(field)
            if value is not None:
                self._add(registry, f"archiver_last_{name}", what, value, label)
        if last.metrics is not None:
            last.metrics(registry)
        return generate_latest(registry)

    def _add(
        self,
        registry: "CollectorRegistry",
        name: str,
        what: str,
        value: Any,
        label: str | None = None,
    ) -> None:
        from prometheus_client import Gauge

        further = () if label is None else (label,)
        gauge = Gauge(name, what, (*_LABELS, *further), registry=registry)
        values = {(): value} if label is None else {(str(key),): one for key, one in value.items()}
        for labels, one in values.items():
            gauge.labels(*self._labels.values(), *labels).set(float(one))


def last_success(path: Path, labels: Mapping[str, str]) -> float | None:
    """When the job last succeeded, by the file that an earlier run left; None if nobody knows."""
    from prometheus_client.parser import text_string_to_metric_families

    with contextlib.suppress(OSError, ValueError):
        if path.stat().st_size > _MAX_BYTES:
            return None
        for family in text_string_to_metric_families(path.read_text()):
            for sample in family.samples:
                is_it = sample.name == _SUCCESS and sample.labels == labels
                if is_it and math.isfinite(sample.value):
                    return float(sample.value)
    return None


def replace(path: Path, data: bytes) -> None:
    """Write a file that everybody may read, at once or not at all. Raises OSError."""
    # The collector reads what ends in .prom: this does not, until it is whole.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), _MODE)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
