"""Who is believed when two disagree: over every combination of witnesses."""

from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from archiver.archive.record import Record
from archiver.archive.sums import format_sums, parse_sums
from archiver.commands.verify.findings import Fault
from archiver.commands.verify.judge import judge
from archiver.commands.verify.statements import Statements
from archiver.model import Footer, Kind, Measured, RdbVerdict
from tests.archive.test_archive import record as make

RIGHT, WRONG = "a" * 64, "b" * 64
CRC = 2**63 + 5


def statements(
    *, sha256: str = RIGHT, declared: int | None = CRC, sums: str | None = RIGHT,
    verified: str | None = None,
) -> Statements:  # fmt: skip
    made = make()
    document: dict[str, Any] = {
        **made.document,
        "sha256": sha256,
        "crc64ecma": str(CRC),
        "crc64ecma_declared": None if declared is None else str(declared),
        "rdb": {"version": "REDIS0009", "footer": "ok"},
    }
    return Statements(
        Record.decode(made.key, replace(made, document=document).encode()), sums, verified
    )


def measured(sha256: str = RIGHT, crc64: int = CRC, footer: Footer = Footer.OK) -> Measured:
    return Measured(1000, sha256, crc64, Kind.RDB, RdbVerdict("REDIS0009", footer))


def test_all_agree() -> None:
    assert judge(statements(), measured()) == []
    assert judge(statements(declared=None, sums=None), measured()) == []


SHA = st.sampled_from([RIGHT, WRONG])
MAYBE = st.sampled_from([RIGHT, WRONG, None])
CRCS = st.sampled_from([CRC, 7, None])


@given(SHA, CRCS, MAYBE, MAYBE, SHA, st.sampled_from([CRC, 7]), st.sampled_from(list(Footer)))
def test_any_disagreement_is_found(
    recorded: str,
    declared: int | None,
    sums: str | None,
    verified: str | None,
    found: str,
    crc64: int,
    footer: Footer,
) -> None:
    """No combination of a disagreement passes, and none of agreement fails."""
    said = statements(sha256=recorded, declared=declared, sums=sums, verified=verified)
    agree = {recorded, found, sums, verified} - {None} == {found}
    agree &= crc64 == CRC and declared in (CRC, None) and footer is Footer.OK
    assert (judge(said, measured(found, crc64, footer)) == []) is agree


SOUND = st.sampled_from([Footer.OK, Footer.DISABLED, Footer.NONE])


@given(SOUND)
def test_the_sources_crc_decides_when_it_is_alone(footer: Footer) -> None:
    said = statements(sums=None)
    assert judge(said, measured(WRONG, 7, footer))[0].fault is Fault.CHANGED
    assert judge(said, measured(WRONG, CRC, footer))[0].fault is Fault.CONTRADICTION


@given(MAYBE, MAYBE, st.sampled_from([CRC, None]), SOUND)
def test_the_record_and_another_sha256_outvote_a_crc(
    sums: str | None, verified: str | None, declared: int | None, footer: Footer
) -> None:
    """Who knows a CRC-64 can make other bytes that have it."""
    assume(RIGHT in (sums, verified))
    said = statements(declared=declared, sums=sums, verified=verified)
    assert judge(said, measured(WRONG, CRC, footer))[0].fault is Fault.CHANGED


@given(st.sampled_from([CRC, 7, None]), SOUND)
def test_two_sha256_outvote_a_record_and_its_crc(declared: int | None, footer: Footer) -> None:
    said = statements(declared=declared, sums=WRONG, verified=WRONG)
    assert judge(said, measured(WRONG, CRC, footer))[0].fault is Fault.CONTRADICTION


def test_one_sha256_against_another_and_the_crc() -> None:
    for said in (statements(sums=WRONG), statements(sums=None, verified=WRONG)):
        assert judge(said, measured(WRONG, 7))[0].fault is Fault.CHANGED
        assert judge(said, measured(WRONG, CRC))[0].fault is Fault.CONTRADICTION


@given(SHA, CRCS, MAYBE, MAYBE, SHA, st.sampled_from([CRC, 7]))
def test_a_dump_with_a_wrong_checksum_is_never_right(
    recorded: str, declared: int | None, sums: str | None, verified: str | None, found: str,
    crc64: int,
) -> None:  # fmt: skip
    """Though the record, SHA256SUMS and an earlier verify all say so."""
    said = statements(sha256=recorded, declared=declared, sums=sums, verified=verified)
    said.record.document["rdb"]["footer"] = "mismatch"
    faults = {f.fault for f in judge(said, measured(found, crc64, Footer.MISMATCH))}
    assert Fault.CHANGED in faults


def test_a_dump_that_contradicts_itself_is_not_outvoted() -> None:
    said = statements(declared=None, sums=WRONG, verified=WRONG)
    assert judge(said, measured(WRONG, 7, Footer.MISMATCH))[0].fault is Fault.CHANGED
    assert judge(said, measured(WRONG, 7, Footer.OK))[0].fault is Fault.CONTRADICTION


@given(st.binary(max_size=200))
def test_sums_of_any_bytes(data: bytes) -> None:
    found = parse_sums(data)
    assert found is None or all(len(digest) == 64 for digest in found.values())
    assert not found or parse_sums(format_sums(found)) == found


def test_sums_as_sha256sum_writes_them() -> None:
    assert parse_sums(f"{RIGHT}  a.rdb\n{WRONG} *b c.rdb\n".encode()) == {
        "a.rdb": RIGHT,
        "b c.rdb": WRONG,
    }
