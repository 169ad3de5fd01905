"""A drill says what happened: no more than that, all of it, and no secret."""

import io
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from archiver import Archive, LocalStore, events
from archiver.cli import progress
from archiver.commands.drill import DrillOptions, ServerProgram, drill, history, parse
from archiver.commands.drill import events as drill_events
from archiver.commands.verify.evidence import check_evidence
from archiver.commands.verify.findings import Finding
from archiver.errors import NoSpace
from archiver.report import chain
from archiver.report.document import decode
from archiver.report.evidence import SetEvidence, Verdict
from archiver.report.words import headline
from archiver.stores.base import Entry
from examples.sample_rdb import rdb
from tests.archive.sample import INSTANCE, STARTS, put_standard
from tests.drill.test_drill import drilled, only

AnyEvent = drill_events.DrillEvent | events.Work

SECRET = "hunter2-7d1f"
# How a value can be asserted, and be shown to be another: by both sides of the comparison.
ASSERTED = (
    "get k == other",
    f"get k != {SECRET}",
    f'get[0] "k" != "{SECRET}"',
    "get k > 5",
    "get n != 481516",
    "get n > 481517",
    "get n <= 1",
    f"GET  k  == {SECRET}",  # which holds
    "get n == 481516",
)
SECRETS = (SECRET.encode(), b"481516")


