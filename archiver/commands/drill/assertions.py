"""The language of ``--assert``: what must be true of the restored data.

    dbsize >= 1000                      keys in database 0
    dbsize[2] > 10                      keys in database 2; [n] works with every verb
    exists user:1                       missing temp:1
    type user:1 == hash                 ttl session:1 > 0 (seconds; -1 without an expiry)
    get config:version == 7             get heartbeat > 1760000000 (both are integers)
    hlen user:1 >= 3                    also llen, scard, zcard, xlen, strlen

The operators are ``== != >= <= > <``, with a space after a key. Keys and values with spaces, quotes
or other bytes are written in double quotes, with the escapes ``\\"``, ``\\\\``, ``\\n``, ``\\r``,
``\\t`` and ``\\xHH``.

For a key that does not exist, only ``missing`` holds: such a key has no type, value, TTL or length
(not even a length of 0). An expired key does not exist.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from archiver.commands.drill.census import Databases
from archiver.commands.drill.client import ErrorReply
from archiver.errors import UsageError
from archiver.rdb.magic import DATABASES

_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_EQUALITY = ("==", "!=")
_SIZES = ("hlen", "llen", "scard", "strlen", "xlen", "zcard")
_NUMERIC = ("dbsize", "ttl", *_SIZES)
_PRESENCE = ("exists", "missing")
_VERBS = (*_NUMERIC, *_PRESENCE, "get", "type")

_HEAD = re.compile(r"([A-Za-z]+)(?:\[(\d{1,9})\])?")
_OPERATOR = re.compile(r"[=!<>]=?")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"(?!\S)|[^\s"]\S*', re.DOTALL)
_NUMBER = re.compile(rb"-?\d{1,19}")
_ESCAPE = re.compile(rb'\\(?:x([0-9A-Fa-f]{2})|(["\\nrt]))')
_ESCAPES = {b'"': b'"', b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_SHOWN = 64  # bytes of a value that a result shows
WITHHELD = "withheld"  # stands for a value, which may be a secret


class AssertionSyntax(UsageError):
    """A syntax error in an assertion. ``position`` counts characters, from 0."""

    def __init__(self, text: str, position: int, expected: str) -> None:
        super().__init__(
            f"{text!r}: expected {expected} at character {position + 1}",
            hint="such as: dbsize >= 1000, exists user:1, type user:1 == hash",
        )
        self.position = position


@dataclass(frozen=True, slots=True)
class Assertion:
    """A condition: ``verb`` of ``key`` in ``database``, compared with ``value`` by ``operator``.

    ``key`` is empty for dbsize; ``operator`` and ``value`` are empty for exists and missing.
    """

    text: str
    verb: str
    database: int
    key: bytes
    operator: str
    value: bytes


@dataclass(frozen=True, slots=True)
class AssertionResult:
    """Whether an assertion holds on one server, and the value that was ``seen``.

    ``has_key``: the server has the key; True for dbsize. ``is_value``: ``seen`` is the value of the
    key, which may be a secret.
    """

    text: str
    holds: bool
    seen: str
    has_key: bool
    is_value: bool = False


def parse(text: str) -> Assertion:
    """Parse an assertion (pure).

    Raises:
        AssertionSyntax: The syntax is wrong.
    """
    scanner = _Scanner(text)
    head = scanner.take(_HEAD, "one of " + ", ".join(sorted(_VERBS)))
    verb, database = head.group(1).lower(), int(head.group(2) or 0)
    if verb not in _VERBS:
        raise AssertionSyntax(text, head.start(), "one of " + ", ".join(sorted(_VERBS)))
    if database >= DATABASES:
        raise AssertionSyntax(text, head.start(2), f"a database below {DATABASES}")
    key = b"" if verb == "dbsize" else scanner.word("a key", apart=True)
    sign, value = "", b""
    if verb not in _PRESENCE:
        sign, value = _comparison(scanner, verb)
    scanner.end()
    return Assertion(text.strip(), verb, database, key, sign, value)


def write(assertion: Assertion) -> str:
    """Return an assertion in its canonical form, which ``parse`` reads back."""
    words = [left_side(assertion)]
    if assertion.operator:
        words += [assertion.operator, quote(assertion.value)]
    return " ".join(words)


def left_side(assertion: Assertion) -> str:
    """Return what an assertion compares: ``dbsize``, ``hlen[2] user:1``."""
    database = f"[{assertion.database}]" if assertion.database else ""
    key = "" if assertion.verb == "dbsize" else f" {quote(assertion.key)}"
    return f"{assertion.verb}{database}{key}"


def quote(data: bytes) -> str:
    """Write ``data`` as a word of the language, in double quotes if necessary."""
    plain = data.decode("ascii", errors="replace")
    if data and plain.isascii() and plain.isprintable() and not set(plain) & {" ", '"', "\\"}:
        return plain
    named = {code[0]: "\\" + name.decode() for name, code in _ESCAPES.items()}
    spelled = (
        named.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in data
    )
    return '"' + "".join(spelled) + '"'


async def check(assertion: Assertion, server: Databases) -> AssertionResult:
    """Evaluate an assertion on a server. An error such as WRONGTYPE is the value that was seen.

    Raises:
        NoReply: The server does not answer.
    """
    client = server.client(assertion.database)
    verb, key = assertion.verb, assertion.key
    try:
        if verb in _PRESENCE:
            return _presence(assertion, has_key=bool(await client.ask("EXISTS", key)))
        if verb == "dbsize":
            holds, seen = compare(assertion, await client.ask("DBSIZE"))
            return AssertionResult(assertion.text, holds, seen, has_key=True)
        # EXISTS comes after, so that the answer for a key that expires in between is discarded: for
        # a key that does not exist, HLEN and others return 0 and TYPE returns "none".
        answer = await client.ask(verb.upper(), key)
        if not await client.ask("EXISTS", key):
            return AssertionResult(assertion.text, holds=False, seen="no such key", has_key=False)
    except ErrorReply as refusal:  # the key has another type
        return AssertionResult(assertion.text, holds=False, seen=str(refusal), has_key=True)
    holds, seen = compare(assertion, answer)
    return AssertionResult(assertion.text, holds, seen, has_key=True, is_value=verb == "get")


def without_value(assertion: Assertion) -> str:
    """Return the text of an assertion without the value of a key.

    An assertion on the equality of ``get`` contains the value itself, which may be a secret.
    """
    if assertion.verb != "get" or assertion.operator not in _EQUALITY:
        return assertion.text
    head = write(assertion).removesuffix(quote(assertion.value))
    return f"{head}({WITHHELD})"


def _presence(assertion: Assertion, *, has_key: bool) -> AssertionResult:
    holds = has_key is (assertion.verb == "exists")
    return AssertionResult(assertion.text, holds, "exists" if has_key else "missing", has_key)


def compare(assertion: Assertion, seen: int | bytes | str) -> tuple[bool, str]:
    """Compare the value that was seen; return whether the assertion holds, and the value as text.

    Integers are compared as numbers. Other values are compared byte by byte, for equality only.
    Pure.
    """
    data = seen if isinstance(seen, bytes) else str(seen).encode()
    shown = quote(data[:_SHOWN]) + ("…" if len(data) > _SHOWN else "")
    if isinstance(seen, bytes) and assertion.operator in _EQUALITY:
        return (data == assertion.value) is (assertion.operator == "=="), shown
    if not _NUMBER.fullmatch(data):
        return False, f"{shown}, which is not an integer"
    return _OPERATORS[assertion.operator](int(data), int(assertion.value)), shown


def _comparison(scanner: "_Scanner", verb: str) -> tuple[str, bytes]:
    allowed = _EQUALITY if verb == "type" else tuple(_OPERATORS)
    expected = ("a space and " if verb != "dbsize" else "") + "one of " + " ".join(allowed)
    found = scanner.take(_OPERATOR, expected)
    if found.group() not in allowed:
        raise AssertionSyntax(scanner.text, found.start(), expected)
    position = scanner.position
    ordered = verb in _NUMERIC or found.group() not in _EQUALITY
    value = scanner.word("an integer" if ordered else "a value")
    if ordered and not _NUMBER.fullmatch(value):
        raise AssertionSyntax(scanner.text, position, "an integer")
    return found.group(), value


class _Scanner:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def take(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        self._skip()
        found = pattern.match(self.text, self.position)
        if found is None:
            raise AssertionSyntax(self.text, self.position, expected)
        self.position = found.end()
        return found

    def word(self, expected: str, *, apart: bool = False) -> bytes:
        """Read a word, unquoted; ``apart`` requires a space before it."""
        if apart and not self.text[self.position : self.position + 1].isspace():
            raise AssertionSyntax(self.text, self.position, f"a space and {expected}")
        found = self.take(_WORD, f"{expected}, in double quotes if it has spaces")
        word = found.group().encode("utf-8", errors="surrogateescape")
        if not word.startswith(b'"'):
            return word
        rest = _ESCAPE.sub(b"", word)
        if b"\\" in rest:
            raise AssertionSyntax(
                self.text, found.start(), 'one of the escapes \\" \\\\ \\n \\r \\t \\xHH'
            )
        return _ESCAPE.sub(_unescape, word[1:-1])

    def end(self) -> None:
        self._skip()
        if self.position < len(self.text):
            raise AssertionSyntax(self.text, self.position, "the end")

    def _skip(self) -> None:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1


def _unescape(found: re.Match[bytes]) -> bytes:
    digits, name = found.groups()
    return bytes([int(digits, 16)]) if digits else _ESCAPES[name]
