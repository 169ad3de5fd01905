"""Everything that can go wrong, one root.

A class says four things about a failure: the exit code it stands for (README, *Exit codes*),
whether trying the same again may help, whether it concerns one backup or ends the run, and whether
the source would say the same of everything else (``concerns_all``).
Messages are one line: what was wrong, where. The hint says what to do.
"""

from collections.abc import Collection
from typing import ClassVar


class ArchiverError(Exception):
    """Root of all errors raised on purpose.

    ``retry_after`` is the wait in seconds that the server asked for, if it did.
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
        # Whether an object store said so in its own words, and not something on the way to it.
        self.by_object_store = False

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# 1: some backups failed


class BackupFailed(ArchiverError):
    """One backup could not be brought home; the others go on."""


class BackupGone(BackupFailed):
    """The vendor no longer has the file (404, or no longer listed)."""


class UnknownInstance(ArchiverError):
    """No such instance in this region and account: it may have been deleted since yesterday."""


class UnsafeInput(BackupFailed):
    """The API gave an id or URL that must not touch a path or the network."""


class NoSuchBackup(ArchiverError):
    """An archive has nothing of what was asked for, and what was asked for makes sense."""


class BadAcknowledgement(ArchiverError):
    """What somebody has taken note of, and cannot be read: no backup has a wrong byte for that.
    ``fault`` says why, without the key."""

    def __init__(self, key: str, fault: str, *, hint: str | None = None) -> None:
        super().__init__(f"{key}: {fault}", hint=hint)
        self.fault = fault


# 2: usage or configuration


class UsageError(ArchiverError):
    """An option, a range or a configuration file that cannot be used as it is."""

    exit_code = 2


class RequestRejected(UsageError):
    """The API understood the request and refuses it."""


class UnsupportedFormat(UsageError):
    """An archive written in a format that this version does not know."""

    ends_run = True


class NewerAcknowledgement(UsageError):
    """What somebody has taken note of with a newer version, which is left as it is. ``fault`` says
    so, without the key."""

    def __init__(self, key: str, fault: str, *, hint: str | None = None) -> None:
        super().__init__(f"{key}: {fault}", hint=hint)
        self.fault = fault


# 3: integrity


class IntegrityError(ArchiverError):
    """Bytes that are not the ones that the server wrote."""

    exit_code = 3


class BadDocument(IntegrityError):
    """One document of an archive that cannot be used: ``key`` says which, ``fault`` why."""

    def __init__(self, key: str, fault: str, *, hint: str | None = None) -> None:
        super().__init__(f"{key}: {fault}", hint=hint)
        self.key = key
        self.fault = fault


class NewerDocument(BadDocument):
    """A document of a format that a newer version wrote: there may be nothing wrong with it."""


class NoDocument(BadDocument):
    """What has a document's name is none: a folder, a link, a device, or far too large."""


class CorruptFile(IntegrityError):
    """All of a file was fetched, and it stays wrong. Its bytes are worth keeping aside."""


class ObjectMissing(IntegrityError):
    """A store has no object under the key that a record names."""


class ObjectChanged(IntegrityError):
    """The object at the source is no longer the one that the transfer began with."""


class DamagedArchive(IntegrityError):
    """An archive whose ``archive.json`` does not say which format it is of."""

    ends_run = True


# 4: credentials or permission


class AccessError(ArchiverError):
    """The vendor does not let us in."""

    exit_code = 4


class NoCredentials(AccessError):
    """No step of the credential chain gave an access key."""

    concerns_all = True


class BadCredentials(AccessError):
    """The access key, its secret, its token or the signature was refused."""

    concerns_all = True


class ClockSkew(AccessError):
    """This machine's clock is too far from the vendor's for a signature to hold."""

    concerns_all = True


class PermissionDenied(AccessError):
    """The identity is known and lacks a permission."""


class ProxyDenied(AccessError):
    """A proxy on the way wants a user and password (407)."""

    concerns_all = True


class StoreForbidden(AccessError):
    """The store does not let us in."""

    ends_run = True


# 5: the source could not be reached


class SourceError(ArchiverError):
    """The source did not answer as a source does."""

    exit_code = 5


class SourceUnavailable(SourceError):
    """Refused, reset, timed out, or a 5xx: may work the next time."""

    retryable = True


class SourceUnreachable(SourceUnavailable):
    """Nobody answers where the source should be."""

    concerns_all = True


class UntrustedSource(SourceError):
    """What answers in the source's name has no certificate that we trust."""

    concerns_all = True


class ProxyRefused(SourceError):
    """A proxy on the way does not connect us to a host."""


class Throttled(SourceError):
    """Too many requests; ``retry_after`` is the server's word when it gave one."""

    retryable = True


class Stalled(SourceError):
    """Bytes came slower than the least rate for a whole window."""

    retryable = True


class UrlRefused(SourceError):
    """403 on a signed URL: expired, or no longer valid. List again, then go on."""


# 6: no space, or the store refuses


class StoreError(ArchiverError):
    """The place that keeps the archive does not take what we write, or give what it holds."""

    exit_code = 6
    ends_run = True


class NoSpace(StoreError):
    """The disk or quota is full. What is resumable stays."""


class UnreadableObject(StoreError):
    """The store does not give one object or document. It may well give the others."""

    ends_run = False


class PlaceTaken(StoreError):
    """Something else has the place where one object or folder of an archive is to lie."""

    ends_run = False


class DoesNotFit(StoreError):
    """One file is larger than the space that is left; others may fit."""

    ends_run = False


# 7: busy


class ArchiveBusy(ArchiverError):
    """Another process writes to this archive, or may do so. It may be waited for."""

    exit_code = 7
    ends_run = True


EXIT_OK = 0
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141  # as a shell says of SIGPIPE

# The worst first: what a run with several failures exits with.
EXIT_PRECEDENCE = (6, 3, 4, 5, 2, 7, 1)


def worst_exit_code(codes: Collection[int]) -> int:
    """The one that counts; ``EXIT_OK`` when none of them is a failure."""
    return next((code for code in EXIT_PRECEDENCE if code in codes), EXIT_OK)


def others_not_asked(count: int) -> str:
    """That an error which concerns all instances kept so many others from being listed."""
    return f"{count:,} more {'instance was' if count == 1 else 'instances were'} not asked for"
