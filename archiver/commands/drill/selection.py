"""Chooses the sets to drill. Pure: the same sets, options and seed give the same choice."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from archiver.archive.backupsets import check_set_key
from archiver.archive.folders import Folder
from archiver.commands.drill.options import Wanted
from archiver.errors import NoSuchBackup
from archiver.report.evidence import Mode, Selection
from archiver.report.verdict import candidates_sha256
from archiver.times import format_iso


def choose_sets(folders: Sequence[Folder], wanted: Wanted) -> tuple[Selection, list[Folder]]:
    """Return how the sets were chosen, and the chosen sets. Of a shard, its instances are noted.

    Raises NoSuchBackup if a given set or instance does not exist or there is no set at all, and
    UsageError for a name that no set can have.
    """
    candidates = [one for one in folders if one.is_full or one.key in wanted.sets]
    if wanted.mode is Mode.AT and wanted.at is not None:
        candidates = [one for one in candidates if one.started_at <= wanted.at]
    here = {one.instance_id for one in candidates}
    absent = [name for name in wanted.instances if name not in here]
    if absent or not candidates:
        raise NoSuchBackup(
            f"the archive has no backup set of {', '.join(absent) or 'any instance'}"
            + (f" from {format_iso(wanted.at)} or before" if wanted.at else "")
        )
    chosen = _CHOOSE[wanted.mode](candidates, wanted)
    return (
        Selection(
            mode=wanted.mode,
            seed=wanted.seed,
            at=wanted.at,
            instances=wanted.instances if wanted.shard.is_all else tuple(sorted(here)),
            range=None,
            available=len(candidates),
            available_sha256=candidates_sha256([one.key for one in candidates]),
            chosen=len(chosen),
        ),
        chosen,
    )


def _newest(candidates: list[Folder], wanted: Wanted) -> list[Folder]:
    newest = {one.instance_id: one for one in sorted(candidates, key=_age)}
    return sorted(newest.values(), key=lambda one: one.key)


def _random(candidates: list[Folder], wanted: Wanted) -> list[Folder]:
    ordered = sorted(candidates, key=lambda one: one.key)
    generator = random.Random(wanted.seed)  # noqa: S311 - to be repeatable, not secret
    return sorted(
        generator.sample(ordered, min(wanted.number, len(ordered))), key=lambda one: one.key
    )


def _stratified(candidates: list[Folder], wanted: Wanted) -> list[Folder]:
    """Draw one set of each instance in random order, then another of each, and so on."""
    generator = random.Random(wanted.seed)  # noqa: S311 - as above
    strata: dict[str, list[Folder]] = defaultdict(list)
    for one in sorted(candidates, key=lambda one: one.key):
        strata[one.instance_id].append(one)
    order = sorted(strata)
    generator.shuffle(order)
    for name in order:
        generator.shuffle(strata[name])
    rounds = max(map(len, strata.values()))
    turns = [(turn, name) for turn in range(rounds) for name in order]
    drawn = [strata[name][turn] for turn, name in turns if turn < len(strata[name])]
    return sorted(drawn[: wanted.number], key=lambda one: one.key)


def _named(candidates: list[Folder], wanted: Wanted) -> list[Folder]:
    by_key = {one.key: one for one in candidates}
    names = dict.fromkeys(name.strip("/") for name in wanted.sets)
    for name in names:
        check_set_key(name)
        if name not in by_key:
            raise NoSuchBackup(f"the archive has no backup set {name!r}")
    return [by_key[name] for name in names]


def _age(one: Folder) -> tuple[datetime, str]:
    return one.started_at, one.key


_CHOOSE = {
    Mode.LATEST: _newest,
    Mode.AT: _newest,
    Mode.RANDOM: _random,
    Mode.STRATIFIED: _stratified,
    Mode.NAMED: _named,
}
