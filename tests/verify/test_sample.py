"""What a sample promises, whatever the archive."""

from fractions import Fraction
from math import ceil

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.cli.params import Share
from archiver.commands.verify.sample import Sample

KEYS = st.sets(st.text("abc/0123", min_size=1, max_size=8), min_size=1, max_size=60)
SHARES = st.integers(1, 10_000).map(lambda n: Fraction(n, 10_000))
SEEDS = st.integers(0, 2**32)


@given(KEYS, SHARES, SEEDS)
def test_a_share_of_each_stratum_and_never_none(keys: set[str], share: Fraction, seed: int) -> None:
    picked = Sample(share, seed).pick(keys)
    assert picked <= keys
    assert len(picked) == max(1, ceil(share * len(keys)))


@given(KEYS, SHARES, SEEDS)
def test_the_order_does_not_matter(keys: set[str], share: Fraction, seed: int) -> None:
    sample = Sample(share, seed)
    assert sample.pick(sorted(keys)) == sample.pick(sorted(keys, reverse=True))


@given(KEYS, SEEDS)
def test_a_larger_share_covers_a_smaller_one(keys: set[str], seed: int) -> None:
    assert Sample(Fraction(1, 10), seed).pick(keys) <= Sample(Fraction(1, 2), seed).pick(keys)


def test_another_seed_reads_other_files() -> None:
    keys = [f"k{n}" for n in range(100)]
    picked = {Sample(Fraction(1, 20), seed).pick(keys) for seed in range(20)}
    assert len(picked) == 20
    assert Sample(Fraction(1, 20), 1).pick([]) == frozenset()


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.5 %", 0.005), ("100%", 1.0), ("0.001", 0.001)]
)
def test_shares_as_people_write_them(text: str, share: float) -> None:
    assert float(Share(above_zero=True).convert(text, None, None)) == share


@pytest.mark.parametrize("text", ["5", "0%", "0", "101%", "-5%", "five%", "", "nan%", "1e1%"])
def test_what_is_not_a_share(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Share(above_zero=True).convert(text, None, None)
