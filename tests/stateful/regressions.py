"""Sequences that violate something, or would without a guard, as short as they could be made.

One that violates a rule today names it: its test is expected to fail, and sequences that are drawn
may violate the same by damages of the same sorts. Whoever mends it takes the name of the rule away.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.stateful.invariants import Violation


@dataclass(frozen=True)
class Case:
    """``still`` is the rule that the sequence violates today; None of what is mended."""

    name: str
    steps: tuple[str, ...]
    still: str | None = None


def causes(steps: Iterable[str]) -> frozenset[str]:
    """What went wrong in a sequence, by sort, whichever archive it befell."""
    found = set[str]()
    for step in steps:
        words = step.split()
        if words[0] == "damage":
            found.add(words[2].partition("-")[0])
        elif words[0] == "vendor":
            found.add(f"vendor {words[1]}")
        elif words[0] == "snapshot":
            found.add(words[0])
        elif words[-1].isdecimal() and words[0] != "add":
            found.add(words[-2])
    return frozenset(found)


def open_case(violation: Violation, steps: Iterable[str]) -> Case | None:
    """The case that is known to violate the same, for no other reasons than this sequence has."""
    there = causes(steps)
    for case in CASES:
        if case.still == violation.rule and causes(case.steps) <= there:
            return case
    return None


CASES = (
    Case(
        "copy refuses an object that is not the one its record describes",
        ("add standard plain 0 0", "pull A", "damage A flip 0", "copy B A"),
    ),
    Case(
        "copy refuses a record that describes another object",
        ("add standard dump 0 0", "pull A", "damage A record-sha256 0", "copy B A"),
    ),
    Case(
        "a dump that the vendor damaged keeps no other from coming home",
        ("add standard dump 0 2", "add standard dump 1 2", "vendor damage 3", "pull A"),
    ),
    Case(
        "verify finds a flipped byte",
        ("add standard plain 0 0", "pull A", "damage A flip 0", "verify A"),
    ),
    Case(
        "verify finds what is missing",
        ("add cluster dump 0 0", "pull A", "damage A delete 0", "verify A"),
    ),
    Case(
        "pull brings home again what was cut short",
        ("add standard dump 0 0", "pull A", "damage A cut 0", "pull A"),
    ),
    Case(
        "pull refuses a dump that the vendor damaged",
        ("add standard dump 0 2", "vendor damage 2", "pull A"),
    ),
    Case(
        "repair says what it could not put right",
        (
            "add standard dump 0 0",
            "pull A",
            "copy B A",
            "damage A flip 0",
            "damage B flip 1",
            "repair A B",
        ),
    ),
    Case(
        "a repair that is killed loses nothing",
        (
            "add cluster dump 0 0",
            "pull A",
            "copy B A",
            "damage A flip 0",
            "repair A B kill 12",
            "settle A",
        ),
    ),
    Case(
        "copy empties a good object when a digit of the home record is wrong",
        (
            "add standard dump 0 0",
            "pull A",
            "copy B A",
            "damage A record-sha256 0",
            "copy B A",
        ),
    ),
    Case(
        "copy replaces a good object by one that was changed with its record",
        (
            "add standard plain 0 0",
            "pull A",
            "copy B A",
            "damage A forge 0",
            "copy B A",
        ),
    ),
    Case(
        "pull destroys the good object of an unreadable record",
        (
            "add standard dump 0 2",
            "pull A",
            "damage A record-garbage 2",
            "vendor damage 2",
            "pull A",
        ),
    ),
    Case(
        "repair destroys the good object of an unreadable record",
        (
            "add standard dump 0 2",
            "pull A",
            "damage A record-garbage 2",
            "vendor damage 2",
            "repair A vendor",
        ),
    ),
    Case(
        "pull writes through the hard links of a snapshot",
        (
            "add standard dump 0 2",
            "pull A",
            "snapshot A",
            "damage A record-garbage 2",
            "vendor damage 2",
            "pull A",
        ),
    ),
    Case(
        "pull records bytes that nobody vouches for",
        (
            "add standard sealed 0 0",
            "pull A",
            "vendor withhold-crc 0",
            "damage A record-garbage 0",
            "damage A flip 0",
            "pull A",
        ),
    ),
    Case(
        "a backup of 32 TiB keeps the others from coming home",
        (
            "add standard dump 0 0",
            "add standard dump 1 0",
            "vendor overstate 0",
            "pull A",
        ),
    ),
    Case(
        "an encrypted log is restored in the place of a dump",
        (
            "add standard dump 0 0",
            "add standard sealed-log 1 0",
            "pull A",
            "restore A",
        ),
    ),
    Case(
        "copy doubles a set whose folders are named after different nodes",
        (
            "add cluster dump 0 0",
            "pull A",
            "vendor expire 0",
            "pull B",
            "copy B A",
        ),
    ),
    Case(
        "a sweep removes what another program keeps in staging",
        (
            "add standard dump 0 1",
            "pull A",
            "damage A foreign 1",
            "pull A",
        ),
    ),
    Case(
        "an infinite size in a record escapes",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-infinite-size 0",
            "verify A",
        ),
    ),
    Case(
        "a NUL in the name of an object escapes",
        (
            "add standard dump 0 1",
            "pull A",
            "damage A record-odd-name 1",
            "verify A",
        ),
    ),
    Case(
        "a number of 5000 digits in a record escapes",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-long-crc 0",
            "verify A",
        ),
    ),
    Case(
        "repairs that are no list pass",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-repairs 0",
            "verify A",
        ),
    ),
    Case(
        "a fractional size passes",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-odd-size 0",
            "verify A",
        ),
    ),
    Case(
        "a deeply nested archive.json escapes",
        (
            "add standard dump 0 5",
            "pull A",
            "damage A format 5",
            "pull A",
        ),
    ),
    Case(
        "a deeply nested lock escapes",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A lock 0",
            "pull A",
        ),
    ),
    Case(
        "a NUL in SHA256SUMS escapes",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A sums-add 0",
            "verify A",
        ),
    ),
    Case(
        "a name of 300 characters in SHA256SUMS ends a verify",
        ("add standard dump 0 0", "pull A", "damage A sums-add 1", "agree"),
    ),
    Case(
        "a NUL in what a verify kept escapes",
        (
            "add standard dump 0 0",
            "pull A",
            "verify A",
            "damage A results-add 0",
            "verify A",
        ),
    ),
    Case(
        "a record of another format keeps other backups from coming home",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-format 0",
            "add standard dump 1 0",
            "pull A",
        ),
    ),
    Case(
        "a record of another format is not repaired",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-format 0",
            "repair A vendor",
        ),
    ),
    Case(
        "a folder in the place of a record is not repaired",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-folder 0",
            "repair A vendor",
        ),
    ),
    Case(
        "a folder in the place of SHA256SUMS is not repaired",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A sums-folder 0",
            "repair A vendor",
        ),
    ),
    Case(
        "a pipe in the place of a record hangs",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-fifo 0",
            "verify A",
        ),
    ),
    Case(
        "a pipe in the place of SHA256SUMS hangs",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A sums-fifo 0",
            "verify A",
        ),
    ),
    Case(
        "a pipe in the place of an object hangs",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A object-fifo 0",
            "verify A",
        ),
    ),
    Case(
        "an instance that the vendor deleted keeps others from being repaired",
        (
            "add standard dump 0 1",
            "add cluster dump 0 1",
            "pull A",
            "damage A cut 0",
            "damage A cut 1",
            "damage A cut 2",
            "vendor delete-instance 3",
            "repair A vendor",
        ),
    ),
    Case(
        "copy takes the bytes of swapped records",
        (
            "add cluster dump 0 0",
            "pull A",
            "damage A swap-records 0",
            "copy B A",
        ),
    ),
    Case(
        "copy takes swapped records over good ones",
        (
            "add cluster dump 0 0",
            "pull A",
            "copy B A",
            "damage A swap-records 0",
            "copy B A",
        ),
    ),
    Case(
        "copy takes what SHA256SUMS speaks against",
        ("add cluster log 0 854", "pull A", "damage A forge 931", "copy B A"),
    ),
    Case(
        "copy takes a set that lies in another folder",
        ("add standard dump 5 118", "pull A", "damage A set-double 115", "copy B A"),
    ),
    Case(
        "pull takes the record of another node for a backup",
        (
            "add cluster dump 0 0",
            "pull A",
            "damage A swap-records 0",
            "damage A delete 0",
            "pull A",
        ),
    ),
    Case(
        "copy takes a record of another node",
        (
            "add cluster dump 5 938",
            "pull A",
            "damage A record-node 58",
            "copy B A",
        ),
    ),
    Case(
        "repair leaves a wrong rdb in a record that has the right SHA-256",
        (
            "add standard dump 0 0",
            "pull A",
            "copy B A",
            "damage A record-rdb 0",
            "repair A B",
        ),
    ),
    Case(
        "repair leaves wrong CRCs in a record that has the right SHA-256",
        (
            "add standard dump 0 0",
            "pull A",
            "copy B A",
            "damage A record-both-crcs 0",
            "repair A B",
        ),
    ),
    Case(
        "repair from the source leaves a garbled SHA256SUMS",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A sums-garbage 0",
            "repair A vendor",
        ),
    ),
    Case(
        "repair from the source leaves an empty SHA256SUMS",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A sums-drop 0",
            "repair A vendor",
        ),
    ),
    Case(
        "repair leaves a wrong digit in what a verify kept",
        (
            "add standard dump 0 0",
            "pull A",
            "verify A",
            "damage A results-edit 0",
            "repair A vendor",
        ),
    ),
    Case(
        "copy is silent of a SHA256SUMS that cannot be read",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A sums-garbage 0",
            "copy B A",
        ),
    ),
    Case(
        "copy is silent of a backup that has lost its record",
        ("add cluster dump 3 767", "pull A", "damage A record-delete 982", "copy B A"),
    ),
    Case(
        "verify passes a record without its source",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-no-source 0",
            "verify A",
        ),
    ),
    Case(
        "verify passes a record without its transfer",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-no-transfer 0",
            "verify A",
        ),
    ),
    Case(
        "a mirror check gives up at an unreadable record",
        (
            "add standard dump 0 0",
            "pull A",
            "copy B A",
            "damage A record-garbage 0",
            "agree",
        ),
    ),
    Case(
        "a mirror check gives up at an unreadable record that only the target has",
        (
            "add standard dump 0 0",
            "pull B",
            "vendor expire 0",
            "add standard dump 1 0",
            "pull A",
            "damage B record-garbage 0",
            "copy B A",
        ),
    ),
    Case(
        "ls overlooks a record that contradicts its place",
        (
            "add standard dump 0 0",
            "pull A",
            "damage A record-odd-node 0",
            "agree",
        ),
    ),
    Case(
        "ls overlooks swapped records",
        (
            "add cluster dump 0 0",
            "pull A",
            "damage A swap-records 0",
            "agree",
        ),
    ),
    Case(
        "ls overlooks a set in another folder",
        (
            "add standard plain 5 203",
            "pull A",
            "damage A set-rename 176",
            "agree",
        ),
    ),
    Case(
        "a cancelled pull returns while its thread is at work",
        (
            "add standard dump 0 1",
            "pull A cancel 1",
        ),
    ),
    Case(
        "a copy records of a dump what somebody has edited in its record",
        (
            "add cluster plain 3 45",
            "pull A",
            "damage A record-footer 605",
            "copy B A",
        ),
    ),
    Case(
        "a repair leaves a forged dump that is broken by its own checksum",
        (
            "add standard dump 5 689",
            "pull A",
            "damage A forge 902",
            "damage A sums-delete 709",
            "settle vendor",
        ),
    ),
    Case(
        "records that change places go unseen by all but a verify",
        (
            "add cluster dump 5 95",
            "pull A",
            "damage A swap-records 166",
            "agree",
        ),
    ),
)
