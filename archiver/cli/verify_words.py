"""How a verify reads at its end, and its events as JSON; what they say to people is in
:mod:`archiver.commands.verify.words`."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from archiver.cli import words
from archiver.cli.jsonlines import write_event as write_pull_event
from archiver.cli.jsonlines import write_object
from archiver.cli.words import size, times
from archiver.commands.verify import events
from archiver.commands.verify.findings import Finding
from archiver.commands.verify.model import VerifyOptions, VerifySummary
from archiver.commands.verify.words import finding_fields
from archiver.times import format_iso


def summary(result: VerifySummary, options: VerifyOptions, seconds: float) -> list[str]:
    """The result of a verify: what was covered, how much is wrong, and what to do. Each finding was
    printed when it was found."""
    lines = [_covered(result, options, seconds)]
    if options.sample is not None:
        left = result.files - result.read - result.recent
        lines.append(
            f"sample of {options.sample}: of {times(result.files, 'file')} and "
            f"{size(result.size)} in {times(result.strata, 'month')}; "
            f"{times(left, 'file')} {words.was(left)} compared only by name, size and record"
        )
    if result.recent:
        span = options.since_verified
        lines.append(
            f"skipped: {times(result.recent, 'file')}, {size(result.bytes_recent)}, "
            f"verified within {_span(span.total_seconds() if span else 0)}"
        )
    if result.repaired:
        lines.append(f"repaired: {_counted(result.repaired)}")
    lines += words.known(result.acknowledged)
    if result.findings:
        lines.append(f"wrong: {_counted(result.findings)}")
        cures = dict.fromkeys((finding.fault, finding.advice) for finding in result.findings)
        lines.append("what to do:")
        lines.extend(f"  {fault}: {advice}" for fault, advice in cures)
    if result.not_repaired and result.findings:
        lines.append(f"not repaired: {len(result.not_repaired):,}")
    return lines


def _covered(result: VerifySummary, options: VerifyOptions, seconds: float) -> str:
    if result.empty_shard:
        return options.shard.empty("among those to verify")
    of = _scope(options)
    what = f"{times(result.read, 'file')}{of}, {size(result.bytes_read)} in {seconds:.1f} s"
    if result.findings:
        return f"read {what}: {times(len(result.findings), 'finding')}"
    if result.repaired:
        found = times(len(result.repaired), "finding")
        return f"read {what}: {found}, repaired and verified again"
    if result.verified_nothing:
        return f"nothing was verified: the archive has no backup{of}"
    if not result.read:
        return f"nothing was read{of}: {_why_nothing(result)}"
    is_part = options.sample is not None or result.recent
    return f"verified {what}: no problems {'in these files' if is_part else 'found'}"


def _scope(options: VerifyOptions) -> str:
    """What was to be verified, to follow a noun; empty for the whole archive."""
    names = [", ".join(options.instances)] if options.instances else []
    names += [] if options.shard.is_all else [f"shard {options.shard}"]
    of = f" of {' in '.join(names)}" if names else ""
    return f"{of} that started in {options.range}" if options.range else of


def _why_nothing(result: VerifySummary) -> str:
    if not result.files:
        return "there are no files"
    return (
        "all were verified recently" if result.recent == result.files else "none was in the sample"
    )


def _counted(findings: Iterable[Finding]) -> str:
    counts = Counter(finding.fault for finding in findings)
    return ", ".join(f"{count:,} {fault}" for fault, count in sorted(counts.items()))


def _span(seconds: float) -> str:
    hours = int(seconds // 3600)
    return f"{hours // 24} d" if hours % 24 == 0 else f"{hours} h"


def write_event(event: events.ScrubEvent) -> None:
    """Write one JSON object on stdout for an event; nothing for files that are right."""
    match event:
        case events.Found(finding):
            write_object({"event": "finding", "time": _now(), **finding_fields(finding)})
        case events.Noted(key, text):
            write_object({"event": "note", "time": _now(), "key": key, "text": text})
        case events.NotRepaired(key, error):
            write_object({"event": "not_repaired", "time": _now(), "key": key, "error": error})
        case events.Repaired(key, origin):
            write_object({"event": "repaired", "time": _now(), "key": key, "origin": origin})
        case events.ResultsNotKept(why):
            write_object({"event": "results_not_kept", "time": _now(), "why": why})
        case events.ToRead() | events.Advanced() | events.Verified() | events.ResultsKept():
            pass
        case _:
            write_pull_event(event)


def summary_fields(result: VerifySummary | None, options: VerifyOptions) -> dict[str, Any]:
    """The fields of the last line; fewer if the run ended early."""
    counts: dict[str, Any] = {}
    if result is not None:
        plain = ("files", "size", "read", "bytes_read", "recent", "bytes_recent", "strata")
        counts = {name: getattr(result, name) for name in plain}
        counts["findings"] = len(result.findings)
        counts["faults"] = Counter(finding.fault for finding in result.findings)
        counts["repaired"] = [finding_fields(finding) for finding in result.repaired]
        counts["acknowledged"] = len(result.acknowledged)
        counts["results_not_kept"] = result.results_not_kept
    sample = options.sample
    return {
        **counts,
        "sample": None if sample is None else float(sample.share),
        "seed": None if sample is None else sample.seed,
    }


def _now() -> str:
    return format_iso(datetime.now(UTC), "milliseconds")
