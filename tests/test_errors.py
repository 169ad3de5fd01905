"""Every error stands for one of the documented exit codes, and says so in one line."""

from collections.abc import Iterator

import pytest

from archiver import errors
from archiver.errors import ArchiverError


def all_below(kind: type[ArchiverError]) -> Iterator[type[ArchiverError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from all_below(below)


ALL = list(all_below(ArchiverError))


@pytest.mark.parametrize("kind", ALL)
def test_the_exit_code_is_documented(kind: type[ArchiverError]) -> None:
    assert kind.exit_code in {1, 2, 3, 4, 5, 6, 7}
    assert kind.__doc__


def test_the_codes_and_what_they_stand_for() -> None:
    roots = {
        errors.BackupFailed: 1,
        errors.UsageError: 2,
        errors.IntegrityError: 3,
        errors.AccessError: 4,
        errors.SourceError: 5,
        errors.StoreError: 6,
        errors.ArchiveBusy: 7,
    }
    assert set(ArchiverError.__subclasses__()) >= set(roots)
    denied = set(all_below(errors.StoreForbidden))  # by a store, but a matter of permission
    for root, code in roots.items():
        assert {kind.exit_code for kind in set(all_below(root)) - denied} == {code}
    assert {kind.exit_code for kind in denied} == {errors.AccessError.exit_code}


def test_every_code_has_its_place_among_the_others() -> None:
    assert sorted(errors.EXIT_PRECEDENCE) == sorted({kind.exit_code for kind in ALL})
    assert errors.EXIT_OK not in errors.EXIT_PRECEDENCE
    assert errors.EXIT_INTERRUPTED == 128 + 2  # SIGINT


def test_only_the_source_is_tried_again() -> None:
    retryable = {kind for kind in ALL if kind.retryable}
    lost = {errors.SourceUnavailable, errors.SourceUnreachable}
    assert retryable == {*lost, errors.Throttled, errors.Stalled}


def test_what_ends_a_run() -> None:
    of_one = {errors.UnreadableObject, errors.PlaceTaken, errors.DoesNotFit}
    of_one.add(errors.InstanceForbidden)
    for kind in all_below(errors.StoreError):
        assert kind.ends_run is (kind not in of_one)
    assert errors.ArchiveBusy.ends_run
    assert not issubclass(errors.ArchiveBusy, errors.StoreError)  # a full disk is another matter
    assert not any(kind.ends_run for kind in all_below(errors.SourceError))


def test_message_hint_and_wait() -> None:
    plain = ArchiverError("it broke")
    assert (str(plain), plain.hint, plain.retry_after) == ("it broke", None, None)
    full = errors.Throttled("slow down", hint="try later", retry_after=1.5)
    assert str(full) == "slow down (try later)"
    assert (full.message, full.hint, full.retry_after) == ("slow down", "try later", 1.5)
