"""Where an archive is: a directory, or a bucket with options for its objects."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from archiver.archive.layout import FORMAT_KEY
from archiver.cli.options import option, retry_option
from archiver.cli.params import LATEST, Count, Duration, Moment, Word
from archiver.concurrency import in_thread
from archiver.errors import UsageError
from archiver.logs import record
from archiver.retry import RETRIES
from archiver.stores.local.disk import absolute
from archiver.stores.local.reading import nearest
from archiver.stores.local.store import LocalStore
from archiver.stray_characters import stray_characters_in

if TYPE_CHECKING:
    from archiver.archive.archive import Archive
    from archiver.cli.watching import Watch
    from archiver.stores.base import Store
    from archiver.stores.s3 import S3Lock, S3Options

F = TypeVar("F", bound=Callable[..., Any])

_S3 = "s3://"
# Options that only a bucket supports.
KEEPING = ("s3_storage_class", "s3_sse", "s3_lock_until", "s3_lock_days", "s3_lock_mode")
_NEARLY_S3 = re.compile(r"s3(:/|/{2}|:[^/])", re.IGNORECASE)


def address_options(command: F) -> F:
    """Where a bucket is."""
    for decorate in (
        option(
            "--s3-addressing",
            type=Word(["auto", "path", "virtual"]),
            default="auto",
            help="Whether the bucket's name goes in the path or the host name.",
        ),
        option(
            "--s3-endpoint",
            metavar="URL",
            help="S3 endpoint (default: from the AWS environment or profile).",
        ),
    ):
        command = decorate(command)
    return command


def bucket_options(command: F) -> F:
    """Options to reach a bucket."""
    return address_options(retry_option(command))


sse_option = option(
    "--s3-sse", metavar="ALGORITHM", help="Encryption: AES256, aws:kms or aws:kms:KEY."
)


def keeping_options(command: F) -> F:
    """Options to reach a bucket, and for what is written to it."""
    for decorate in (
        option(
            "--s3-lock-mode",
            type=Word(["governance", "compliance"]),
            help="Who may lift the lock: holders of the permission (default), or nobody.",
        ),
        option("--s3-lock-days", type=Count(1, 36500), help="Lock objects for this many days."),
        option("--s3-lock-until", type=Moment(), help="Lock objects until this time (UTC)."),
        sse_option,
        option(
            "--s3-storage-class",
            metavar="CLASS",
            help="Storage class, e.g. STANDARD_IA or GLACIER_IR.",
        ),
    ):
        command = decorate(command)
    return bucket_options(command)


def lock_option(default: str) -> Callable[[F], F]:
    """The option that waits for other writers."""
    return option(
        "--lock-wait",
        type=Duration(),
        default=default,
        help="How long to wait for another process that writes to an instance.",
    )


def writing_options(command: F) -> F:
    """Options of every command that puts backups into an archive."""
    for decorate in (
        keeping_options,
        lock_option("0s"),
        option(
            "--require-archive",
            is_flag=True,
            help="Fail if there is no archive yet, e.g. because a disk is not mounted.",
        ),
        option(
            "--create",
            is_flag=True,
            help="Create an archive even in a non-empty or unmounted directory.",
        ),
    ):
        command = decorate(command)
    return command


def written_to(store: "Store", given: Mapping[str, Any]) -> "Archive":
    """The archive in ``store``, for writing. Raises UsageError."""
    from archiver.archive.archive import Archive, Beginning

    check_keeping(store, given)
    if given["create"] and given["require_archive"]:
        raise UsageError("--create and --require-archive cannot be combined")
    beginning = Beginning.IF_EMPTY
    if given["create"]:
        beginning = Beginning.ALWAYS
    elif given["require_archive"]:
        beginning = Beginning.NEVER
    return Archive(store, lock_wait=given["lock_wait"], beginning=beginning)


def check_keeping(store: "Store", given: Mapping[str, Any]) -> None:
    """Raises UsageError for a directory with options that only a bucket supports."""
    if isinstance(store, LocalStore):
        for name in KEEPING:
            if given[name] is not None:
                raise UsageError(
                    f"{store}: --{name.replace('_', '-')} works only in a bucket",
                    hint="remove the option, or use s3://bucket/prefix",
                )


def store_at(place: str, given: Mapping[str, Any], watch: "Watch | None" = None) -> "Store":
    """The store that ``place`` names. What a bucket's server supports, and waiting for it, is
    printed through ``watch``, or on stderr without one.

    Raises UsageError.
    """
    check_place(place)
    if place.startswith(_S3):
        from archiver.cli.run import say
        from archiver.stores.s3 import S3Store

        return S3Store(
            place,
            _s3_options(given),
            lambda found: watch.store_found(f"{place}: the store {found}") if watch else None,
            retry=RETRIES.s3_call.policy(given["retry_for"]),
            on_wait=_announcer(place, given, watch.progress.say if watch else say),
        )
    return LocalStore(absolute(place))


def _announcer(
    place: str, given: Mapping[str, Any], say: Callable[[str], object]
) -> Callable[[str], None]:
    """A function that prints that we wait for a bucket, unless ``--quiet`` is given."""

    def announce(why: str) -> None:
        text = f"waiting for the bucket: {place}: {why}"
        record(logging.WARNING, "waiting_for_bucket", text, None, {"place": place, "why": why})
        if not given["quiet"]:
            say(text)

    return announce


def _supported(scheme: str) -> str:
    """What to write instead of a place with that scheme."""
    if scheme == "oss":
        return "use s3://… with --s3-endpoint https://s3.oss-REGION.aliyuncs.com"
    return "use a directory, or s3://bucket/prefix"


def check_place(place: str) -> None:
    """Raises UsageError for an unusable place, and for a misspelt ``s3://``."""
    if not place.strip():
        raise UsageError("the archive's name is empty", hint="is a variable empty?")
    if (wrong := stray_characters_in(place)) is not None:
        raise UsageError(f"{place!a}: {wrong}")
    if _NEARLY_S3.match(place) and not place.startswith(_S3):
        raise UsageError(f"{place}: did you mean s3://bucket/prefix?")
    scheme, separator, _ = place.partition("://")
    if separator and not place.startswith(_S3):
        raise UsageError(f"{scheme}:// is not supported", hint=_supported(scheme))


