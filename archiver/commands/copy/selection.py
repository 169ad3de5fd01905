"""What to copy, and how. Pure."""

from dataclasses import dataclass, field

from archiver.archive import layout
from archiver.archive.consistency import apart
from archiver.ids import safe
from archiver.times import TimeRange
from archiver.transfer.engine import TransferOptions


@dataclass(frozen=True, slots=True)
class Selection:
    """Which backups of an archive; empty ``instances`` or ``sets`` (keys) mean all."""

    instances: tuple[str, ...] = ()
    sets: frozenset[str] = frozenset()
    range: TimeRange | None = None

    @property
    def set_keys(self) -> frozenset[str]:
        """The sets, as an archive names them."""
        return frozenset(one.strip("/") for one in self.sets)

    @property
    def prefixes(self) -> list[str]:
        """Where to look: months, instances or everything. Raises UnsafeInput."""
        if self.sets:
            return sorted({f"{layout.month_of(one)}/" for one in self.set_keys})
        instances = dict.fromkeys(self.instances)
        return [f"{safe(instance)}/" for instance in instances] or [""]

    def named(self, prefix: str) -> list[str]:
        """What was asked for by its name below one of the prefixes: sets, or an instance."""
        if self.sets:
            return sorted(one for one in self.set_keys if one.startswith(prefix))
        return [prefix] if prefix.rstrip("/") in self.instances else []

    def reaches(self, key: str) -> bool:
        """Whether a set, by its key, is meant; or a folder that may have one in it that is."""
        if self.instances and key.partition("/")[0] not in self.instances:
            return False
        if self.sets and not (
            any(f"{one}/".startswith(f"{key}/") for one in self.set_keys)
            or identity(key) in map(identity, self.set_keys)
        ):
            return False
        return layout.began_in(key, self.range)


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What to copy, how many large files at once (and beside them small ones), and how. ``replace``
    copies what the source has where the target's record names different bytes, which are then kept
    in ``.quarantine/``."""

    selection: Selection = field(default_factory=Selection)
    replace: bool = False
    workers: int = 4
    transfer: TransferOptions = field(default_factory=TransferOptions)


# What identifies a backup's file in two archives: instance, set, backup.
FileIdentity = tuple[str, str, str]


def identity(set_key: str) -> tuple[str, str]:
    """What identifies a set in two archives: each may name it after another one of its nodes."""
    return set_key.partition("/")[0], layout.name_of_set(set_key)


def are_one_set(one: str, other: str) -> bool:
    """Whether two keys may be of one set: the set of another night may have the same id."""
    start = layout.set_start(other)
    is_near = start is not None and apart(one, start) is not None
    return is_near and identity(one) == identity(other)


def file_identity(key: str) -> FileIdentity:
    """What identifies a backup's file in two archives, by its key or its record's."""
    return *identity(layout.set_of(key)), layout.backup_name(key)
