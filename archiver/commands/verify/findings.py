"""What can be wrong in an archive, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from archiver.archive import layout
from archiver.archive.verified import PREFIX
from archiver.errors import (
    BackupFailed,
    IntegrityError,
    StoreError,
    UnreadableObject,
    UnsupportedFormat,
)
from archiver.stores.base import Entry


class Fault(StrEnum):
    """What is wrong with one key."""

    MISSING = "missing"  # something names this object, and it is not there
    TRUNCATED = "truncated"  # shorter than recorded
    PADDED = "padded"  # longer than recorded
    CHANGED = "changed"  # other bytes than those that were stored
    SWAPPED = "swapped"  # the bytes of another file of the same set
    UNREADABLE = "unreadable"  # the store cannot read it
    UNRECORDED = "unrecorded"  # a backup's object without its record
    STRAY = "stray"  # no part of an archive
    HIDDEN = "hidden"  # something in the place of a folder, whose content is hidden
    BAD_RECORD = "bad-record"  # a record that cannot be read
    MISPLACED = "misplaced"  # a record that belongs to another key
    CONTRADICTION = "contradiction"  # a record that disagrees with itself or with the right object
    SUMS = "sums"  # a month's SHA256SUMS is missing, unreadable, lacks a line, or disagrees
    INCOMPLETE = "incomplete"  # a backup set that lacks files
    EVIDENCE = "evidence"  # the chain of drill evidence is broken, or a page was changed
    CATALOGUE = "catalogue"  # a month's catalogue contradicts the records
    BAD_RESULTS = "bad-results"  # the results of an earlier verify cannot be read
    NEWER = "newer"  # a document that a newer version wrote
    BAD_ACKNOWLEDGEMENT = "bad-acknowledgement"  # an acknowledgement that cannot be read


ADVICE: Final[Mapping[Fault, str]] = {
    Fault.MISSING: "repair from another archive, or from the source while the vendor has it; "
    "removed on purpose? then remove the month's document under verified/, too",
    Fault.TRUNCATED: "repair from another archive or the source",
    Fault.PADDED: "repair from another archive or the source",
    Fault.CHANGED: "repair from another archive or the source, and check the disk",
    Fault.SWAPPED: "repair from another archive or the source, or rename the files back",
    Fault.UNREADABLE: "check permissions and the disk, then repair",
    Fault.UNRECORDED: "run pull again, which finishes what was interrupted, or repair from another "
    "archive",
    Fault.STRAY: "look at it, and move it out of the archive",
    Fault.HIDDEN: "put the folder itself back in its place",
    Fault.BAD_RECORD: "repair from another archive or the source",
    Fault.MISPLACED: "repair from another archive or the source; somebody moved or edited records",
    Fault.CONTRADICTION: "repair from another archive or the source; somebody edited the record",
    Fault.SUMS: "repair from another archive or the source",
    Fault.INCOMPLETE: "run pull again while the vendor has the rest, or repair",
    Fault.EVIDENCE: "compare with a copy of drills/ from elsewhere; believe the JSON, not a page",
    Fault.CATALOGUE: "nothing to do: it is made anew; find out who edited it",
    Fault.BAD_RESULTS: "nothing to do: it is written anew; the files of that month are read again",
    Fault.NEWER: "verify with the newer archiver; this one leaves the document as it is",
    Fault.BAD_ACKNOWLEDGEMENT: "look at it, and acknowledge again, which keeps this one in "
    "quarantine",
}

# Faults that are not wrong bytes. All others are (README, *Exit codes*).
_EXIT_CODES: Final[Mapping[Fault, int]] = {
    Fault.UNREADABLE: StoreError.exit_code,
    Fault.INCOMPLETE: BackupFailed.exit_code,
    Fault.STRAY: BackupFailed.exit_code,
    Fault.NEWER: UnsupportedFormat.exit_code,
    Fault.BAD_RESULTS: BackupFailed.exit_code,
    Fault.BAD_ACKNOWLEDGEMENT: BackupFailed.exit_code,
}
# A folder that cannot be read hides neither backups nor evidence if it is one of these.
_NOTES: Final = (PREFIX, layout.ACKNOWLEDGED)


_OF_NO_SET: Final = frozenset(
    (
        Fault.EVIDENCE,
        Fault.STRAY,
        Fault.HIDDEN,
        Fault.CATALOGUE,
        Fault.BAD_RESULTS,
        Fault.NEWER,
        Fault.BAD_ACKNOWLEDGEMENT,
    )
)
# The advice on a SHA256SUMS or a line of it that nothing says was ever there.
_UNWRITTEN: Final = "run pull over its time, which writes it, or repair"
# The advice on a file that only SHA256SUMS names: it may be lost, or may never have existed.
NAMED_ALONE: Final = (
    "repair from another archive, or from the source while the vendor has it; if you know that "
    "there is no such file, take its line out of SHA256SUMS by hand"
)
# The advice on a catalogue that no verify makes anew.
WITNESS: Final = (
    "repair from another archive or the source, which makes it anew: until then it stays, because "
    "it alone tells what SHA256SUMS named; find out who edited it"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one key, with a line about it, and the expected and the found value if there are
    two. ``about`` is the object or set if the month's SHA256SUMS is wrong about one. ``cure`` is
    the advice on this finding, if that for the fault does not fit."""

    key: str
    fault: Fault
    text: str
    expected: str | None = None
    found: str | None = None
    about: str | None = None
    cure: str | None = None
    is_unfinished: bool = False

    @property
    def exit_code(self) -> int:
        """3 for wrong bytes, 6 for what the store cannot read, 2 for what a newer version wrote,
        otherwise 1."""
        hides_notes = self.fault is Fault.HIDDEN and f"{self.key}/".startswith(_NOTES)
        if self.is_unfinished or hides_notes:
            return BackupFailed.exit_code
        return _EXIT_CODES.get(self.fault, IntegrityError.exit_code)

    @property
    def identity(self) -> tuple[str, Fault, str | None]:
        """What two findings of the same fault have in common."""
        return self.key, self.fault, self.about

    @property
    def advice(self) -> str:
        """What to do about it."""
        is_unwritten = self.fault is Fault.SUMS and self.is_unfinished
        return self.cure or (_UNWRITTEN if is_unwritten else ADVICE[self.fault])

    @property
    def place(self) -> str | None:
        """The backup set that it concerns, or the month if that is all of SHA256SUMS; None if it
        concerns none."""
        if self.fault is Fault.INCOMPLETE:
            return self.key
        if self.fault in _OF_NO_SET:
            return None
        if layout.is_of_a_month(self.key):
            about = self.about or layout.month_of(self.key)
            return layout.set_of(about) if layout.is_object(about) else about
        return layout.set_of(self.key) if layout.is_of_a_set(self.key) else None

    @property
    def stem(self) -> str | None:
        """The key, without suffix, of the one backup that it concerns; None for whole sets."""
        if self.place is None or self.fault is Fault.INCOMPLETE:
            return None
        key = (self.about or "") if layout.is_of_a_month(self.key) else self.key
        return layout.stem_of(key) if layout.is_of_a_set(key) else None

    def __str__(self) -> str:
        return f"{self.fault}: {self.key}: {self.text}"


def stray(key: str) -> Finding:
    """What does not belong in an archive."""
    return Finding(key, Fault.STRAY, "nothing that an archive keeps")


def out_of_place(entry: Entry) -> Finding:
    """The finding about an entry that belongs to nothing, or that hides a folder."""
    if entry.hides is None:
        return stray(entry.key)
    is_unread = isinstance(entry.hides, UnreadableObject)
    fault = Fault.UNREADABLE if is_unread else Fault.HIDDEN
    return Finding(entry.key, fault, entry.hides.message, cure=entry.hides.hint)
