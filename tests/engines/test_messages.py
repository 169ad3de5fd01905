"""What a coordinator and its workers send each other."""

import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from archiver import errors, events
from archiver.engines.dask.downloading import Download
from archiver.engines.dask.line import Line
from archiver.engines.dask.messages import Outbox, without_urls
from archiver.errors import ArchiverError
from archiver.model import Backup, BackupType, Network, SourceName, Status, Transfer
from archiver.secret import Secret
from archiver.stores.loans import LoanLapsed
from tests.test_errors import ALL

URL = "https://bucket.oss-cn-hangzhou.aliyuncs.com/f?Signature=abc"
BACKUP = Backup(
    SourceName("any", "List"), "r-a", "r-a", "1", None, datetime(2026, 11, 1, tzinfo=UTC),
    Status.SUCCESS, BackupType.FULL, urls={Network.PUBLIC: Secret(URL)}, received={"x": 1},
)  # fmt: skip
OTHER = replace(BACKUP, backup_id="2")


def advanced(backup: Backup, position: int, fetched: int) -> events.Advanced:
    return events.Advanced(backup, position, fetched, Network.PUBLIC)


def test_the_progress_of_each_file_is_summed_up_between_its_other_events() -> None:
    outbox = Outbox()
    hedged = events.Hedged(BACKUP, 30)
    for event in (
        advanced(BACKUP, 10, 10), advanced(OTHER, 5, 5), advanced(BACKUP, 30, 20), hedged,
        advanced(BACKUP, 40, 10),
    ):  # fmt: skip
        outbox(event)
    bare, other = (replace(one, urls={}, received={}) for one in (BACKUP, OTHER))
    assert outbox.take() == (
        advanced(bare, 30, 30), advanced(other, 5, 5), replace(hedged, backup=bare),
        advanced(bare, 40, 10),
    )  # fmt: skip
    assert outbox.take() == ()
    for backup in (BACKUP, OTHER):
        outbox(advanced(backup, 10, 10))
    assert outbox.take({OTHER.identity}) == (advanced(other, 10, 10),)
    assert outbox.take() == (advanced(bare, 10, 10),)


def test_a_task_with_a_url_cannot_be_sent() -> None:
    transfer = Transfer(BACKUP, "r-a/2026/11/x", "r-a/2026/11/x")
    with pytest.raises(TypeError, match="a secret cannot be pickled"):
        pickle.dumps(Download((transfer,), is_batch=False))
    bare = Download((without_urls(transfer),), is_batch=False)
    assert pickle.loads(pickle.dumps(bare)) == bare


def test_a_line_carries_secrets_and_only_its_other_end_can_read_them() -> None:
    one, other, third = Line(), Line(), Line()
    one.connect(other.public)
    other.connect(one.public)
    third.connect(one.public)
    packed = one.pack(BACKUP)
    assert b"Signature" not in packed
    assert other.unpack(packed) == BACKUP
    assert other.unpack(packed).urls[Network.PUBLIC].reveal() == URL
    for wrong in (packed[:-1] + bytes([packed[-1] ^ 1]), third.pack(BACKUP)):
        with pytest.raises(InvalidTag):
            other.unpack(wrong)


@pytest.mark.parametrize("kind", ALL)
def test_errors_arrive_as_they_were(kind: type[ArchiverError]) -> None:
    fault: dict[str, Any] = (
        {"fault": "why"} if "fault" in kind.__init__.__code__.co_varnames else {}
    )
    error = kind("where", **fault, hint="what to do")
    error.retry_after, error.by_object_store = 3.0, True
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_errors_of_other_modules_arrive_as_the_nearest_that_all_know() -> None:
    arrived = pickle.loads(pickle.dumps(LoanLapsed("x")))
    assert type(arrived) is errors.LockLost
