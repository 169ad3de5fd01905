"""Power cuts, as POSIX allows them: whatever a run has not synced may be missing, torn or old.

Every run is recorded under strace, and cut after each of its calls; see ``power.py`` for what is
looked at. ``FAULTS=full`` (``make faults``) tries more states of each cut, and goes on with more.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archiver.stores.local.syncing import is_syncfs_reliable
from examples.sample_rdb import write_rdb
from tests.conftest import KEY_ID, KEY_SECRET
from tests.faults import power
from tests.faults.facts import Truth
from tests.faults.power import PART, Limits, Rig, Scenario, Step, pull_arguments
from tests.faults.syscalls import read_tree
from tests.faults.test_disk import needs_strace
from tests.sweeps import extent, within_share

pytestmark = [needs_strace, pytest.mark.timeout(1700)]
STANDARD, CLUSTER, BATCH = "r-standard", "r-cluster", "r-batch"
REFERENCE = "reference"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is room: what is durable is the model's business."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="archiver-power-", dir=memory) as place:
        yield Path(place)


def lay_out_vendor(vendor: Path) -> list[bytes]:
    """Files of several parts and of one, of a standard instance, a cluster, and many of another."""
    served = [
        write_rdb(vendor / STANDARD / "large_20261122021500.rdb", 3 * PART + 1_000, 1),
        write_rdb(vendor / STANDARD / "small_20261123021500.rdb", 3_000, 2),
    ]
    for node, size in enumerate((2_000, 3_000, PART + 1_000)):
        path = vendor / CLUSTER / f"{CLUSTER}-db-{node}" / "d_20261122031500.rdb"
        served.append(write_rdb(path, size, 10 + node))
    for number in range(18):
        name = f"n{number}_2026{10 + number % 2}240215{number:02}.rdb"
        served.append(write_rdb(vendor / BATCH / name, 1_200 + number, 20 + number))
    return served


@pytest.fixture
def rig(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", KEY_SECRET)
    monkeypatch.setenv("ARCHIVER_PULL_RANGE", "2000-01-01..2099-12-31")
    vendor, empty = folder / "vendor", folder / "empty"
    served = lay_out_vendor(vendor)
    for instance in (STANDARD, CLUSTER, BATCH):
        (empty / instance).mkdir(parents=True)
    with power.serving(vendor) as served_here, power.serving(empty) as nothing:
        monkeypatch.setenv("ARCHIVER_PULL_ENDPOINT", served_here.endpoint)
        monkeypatch.setenv("ARCHIVER_VERIFY_ENDPOINT", served_here.endpoint)
        reference = folder / REFERENCE
        ended = power.command(*pull_arguments((STANDARD, CLUSTER, BATCH), reference))
        assert ended.code == 0, ended.err
        files = {key: data for key, data in read_tree(reference).items() if data is not None}
        visible = {key: data for key, data in files.items() if not key.startswith(".")}
        yield Rig(folder, served_here, nothing, Truth(visible, served))


def pulls(*instances: str) -> Step:
    return Step(pull_arguments(instances, "ARCHIVE"))


def visible(rig: Rig, *instances: str) -> dict[str, bytes]:
    """The files of a whole archive of these instances."""
    return {
        key: data
        for key, data in rig.truth.files.items()
        if key == "archive.json" or key.partition("/")[0] in instances
    }


def pulled_again(*instances: str) -> power.Again:
    return lambda archive: [pull_arguments(instances, archive)]


def pulled(rig: Rig) -> Scenario:
    """Into nothing: files of several parts and of one, a cluster's set."""
    wanted = rig.truth.of((STANDARD, CLUSTER))
    again = pulled_again(STANDARD, CLUSTER)
    promises = frozenset(("archived", "set_completed", "noted"))
    steps = (pulls(STANDARD, CLUSTER),)
    return Scenario("pulled", wanted, steps, again, promises=promises)


def batch(rig: Rig) -> Scenario:
    """Many small ones: one sync for all of them."""
    promises = {"archived", "set_completed"}
    if is_syncfs_reliable(rig.folder):
        promises.add("syncfs")
    step = Step((*pull_arguments([BATCH], "ARCHIVE"), "--workers", "1"))
    wanted, again = rig.truth.of([BATCH]), pulled_again(BATCH)
    return Scenario("batch", wanted, (step,), again, promises=frozenset(promises))


