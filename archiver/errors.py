"""All errors that are raised on purpose; one base class.

The class of an error decides four things: the exit code (README, *Exit codes*), whether a retry may
help (``retryable``), whether it ends the run or concerns one backup only (``ends_run``), and
whether the source would fail for everything else in the same way (``concerns_all``).
A message is one line: what was wrong, and where. The hint says what to do.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar


class ArchiverError(Exception):
    """Base class of all errors that are raised on purpose.

    ``retry_after`` is the wait in seconds that the server asked for; None if it did not.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    ends_run: ClassVar[bool] = False
    concerns_all: ClassVar[bool] = False

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        # Whether an object store sent this error, as opposed to a proxy or gateway on the way.
        self.by_object_store = False

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """As data for another process: its fields, and the nearest class of this module."""
        kind = next(one for one in type(self).__mro__ if one.__module__ == __name__)
        return _made_again, (kind, self.__dict__)


def _made_again(kind: type[ArchiverError], fields: Mapping[str, Any]) -> ArchiverError:
    error = kind.__new__(kind, fields["message"])
    error.__dict__.update(fields)
    return error


# 1: some backups failed


class BackupFailed(ArchiverError):
    """One backup could not be downloaded; the others go on."""


class BackupGone(BackupFailed):
    """The source no longer has the file (404, or no longer listed)."""


class FileChanged(BackupFailed):
    """A file at the source was written to while it was read. A later run takes it as it is then."""


class BackupUnderWay(BackupFailed):
    """The vendor makes no backup now, because it is making another one of the same instance."""


class BackupRefused(BackupFailed):
    """The vendor makes no backup of this instance now: for its state, its kind, or a limit."""


class UnknownInstance(ArchiverError):
    """No such instance in this region and account: it may have been deleted since yesterday."""


class UnsafeInput(BackupFailed):
    """The API gave an id that is unsafe in a path, or a URL that must not be requested."""


class NoSuchBackup(ArchiverError):
    """The archive holds no backup that matches a valid selection."""


class BadAcknowledgement(ArchiverError):
    """An acknowledgement that cannot be read. The backups themselves are not affected.

    ``fault`` says why, without the key.
    """

    def __init__(self, key: str, fault: str, *, hint: str | None = None) -> None:
        super().__init__(f"{key}: {fault}", hint=hint)
        self.fault = fault


# 2: usage or configuration


class UsageError(ArchiverError):
    """An invalid option, range, variable or configuration file."""

    exit_code = 2


class RequestRejected(UsageError):
    """The API rejects the request as invalid."""


class NoInstances(UsageError):
    """No instance is selected, though all could be listed."""


class UnusableCluster(UsageError):
    """A worker cannot take part: it has another version, or sees another archive."""

    ends_run = True


class UnsupportedFormat(UsageError):
    """The archive has a format that this version does not know."""

    ends_run = True


class NewerAcknowledgement(UsageError):
    """An acknowledgement in the format of a newer version; it is left alone. ``fault`` says so,
    without the key."""

    def __init__(self, key: str, fault: str, *, hint: str | None = None) -> None:
        super().__init__(f"{key}: {fault}", hint=hint)
        self.fault = fault


# 3: integrity


class IntegrityError(ArchiverError):
    """Bytes that differ from those that the server wrote."""

    exit_code = 3


class BadDocument(IntegrityError):
    """A document of an archive that cannot be used: ``key`` says which, ``fault`` why."""

    def __init__(self, key: str, fault: str, *, hint: str | None = None) -> None:
        super().__init__(f"{key}: {fault}", hint=hint)
        self.key = key
        self.fault = fault


class NewerDocument(BadDocument):
    """A document in the format of a newer version. It may be intact."""


class NoDocument(BadDocument):
    """What has the name of a document is a folder, a link or a device, or is too large."""


class CorruptFile(IntegrityError):
    """A whole file was downloaded and is corrupt. Its bytes are worth keeping in quarantine."""


