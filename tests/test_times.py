"""Ranges of time, in every form that people write."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.times import TimeRange

NOW = datetime(2026, 11, 24, 10, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-11-01..2026-11-24", "2026-11-01T00:00Z", "2026-11-25T00:00Z"),
        ("2026-11-01", "2026-11-01T00:00Z", "2026-11-02T00:00Z"),
        ("20261101", "2026-11-01T00:00Z", "2026-11-02T00:00Z"),
        ("2026-11-01..", "2026-11-01T00:00Z", "2026-11-24T10:31Z"),
        ("2026-11-01T02:15Z..2026-11-01T03:15Z", "2026-11-01T02:15Z", "2026-11-01T03:15Z"),
        ("20261101T0215Z..20261101T031530Z", "2026-11-01T02:15Z", "2026-11-01T03:16Z"),
        ("2026-11-01T02:15..2026-11-01T03:15", "2026-11-01T02:15Z", "2026-11-01T03:15Z"),
        ("2026-11-01T10:15+08:00..2026-11-01", "2026-11-01T02:15Z", "2026-11-02T00:00Z"),
        ("2024-02-28..2024-02-29", "2024-02-28T00:00Z", "2024-03-01T00:00Z"),
        ("2026-11-01..2026-11-01", "2026-11-01T00:00Z", "2026-11-02T00:00Z"),
        ("2026-11-01T02:15:59Z..20261102", "2026-11-01T02:15Z", "2026-11-03T00:00Z"),
        ("0001-01-01..", "0001-01-01T00:00Z", "2026-11-24T10:31Z"),
        ("2026-11-01..9999-12-30", "2026-11-01T00:00Z", "9999-12-31T00:00Z"),
        ("last-7d", "2026-11-17T10:30Z", "2026-11-24T10:31Z"),
        ("last-36h", "2026-11-22T22:30Z", "2026-11-24T10:31Z"),
    ],
)
def test_forms(text: str, start: str, end: str) -> None:
    assert TimeRange.parse(text, NOW).query_bounds() == (start, end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "..",
        "..2026-11-01",
        "2026-13-01",
        "2026-11-02..2026-11-01",
        "2026-11-01T00:00Z..2026-11-01T00:00Z",
        "2030-01-01..",
        "2026-11-01..2026-W45-1",
        "2026W451..2026-11-20",
        "2026-11-01..9999-12-31",
        "9999-12-31",
        "2026-11-01..9999-12-31T23:59:30Z",
        "0001-01-01T00:00+08:00..2026-11-01",
        "2026-02-30",
        "last-0d",
        "last-7w",
        "last-999999d",
        "2026-11-01T02:15Z",
        "2026-11-01..2026-11-02..2026-11-03",
    ],
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        TimeRange.parse(text, NOW)
    assert "\n" not in str(caught.value)


moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(moments, st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
def test_the_wire_never_narrows(start: datetime, length: timedelta) -> None:
    wide = TimeRange(start, start + length)
    first, last = (
        datetime.strptime(text, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC)
        for text in wide.query_bounds()
    )
    assert first <= wide.start < wide.end <= last
    assert wide.start - first < timedelta(minutes=1)
    assert last - wide.end < timedelta(minutes=1)


days = st.dates(date(1, 1, 1), date(9999, 12, 30))


@given(days, days)
def test_a_date_at_the_end_is_the_whole_day(one: date, other: date) -> None:
    first, last = sorted((one, other))
    wide = TimeRange.parse(f"{first}..{last}", NOW)
    assert wide.start == datetime(first.year, first.month, first.day, tzinfo=UTC)
    assert wide.end == datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    assert TimeRange.parse(str(wide), NOW) == wide
    if first == last:
        assert TimeRange.parse(str(first), NOW) == wide


@given(st.text(st.sampled_from("0123456789-.:TZW+lasthd "), max_size=40))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        read = TimeRange.parse(text, NOW)
    except UsageError:
        return
    assert read.start < read.end
    assert len(read.query_bounds()[0]) == len("2026-11-01T00:00Z")


def test_a_moment_has_a_zone_of_its_own() -> None:
    tokyo = timezone(timedelta(hours=9))
    read = TimeRange(
        datetime(2026, 11, 1, 9, tzinfo=tokyo), datetime(2026, 11, 1, 10, tzinfo=tokyo)
    )
    assert str(read) == "2026-11-01T00:00Z..2026-11-01T01:00Z"


def test_times_need_a_zone() -> None:
    with pytest.raises(UsageError):
        TimeRange(datetime(2026, 1, 1), datetime(2026, 1, 2))
