"""Compares an object with what is written about it, and finds which of them is wrong. Pure.

When the object and its record differ, SHA256SUMS and an earlier verify decide which of them is
wrong: two of the three SHA-256 that agree are believed. If these disagree, or there are none, the
CRC-64 of the source decides. It never outvotes two of them, because other bytes can be made to have
it. A dump whose own checksum is wrong was never archived. If no witness confirms the object, the
object is wrong.
"""

from archiver.archive import layout
from archiver.commands.verify.findings import Fault, Finding
from archiver.commands.verify.statements import Statements
from archiver.model import Footer, Measured


def judge(statements: Statements, measured: Measured) -> list[Finding]:
    """Everything wrong with the object, its record and its line in SHA256SUMS."""
    record = statements.record
    if measured.sha256 == record.sha256:
        return [*_as_recorded(statements, measured), *_sums(statements, measured)]
    witnesses = _confirming(statements, measured)
    if witnesses:
        text = f"its sha256 is not the object's, which {' and '.join(witnesses)} confirm"
        altered = Finding(
            record.key, Fault.CONTRADICTION, text, f"sha256 {measured.sha256}",
            f"sha256 {record.sha256}",
        )  # fmt: skip
        return [altered, *_sums(statements, measured)]
    return [_wrong_object(statements, measured), *_altered_sums(statements)]


def _as_recorded(statements: Statements, measured: Measured) -> list[Finding]:
    """Findings about an object with the SHA-256 of its record."""
    record, found = statements.record, []
    rdb = record.document["rdb"]
    pairs: list[tuple[str, object, object]] = [
        ("size", record.size, measured.size),
        ("crc64ecma", statements.crc64, measured.crc64),
        ("rdb.footer", rdb["footer"], str(measured.rdb.footer)),
        ("rdb.version", rdb["version"], measured.rdb.version),
    ]
    if record.document.get("crc64ecma_declared") is not None:
        pairs.append(("crc64ecma_declared", statements.crc64_declared, measured.crc64))
    if measured.rdb.footer is Footer.MISMATCH:
        text = "its own checksum does not agree, and such a dump is never archived"
        found.append(Finding(statements.key, Fault.CHANGED, text))
    for name, said, value in pairs:
        if said != value:
            text = f"its {name} is {said}, and the object, which has its sha256, has {value}"
            found.append(
                Finding(record.key, Fault.CONTRADICTION, text, f"{name} {value}", f"{name} {said}")
            )
    if statements.verified is not None and statements.verified != measured.sha256:
        text = "an earlier verify read other bytes; object and record were changed together since"
        found.append(
            Finding(
                statements.key, Fault.CHANGED, text, f"sha256 {statements.verified}",
                f"sha256 {measured.sha256}",
            )
        )  # fmt: skip
    return found


def _sums(statements: Statements, measured: Measured) -> list[Finding]:
    """The finding if SHA256SUMS contradicts a right object."""
    if statements.sums in (None, measured.sha256):
        return []
    key, name = _sums_key(statements)
    text = f"it gives another SHA-256 for {name} than the object has"
    return [Finding(key, Fault.SUMS, text, measured.sha256, statements.sums, statements.key)]


def _altered_sums(statements: Statements) -> list[Finding]:
    """The finding if SHA256SUMS contradicts the record of a wrong object."""
    if statements.sums in (None, statements.record.sha256):
        return []
    key, name = _sums_key(statements)
    text = f"it gives another SHA-256 for {name} than the record"
    return [
        Finding(key, Fault.SUMS, text, statements.record.sha256, statements.sums, statements.key)
    ]


def _sums_key(statements: Statements) -> tuple[str, str]:
    month = layout.month_of(statements.key)
    return layout.sums_key(month), statements.key.removeprefix(f"{month}/")


def _confirming(statements: Statements, measured: Measured) -> list[str]:
    """The witnesses that confirm an object which its record contradicts."""
    if measured.rdb.footer is Footer.MISMATCH:
        return []
    witnesses = {"SHA256SUMS": statements.sums, "an earlier verify": statements.verified}
    named = {who: sha256 for who, sha256 in witnesses.items() if sha256 is not None}
    declared = statements.crc64_declared
    if not named:
        return ["the CRC-64 of the source"] if declared == measured.crc64 else []
    if statements.record.sha256 in named.values():
        return []
    confirming = [who for who, sha256 in named.items() if sha256 == measured.sha256]
    if len(confirming) == 1 and declared not in (None, measured.crc64):
        return []
    return confirming


def _wrong_object(statements: Statements, measured: Measured) -> Finding:
    record, key = statements.record, statements.key
    expected = f"{record.size:,} bytes, sha256 {record.sha256}"
    found = f"{measured.size:,} bytes, sha256 {measured.sha256}"
    other = statements.others.get(measured.sha256)
    if other is not None:
        return Finding(key, Fault.SWAPPED, f"holds the bytes of {other}", expected, found)
    if measured.size < record.size:
        text = f"{measured.size:,} of {record.size:,} bytes are here"
        return Finding(key, Fault.TRUNCATED, text, expected, found)
    if measured.size > record.size:
        right = measured.beginning == record.sha256
        text = f"{measured.size - record.size:,} bytes more than the {record.size:,} recorded, " + (
            "which are right" if right else "which are wrong, too"
        )
        return Finding(key, Fault.PADDED, text, expected, found)
    text = f"SHA-256 is {measured.sha256}, recorded {record.sha256}; {_own_word(measured)}"
    return Finding(key, Fault.CHANGED, text, expected, found)


def _own_word(measured: Measured) -> str:
    """What the file's own checksum tells."""
    return {
        Footer.OK: "a whole dump by its own checksum, but another one",
        Footer.MISMATCH: "its own checksum does not agree either",
        Footer.DISABLED: "it has no checksum of its own",
        Footer.NONE: "it has no checksum of its own",
    }[measured.rdb.footer]