def archive_around(place: Path) -> Path | None:
    """The nearest archive that ``place`` is in."""
    from archiver.archive.archive import is_format

    return nearest(Path(os.path.realpath(absolute(place))), FORMAT_KEY, is_format)


async def check_outside(place: Path, option_name: str) -> None:
    """Raises UsageError if ``place`` is inside an archive, where its files would be strays."""
    found = await in_thread(archive_around, place)
    if found is not None:
        raise UsageError(
            f"{option_name} {place}: this is inside an archive, {found}",
            hint="use a directory outside of it",
        )


def check_part_size(place: str, part_size: int) -> None:
    """Raises UsageError for parts that are too small for S3."""
    if place.startswith(_S3) and part_size < 5 * 2**20:
        raise UsageError("--part-size: the minimum for S3 is 5 MiB", hint="remove the option")


def _s3_options(given: Mapping[str, Any]) -> "S3Options":
    from archiver.stores.s3 import Addressing, S3Options

    return S3Options(
        endpoint=given.get("s3_endpoint"),
        addressing=Addressing(given.get("s3_addressing", "auto")),
        storage_class=given.get("s3_storage_class"),
        sse=given.get("s3_sse"),
        lock=_lock(given),
    )


def _lock(given: Mapping[str, Any]) -> "S3Lock | None":
    from archiver.stores.s3 import LockMode, S3Lock

    until, days = given.get("s3_lock_until"), given.get("s3_lock_days")
    mode = given.get("s3_lock_mode")
    if until is None and days is None:
        if mode is not None:
            raise UsageError("--s3-lock-mode needs --s3-lock-days or --s3-lock-until")
        return None
    if until is not None and days is not None:
        raise UsageError("--s3-lock-until and --s3-lock-days cannot be combined")
    if until == LATEST:
        raise UsageError("--s3-lock-until needs a time")
    if until is not None and until <= datetime.now(UTC):
        raise UsageError("--s3-lock-until is in the past")
    return S3Lock(LockMode(str(mode or "governance").upper()), until, days)
