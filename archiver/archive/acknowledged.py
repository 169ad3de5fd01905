"""What somebody has acknowledged: a night that failed at the vendor and will not come any more.

docs/archive-format.md describes the documents. An acknowledgement holds while the set is as it was
then: it ends when a file comes, goes or changes, when another node is missing, or when SHA256SUMS
loses the set. That of a set covers a failed backup only if its node is in ``missing``. Where no set
around tells which nodes it should have, each failed backup is acknowledged by its own name. So is
one that was lost with its SHA256SUMS, of which nothing is here. None covers damage. Nothing is
removed: a withdrawal is written into the document, and of two archives the later word counts.
"""

import json
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import anyio

from archiver import events
from archiver.archive import completeness, layout
from archiver.archive.archive import TOOL, Archive
from archiver.archive.backupsets import named_set
from archiver.archive.consistency import apart
from archiver.archive.contents import instances, set_of
from archiver.archive.folders import list_folders
from archiver.archive.neighbours import sets_around
from archiver.archive.reading import read_record
from archiver.documents import Fields, is_clean, is_key, parse
from archiver.errors import (
    ArchiverError,
    BadAcknowledgement,
    BadDocument,
    IntegrityError,
    NewerAcknowledgement,
    NewerDocument,
    NoSuchBackup,
    UnreadableObject,
    UsageError,
)
from archiver.logs import OF_RUNS, logged
from archiver.stores.base import Entry, Store
from archiver.times import format_day, format_iso