def with_values(**values: str) -> bytes:
    """A dump of strings, without a checksum."""

    def text(word: str) -> bytes:
        return bytes([len(word)]) + word.encode()

    body = b"".join(b"\x00" + text(key) + text(value) for key, value in values.items())
    return b"REDIS0009\xfe\x00" + body + b"\xff" + bytes(8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def options(place: Path) -> DrillOptions:
    return DrillOptions(scratch=place)


@pytest.fixture
def told() -> list[AnyEvent]:
    return []


@pytest.fixture
def again(root: Path, valkey: ServerProgram, told: list[AnyEvent]) -> Callable[[DrillOptions], Any]:
    """Drill, and keep what is told."""

    async def run(options: DrillOptions) -> SetEvidence:
        archive = Archive(LocalStore(root))
        return only(await drill(archive, [valkey], options, observer=told.append))

    return run


@pytest.mark.parametrize("show", [False, True])
async def test_a_value_is_in_nothing_unless_it_is_asked_for(
    root: Path, tmp_path: Path, options: DrillOptions, valkey: ServerProgram,
    told: list[AnyEvent], show: bool,
) -> None:  # fmt: skip
    put_standard(root, with_values(k=SECRET, n="481516"))
    asserted = tuple(map(parse, ASSERTED))
    done = await drill(
        Archive(LocalStore(root)),
        [valkey],
        replace(options, assertions=asserted, show_values=show),
        evidence_directory=tmp_path / "kept",
        observer=told.append,
    )
    files = [*(root / "drills").rglob("*.*"), *(tmp_path / "kept").rglob("*.*")]
    pages = [path for path in files if path.suffix in (".json", ".html", ".md", ".xml")]
    assert len(pages) == 8
    everything = b"".join(path.read_bytes() for path in pages) + repr((done, told)).encode()
    assert [secret in everything for secret in SECRETS] == [show, show]
    one = only(done)
    assert [a.holds for a in one.assertions] == [False] * 7 + [True] * 2
    if not show:
        assert one.assertions[1].text == "get k != (withheld)"
        assert one.assertions[5].text == "get n > 481517"  # a bound is no value of the key
        assert {a.seen for a in one.assertions} == {"withheld"}
        assert "get k == (withheld)" in one.why


async def test_what_was_restored_is_not_called_lost(root: Path, options: DrillOptions) -> None:
    for name in ("r-one", "r-two", "r-three"):
        put_standard(root, rdb(3000), instance=name)
    done = await drilled(root, replace(options, assertions=(parse("dbsize >= 9"),)))
    assert headline(done.evidence) == (
        "0 of 3 backup sets passed; 3 failed. "
        "3 sets were restored, but did not pass: an assertion does not hold (3)."
    )


async def test_a_drill_before_is_found_however_many_came_between(
    root: Path, options: DrillOptions, again: Callable[[DrillOptions], Any],
    told: list[AnyEvent], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(history, "_LOOK_BACK", 1)
    options = replace(options, max_change=0.0)
    put_standard(root, rdb(2_100_000), STARTS[0])
    put_standard(root, rdb(3000), STARTS[0], instance="r-other")
    mine = replace(options.wanted, instances=(INSTANCE,))
    theirs = replace(options.wanted, instances=("r-other",))
    first = await again(replace(options, wanted=mine))
    assert first.why.endswith("there is no earlier drill to compare with")
    for _ in range(2):
        await again(replace(options, wanted=theirs))
    assert [one for one in told if isinstance(one, drill_events.NotCompared)] == [
        drill_events.NotCompared(name, "it has not passed a drill yet")
        for name in (INSTANCE, "r-other")
    ]
    put_standard(root, rdb(3000), STARTS[1])
    failed = await again(replace(options, wanted=mine))
    assert (failed.verdict, failed.why) == (Verdict.FAIL, "1 keys, but 3 in the previous drill")
    # Without the note it is said that there was no comparison.
    (root / chain.last_key(INSTANCE)).unlink()
    await again(replace(options, wanted=theirs))
    told.clear()
    assert (await again(replace(options, wanted=mine))).verdict is Verdict.PASS
    [skipped] = [one for one in told if isinstance(one, drill_events.NotCompared)]
    assert "it passed none of the newest 1 of 5 drills" in skipped.why


def ignored(_: str, __: str) -> None:
    """What is no fault is none of these tests' business."""


async def test_a_note_of_a_last_drill_that_is_wrong_is_found(
    root: Path, options: DrillOptions
) -> None:
    put_standard(root, rdb(3000))
    await drilled(root, options)
    note = root / chain.last_key(INSTANCE)
    for data, what in (
        (note.read_bytes(), None),
        (b"20261101T000000Z-000000\n", "is gone"),
        (b"x", "is not a drill id"),
        (b"", "is not a drill id"),
    ):
        note.write_bytes(data)
        found: list[Finding] = []
        await check_evidence(LocalStore(root), (), found.append, ignored)
        assert [what in one.text for one in found if what] == ([] if what is None else [True])
        assert len(found) == (what is not None)
    note.rename(note.with_name("r-other.id"))
    drill_id = next(root.glob("drills/2*/*/*.json")).stem
    note.with_name("r-other.id").write_bytes(chain.last_document(drill_id))
    others: list[Finding] = []
    await check_evidence(LocalStore(root), (), others.append, ignored)
    assert ["did not pass this instance" in one.text for one in others] == [True]


async def test_a_drill_that_ends_while_a_verify_looks(root: Path, options: DrillOptions) -> None:
    """Its evidence is not listed yet, and the note that names it is read a moment later."""
    put_standard(root, rdb(3000))
    await drilled(root, options)
    listed = [one async for one in LocalStore(root).entries(chain.PREFIX)]

    class ListedBefore(LocalStore):
        async def entries(self, prefix: str) -> AsyncGenerator[Entry, None]:
            for entry in listed if prefix == chain.PREFIX else ():
                yield entry

    await drilled(root, options)
    found: list[Finding] = []
    await check_evidence(ListedBefore(root), (), found.append, ignored)
    assert found == []


async def test_a_set_from_the_future_has_no_age(
    root: Path, options: DrillOptions, again: Callable[[DrillOptions], Any],
    told: list[AnyEvent],
) -> None:  # fmt: skip
    soon = datetime.now(UTC) + timedelta(hours=2)
    put_standard(root, rdb(3000), STARTS[0])
    put_standard(root, rdb(3000), f"{soon:%Y%m%dT%H%M%SZ}")
    one = await again(replace(options, rpo_seconds=1e9))
    assert (one.rpo.newest_age_seconds, one.rpo.met) == (None, False)
    [ahead] = [event for event in told if isinstance(event, drill_events.FromTheFuture)]
    assert ahead.key == one.key
    assert 7000 < ahead.seconds < 7300


async def test_a_set_without_a_key_is_not_a_pass_unless_it_may_be_empty(
    root: Path, options: DrillOptions, again: Callable[[DrillOptions], Any]
) -> None:
    put_standard(root, with_values())
    one = await again(options)
    assert one.verdict is Verdict.FAIL
    assert "it has no keys" in one.why
    one = await again(replace(options, allow_empty=True))
    assert one.verdict is Verdict.PASS
    assert one.why.endswith("it is empty")


async def test_keys_that_all_expired_were_in_the_backup(
    root: Path, options: DrillOptions, again: Callable[[DrillOptions], Any]
) -> None:
    data = with_values(k="v")
    expired = b"\xfc" + (1_000_000).to_bytes(8, "little")
    put_standard(root, data.replace(b"\x00\x01k\x01v", expired + b"\x00\x01k\x01v"))
    one = await again(options)
    assert one.verdict is Verdict.PASS
    assert one.why.endswith("all of them have expired")


class SetBack(datetime):
    """A clock that is a day ahead when it is looked at first, and then is set right."""

    looks = 0

    @classmethod
    def now(cls, tz: Any = None) -> "SetBack":
        cls.looks += 1
        ahead = timedelta(days=1) if cls.looks == 1 else timedelta()
        return cls.fromtimestamp((datetime.now(tz) + ahead).timestamp(), tz)


async def test_a_clock_that_is_set_back_loses_no_evidence(
    root: Path, options: DrillOptions, again: Callable[[DrillOptions], Any],
    told: list[AnyEvent], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And a key that had expired by what the clock was is there by what it is."""
    soon = int((datetime.now(UTC) + timedelta(hours=12)).timestamp() * 1000)
    string = b"\x00\x01k\x01v"
    expiring = b"\xfc" + soon.to_bytes(8, "little") + string
    put_standard(root, with_values(k="v").replace(string, expiring))
    for module in ("run", "files"):
        clock = type(module, (SetBack,), {"looks": 0})
        monkeypatch.setattr(f"archiver.commands.drill.{module}.datetime", clock)
    one = await again(options)
    assert (one.verdict, one.files[0].difference) == (Verdict.PASS, None), one.why
    [back] = [one for one in told if isinstance(one, drill_events.ClockSetBack)]
    assert 86_000 < back.seconds < 87_000
    [path] = root.glob("drills/2*/*/*.json")
    evidence = decode(path.read_bytes())
    assert timedelta() <= evidence.finished_at - evidence.started_at < timedelta(hours=1)


class FullBehind(LocalStore):
    """A disk that is full once the evidence has its name."""

    async def put(self, key: str, data: bytes) -> str:
        version = await super().put(key, data)
        if key.startswith("drills/"):
            raise NoSpace("Disk quota exceeded")
        return version


async def test_what_is_in_the_chain_is_not_called_lost(
    root: Path, options: DrillOptions, valkey: ServerProgram
) -> None:
    put_standard(root, rdb(3000))
    done = await drill(Archive(FullBehind(root)), [valkey], options)
    assert done.filed.stores == (str(root),)
    assert (root / done.filed.key).read_bytes() == done.filed.data
    assert "may not survive a power failure: Disk quota exceeded" in (done.filed.problem or "")
    assert done.exit_code == 6
    following = await drilled(root, options)
    assert following.evidence.previous is not None
    assert following.evidence.previous.id == done.evidence.id
    assert following.faults == ()


async def test_how_far_it_is(
    root: Path, options: DrillOptions, again: Callable[[DrillOptions], Any],
    told: list[AnyEvent],
) -> None:  # fmt: skip
    size = 3_200_000
    put_standard(root, rdb(size))
    await again(options)
    work = [one for one in told if isinstance(one, events.Work)]
    assert isinstance(work[0], events.SetBegun)
    assert (work[0].number, work[0].of, work[0].files, work[0].size) == (1, 1, 1, size)
    assert isinstance(work[-1], events.FileLeft)
    steps = [one for one in work if isinstance(one, events.FileWorkedOn)]
    assert tuple(dict.fromkeys(one.step for one in steps)) == STEPS
    assert all(0 <= one.position <= one.total for one in steps)
    ends = {one.step: one for one in steps}
    assert ends["restoring"].position == ends["checking"].position == size
    assert (ends["counting"].position, ends["counting"].unit) == (4, "keys")


STEPS = ("restoring", "checking", "loading", "counting")
WORK: list[events.Work] = [
    events.SetBegun("a", 2, 3, 1, 4000),
    *(
        events.FileWorkedOn("a/b.rdb", 4000, step, number, 4, at, 100)
        for number, step in enumerate(STEPS, 1)
        for at in (0, 50, 100)
    ),
    events.FileLeft("a/b.rdb", 4000),
]


def test_a_line_now_and_then_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    now, later = count(0.0, 16.0), count(0.0, 16.0)
    log = progress.WorkLog(clock=lambda: next(now))
    quiet = progress.WorkLog(quiet=True, clock=lambda: next(later))
    for one in WORK:
        log(one)
        quiet(one)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "set 2 of 3: 0 B of 3.9 KiB (0%), 32 s; restoring a/b.rdb"
    assert lines[-1].endswith("counting a/b.rdb")
    shares = [int(found[1]) for line in lines if (found := re.search(r"\((\d+)%\)", line))]
    assert shares == sorted(shares)
    assert len(shares) == len(lines) > 4


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    bars = progress.WorkBars()
    for one in WORK[:-1]:
        bars(one)
    bars.say("a line")
    bars(WORK[-1])
    bars.close()
    text = shown.getvalue()
    assert "set 2 of 3: 100%" in text
    assert "counting b.rdb:" in text
    assert text.count("a line\n") == 1


@pytest.mark.parametrize("kind", [progress.WorkBars, progress.BarProgress])
def test_what_follows_the_bars_begins_a_line(
    kind: type[progress.WorkBars | progress.BarProgress], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command to copy goes to stdout at once, so that nothing may be left in stderr."""
    terminal = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(terminal, encoding="utf-8"))
    bars = kind()
    if isinstance(bars, progress.WorkBars):
        bars(WORK[0])
    bars.close()
    assert terminal.getvalue().endswith(b"\n")
