"""From a backup to its keys. Pure; the only place that makes a path out of what a source said.

archive.json
<instance>/<yyyy>/<mm>/<start>-<set>/<node>-<backup id>.<rdb|aof|bin>
                                     <node>-<backup id>.json
                                     SHA256SUMS
acknowledged/sets/<instance>/<start>-<set>.json
             backups/<node>-<backup id>.json
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
# What is kept beside the backups: the evidence of drills, what verifying came to, and what
# somebody has taken note of.
ACKNOWLEDGED = "acknowledged/"
OWN_PREFIXES = ("drills/", "verified/", ACKNOWLEDGED)

_OBJECT_NAME = re.compile(rf"({ID.pattern})-({ID.pattern})\.({'|'.join(Kind)})")
_BACKUP_NAME = re.compile(rf"{ID.pattern}-{ID.pattern}")
_ACKNOWLEDGEMENT = re.compile(
    rf"{ACKNOWLEDGED}(sets/{ID.pattern}/[0-9]{{8}}T[0-9]{{6}}Z-[^/]+"
    rf"|backups/{_BACKUP_NAME.pattern})\.json"
)
# instance/yyyy/mm/set/file
RECORD_DEPTH = 4
_MONTH_KEY = re.compile(r"[^/]+/(?P<year>[0-9]{4})(/(?P<month>[0-9]{2}))?")
_INDEX_KEY = re.compile(rf"[^/]+/[0-9]{{4}}/[0-9]{{2}}/{re.escape(INDEX_NAME)}")
# Of what gives no time: before and after any backup.
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
_SET_KEY = re.compile(r"[^/]+/[0-9]{4}/[0-9]{2}/(?P<start>[0-9]{8}T[0-9]{6})Z-[^/]+")


def month_prefix(backup: Named) -> str:
    """Where the sets of the backup's month are; ends in ``/``."""
    return f"{safe(backup.instance_id)}/{format_month(backup.started_at)}/"


def set_key(backup: Named) -> str:
    """The folder of the backup set that this backup begins. Raises UnsafeInput."""
    return f"{month_prefix(backup)}{format_compact(backup.started_at)}-{job_name(backup)}"


def job_name(backup: Named) -> str:
    """What tells a set from others that began in the same second. Raises UnsafeInput.

    A file without a set id is a set of its own.
    """
    return safe(backup.set_id) if backup.set_id is not None else f"b{safe(backup.backup_id)}"


def job_of(folder: str) -> str:
    """The job's name in that of a set's folder, as :func:`job_name` gives it."""
    return folder.rpartition("/")[2].partition("-")[2]


def set_start(folder: str) -> datetime | None:
    """When the set in ``folder`` began, as its name says; None for what is no set's folder."""
    match = _SET_KEY.fullmatch(folder)
    if match is None or not is_clean(folder):
        return None
    try:
        return parse_compact(f"{match['start']}Z")
    except ValueError:
        return None


def span(folder: str) -> tuple[datetime, datetime]:
    """From the first moment at which a backup can have begun that is in ``folder``, to the one
    after the last: of a set, a month, a year. Any, where its name gives no time."""
    if (start := set_start(folder)) is not None:
        return start, start + timedelta(microseconds=1)
    match = _MONTH_KEY.fullmatch(folder)
    if match is None:
        return _FIRST, _LAST
    try:
        first = datetime(int(match["year"]), int(match["month"] or 1), 1, tzinfo=UTC)
        days = 31 if match["month"] else 366
        return first, (first + timedelta(days=days)).replace(day=1)
    except (ValueError, OverflowError):
        return _FIRST, _LAST


def began_in(folder: str, range_: TimeRange | None) -> bool:
    """Whether a set is one of those that a range means: by its folder's time, so that all of a
    set's files are in it or none. One whose name gives no time is, and so is a folder of months
    or years that may hold one that is."""
    if range_ is None:
        return True
    first, last = span(folder)
    return first < range_.end and range_.start < last


def stem(folder: str, backup: Named) -> str:
    """The key of a backup's files in the set ``folder``, without suffix. Raises UnsafeInput."""
    return f"{folder}/{safe(backup.node_id)}-{safe(backup.backup_id)}"


def record_key(stem: str) -> str:
    return f"{stem}{RECORD_SUFFIX}"


def stem_of(key: str) -> str:
    """The key without its suffix, of an object or of its record."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def node_of(key: str) -> str:
    """The node in the name of a backup's file, or of its record."""
    return key.rpartition("/")[2].rpartition(".")[0].rpartition("-")[0]


def is_of_a_set(key: str) -> bool:
    """Whether the files of backup sets lie there; what else an archive keeps lies elsewhere, and
    what has a name that none of them can have is nothing that it keeps."""
    return key.count("/") == RECORD_DEPTH and not key.startswith(OWN_PREFIXES) and is_clean(key)


def may_hold_sets(key: str) -> bool:
    """Whether a folder of this name may be a backup set, or have some in it."""
    return key.count("/") < RECORD_DEPTH and not f"{key}/".startswith(OWN_PREFIXES)


def is_record(key: str) -> bool:
    """Whether a record lies there."""
    return key.endswith(RECORD_SUFFIX) and is_of_a_set(key)


def is_named_as_record(key: str) -> bool:
    """Whether a record lies there, and is called after a backup."""
    return is_record(key) and is_object_name(f"{stem_of(key).rpartition('/')[2]}.{Kind.RDB}")


def is_document(key: str) -> bool:
    """Whether a record or a SHA256SUMS has that name."""
    return key.endswith((RECORD_SUFFIX, f"/{SUMS_NAME}"))


def is_object_name(name: str) -> bool:
    """Whether a backup's file may be called so within its set."""
    return _OBJECT_NAME.fullmatch(name) is not None


def is_object(key: str) -> bool:
    """Whether a backup's file lies there, or did. Whatever else lies in a set's folder is none of
    the set's files, whoever names it."""
    return is_of_a_set(key) and is_object_name(key.rpartition("/")[2])


def month_of(key: str) -> str:
    """The month (``<instance>/<yyyy>/<mm>``) of what lies in it, or below it."""
    return "/".join(key.split("/", 3)[:3])


def is_index(key: str) -> bool:
    """Whether a month's catalogue lies there."""
    is_named_so = key.endswith(INDEX_NAME)  # few are: it saves the look at all others
    return is_named_so and _INDEX_KEY.fullmatch(key) is not None and is_clean(key)


def sums_key(folder: str) -> str:
    return f"{folder}/{SUMS_NAME}"


def is_backup_name(text: str) -> bool:
    """Whether a backup may be called so: ``<node>-<backup id>``; a node's name has a hyphen, as an
    instance's has."""
    is_one = _BACKUP_NAME.fullmatch(text) is not None and is_name(text)
    return is_one and text.count("-") > 1


def acknowledgement_key(subject: str) -> str:
    """Where it is written down that somebody knows of a set (by its folder) or a backup (by its
    name), which were looked at before. A set's month is in its name."""
    instance_id, slash, rest = subject.partition("/")
    place = f"sets/{instance_id}/{rest.rpartition('/')[2]}" if slash else f"backups/{subject}"
    return f"{ACKNOWLEDGED}{place}{RECORD_SUFFIX}"


def is_acknowledgement(key: str) -> bool:
    """Whether an acknowledgement may lie there."""
    return _ACKNOWLEDGEMENT.fullmatch(key) is not None and is_clean(key)
