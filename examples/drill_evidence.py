"""What a restore drill leaves behind: run this and look into ``examples/evidence``.

    python -m examples.drill_evidence

Two drills of an invented archive, the second linked to the first: one where all is well, and one
that shows every verdict. A test keeps the files what this writes.
"""

import hashlib
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archiver.archive import layout
from archiver.model import Footer, Kind, Network
from archiver.report import chain
from archiver.report.document import encode
from archiver.report.evidence import (
    ArchivePlace,
    Assertion,
    Comparison,
    Database,
    Difference,
    Evidence,
    FileEvidence,
    Link,
    Mode,
    Nodes,
    Origin,
    Outcome,
    Phases,
    RdbFacts,
    Selection,
    Server,
    SetEvidence,
    Targets,
    Teardown,
    Tool,
    Verdict,
    Who,
)
from archiver.report.junit import to_junit
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from archiver.report.verdict import (
    candidates_sha256,
    conclude,
    largest_gap,
    measure_rpo,
    measure_rto,
    recovery_seconds,
)
from archiver.report.words import loaded_keys

FIRST = datetime(2026, 11, 23, 6, 0, 0, tzinfo=UTC)
SECOND = datetime(2026, 11, 24, 5, 27, 30, tzinfo=UTC)
TARGETS = Targets(
    rto_seconds=120.0, rpo_seconds=93_600.0, rpo_window_seconds=2_592_000.0, tolerance=0.01
)
CLEAN = Teardown(processes_gone=True, directories_gone=True, proven=True)
VALKEY = Server(flavour="valkey", version="9.1.2", executable="valkey-server")
ALL_PHASES = Phases(4.81, 1.93, 0.07, 0.21, 12.4, 1.62, 0.03, 0.34)


def one_file(instance: str, node: str, backup_id: str, start: datetime, keys: int) -> FileEvidence:
    """A file that restores; three of its keys had expired."""
    stem = f"{node}-{backup_id}"
    digest = hashlib.sha256(stem.encode())
    hashes = keys // 4
    parsed = (
        Database(
            0,
            keys,
            keys // 3,
            {"hash": hashes, "string": keys - hashes - 120, "zset": 120},
            sampled=False,
        ),
        Database(7, 41, 0, {"list": 2, "string": 39}, sampled=False),
    )
    loaded = (
        replace(
            parsed[0],
            keys=keys - 3,
            with_expiry=keys // 3 - 3,
            types={"hash": hashes, "string": keys - hashes - 123, "zset": 120},
        ),
        parsed[1],
    )
    return FileEvidence(
        node_id=node,
        backup_id=backup_id,
        object_key=_object_key(instance, node, backup_id, start),
        kind=Kind.RDB,
        size=keys * 337 + 1_409,
        sha256=digest.hexdigest(),
        crc64ecma=str(int.from_bytes(digest.digest()[:8], "big")),
        verified=True,
        origin=Origin(
            network=Network.INTRANET,
            url=f"http://rdsbak-hz.oss-cn-hangzhou-internal.aliyuncs.com/custins/{stem}.rdb",
            fetched_at=start + timedelta(minutes=41),
        ),
        rdb=RdbFacts("REDIS0009", 9, "6.0.19", start + timedelta(seconds=4), Footer.OK),
        parsed=parsed,
        server=VALKEY,
        outcome=Outcome.PASS,
        reason="verified, loaded and counted as expected",
        loaded=loaded,
        keys_loaded=keys + 38,
        keys_expired=3,
        difference=Difference(
            -3, "keys: 3 had expired by the reference clock", beyond_tolerance=False
        ),
        peak_memory_bytes=keys * 611,
        modules_needed=(),
    )


def one_set(
    drilled: datetime, instance: str, start: datetime, files: tuple[FileEvidence, ...]
) -> SetEvidence:
    """A set that restores, with a backup on each of the four days before."""
    gap = largest_gap(
        [start - timedelta(days=days) for days in range(5)], start - timedelta(days=30)
    )
    age = (drilled - start) / timedelta(seconds=1)
    keys = loaded_keys(files)
    return SetEvidence(
        key=layout.set_of(files[0].object_key),
        instance_id=instance,
        started_at=start,
        nodes=Nodes(len(files), tuple(file.node_id for file in files), ()),
        verdict=Verdict.PASS,
        why="every node's file was restored, loaded, and has the expected keys",
        phases=ALL_PHASES,
        rto=measure_rto(recovery_seconds(ALL_PHASES), TARGETS.rto_seconds),
        rpo=measure_rpo(
            age_seconds=age,
            newest_age_seconds=age,
            largest_gap=gap,
            target_seconds=TARGETS.rpo_seconds,
        ),
        files=files,
        comparison=None,
        assertions=(Assertion("dbsize>=1000", None, holds=True, seen=f"dbsize = {keys:,}"),),
        teardown=CLEAN,
    )


def passing(drilled: datetime = FIRST) -> SetEvidence:
    """Three shards, all well."""
    instance, start = "r-bp1zxszhcgatnx", drilled.replace(hour=2, minute=15, second=0)
    files = tuple(
        one_file(instance, f"{instance}-db-{shard}", f"11874{shard}", start, 401_300 + 37 * shard)
        for shard in range(3)
    )
    return one_set(drilled, instance, start, files)


def with_comparison(one: SetEvidence) -> SetEvidence:
    now = sum(database.keys for file in one.files for database in file.loaded or ())
    then = now - 2_411
    compared = Comparison(_first_id(), then, now, 2_411, 2_411 / then, within_tolerance=True)
    return replace(one, comparison=compared)


