"""Draws a sample of the files. Pure.

The share of each stratum (the files of one instance in one month) is rounded up, so that every
stratum is in the sample. The seed and the key decide, independently of other files.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from math import ceil


@dataclass(frozen=True, slots=True)
class Sample:
    """``share`` of each stratum, more than 0 and at most 1."""

    share: Fraction
    seed: int

    def pick(self, stratum: Collection[str]) -> frozenset[str]:
        """The keys of one stratum that are in the sample."""
        ranked = sorted(stratum, key=self._rank)
        return frozenset(ranked[: ceil(self.share * len(ranked))])

    def _rank(self, key: str) -> bytes:
        return hashlib.sha256(f"{self.seed}\0{key}".encode()).digest()

    def __str__(self) -> str:
        return f"{float(self.share * 100):g}%, seed {self.seed}"
