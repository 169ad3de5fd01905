"""Makes keys and takes them apart. Pure; nothing else makes a path out of what a source said.

docs/archive-format.md shows the layout. A backup set is named by its key:
``<instance>/<yyyy>/<mm>/<start>-<set>``, which is a cluster's folder, or for a standard instance
the key of its one file without suffix.
"""

import re
from datetime import UTC, datetime, timedelta

from archiver.documents import is_clean, is_name
from archiver.ids import ID, safe
from archiver.model import Kind, Named
from archiver.times import TimeRange, format_compact, format_month, parse_compact

# Of archive.json. Format 1 was never released.
FORMAT = 2
FORMAT_KEY = "archive.json"
RECORD_SUFFIX = ".json"
SUMS_NAME = "SHA256SUMS"
# A month's catalogue (:mod:`.catalogue`), in the month's folder.
INDEX_NAME = "index.jsonl"
# What is kept beside the backups: the evidence of drills, what sources said of instances, the
# results of verifies, and what somebody has acknowledged.
ACKNOWLEDGED = "acknowledged/"
OWN_PREFIXES = ("drills/", "instances/", "verified/", ACKNOWLEDGED)

_SUFFIX = "|".join(Kind)
_MONTH = r"[^/]+/[0-9]{4}/[0-9]{2}"
_SET_NAME = r"(?P<start>[0-9]{8}T[0-9]{6}Z)-[^/]+"
# A backup's id: in a file's name it follows that of a node, which has hyphens.
_BACKUP_ID = ID.pattern.replace("_-", "_")
# A backup's object: a standard instance's, in its month, or a node's, in its set.
_OBJECT = re.compile(
    rf"{_MONTH}/([0-9]{{8}}T[0-9]{{6}}Z-{_BACKUP_ID}|[^/]+/{ID.pattern}-{_BACKUP_ID})\.({_SUFFIX})"
)
_OBJECT_NAME = re.compile(rf"{ID.pattern}-{ID.pattern}\.({_SUFFIX})")
# What lies in a month and has the name of a standard instance's file.
_OF_STANDARD = re.compile(rf"{_MONTH}/[0-9]{{8}}T[0-9]{{6}}Z-[^/]+\.({_SUFFIX}|json)")
_BACKUP_NAME = re.compile(rf"{ID.pattern}-{ID.pattern}")
_ACKNOWLEDGEMENT = re.compile(
    rf"{ACKNOWLEDGED}(sets/{ID.pattern}/[0-9]{{8}}T[0-9]{{6}}Z-[^/]+"
    rf"|backups/{_BACKUP_NAME.pattern})\.json"
)
# How many slashes there are in the key of a file in a month, and in that of one in a folder there.
_MONTH_DEPTH = 3
_SET_DEPTH = 4
_MONTH_KEY = re.compile(rf"[^/]+/(?P<year>[0-9]{{4}})(/(?P<month>[0-9]{{2}})(/{SUMS_NAME})?)?")
_MONTH_DOCUMENT = re.compile(rf"{_MONTH}/({re.escape(INDEX_NAME)}|{SUMS_NAME})")
# Before and after any backup: the span of a key that gives no time.
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_SET_KEY = re.compile(rf"{_MONTH}/{_SET_NAME}")


def new_set_key(backup: Named) -> str:
    """The key of the backup set that this backup begins. Raises UnsafeInput."""
    month = f"{safe(backup.instance_id)}/{format_month(backup.started_at)}"
    name = safe(backup.backup_id) if backup.is_standard else set_name(backup)
    return f"{month}/{format_compact(backup.started_at)}-{name}"


def set_name(backup: Named) -> str:
    """The part of a cluster's set key that distinguishes it from others of the same second. A file
    without a set id is a set of its own. Raises UnsafeInput."""
    return safe(backup.set_id) if backup.set_id is not None else f"b{safe(backup.backup_id)}"


def name_of_set(set_key: str) -> str:
    """What :func:`set_name` gave, or a standard instance's backup id."""
    return set_key.rpartition("/")[2].partition("-")[2]


def set_start(set_key: str) -> datetime | None:
    """When a set began, as its key says; None for what cannot be the key of a set."""
    match = _SET_KEY.fullmatch(set_key)
    if match is None or not is_clean(set_key):
        return None
    try:
        return parse_compact(match["start"])
    except ValueError:
        return None


def span(key: str) -> tuple[datetime, datetime]:
    """From the first moment at which a backup in a set, a month or a year, or one that a month's
    SHA256SUMS names, can have begun, to the one after the last. Any, where the key gives no
    time."""
    if (start := set_start(key)) is not None:
        return start, start + timedelta(microseconds=1)
    match = _MONTH_KEY.fullmatch(key)
    if match is None:
        return _FIRST, _LAST
    try:
        first = datetime(int(match["year"]), int(match["month"] or 1), 1, tzinfo=UTC)
        days = 31 if match["month"] else 366
        return first, (first + timedelta(days=days)).replace(day=1)
    except (ValueError, OverflowError):
        return _FIRST, _LAST