def partial(drilled: datetime) -> SetEvidence:
    """One of two shards has no file in the archive."""
    instance, start = "r-bp1orders7kq2wd", drilled.replace(hour=1, minute=40, second=0)
    one = one_set(
        drilled, instance, start, (one_file(instance, f"{instance}-db-0", "220951", start, 88_019),)
    )
    missing = f"{instance}-db-1"
    why = f"1 of 2 nodes restored; the archive has no file of {missing}"
    return replace(
        one,
        verdict=Verdict.PARTIAL,
        why=why,
        nodes=replace(one.nodes, expected=2, missing=(missing,)),
    )


def unloadable(drilled: datetime) -> SetEvidence:
    """Intact, but full of Tair's own types."""
    instance, start = "r-bp1geo3tairx9f0", drilled.replace(hour=3, minute=5, second=0)
    file = replace(
        one_file(instance, instance, "330417", start, 15_240),
        outcome=Outcome.UNLOADABLE,
        reason="intact, but needs Tair: no matching module type 'exbloom--'",
        loaded=None,
        keys_loaded=None,
        keys_expired=None,
        difference=None,
        modules_needed=("exbloom--", "tairhash-"),
    )
    phases = replace(ALL_PHASES, load=None, census=None, assertions=None)
    return replace(
        one_set(drilled, instance, start, (file,)),
        verdict=Verdict.UNLOADABLE,
        why="intact, but needs Tair's modules exbloom-- and tairhash-",
        phases=phases,
        rto=measure_rto(recovery_seconds(phases), TARGETS.rto_seconds),
        assertions=(Assertion("dbsize>=1000", None, holds=None, seen="not loaded"),),
    )


def failing(drilled: datetime) -> SetEvidence:
    """Too slow, too few keys, and a gap of two days."""
    instance, start = "r-bp1sess4m0pl8zt", drilled.replace(hour=0, minute=30, second=0)
    file = one_file(instance, instance, "440288", start, 96_204)
    file = replace(file, outcome=Outcome.FAIL, reason="an assertion does not hold")
    phases = replace(ALL_PHASES, read=61.7, load=88.25, census=9.4)
    starts = [start - timedelta(days=days) for days in (0, 1, 3, 4)]
    one = one_set(drilled, instance, start, (file,))
    return replace(
        one,
        verdict=Verdict.FAIL,
        why="an assertion does not hold: dbsize>=100000",
        phases=phases,
        rto=measure_rto(recovery_seconds(phases), TARGETS.rto_seconds),
        rpo=measure_rpo(
            age_seconds=one.rpo.age_seconds,
            newest_age_seconds=one.rpo.newest_age_seconds,
            largest_gap=largest_gap(starts, starts[-1]),
            target_seconds=TARGETS.rpo_seconds,
        ),
        comparison=Comparison(
            _first_id(), 131_006, 96_242, -34_764, -34_764 / 131_006, within_tolerance=False
        ),
        assertions=(
            Assertion("dbsize>=100000", None, holds=False, seen="dbsize = 96,242"),
            Assertion("exists session:schema", instance, holds=True, seen="1"),
        ),
    )


def drill(drilled: datetime, *sets: SetEvidence, previous: Link | None = None) -> Evidence:
    """The evidence of a drill of ``sets``."""
    finished = drilled + timedelta(seconds=97, milliseconds=412)
    others = [f"r-bp1other{number:03}/2026/11/{number}" for number in range(118 - len(sets))]
    candidates = [one.key for one in sets] + others
    selection = Selection(
        mode=Mode.STRATIFIED,
        seed="20261124",
        at=None,
        instances=(),
        range=None,
        available=len(candidates),
        available_sha256=candidates_sha256(candidates),
        chosen=len(sets),
    )
    suffix = hashlib.sha256(str(drilled).encode()).hexdigest()[:6]
    return Evidence(
        id=chain.new_id(finished, suffix, after=previous.id if previous else None),
        tool=Tool("archiver", "0.1.0", "CPython 3.11.2, Linux x86_64"),
        who=Who(user="backup", host="drill-host-1"),
        started_at=drilled,
        finished_at=finished,
        archive=ArchivePlace("s3://offsite/redis", format=layout.FORMAT),
        selection=selection,
        reference_clock=drilled,
        targets=TARGETS,
        conclusion=conclude(selection, sets),
        sets=sets,
        previous=previous,
    )


def first() -> Evidence:
    """All is well, and the chain begins."""
    return drill(FIRST, passing(FIRST))


def second() -> Evidence:
    """Every verdict once."""
    sets = (
        with_comparison(passing(SECOND)),
        partial(SECOND),
        unloadable(SECOND),
        failing(SECOND),
    )
    return drill(SECOND, *sets, previous=chain.link(encode(first())))


def files() -> dict[str, bytes]:
    """Everything that the two drills store, by key."""
    found = {}
    for evidence in (first(), second()):
        data = encode(evidence)
        key = chain.evidence_key(evidence.id)
        found[key] = data
        found[chain.beside(key, chain.PAGE_SUFFIX)] = to_page(data)
        found[chain.beside(key, chain.MARKDOWN_SUFFIX)] = to_markdown(data)
        found[chain.beside(key, chain.JUNIT_SUFFIX)] = to_junit(data)
    return found


def main(target: Path) -> None:
    for key, data in files().items():
        path = target / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(path)


def _object_key(instance: str, node: str, backup_id: str, start: datetime) -> str:
    begin = f"{instance}/{start:%Y/%m}/{start:%Y%m%dT%H%M%SZ}"
    if node == instance:
        return f"{begin}-{backup_id}.rdb"
    return f"{begin}-{int(start.timestamp()) % 10**7}/{node}-{backup_id}.rdb"


def _first_id() -> str:
    return first().id


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "evidence")
