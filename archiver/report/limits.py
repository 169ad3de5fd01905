"""Constraints on the values of the evidence, checked when a document is read."""

import re
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that the whole text must match; ``words`` describes it."""

    regex: str
    words: str

    def allows(self, value: str) -> bool:
        return re.fullmatch(self.regex, value) is not None


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A minimum for a number."""

    least: int

    @property
    def words(self) -> str:
        return f"a number of {self.least} or more"

    def allows(self, value: float) -> bool:
        return value >= self.least


Count = Annotated[int, AtLeast(0)]
Seconds = Annotated[float, AtLeast(0)]
Fraction = Annotated[float, AtLeast(0)]
Sha256 = Annotated[str, Pattern("[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
Crc64 = Annotated[str, Pattern("0|[1-9][0-9]{0,19}", "a decimal number of 64 bits")]
DrillId = Annotated[
    str, Pattern("[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}", "a drill id such as 20261124T021500Z-3f9a1c")
]