def began_in(key: str, range_: TimeRange | None) -> bool:
    """Whether a range covers the start of a set, as its key gives it: all files of a set are in the
    range or none. It covers a key that gives no time, and a folder of months or years that may hold
    a set in the range."""
    if range_ is None:
        return True
    first, last = span(key)
    return first < range_.end and range_.start < last


def stem(set_key: str, backup: Named) -> str:
    """The key of a backup's files in a set, without suffix. Raises UnsafeInput."""
    if backup.is_standard:
        return set_key
    return f"{set_key}/{safe(backup.node_id)}-{safe(backup.backup_id)}"


def stem_of_node(set_key: str, node_id: str, backup_id: str) -> str:
    """The same for ids that an archive has already, which need not be safe."""
    is_standard = node_id == set_key.partition("/")[0]
    return set_key if is_standard else f"{set_key}/{node_id}-{backup_id}"


def moved(key: str, set_key: str) -> str:
    """The key that a file would have in the set ``set_key``."""
    name = key[len(set_of(key)) :]
    return f"{set_key}{name}"


def record_key(stem: str) -> str:
    return f"{stem}{RECORD_SUFFIX}"


def stem_of(key: str) -> str:
    """The key without its suffix, of an object or of its record."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def set_of(key: str) -> str:
    """The key of the set that an object or record belongs to."""
    folder, _, name = key.rpartition("/")
    if key.count("/") != _MONTH_DEPTH:
        return folder
    return f"{folder}/{name.rpartition('.')[0] or name}"


def node_of(key: str) -> str:
    """The node of the object or record with this key: a standard instance is its own."""
    if key.count("/") == _MONTH_DEPTH:
        return key.partition("/")[0]
    return key.rpartition("/")[2].rpartition(".")[0].rpartition("-")[0]


def backup_name(key: str) -> str:
    """``<node>-<backup id>`` of the object or record with this key."""
    if key.count("/") == _MONTH_DEPTH:
        return f"{key.partition('/')[0]}-{name_of_set(stem_of(key))}"
    return stem_of(key).rpartition("/")[2]


def is_in_folder(key: str) -> bool:
    """Whether an object or record lies in a cluster's set, and not in the month itself."""
    return key.count("/") == _SET_DEPTH


def is_of_a_set(key: str) -> bool:
    """Whether a key is that of a backup set's file: anything in a set's folder, and in a month what
    is named like a standard instance's file."""
    is_so_deep = _OF_STANDARD.fullmatch(key) is not None or key.count("/") == _SET_DEPTH
    return is_so_deep and is_clean(key) and not key.startswith(OWN_PREFIXES)


def may_hold_sets(key: str) -> bool:
    """Whether a folder of this name may be a backup set, or have some in it."""
    return key.count("/") < _SET_DEPTH and not f"{key}/".startswith(OWN_PREFIXES)


def is_record(key: str) -> bool:
    """Whether a record lies there."""
    return key.endswith(RECORD_SUFFIX) and is_of_a_set(key)


def is_named_as_record(key: str) -> bool:
    """Whether a record lies there, and is named after a backup."""
    return is_record(key) and is_object(f"{stem_of(key)}.{Kind.RDB}")


def is_object_name(name: str) -> bool:
    """Whether a backup's file in a set's folder may have this name."""
    return _OBJECT_NAME.fullmatch(name) is not None


def is_object(key: str) -> bool:
    """Whether a key can be that of a backup's file. Whatever else lies in a set's folder is none of
    the set's files, whoever names it."""
    return _OBJECT.fullmatch(key) is not None and is_of_a_set(key)


def month_of(key: str) -> str:
    """The month (``<instance>/<yyyy>/<mm>``) of what lies in it, or below it."""
    return "/".join(key.split("/", 3)[:3])


def is_of_a_month(key: str) -> bool:
    """Whether a month's catalogue or SHA256SUMS lies there."""
    is_named_so = key.endswith((INDEX_NAME, SUMS_NAME))  # it saves the look at all others
    return is_named_so and _MONTH_DOCUMENT.fullmatch(key) is not None and is_clean(key)


def sums_key(month: str) -> str:
    """Where the SHA256SUMS of ``<instance>/<yyyy>/<mm>`` is."""
    return f"{month}/{SUMS_NAME}"


def index_key(month: str) -> str:
    """Where the catalogue of ``<instance>/<yyyy>/<mm>`` is."""
    return f"{month}/{INDEX_NAME}"


def is_backup_name(text: str) -> bool:
    """Whether a text can be ``<node>-<backup id>``; the name of a node or instance has a hyphen."""
    is_one = _BACKUP_NAME.fullmatch(text) is not None and is_name(text)
    return is_one and text.count("-") > 1


def acknowledgement_key(subject: str) -> str:
    """The key of the acknowledgement of a set (by its key) or a backup (by its name), both valid.
    A set's month is in its name."""
    instance_id, slash, rest = subject.partition("/")
    place = f"sets/{instance_id}/{rest.rpartition('/')[2]}" if slash else f"backups/{subject}"
    return f"{ACKNOWLEDGED}{place}{RECORD_SUFFIX}"


def is_acknowledgement(key: str) -> bool:
    """Whether an acknowledgement may lie there."""
    return _ACKNOWLEDGEMENT.fullmatch(key) is not None and is_clean(key)