def resumed(rig: Rig) -> Scenario:
    """A run that was cut while it had some parts of a file, gone on with, and cut once more."""
    wanted = rig.truth.of((STANDARD, CLUSTER))
    again = pulled_again(STANDARD, CLUSTER)
    before = rig.cut_in_the_middle(
        Scenario("cut-first", wanted, (pulls(STANDARD, CLUSTER),), again)
    )
    return Scenario("resumed", wanted, (pulls(STANDARD, CLUSTER),), again, before)


def killed(rig: Rig, call: str, number: int) -> Scenario:
    """A run that was killed, so that nothing more was synced, gone on with, and then cut."""
    steps = (
        Step(
            (call, str(number), *pull_arguments([STANDARD], "ARCHIVE")),
            codes=(-9, 0),  # threads that share a sync make it one call fewer at times
            module=("tests.faults.killed_at",),
        ),
        pulls(STANDARD),
    )
    name = f"killed-{call}-{number}"
    return Scenario(name, rig.truth.of([STANDARD]), steps, pulled_again(STANDARD))


def copied(rig: Rig) -> Scenario:
    """From one archive to another."""

    def copies(archive: str | Path) -> tuple[str, ...]:
        source = str(rig.folder / REFERENCE)
        return (
            "copy", source, str(archive), "--json", "-q", "--no-progress", "--part-size", str(PART),
            "--workers", "2", "--connections", "2", "--instance", STANDARD, "--instance", CLUSTER,
        )  # fmt: skip

    wanted = rig.truth.of((STANDARD, CLUSTER))
    return Scenario("copied", wanted, (Step(copies("ARCHIVE")),), lambda archive: [copies(archive)])


def verifies(place: str | Path, *more: str) -> tuple[str, ...]:
    return ("verify", str(place), "--json", "-q", "--no-progress", "--workers", "1", *more)


def verified(rig: Rig) -> Scenario:
    """Twice: results are written anew, and over those that are there."""
    before, step = visible(rig, STANDARD, CLUSTER), Step(verifies("ARCHIVE"))

    def again(archive: Path) -> list[tuple[str, ...]]:
        return [verifies(archive), pull_arguments((STANDARD, CLUSTER), archive)]

    wanted = rig.truth.of((STANDARD, CLUSTER))
    return Scenario("verified", wanted, (step, step), again, before)


