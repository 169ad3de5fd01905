"""What our parser counted in a file beside what a server has of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from archiver import rdb
from archiver.commands.drill.census import Census, DatabaseCensus
from archiver.report import evidence
from archiver.report.evidence import Difference


@dataclass(frozen=True, slots=True)
class _Gap:
    """Of one database: keys that changed, those of them that time explains, and the rest."""

    change: int
    expired: int
    unexplained: int
    unexplained_expiries: int


def parsed_databases(contents: rdb.Contents) -> tuple[evidence.Database, ...]:
    """The parser's counts, for the evidence."""
    return tuple(
        evidence.Database(one.number, one.total, one.expiries.count, dict(one.keys), sampled=False)
        for one in contents.databases
        if one.total
    )


def loaded_databases(census: Census) -> tuple[evidence.Database, ...]:
    """The server's counts, for the evidence; those of a sample are what was seen of it."""
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


def difference(
    contents: rdb.Contents, census: Census, began: datetime, tolerance: float
) -> Difference | None:
    """How the counts differ and why; None when they do not.

    A key is explained by expiry when its time was over before the load ``began`` (it must be gone)
    or before the count ended (it may be). A hash may be gone, too, if the first of its fields with
    an expiry was over by then. What remains counts against ``tolerance``, a fraction of the keys
    parsed: keys that are missing or too many, type by type, and keys that lost or gained a time to
    live. Libraries of functions do not expire: all of them have to be there.
    """
    parsed = {one.number: one for one in contents.databases}
    loaded = {one.number: one for one in census.databases}
    gaps = [
        _gap(parsed.get(number), loaded.get(number), began, census.ended)
        for number in sorted(parsed.keys() | loaded.keys())
    ]
    expired = sum(gap.expired for gap in gaps)
    unexplained = sum(gap.unexplained for gap in gaps)
    expiries = sum(gap.unexplained_expiries for gap in gaps)
    change = sum(gap.change for gap in gaps)
    other_functions = census.libraries not in (None, contents.functions)
    if not (change or expired or unexplained or expiries or other_functions):
        return None
    keys = sum(one.total for one in contents.databases)
    words = [
        f"{expired:,} had expired by the reference clock" if expired else "",
        f"{unexplained:,} unexplained" if unexplained else "",
        f"{expiries:,} with or without a time to live that should not be" if expiries else "",
        f"{census.libraries} libraries of functions, of {contents.functions}"
        if other_functions
        else "",
    ]
    worst = max(unexplained, expiries)
    return Difference(
        keys=change,
        explanation="keys: " + ", ".join(word for word in words if word),
        beyond_tolerance=other_functions or worst > tolerance * keys,
    )


def _gap(
    parsed: rdb.Database | None,
    loaded: DatabaseCensus | None,
    began: datetime,
    ended: datetime,
) -> _Gap:
    by_type = loaded is None or (loaded.consistent and not loaded.sampled)
    now = _counts(loaded, by_type=by_type)
    if parsed is None:
        surplus = sum(now.values())
        return _Gap(surplus, 0, surplus, 0)
    then: Mapping[str, int] = parsed.keys if by_type else {"": parsed.total}
    surplus = sum(max(0, now.get(name, 0) - then.get(name, 0)) for name in now | dict(then))
    deficit = sum(max(0, then.get(name, 0) - now.get(name, 0)) for name in now | dict(then))
    least = parsed.expiries.expired_at(began)[0]
    perhaps = parsed.expiries.expired_at(ended)[1]
    # A hash whose fields are all over is gone, too. Nothing but a hash: a sample does not tell.
    hashes = max(0, then["hash"] - now.get("hash", 0)) if "hash" in then else 0
    emptied = parsed.first_field_expiries.expired_at(ended)[1]
    perhaps += min(emptied, hashes if by_type else deficit)
    missing = max(0, deficit - perhaps)
    undead = max(0, least - deficit)
    expiries = 0
    if by_type:
        mortal = loaded.expiring if loaded is not None else 0
        fewest = parsed.expiries.count - perhaps - missing
        expiries = max(0, fewest - mortal, mortal - (parsed.expiries.count - least) - undead)
    return _Gap(surplus - deficit, min(deficit, perhaps), surplus + missing + undead, expiries)


def _counts(loaded: DatabaseCensus | None, *, by_type: bool) -> dict[str, int]:
    if loaded is None:
        return {}
    if not by_type:
        return {"": loaded.keys}
    return {count.type: count.keys for count in loaded.types}