class ObjectMissing(IntegrityError):
    """The store has no object under the key that a record names."""


class ObjectChanged(IntegrityError):
    """The object at the source was replaced during the transfer."""


class DamagedArchive(IntegrityError):
    """The ``archive.json`` of an archive does not state the format."""

    ends_run = True


# 4: credentials or permission


class AccessError(ArchiverError):
    """Credentials or permissions are missing or refused."""

    exit_code = 4


class NoCredentials(AccessError):
    """No step of the credential chain gave an access key."""

    concerns_all = True


class BadCredentials(AccessError):
    """The access key, its secret, its token or the signature was refused."""

    concerns_all = True


class ClockSkew(AccessError):
    """The clock of this machine differs so much that the vendor refuses its signatures."""

    concerns_all = True


class PermissionDenied(AccessError):
    """The identity lacks a permission."""


class ProxyDenied(AccessError):
    """A proxy requires a user and password (407)."""

    concerns_all = True


# 5: the source could not be reached


class SourceError(ArchiverError):
    """The source failed, or its response is not one of a source."""

    exit_code = 5


class SourceUnavailable(SourceError):
    """A refused or broken connection, a timeout, or a 5xx: a retry may succeed."""

    retryable = True


class SourceUnreachable(SourceUnavailable):
    """No connection to the source could be made, or it broke before there was an answer.
    ``was_sent``: whether the request may have arrived."""

    concerns_all = True
    was_sent = True


class UntrustedSource(SourceError):
    """The certificate of the source is not trusted."""

    concerns_all = True


class ClusterLost(ArchiverError):
    """The cluster whose workers download cannot be reached, or not any more."""

    exit_code = SourceError.exit_code
    ends_run = True


class ProxyRefused(SourceError):
    """A proxy refused to connect to a host."""


class Throttled(SourceError):
    """Too many requests."""

    retryable = True


class Stalled(SourceError):
    """A connection was slower than the minimum rate for a whole window."""

    retryable = True


class UrlRefused(SourceError):
    """403 for a signed URL: it expired or is invalid. Listing the backup again gives a new one."""


# 6: no space, or the store fails


class StoreError(ArchiverError):
    """The store failed to write or to read."""

    exit_code = 6
    ends_run = True


class StoreForbidden(StoreError):
    """The store denies access, which is a matter of permission: ``AccessError``'s exit code."""

    exit_code = AccessError.exit_code


class InstanceForbidden(StoreForbidden):
    """The store denies access to what belongs to one instance; others may be written."""

    ends_run = False


class NoSpace(StoreError):
    """The disk or quota is full. Staged parts are kept."""


class UnreadableObject(StoreError):
    """The store cannot read one object or document; others may be readable."""

    ends_run = False


class PlaceTaken(StoreError):
    """Something else occupies the path of an object or folder of the archive."""

    ends_run = False


class DoesNotFit(StoreError):
    """A file is larger than the free space; others may fit."""

    ends_run = False


# 7: busy


class ArchiveBusy(ArchiverError):
    """Another process writes, or may write, to this archive; ``ends_soon``: for a moment only."""

    exit_code = 7
    ends_run = True
    ends_soon = False


class LockLost(ArchiveBusy):
    """A lock was lost while it was held: another process may write there by now. Where it is an
    instance's, that instance fails, and the others go on."""


EXIT_OK = 0
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141  # as a shell says of SIGPIPE

# What a run with several failures exits with: the first of these that occurred.
EXIT_PRECEDENCE = (6, 3, 4, 5, 2, 7, 1)


def worst_exit_code(codes: Collection[int]) -> int:
    """The exit code of a run with these codes; ``EXIT_OK`` when none of them is a failure."""
    return next((code for code in EXIT_PRECEDENCE if code in codes), EXIT_OK)


def others_not_asked(count: int, done: str = "listed") -> str:
    """For an error that concerns all instances: that ``count`` others were not ``done``."""
    return f"{count:,} more {'instance was' if count == 1 else 'instances were'} not {done}"
