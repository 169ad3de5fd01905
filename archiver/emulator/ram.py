"""RAM policies: what an access key may do."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from archiver.emulator.instances import read_json
from archiver.errors import UsageError

ACCOUNT = "1234567890123456"
_EFFECTS = ("Allow", "Deny")
_KEYS = {"Effect", "Action", "Resource"}


@dataclass(frozen=True, slots=True)
class _Statement:
    effect: str
    actions: tuple[re.Pattern[str], ...]
    resources: tuple[re.Pattern[str], ...]

    def covers(self, action: str, resource: str) -> bool:
        return any(p.fullmatch(action) for p in self.actions) and any(
            p.fullmatch(resource) for p in self.resources
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy document: without an Allow nothing is allowed, and a Deny overrides every Allow."""

    statements: tuple[_Statement, ...]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Raises UsageError, also for elements that are not enforced here, such as Condition."""
        statements = document.get("Statement")
        if document.get("Version") != "1" or not isinstance(statements, list):
            raise UsageError('a RAM policy is {"Version": "1", "Statement": [...]}')
        return cls(tuple(_statement(statement) for statement in statements))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The policy in a JSON file. Blocks. Raises UsageError."""
        document = read_json(path)
        return cls.parse(document if isinstance(document, dict) else {})

    def denial(self, action: str, resources: Sequence[str]) -> str | None:
        """Why the action is denied on one of the resources, in the vendor's words; None if it is
        allowed on all."""
        for resource in resources:
            effects = {s.effect for s in self.statements if s.covers(action, resource)}
            if "Deny" in effects:
                return "ExplicitDeny"
            if not effects:
                return "ImplicitDeny"
        return None


def _statement(given: object) -> _Statement:
    if not isinstance(given, dict) or given.keys() != _KEYS or given["Effect"] not in _EFFECTS:
        raise UsageError("a RAM statement here has Effect (Allow or Deny), Action and Resource")
    return _Statement(given["Effect"], _patterns(given["Action"]), _patterns(given["Resource"]))


def _patterns(given: object) -> tuple[re.Pattern[str], ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError("Action and Resource of a RAM statement are texts or lists of texts")
    wild = {"*": ".*", "?": "."}
    return tuple(
        re.compile("".join(wild.get(char) or re.escape(char) for char in text), re.DOTALL)
        for text in texts
    )