def damage(files: dict[str, bytes]) -> None:
    """A flipped byte in files of several parts and of one, half a file, none, half a record."""
    objects = sorted(key for key in files if key.endswith(".rdb"))
    large, small = (
        sorted((key for key in objects if key.startswith(STANDARD)), key=lambda k: -len(files[k]))
    )  # fmt: skip
    for key in (large, small):
        files[key] = files[key][:1_000] + bytes([files[key][1_000] ^ 1]) + files[key][1_001:]
    half, none, unrecorded = (key for key in objects if key.startswith(CLUSTER))
    files[half] = files[half][: len(files[half]) // 2]
    del files[none]
    files[f"{unrecorded.rpartition('.')[0]}.json"] = b'{"format": '


def damaged_again(archive: Path) -> None:
    files = {key: data for key, data in read_tree(archive).items() if data is not None}
    damage(files)
    for key, was in read_tree(archive).items():
        if was is not None and key not in files:
            (archive / key).unlink()
        elif was is not None and files[key] != was:
            (archive / key).write_bytes(files[key])


def repaired(rig: Rig, name: str, *repair: str) -> Scenario:
    """Damaged in many ways, and repaired; damaged again, and repaired again."""
    before = visible(rig, STANDARD, CLUSTER)
    damage(before)

    def again(archive: Path) -> list[tuple[str, ...]]:
        return [
            verifies(archive, *repair),
            verifies(archive),
            pull_arguments((STANDARD, CLUSTER), archive),
        ]

    wanted = rig.truth.of((STANDARD, CLUSTER))
    step = Step(verifies("ARCHIVE", *repair))
    return Scenario(name, wanted, (step,), again, before, damaged_again)


def repaired_from_archive(rig: Rig) -> Scenario:
    return repaired(rig, "repaired-archive", "--repair-from", str(rig.folder / REFERENCE))


def repaired_from_source(rig: Rig) -> Scenario:
    return repaired(rig, "repaired-source", "--repair-from", "source")


def replaced(rig: Rig) -> Scenario:
    """A pull that finds objects gone or cut short, and records unreadable or gone."""
    before = visible(rig, STANDARD, CLUSTER)
    objects = sorted(key for key in before if key.endswith(".rdb"))
    for number, key in enumerate(objects):
        record = f"{key.rpartition('.')[0]}.json"
        if number % 4 == 0:
            before[key] = before[key][: len(before[key]) // 2]
        elif number % 4 == 1:
            del before[key]
        elif number % 4 == 2:
            before[record] = b"{"
        else:
            del before[record]
    wanted, again = rig.truth.of((STANDARD, CLUSTER)), pulled_again(STANDARD, CLUSTER)
    return Scenario("replaced", wanted, (pulls(STANDARD, CLUSTER),), again, before)


def grown(rig: Rig) -> Scenario:
    """A set that was complete gets another node: SHA256SUMS is replaced."""
    before = visible(rig, CLUSTER)
    last = max(key for key in before if key.endswith(".rdb"))
    del before[last], before[f"{last.rpartition('.')[0]}.json"]
    [sums] = [key for key in before if key.endswith("/SHA256SUMS")]
    before[sums] = b"".join(before[sums].splitlines(keepends=True)[:-1])
    return Scenario(
        "grown", rig.truth.of([CLUSTER]), (pulls(CLUSTER),), pulled_again(CLUSTER), before
    )


def quarantined(rig: Rig) -> Scenario:
    """The vendor serves damaged dumps, which are put aside, and whole ones later."""
    paths = sorted((rig.folder / "vendor" / STANDARD).glob("*.rdb"))
    whole = {path: path.read_bytes() for path in paths}

    def break_them() -> None:
        for path, data in whole.items():
            path.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])

    def mend_them() -> None:
        for path, data in whole.items():
            path.write_bytes(data)

    arguments = pull_arguments([STANDARD], "ARCHIVE")
    steps = (Step(arguments, (3,), prepare=break_them), Step(arguments, prepare=mend_them))
    wanted = rig.truth.of([STANDARD])
    return Scenario("quarantined", wanted, steps, pulled_again(STANDARD), otherwise=wanted)


SCENARIOS = (
    pulled, batch, resumed, copied, verified, repaired_from_archive, repaired_from_source, replaced,
    grown, quarantined,
)  # fmt: skip


@pytest.mark.parametrize("make", SCENARIOS, ids=lambda make: make.__name__)
def test_cut(rig: Rig, make: Callable[[Rig], Scenario]) -> None:
    judge(rig, make(rig))


def test_cut_after_a_kill(rig: Rig) -> None:
    told = rig.folder / "counts"
    counting = ("count", str(told), *pull_arguments([STANDARD], rig.folder / "counted"))
    assert rig.run(("tests.faults.killed_at", *counting)).returncode == 0
    counts = json.loads(told.read_text())
    calls = ("fsync", "fdatasync", "replace", "unlink")
    positions = [(call, n + 1) for call in calls for n in range(counts[call])]
    random.shuffle(positions)
    for call, number in within_share(positions[: extent(1, len(positions))]):
        judge(rig, killed(rig, call, number), gone_on_with=extent(6, 12))


def judge(rig: Rig, scenario: Scenario, gone_on_with: int = extent(5, 200)) -> None:
    """Every state that a cut may leave, or some: nothing is wrong with any of them."""
    seed = random.randrange(10**6)
    limits = Limits(extent(4, 200), extent(1, 10), gone_on_with, seed)
    judged = rig.judge(scenario, limits)
    print(
        f"{scenario.name}: seed {seed}: {judged.moments} moments, {judged.states} states, "
        f"{judged.gone_on_with} gone on with; {dict(judged.promises)}"
    )
    for kind, first in judged.violations.items():
        print(f"  {kind}: {judged.found[kind]}, as {first}")
    assert not judged.violations
    assert scenario.promises <= judged.promises.keys()
