"""The files in a directory or bucket that are backups. Nothing there is ever changed.

A file is known by its path, its size and the time of its last change: one that is overwritten under
the same name is another backup.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from archiver import events
from archiver.concurrency import for_each, in_thread
from archiver.documents import is_key
from archiver.errors import (
    ArchiverError,
    BackupFailed,
    BackupGone,
    FileChanged,
    ObjectMissing,
    PermissionDenied,
    StoreForbidden,
)
from archiver.logs import OF_RUNS, logged
from archiver.model import Backup, Page, Pin, Query, Refused, Status
from archiver.sources.files.contents import (
    HEAD_BYTES,
    STALLED,
    TAIL_BYTES,
    created_at,
    why_unfinished,
)
from archiver.sources.files.fields import read_backup
from archiver.sources.files.multipart import (
    MAX_MANIFEST_BYTES,
    Joined,
    JoinedFiles,
    files_of,
    is_manifest,
    join,
    names_in,
)
from archiver.sources.files.names import Left, Pattern, Said, read_name
from archiver.stores.base import Entry, Opened, OpenedObject, Store
from archiver.times import format_iso

_AT_ONCE = 8
_PAGE_SIZE = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ARCHIVE = "/archive.json"


@dataclass(slots=True)
class _Found:
    """What a listing came to: ``files`` that may be backups, by their names, ``others`` that are
    none; of the first, the backups, and what cannot be used."""

    files: list[tuple[Entry, Said]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    backups: list[Backup] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


class FileSource:
    """Lists the backups in ``store``, as those of whichever instance is asked for.

    ``patterns`` are texts (:mod:`.names`); without any, the usual names are known. ``now`` is a
    clock. Raises UsageError for a text that is no pattern.
    """

    def __init__(
        self,
        store: Store,
        patterns: Sequence[str] = (),
        observer: events.Observer = events.ignore,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store: Final = store
        self._patterns: Final = tuple(map(Pattern, patterns))
        self._observer: Final = logged(observer, OF_RUNS)
        self._now: Final = now
        # By their versions, the logs of several files.
        self._joined: Final[dict[str, Joined]] = {}

    async def pages(self, query: Query) -> AsyncGenerator[Page, None]:
        """See Source: the oldest first. Raises BackupFailed where there is no backup at all."""
        found = await self._list(query.instance_id)
        if not (found.files or found.refused):
            raise BackupFailed(
                f"{self._store}: there is no file that is a backup by its name",
                hint=f"{self._store.missing_hint}, or name them with --pattern",
            )

        async def look(file: tuple[Entry, Said]) -> None:
            await self._look(query.instance_id, *file, found)

        await for_each(found.files, look, _AT_ONCE)
        found.backups.sort(key=lambda one: (one.started_at, one.backup_id))
        total, refused = len(found.backups), tuple(found.refused)
        if not total:
            yield Page(1, _PAGE_SIZE, 0, (), refused)
        for number, start in enumerate(range(0, total, _PAGE_SIZE), 1):
            some = tuple(found.backups[start : start + _PAGE_SIZE])
            self._observer(events.PageListed(query.instance_id, number, len(some), total))
            yield Page(number, _PAGE_SIZE, total, some, refused if number == 1 else ())

    async def again(self, backup: Backup) -> Backup:
        """See Source: the same, since a file has no URL that could expire."""
        return backup

    def url(self, backup: Backup) -> str:
        """Where the file of a backup is."""
        return self._url(backup.received["name"])

    def pin(self, backup: Backup) -> Pin:
        """What the file of a backup should be, by the listing."""
        received = backup.received
        return Pin(received["size"], received["version"], None)

    def open(self, backup: Backup) -> AbstractContextManager[Opened]:
        """Open the file of a backup; blocks. What is read of it is of the file that was listed.

        Raises FileChanged, BackupGone, PermissionDenied, StoreError.
        """
        return self._open(backup.received["name"], backup.received["version"])

    # The listing

    async def _list(self, instance_id: str) -> _Found:
        async with aclosing(self._store.entries("")) as listing:
            entries = [entry async for entry in listing]
        archives = [
            one.key.removesuffix(_ARCHIVE[1:]) for one in entries if one.key.endswith(_ARCHIVE)
        ]
        for folder in archives:
            self._left(instance_id, self._url(folder), "it is an archive: archiver copy reads it")
        found, whys = _Found(), dict[str, Refused]()
        files = [one for one in entries if not one.key.startswith(tuple(archives))]
        for entry in await in_thread(self._join, instance_id, files, whys):
            self._sort_out(instance_id, entry, found, whys)
        found.refused += whys.values()
        if found.others:
            first, more = self._url(found.others[0]), len(found.others) - 1
            name = f"{first} and {more:,} more" if more else first
            self._left(instance_id, name, "not named like a backup")
        return found

    def _join(
        self, instance_id: str, files: Sequence[Entry], whys: dict[str, Refused]
    ) -> list[Entry]:
        """The files, with those of each multi-part AOF as one; ``whys`` are those that cannot be
        one. Blocks."""
        by_key = {one.key: one for one in files}
        for manifest in filter(is_manifest, files):
            if read_name(manifest.key, self._patterns) is None:
                continue
            own = {key: by_key.pop(key) for key in files_of(manifest.key, by_key)}
            try:
                joined = self._joined_by(manifest, own)
            except ArchiverError as error:
                if error.ends_run:
                    raise
                whys[manifest.key] = _refused(error, manifest, None)
                continue
            self._joined[joined.entry.version] = joined
            by_key[manifest.key] = joined.entry
            for key in own.keys() - {one.key for one in (manifest, *joined.parts)}:
                why = "its manifest does not count it as a part of the log"
                self._left(instance_id, self._url(key), why)
        return list(by_key.values())

    def _joined_by(self, manifest: Entry, own: Mapping[str, Entry]) -> Joined:
        """Raises BackupFailed where a manifest cannot be followed; what ``open`` raises. Blocks."""
        url, folder = self._url(manifest.key), manifest.key.rpartition("/")[0]
        with self._open(manifest.key, manifest.version) as opened:
            names = names_in(_read(opened, 0, min(opened.size, MAX_MANIFEST_BYTES)))
        if names is None or manifest.size > MAX_MANIFEST_BYTES:
            raise BackupFailed(f"{url}: this is no manifest of a log that is known")
        prefix = f"{folder}/" if folder else ""
        lacks = [one for one in names if f"{prefix}{one}" not in own]
        if lacks:
            raise BackupFailed(f"{url}: it names {lacks[0]}, which is not there")
        parts = [own[f"{prefix}{one}"] for one in names]
        no_file = next((one for one in parts if not one.is_file), None)
        if no_file is not None:
            raise BackupFailed(f"{self._url(no_file.key)}: it is {no_file.what}, and no file")
        return join(manifest, parts)

    def _sort_out(
        self, instance_id: str, entry: Entry, found: _Found, whys: dict[str, Refused]
    ) -> None:
        """By its name alone; ``whys`` are those that are refused, a folder once."""
        url = self._url(entry.key)
        match self._judge(entry):
            case Said() as said:
                found.files.append((entry, said))
            case Left(why, is_harmless=True):
                self._left(instance_id, url, why)
            case Left(why, set_id, is_folder=is_folder):
                what = url.rpartition("/")[0] if is_folder else url
                whys.setdefault(what, _refused(BackupFailed(f"{what}: {why}"), entry, set_id))
            case ArchiverError() as error:
                whys[url] = Refused(error)  # it may hide files of any set
            case None:
                found.others.append(entry.key)

    def _judge(self, entry: Entry) -> Said | Left | ArchiverError | None:
        if entry.hides is not None:
            return entry.hides
        said = read_name(entry.key, self._patterns)
        if not isinstance(said, Said):
            return said
        if not entry.is_file:
            # Mostly a second name of a file that is here, such as `latest.rdb`.
            return Left(f"it is {entry.what}, and no file", is_harmless=True)
        if not is_key(entry.key):
            return Left("its name cannot be printed", said.set_id)
        if entry.modified is None or not entry.version:
            return Left("the store does not say when it was written", said.set_id)
        return said

    def _left(self, instance_id: str, name: str, why: str) -> None:
        self._observer(events.NotTaken(instance_id, name, why))

    async def _look(self, instance_id: str, entry: Entry, said: Said, found: _Found) -> None:
        """Find out what the name does not say, and whether the file is there to its end."""
        try:
            item, unfinished = await in_thread(self._examine, entry, said)
            backup = read_backup(instance_id, item)
        except ArchiverError as error:
            if error.ends_run:
                raise
            found.refused.append(_refused(error, entry, said.set_id))
        else:
            if unfinished is not None:
                why = f"{unfinished}: a later run looks again"
                self._left(instance_id, self._url(entry.key), why)
                backup = replace(backup, status=Status.UNFINISHED)
            found.backups.append(backup)

    def _examine(self, entry: Entry, said: Said) -> tuple[dict[str, object], str | None]:
        """What a record keeps of a file, and why it may still be being written, if so. Blocks."""
        written = _written(entry)
        unchanged = self._now() - written
        is_recent = unchanged < STALLED
        head = tail = b""
        if is_recent or said.began is None:
            try:
                with self._open(entry.key, entry.version) as opened:
                    head = _read(opened, 0, HEAD_BYTES)
                    if is_recent:
                        tail = _read(opened, max(0, entry.size - TAIL_BYTES), TAIL_BYTES)
            except (FileChanged, BackupGone):
                if not said.is_unfinished:
                    raise
        known = [
            (said.began, "name"), (created_at(head), "ctime"), (written, "mtime"),
        ]  # fmt: skip
        began, known_from = next((at, source) for at, source in known if at is not None)
        item: dict[str, object] = {
            "place": str(self._store),
            "name": entry.key,
            "size": entry.size,
            "modified_at": format_iso(written, "microseconds"),
            "version": entry.version,
            "node": said.node,
            "set": said.set_id,
            "started_at": format_iso(began),
            "started_at_from": known_from,
        }
        if said.is_unfinished:
            return item, "by its name it is still being written"
        return item, why_unfinished(head, tail, unchanged) if is_recent else None

    # Its files

    def _url(self, name: str) -> str:
        return f"{self._store}/{name}"

    @contextmanager
    def _open(self, name: str, version: str) -> Generator[Opened, None, None]:
        joined = self._joined.get(version)
        if joined is not None:
            with ExitStack() as stack:
                every = [
                    stack.enter_context(self._open(one.key, one.version))
                    for one in (joined.manifest, *joined.parts)
                ]
                yield JoinedFiles(every[1:])
            return
        url = self._url(name)
        with _errors(url), self._store.open(name) as opened:
            pinned = _Pinned(opened, version, url)
            pinned.check()
            yield pinned


class _Pinned:
    """Reads a file only while it is the version that was listed. Implements Opened."""

    def __init__(self, opened: OpenedObject, version: str, url: str) -> None:
        self.size: Final = opened.size
        self._opened: Final = opened
        self._version: Final = version
        self._url: Final = url

    def read(self, offset: int, block: memoryview) -> int:
        with _errors(self._url):
            count = self._opened.read(offset, block)
        self.check()  # afterwards: nothing that was read is of another version
        return count

    def check(self) -> None:
        """Raises FileChanged."""
        if self._opened.version != self._version:
            raise FileChanged(
                f"{self._url}: it was written to since it was listed: a later run takes it"
            )


@contextmanager
def _errors(url: str) -> Generator[None, None, None]:
    """Translate what concerns one file alone, where an archive would have lost it."""
    try:
        yield
    except ObjectMissing:
        raise BackupGone(f"{url}: it was removed since it was listed") from None
    except StoreForbidden as error:
        raise PermissionDenied(error.message, hint=error.hint) from None


def _read(opened: Opened, offset: int, size: int) -> bytes:
    block = bytearray(size)
    return bytes(block[: opened.read(offset, memoryview(block))])


def _written(entry: Entry) -> datetime:
    """When a file was last written, to the microsecond."""
    return _EPOCH + timedelta(microseconds=(entry.modified or 0) // 1000)


def _refused(error: ArchiverError, entry: Entry, set_id: str | None) -> Refused:
    """A file that cannot be used; one of an instance without nodes is a set of its own."""
    return Refused(error, set_id or entry.key)
