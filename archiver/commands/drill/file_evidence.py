"""Builds the evidence of one file from its record, its inspection and its trial. Pure."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from archiver import rdb
from archiver.archive.record import Record
from archiver.commands.drill.census import Census, DatabaseCensus
from archiver.commands.drill.judgement import Judgement, comparable
from archiver.commands.drill.outcome import Cause
from archiver.commands.drill.trial import Phase, Trial
from archiver.commands.restore.files import CopiedFile
from archiver.documents import Fields
from archiver.model import Footer, Kind
from archiver.report import evidence
from archiver.report.evidence import Difference, FileEvidence, Outcome


def untested_file(record: Record, outcome: Outcome, reason: str) -> FileEvidence:
    """Return the evidence of a file that no server has tried to load."""
    suffix = record.object_key.rpartition(".")[2]
    return FileEvidence(
        node_id=record.node_id,
        backup_id=record.backup_id,
        object_key=record.object_key,
        kind=Kind(suffix) if suffix in set(Kind) else Kind.UNKNOWN,
        size=record.size,
        sha256=record.sha256,
        crc64ecma=str(record.document["crc64ecma"]),
        verified=False,
        origin=_origin(record),
        rdb=evidence.RdbFacts(None, None, None, None, Footer.NONE),
        parsed=None,
        server=None,
        outcome=outcome,
        reason=reason,
        loaded=None,
        keys_loaded=None,
        keys_expired=None,
        difference=None,
        peak_memory_bytes=None,
        modules_needed=(),
    )


def tested_file(
    record: Record,
    copied: CopiedFile,
    inspection: rdb.Inspection,
    trial: Trial,
    found: Difference | None,
    judged: Judgement,
) -> FileEvidence:
    """Return the evidence of a file that a server has tried to load."""
    attempt = trial.decisive
    facts, census, contents = attempt.verdict.facts, attempt.census, inspection.contents
    program = attempt.program
    needed = set(contents.modules) if contents is not None else set()
    if attempt.verdict.cause is Cause.MODULE:
        needed |= set(attempt.verdict.names)
    return replace(
        untested_file(record, judged.outcome, judged.reason),
        kind=copied.kind,
        verified=True,
        rdb=_rdb_facts(inspection),
        parsed=_parsed_databases(contents) if contents and comparable(inspection) else None,
        server=evidence.Server(
            program.flavour.value, ".".join(map(str, program.version)), program.path.name
        ),
        loaded=None if census is None else _loaded_databases(census),
        keys_loaded=facts.keys_loaded if facts else None,
        keys_expired=facts.keys_expired if facts else None,
        difference=found,
        peak_memory_bytes=None if census is None else census.memory_peak,
        # The server that loaded the file had all modules that it needs.
        modules_needed=() if census is not None else tuple(sorted(needed)),
    )


def phase_seconds(copied: CopiedFile, trial: Trial) -> dict[str, float]:
    """Return the seconds per phase of the evidence, for the phases that were reached.

    They are those of the decisive attempt, except that ``tear_down`` includes all attempts.
    """
    seconds = {
        "read": copied.read_seconds,
        "verify": copied.verify_seconds,
        "lay_out": copied.commit_seconds,
    }
    attempt = trial.decisive
    reached = attempt.seconds.keys() if attempt.census is not None else {Phase.START}
    seconds |= {phase: attempt.seconds[phase] for phase in reached}
    seconds["tear_down"] = sum(one.teardown.seconds for one in trial.attempts)
    return seconds


def difference(
    contents: rdb.Contents, census: Census, began: datetime, tolerance: float
) -> Difference | None:
    """Compare the parser's counts with the server's; None if they are equal.

    A missing key is explained if it expired before the load ``began`` (then it must be gone) or
    before the count ended (then it may be). A missing hash is explained, too, if its first field
    expired by then. What remains counts against ``tolerance``, a fraction of the parsed keys: keys
    of a type that are missing or surplus, and keys that lost or gained an expiry. Libraries of
    functions do not expire, so all of them must be there.
    """
    parsed = {one.number: one for one in contents.databases}
    loaded = {one.number: one for one in census.databases}
    changes = [
        _change(parsed.get(number), loaded.get(number), began, census.ended)
        for number in sorted(parsed.keys() | loaded.keys())
    ]
    expired = sum(one.expired for one in changes)
    unexplained = sum(one.unexplained for one in changes)
    expiries = sum(one.unexplained_expiries for one in changes)
    change = sum(one.change for one in changes)
    other_functions = census.libraries not in (None, contents.functions)
    if not (change or expired or unexplained or expiries or other_functions):
        return None
    keys = sum(one.total for one in contents.databases)
    reasons = [
        f"{expired:,} had expired by the reference clock" if expired else "",
        f"{unexplained:,} unexplained" if unexplained else "",
        f"{expiries:,} lost or gained an expiry" if expiries else "",
        f"{census.libraries} of {contents.functions} libraries of functions"
        if other_functions
        else "",
    ]
    worst = max(unexplained, expiries)
    return Difference(
        keys=change,
        explanation="keys: " + ", ".join(reason for reason in reasons if reason),
        beyond_tolerance=other_functions or worst > tolerance * keys,
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """The change in one database: all keys, those that expiry explains, and the rest."""

    change: int
    expired: int
    unexplained: int
    unexplained_expiries: int


def _change(
    parsed: rdb.Database | None,
    loaded: DatabaseCensus | None,
    began: datetime,
    ended: datetime,
) -> _Change:
    by_type = loaded is None or (loaded.consistent and not loaded.sampled)
    now = _counts(loaded, by_type=by_type)
    if parsed is None:
        surplus = sum(now.values())
        return _Change(surplus, 0, surplus, 0)
    then: Mapping[str, int] = parsed.keys if by_type else {"": parsed.total}
    surplus = sum(max(0, now.get(name, 0) - then.get(name, 0)) for name in now | dict(then))
    deficit = sum(max(0, then.get(name, 0) - now.get(name, 0)) for name in now | dict(then))
    # How many keys must have expired, and how many may have.
    least = parsed.expiries.expired_at(began)[0]
    most = parsed.expiries.expired_at(ended)[1]
    # A hash may also be gone because all of its fields have expired. Only a hash; a sample does not
    # tell how many of the missing keys are hashes.
    hashes = max(0, then["hash"] - now.get("hash", 0)) if "hash" in then else 0
    emptied = parsed.first_field_expiries.expired_at(ended)[1]
    most += min(emptied, hashes if by_type else deficit)
    missing = max(0, deficit - most)
    not_expired = max(0, least - deficit)
    expiries = 0
    if by_type:
        with_expiry = loaded.expiring if loaded is not None else 0
        fewest = parsed.expiries.count - most - missing
        surplus_expiries = with_expiry - (parsed.expiries.count - least) - not_expired
        expiries = max(0, fewest - with_expiry, surplus_expiries)
    return _Change(surplus - deficit, min(deficit, most), surplus + missing + not_expired, expiries)


def _counts(loaded: DatabaseCensus | None, *, by_type: bool) -> dict[str, int]:
    if loaded is None:
        return {}
    if not by_type:
        return {"": loaded.keys}
    return {count.type: count.keys for count in loaded.types}


def _parsed_databases(contents: rdb.Contents) -> tuple[evidence.Database, ...]:
    return tuple(
        evidence.Database(one.number, one.total, one.expiries.count, dict(one.keys), sampled=False)
        for one in contents.databases
        if one.total
    )


def _loaded_databases(census: Census) -> tuple[evidence.Database, ...]:
    """The server's counts; for a sampled database, expiries and types are those of the sample."""
    return tuple(
        evidence.Database(
            one.number,
            one.keys,
            one.expiring,
            {count.type: count.keys for count in one.types},
            one.sampled,
        )
        for one in census.databases
    )


def _rdb_facts(inspection: rdb.Inspection) -> evidence.RdbFacts:
    aux = inspection.contents.aux if inspection.contents is not None else {}
    created = aux.get("ctime", "")
    moment = None
    if created.isdigit():
        with contextlib.suppress(ValueError, OverflowError, OSError):  # not a valid year
            moment = datetime.fromtimestamp(int(created), UTC)
    return evidence.RdbFacts(
        magic=inspection.magic,
        version=inspection.version,
        redis_ver=aux.get("redis-ver") or aux.get("valkey-ver"),
        ctime=moment,
        footer=inspection.footer,
    )


def _origin(record: Record) -> evidence.Origin | None:
    """Where the archive downloaded the file from; None for one that was adopted."""
    provenance = record.provenance
    if provenance.network is None:
        return None
    fetched_at = Fields(record.key, record.document).within("transfer").moment("finished_at")
    url = evidence.without_secrets(provenance.origin)
    return evidence.Origin(provenance.network, url, fetched_at)
