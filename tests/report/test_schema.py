"""The published schema: valid, complete, and no other than what the code reads."""

import dataclasses
import json
from collections.abc import Iterator
from enum import StrEnum
from importlib.resources import files
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import ArchiverError
from archiver.report import evidence as nouns
from archiver.report.document import decode, encode, to_document
from archiver.report.junit import to_junit
from archiver.report.limits import AtLeast, Pattern
from archiver.report.markdown import to_markdown
from archiver.report.page import to_page
from examples import drill_evidence as example
from tests.report import hostile

SCHEMAS: dict[int, dict[str, Any]] = {
    number: json.loads(
        files("archiver.report").joinpath(f"schema/evidence-{number}.json").read_text("ascii")
    )
    for number in (1, nouns.FORMAT)
}
SCHEMA = SCHEMAS[nouns.FORMAT]
VALIDATORS = {n: jsonschema.Draft202012Validator(schema) for n, schema in SCHEMAS.items()}
KNOWN = nouns.Acknowledged("r-x-1", example.FIRST, "sre@host", "ticket 4711")


def validate(document: Any) -> None:
    VALIDATORS[document["format"]].validate(document)


@pytest.mark.parametrize("schema", SCHEMAS.values())
def test_the_schema_is_one(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_a_document_is_of_the_oldest_format_that_can_say_it() -> None:
    """Who has an older version reads all that says nothing new, and pages stay what they are."""
    plain = example.first()
    assert to_document(plain)["format"] == 1
    known = dataclasses.replace(plain, acknowledged=(KNOWN,))
    document = to_document(known)
    assert document["format"] == nouns.FORMAT
    assert decode(encode(known)) == known
    wrongs: list[dict[str, object]] = [{"format": 1}, {"acknowledged": []}]
    for wrong in wrongs:
        with pytest.raises(ArchiverError, match="acknowledged: "):
            decode(json.dumps(document | wrong).encode())


@pytest.mark.parametrize(
    "evidence",
    [example.first(), example.second(), hostile.evidence(), example.drill(example.FIRST)],
)
def test_evidence_is_valid(evidence: nouns.Evidence) -> None:
    validate(json.loads(encode(evidence)))


def objects(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "properties" in node and isinstance(node["properties"], dict) and "type" in node:
            yield where, node
        for name, value in node.items():
            yield from objects(value, f"{where}/{name}")


def test_every_field_is_described_required_and_nothing_else_allowed() -> None:
    found = list(objects(SCHEMA))
    assert len(found) > 20
    for where, node in found:
        assert node["additionalProperties"] is False, where
        assert node["required"] == list(node["properties"]), where
        assert node["description"], where
        for name, field in node["properties"].items():
            assert field.get("description", "").endswith((".", "Z")), f"{where}: {name}"


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that is not null."""
    if "anyOf" in node:
        node = node["anyOf"][0]
    if "$ref" in node:
        return resolved(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]])
    return node


def compare(kind: Any, schema: dict[str, Any], where: str) -> None:
    """Holds a dataclass and its schema together, field by field."""
    names = {field.name for field in dataclasses.fields(kind)}
    assert names == schema["properties"].keys() - {"format", "kind"} | (
        names & {"format", "kind"}
    ), where
    for name, hint in get_type_hints(kind, include_extras=True).items():
        field = schema["properties"][name]
        arguments = get_args(hint) if get_origin(hint) is not Annotated else ()
        is_nullable = type(None) in arguments
        says_null = "anyOf" in field or "null" in field.get("type", [])
        assert is_nullable == says_null, f"{where}.{name}"
        inner = next((a for a in arguments if a is not type(None)), hint) if is_nullable else hint
        node = resolved(field)
        if get_origin(inner) is tuple:
            inner, node = get_args(inner)[0], resolved(node["items"])
        if get_origin(inner) is Annotated:
            compare_rule(get_args(inner)[1], node, f"{where}.{name}")
        elif dataclasses.is_dataclass(inner):
            compare(inner, node, f"{where}.{name}")
        elif isinstance(inner, type) and issubclass(inner, StrEnum):
            words = [word for word in node["enum"] if word is not None]
            assert words == [word.value for word in inner], f"{where}.{name}"


def compare_rule(rule: Pattern | AtLeast, node: dict[str, Any], where: str) -> None:
    if isinstance(rule, Pattern):
        assert node["pattern"].replace("(", "").replace(")", "") == f"^{rule.regex}$".replace(
            "(", ""
        ).replace(")", ""), where
    else:
        assert node["minimum"] == rule.least, where


def test_schema_and_code_have_the_same_fields() -> None:
    compare(nouns.Evidence, SCHEMA, "")


def places(node: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield way
    pairs = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for name, value in pairs:
        yield from places(value, (*way, name))


DOCUMENT = to_document(dataclasses.replace(example.second(), acknowledged=(KNOWN,)))
PLACES = [way for way in places(DOCUMENT) if way]
JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.just({"x": 1}),
    st.sampled_from(["pass", "0"]),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_reading_is_at_least_as_strict_as_the_schema(
    way: tuple[str | int, ...], value: Any
) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    place = document
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = value
    try:
        decode(json.dumps(document).encode())
    except ArchiverError:
        return
    validate(document)


def test_what_is_acknowledged_is_on_every_page() -> None:
    data = encode(dataclasses.replace(example.first(), acknowledged=(KNOWN,)))
    for make in (to_page, to_markdown, to_junit):
        page = make(data).decode()
        assert "r-x-1" in page
        assert KNOWN.reason in page
    withheld = dataclasses.replace(KNOWN, by=None)
    data = encode(dataclasses.replace(example.first(), acknowledged=(withheld,)))
    assert "withheld" in to_markdown(data).decode()
    assert b"sre@host" not in data
