"""What a check of a set-up found."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from archiver.errors import EXIT_OK, ArchiverError


class Verdict(StrEnum):
    """How a check ended. A warning hinders no run; SKIP could not be checked, or need not be."""

    OK = "ok"
    SKIP = "skip"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` names what was checked, ``text`` says what was found, ``hint`` what to do next. Of
    what failed, ``exit_code`` is that of a run that meets it."""

    check: str
    verdict: Verdict
    text: str
    hint: str | None = None
    exit_code: int = EXIT_OK

    @classmethod
    def of(cls, check: str, error: ArchiverError, verdict: Verdict = Verdict.FAIL) -> Self:
        """The finding that an error makes."""
        code = error.exit_code if verdict is Verdict.FAIL else EXIT_OK
        return cls(check, verdict, error.message, error.hint, code)

    @property
    def has_failed(self) -> bool:
        return self.verdict is Verdict.FAIL

    def __str__(self) -> str:
        return f"{self.text} ({self.hint})" if self.hint else self.text
