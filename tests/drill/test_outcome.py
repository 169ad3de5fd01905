"""Why a server ended, from its log. Lines as the servers wrote them."""

import pytest

from archiver.commands.drill.outcome import Cause, Outcome, read_log

STAMP = "27805:M 24 Nov 2026 12:17:00.000 # "
INTERNAL = "Internal error in RDB reading offset 0, function at rdb.c:2939 -> "


@pytest.mark.parametrize(
    ("line", "outcome", "cause", "names"),
    [
        (
            (
            INTERNAL + "The RDB file contains module data I can't load: "
            "no matching module type 'exbloom--'"
            ),
            Outcome.UNLOADABLE, Cause.MODULE, ("exbloom--",),
        ),
        (
            "The RDB file contains AUX module data I can't load: no matching module 'test__rdb'",
            Outcome.UNLOADABLE, Cause.MODULE, ("test__rdb",),
        ),
        (
            (
            "The RDB file contains module data for the module type 'tairhash-', that the "
            "responsible module is not able to load."
            ),
            Outcome.UNLOADABLE, Cause.MODULE, ("tairhash-",),
        ),
        (
            "Unknown command 'EXHSET' reading the append only file given.base.aof",
            Outcome.UNLOADABLE, Cause.COMMAND, ("EXHSET",),
        ),
        (
            (
            "Error reading the append only file given.base.aof, error: unknown command 'EXHSET', "
            "with args beginning with: 'a' 'b' "
            ),
            Outcome.UNLOADABLE, Cause.COMMAND, ("EXHSET",),
        ),
        ("Can't handle RDB format version 12", Outcome.UNLOADABLE, Cause.VERSION, ()),
        (
            "Can't handle foreign type or opcode 24 in RDB with version 12",
            Outcome.UNLOADABLE, Cause.FOREIGN, (),
        ),
        (
            (
            "FATAL: Data file was created with a Redis server configured to handle more than 16 "
            "databases. Exiting"
            ),
            Outcome.UNLOADABLE, Cause.CONFIGURATION, (),
        ),
        ("Wrong RDB checksum. Aborting now.", Outcome.REFUSED, Cause.CHECKSUM, ()),
        (
            "Short read or OOM loading DB. Unrecoverable error, aborting now.",
            Outcome.REFUSED, Cause.TRUNCATED, (),
        ),
        (
            "Unexpected end of file reading the append only file. You can: 1) Make a backup",
            Outcome.REFUSED, Cause.TRUNCATED, (),
        ),
        (
            "Bad file format reading the append only file: make a backup of your AOF file",
            Outcome.REFUSED, Cause.SIGNATURE, (),
        ),
        ("Wrong signature trying to load DB from file", Outcome.REFUSED, Cause.SIGNATURE, ()),
        (INTERNAL + "Zipmap integrity check failed.", Outcome.REFUSED, Cause.CONTENT, ()),
        ("Redis 7.0.15 crashed by signal: 11, si_code: 1", Outcome.REFUSED, Cause.CRASH, ()),
        ("Out Of Memory allocating 123456789 bytes!", Outcome.OUT_OF_MEMORY, Cause.MEMORY, ()),
        (
            "Fatal error loading the DB: Permission denied. Exiting.",
            Outcome.COULD_NOT_START, Cause.ACCESS, (),
        ),
        ("Fatal error loading the DB: Odd. Exiting.", Outcome.REFUSED, Cause.CONTENT, ()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", [0, 1])
def test_the_sentences(
    line: str, outcome: Outcome, cause: Cause, names: tuple[str, ...], code: int
) -> None:
    log = f"{STAMP}Server initialized\n{STAMP}{line}\n{STAMP}Fatal error loading the DB. Exiting.\n"
    verdict = read_log(log, code)
    assert (verdict.outcome, verdict.cause, verdict.names) == (outcome, cause, names)
    assert verdict.reason == line.strip()
    assert verdict.exit_code == code


def test_what_a_report_quotes_is_not_a_sentence() -> None:
    log = (
        f"{STAMP}Short read or OOM loading DB. Unrecoverable error, aborting now.\n"
        "[additional info] Reading key 'no matching module type 'x''\n"
    )
    assert read_log("\n".join(reversed(log.splitlines())), 1).cause is Cause.TRUNCATED


def test_a_configuration_that_is_refused() -> None:
    log = (
        "\n*** FATAL CONFIG FILE ERROR (Redis 6.2.0) ***\nReading the configuration file, at line 2"
        "\n>>> 'appenddirname \"x\"'\nBad directive or wrong number of arguments\n"
    )
    verdict = read_log(log, 1)
    assert (verdict.outcome, verdict.cause) == (Outcome.COULD_NOT_START, Cause.CONFIGURATION)
    assert "Bad directive" in verdict.reason


@pytest.mark.parametrize(("code", "said"), [(0, "exited with 0"), (-11, "killed by signal 11")])
def test_silence_is_not_a_pass(code: int, said: str) -> None:
    verdict = read_log("hello\n", code)
    assert (verdict.outcome, verdict.cause) == (Outcome.COULD_NOT_START, Cause.EXITED)
    assert said in verdict.reason