FORMAT: Final = 1
PREFIX: Final = layout.ACKNOWLEDGED
# Of a reason, or a name: it is shown in one line.
MOST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """When an acknowledgement was withdrawn, and by whom."""

    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody knows of a set, or of a backup, that is incomplete and will stay so."""

    subject: str
    at: datetime
    by: str
    reason: str
    files: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    sealed: bool = False
    withdrawn: Withdrawal | None = None

    @property
    def key(self) -> str:
        return layout.acknowledgement_key(self.subject)

    @property
    def is_of_a_set(self) -> bool:
        return layout.set_start(self.subject) is not None

    @property
    def last_word(self) -> datetime:
        """When it was given, or withdrawn."""
        return self.at if self.withdrawn is None else max(self.at, self.withdrawn.at)

    def __str__(self) -> str:
        return f"acknowledged by {self.by} on {format_day(self.at)}: {self.reason}"

    def is_about(self, instance_id: str) -> bool:
        """Whether it is about a set or backup of an instance, with whose name nodes begin."""
        return self.subject.startswith((f"{instance_id}/", f"{instance_id}-"))

    def encode(self) -> bytes:
        """The document, which can be read back."""
        withdrawn = self.withdrawn and {
            "at": format_iso(self.withdrawn.at),
            "by": self.withdrawn.by,
        }
        document: dict[str, Any] = {
            "format": FORMAT,
            "tool": TOOL,
            "subject": self.subject,
            "at": format_iso(self.at),
            "by": self.by,
            "reason": self.reason,
            "files": dict(sorted(self.files.items())),
            "missing": list(self.missing),
            "sealed": self.sealed,
            "withdrawn": withdrawn,
        }
        return f"{json.dumps(document, indent=2)}\n".encode("ascii")

    @classmethod
    def decode(cls, key: str, data: bytes) -> Self:
        """Read one. Raises BadDocument, also where it has the key of another."""
        fields = parse(key, data)
        fields.format("format", FORMAT)
        found = cls(
            subject=fields.line("subject"),
            at=fields.moment("at"),
            by=fields.line("by"),
            reason=fields.line("reason"),
            files=_files(fields.within("files")),
            missing=_missing_nodes(fields),
            # Those of the first versions do not say so.
            sealed="sealed" in fields.values and fields.flag("sealed"),
            withdrawn=None if fields.is_null("withdrawn") else _withdrawal(fields),
        )
        if not is_subject(found.subject) or found.key != key:
            fields.refuse("subject", "is not what the document's name says")
        return found


def _files(fields: Fields) -> dict[str, str]:
    for name in fields.values:
        if not layout.is_object_name(name):
            fields.refuse(ascii(name), "is not the name of a backup's file")
    return {name: fields.sha256(name) for name in fields.values}


def _missing_nodes(fields: Fields) -> tuple[str, ...]:
    nodes = fields.items("missing")
    if not all(isinstance(one, str) and is_clean(one) and len(one) <= MOST_TEXT for one in nodes):
        fields.refuse("missing", "contains something other than nodes")
    return tuple(nodes)


def _withdrawal(fields: Fields) -> Withdrawal:
    withdrawn = fields.within("withdrawn")
    return Withdrawal(withdrawn.moment("at"), withdrawn.line("by"))


@dataclass(frozen=True, slots=True)
class _State:
    """What an archive has of a set, and which nodes the set lacks."""

    files: Mapping[str, str]
    missing: frozenset[str]
    sealed: bool

    def is_as_in(self, one: Acknowledgement) -> bool:
        """Whether nothing changed since. A set that has no files cannot lack more nodes, whatever
        the sets around it say later."""
        lacks_more = bool(self.files) and not self.missing <= set(one.missing)
        was_unsealed = one.sealed and not self.sealed
        return self.files == one.files and not (lacks_more or was_unsealed)


class Acknowledged:
    """The acknowledgements of an archive, read once, and which of them hold.

    ``bad`` are documents that cannot be used, with the error by key: they acknowledge nothing.
    """

    def __init__(self, archive: Archive) -> None:
        self.by_key: Final[dict[str, Acknowledgement]] = {}
        self.bad: Final[dict[str, ArchiverError]] = {}
        self.archive: Final = archive
        self._is_read = False
        self._reading: Final = anyio.Lock()

    async def read(self) -> Self:
        """Read them, unless that was done. Raises StoreError."""
        async with self._reading:
            if not self._is_read:
                async for entry in self.archive.store.entries(PREFIX):
                    await self._read(entry)
                self._is_read = True
        return self

    async def _read(self, entry: Entry) -> None:
        key, hides = entry.key, entry.hides
        if hides is not None:
            is_unreadable = isinstance(hides, UnreadableObject)
            bad = BadAcknowledgement(key, hides.message, hint=hides.hint)
            self.bad[key] = hides if is_unreadable else bad
        elif layout.is_acknowledgement(key):
            try:
                one = await _read(self.archive.store, key)
            except (BadAcknowledgement, NewerAcknowledgement, UnreadableObject) as error:
                self.bad[key] = error
            else:
                if one is not None:
                    self.by_key[key] = one

    async def of(self, subject: str) -> Acknowledgement | None:
        """The acknowledgement that holds for a set, by its key, or for a failed backup, by its
        name. A set is looked at each time. Raises StoreError."""
        await self.read()
        one = self.by_key.get(layout.acknowledgement_key(subject))
        if one is None or one.withdrawn is not None or one.subject != subject:
            return None
        return one if not one.is_of_a_set or await self._is_as_it_was(one) else None

    async def of_failed(self, backup: str, set_key: str, node: str) -> Acknowledgement | None:
        """The acknowledgement that holds for a failed backup: by its own name, or that of its set
        if the node was missing then. Raises StoreError."""
        one = await self.of(backup)
        if one is None and (whole := await self.of(set_key)) is not None:
            return whole if node in whole.missing else None
        return one

    async def _is_as_it_was(self, one: Acknowledgement) -> bool:
        try:
            now = await _state(self.archive, one.subject)
        except (IntegrityError, UnreadableObject):
            return False  # whoever looks at the set says what is wrong
        return now.is_as_in(one)

    async def ended(self) -> list[Acknowledgement]:
        """Those that do not hold any more, though nobody withdrew them. Raises StoreError."""
        await self.read()
        return [
            one
            for one in self.by_key.values()
            if one.withdrawn is None and await self.of(one.subject) is None
        ]


async def acknowledge(
    archive: Archive,
    subject: str,
    *,
    by: str,
    reason: str,
    observer: events.Observer = events.ignore,
) -> Acknowledgement:
    """Acknowledge an incomplete set, or a backup that the vendor failed.

    Called by the only writer. Raises UsageError for what is neither, for a set that is complete,
    and for words that do not fit in a line; IntegrityError for a set that is damaged;
    NewerAcknowledgement where a newer version wrote one; StoreError.
    """
    check_subject(subject)
    await _check_not_here(archive, subject)
    for name, text in (("--reason", reason), ("--by", by)):
        if not text.strip() or len(text) > MOST_TEXT or not is_clean(text):
            raise UsageError(f"{name}: must be one line of text of at most {MOST_TEXT} characters")
    known = await Acknowledged(archive).read()
    before = known.by_key.get(layout.acknowledgement_key(subject))
    one = Acknowledgement(subject, _after(before), by, reason)
    if one.is_of_a_set:
        await _check_incomplete(archive, subject)
        now = await _state(archive, subject)
        missing = tuple(sorted(now.missing))
        one = replace(one, files=now.files, missing=missing, sealed=now.sealed)
    await _write(archive.store, known, one, logged(observer, OF_RUNS))
    return one


async def withdraw(archive: Archive, subject: str, *, by: str) -> Acknowledgement:
    """Withdraw an acknowledgement. Called by the only writer. Raises NoSuchBackup where there is
    none, BadAcknowledgement, NewerAcknowledgement, StoreError."""
    check_subject(subject)
    key = layout.acknowledgement_key(subject)
    one = await _read(archive.store, key)
    if one is None or one.withdrawn is not None:
        raise NoSuchBackup(f"{archive.store}: {subject} is not acknowledged")
    one = replace(one, withdrawn=Withdrawal(_after(one), by))
    await archive.store.put(key, one.encode())
    return one


async def acknowledged_backups(store: Store, names: Iterable[str]) -> set[str]:
    """Those of these backups, of which nothing is here, that somebody has acknowledged by their
    names. Raises StoreError."""
    keys = {one: layout.acknowledgement_key(one) for one in names if layout.is_backup_name(one)}
    documents, found = await store.read_many(list(keys.values())), set[str]()
    for name, key in keys.items():
        data = documents[key]
        with suppress(BadDocument):  # verify names it
            if isinstance(data, bytes) and Acknowledgement.decode(key, data).withdrawn is None:
                found.add(name)
    return found


@dataclass(frozen=True, slots=True)
class Copied:
    """An acknowledgement that another archive does not have: its ``key``; and why it cannot be
    copied (``bad``), if so, by what lies ``at`` one of the two."""

    key: str
    at: Archive
    bad: ArchiverError | None = None


async def copy_acknowledged(
    source: Archive,
    target: Archive,
    instances: Collection[str],
    set_keys: Collection[str],
    observer: events.Observer = events.ignore,
) -> AsyncGenerator[Copied, None]:
    """Copy what :func:`differing` finds. Called by the only writer of ``target``. Raises
    StoreError."""
    here, there = Acknowledged(source), Acknowledged(target)
    async for one in differing(here, there, instances, set_keys):
        if one.bad is None:
            await _write(target.store, there, here.by_key[one.key], observer)
        yield one


async def differing(
    here: Acknowledged,
    there: Acknowledged,
    instances: Collection[str],
    set_keys: Collection[str],
) -> AsyncGenerator[Copied, None]:
    """The acknowledgements of one archive that another does not have, or has an earlier word of; of
    some instances or sets, or of all. Raises StoreError."""
    await here.read()
    if here.by_key:
        await there.read()
    for key, bad in here.bad.items():
        yield Copied(key, here.archive, bad)
    for key, one in here.by_key.items():
        is_meant = one.subject in set_keys
        if not set_keys:
            is_meant = not instances or any(map(one.is_about, instances))
        if not is_meant:
            continue
        known, bad_there = there.by_key.get(key), there.bad.get(key)
        if isinstance(bad_there, NewerAcknowledgement):
            yield Copied(key, there.archive, bad_there)
        elif known is None or known.last_word < one.last_word:
            yield Copied(key, there.archive)


async def _read(store: Store, key: str) -> Acknowledgement | None:
    """Raises BadAcknowledgement, which is no wrong byte of a backup, NewerAcknowledgement,
    UnreadableObject, StoreError."""
    try:
        data = await store.read(key)
        return None if data is None else Acknowledgement.decode(key, data)
    except BadDocument as bad:
        kind = NewerAcknowledgement if isinstance(bad, NewerDocument) else BadAcknowledgement
        raise kind(bad.key, bad.fault, hint=bad.hint) from None


async def _write(
    store: Store, known: Acknowledged, one: Acknowledgement, observer: events.Observer
) -> None:
    """Write one. What has its key and cannot be read goes to quarantine. Raises
    NewerAcknowledgement where a newer version wrote one, StoreError."""
    bad = known.bad.get(one.key)
    if isinstance(bad, NewerAcknowledgement):
        raise bad
    kept = await (store.clear(one.key) if bad is None else store.move_to_quarantine(one.key))
    if kept is not None:
        observer(events.Cleared(one.key, kept))
    await store.put(one.key, one.encode())


def _after(before: Acknowledgement | None) -> datetime:
    """Now, or at least a second after an earlier word: times are written in seconds, the clock may
    have been set back, and the later one counts."""
    now = datetime.now(UTC).replace(microsecond=0)
    return now if before is None else max(now, before.last_word + timedelta(seconds=1))


def is_subject(text: str) -> bool:
    """Whether it is a set, by its key, or a backup, as its failure names it."""
    start = layout.set_start(text)
    if start is None:
        return layout.is_backup_name(text)
    return is_key(text) and layout.is_of_a_set(f"{text}/.") and apart(text, start) is not None


def check_subject(text: str) -> None:
    """Raises UsageError for what is neither a set nor a backup."""
    if not is_subject(text):
        raise UsageError(
            f"{text[:200]!a} is neither a backup set nor a backup",
            hint="a set is named by its key, like r-bp1/2026/11/20261124T021500Z-1187423, and a "
            "backup as its failure names it, like r-bp1-db-0-1187423",
        )


async def names_like(archive: Archive, subject: str) -> list[str] | None:
    """What may be meant by a set, or by a backup of a node, of which the archive has nothing; None
    where it has something of it. Of a backup that failed nothing comes, so that its id may be
    any. Raises StoreError."""
    known = await instances(archive.store)
    own = [name for name in known if subject.startswith((f"{name}/", f"{name}-"))]
    folders = await list_folders(archive, own) if own else []
    if layout.set_start(subject) is not None:
        rest = subject.partition("/")[2]
        names = [one.key for one in folders] if own else [f"{name}/{rest}" for name in known]
        is_hidden = any(one.unreadable and one.may_tell_of(subject) for one in folders)
    else:
        backup_id = subject.rpartition("-")[2]
        nodes = {node for one in folders for node in one.nodes} if own else known
        names = sorted(f"{node}-{backup_id}" for node in nodes)
        is_hidden = any(one.unreadable for one in folders)
    return None if is_hidden or (own and subject in names) else names


async def _check_incomplete(archive: Archive, set_key: str) -> None:
    """Raises UsageError for a set that is complete, IntegrityError for one that is damaged."""
    try:
        found = await named_set(archive, set_key)
    except NoSuchBackup:
        return  # nothing of it ever came
    if found.damage:
        raise IntegrityError(
            f"{set_key} is damaged, and damage cannot be acknowledged: {found.why_not}",
            hint="run verify, and repair it",
        )
    if found.is_complete:
        raise UsageError(f"{set_key} is complete: there is nothing to acknowledge")


async def _check_not_here(archive: Archive, backup: str) -> None:
    """Raises UsageError for a backup that the archive has, IntegrityError for one whose file is
    not as its record says. Its name begins with its instance, and does not tell where that ends."""
    words = backup.split("-")
    for count in range(1, len(words) if layout.is_backup_name(backup) else 0):
        entries = archive.store.entries(f"{'-'.join(words[:count])}/")
        records = [one.key async for one in entries if layout.is_record(one.key)]
        for key in records:
            if layout.backup_name(key) != backup:
                continue
            record = await read_record(archive.store, key)
            if record is not None and await archive.store.size(record.object_key) != record.size:
                raise IntegrityError(
                    f"{backup} is damaged, and damage cannot be acknowledged: "
                    f"{record.object_key} is not there as its record says",
                    hint="run verify, and repair it",
                )
            raise UsageError(f"{backup} is in the archive: there is nothing to acknowledge")


async def _state(archive: Archive, set_key: str) -> _State:
    """What there is of a set now. Raises IntegrityError, UnreadableObject, StoreError."""
    one = await set_of(archive.store, set_key)
    files = dict[str, str]()
    for entry in one.entries.values():
        if entry.hides is not None:
            raise entry.hides
    for key in one.records:
        record = await read_record(archive.store, key)
        if record is not None:
            files[record.object_key.rpartition("/")[2]] = record.sha256
    return _State(files, await _missing(archive, set_key), bool(one.sums))


async def _missing(archive: Archive, set_key: str) -> frozenset[str]:
    """The nodes that a set lacks by the sets around it: all of them where nothing came. Raises
    StoreError."""
    start = layout.set_start(set_key)
    if start is None:
        return frozenset()
    around = await sets_around(archive, set_key.partition("/")[0], [start])
    if all(one.key != set_key for one in around):
        around.append(completeness.SetNodes(set_key, start, frozenset()))
    found = completeness.missing_nodes(around, {set_key}).get(set_key)
    return frozenset(found.nodes if found else ())
