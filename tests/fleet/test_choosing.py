"""Which instances are selected, and what the options mean."""

import pytest

from archiver.cli.sources import selection_of
from archiver.errors import UsageError
from archiver.sources.alibaba.instances import Instance
from archiver.sources.alibaba.selection import Selection

ONE = Instance(
    "r-1", "cn-a", name="prod cache", tags={"env": "prod", "team": "a"}, resource_group="rg-1"
)
OTHER = Instance("r-2", "cn-b", name="test-queue", tags={"env": "test"})

NOTHING = {"instances": (), "tags": (), "names": (), "resource_group": None, "excluded": ()}


def chosen(**wanted: object) -> list[str]:
    selection = Selection(is_all=True, **wanted)  # type: ignore[arg-type]
    return [one.instance_id for one in selection.chosen([OTHER, ONE, ONE])]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, ["r-1", "r-2"]),
        ({"tags": {"env": "prod"}}, ["r-1"]),
        ({"tags": {"env": "prod", "team": "b"}}, []),
        ({"tags": {"env": ""}}, []),
        ({"names": ("prod*",)}, ["r-1"]),
        ({"names": ("PROD*",)}, []),
        ({"names": ("cache",)}, []),
        ({"names": ("*queue", "prod ?ache")}, ["r-1", "r-2"]),
        ({"resource_group": "rg-1"}, ["r-1"]),
        ({"resource_group": ""}, ["r-2"]),
        ({"excluded": frozenset({"r-1", "r-none"})}, ["r-2"]),
        ({"ids": ("r-2",), "tags": {"env": "prod"}}, ["r-1", "r-2"]),
    ],
)
def test_all_that_match(wanted: dict[str, object], ids: list[str]) -> None:
    assert chosen(**wanted) == ids


def test_only_those_that_are_named() -> None:
    assert Selection(("r-2",)).chosen([ONE, OTHER]) == [OTHER]
    assert not Selection()
    assert Selection(("r-2",))


@pytest.mark.parametrize(
    ("given", "selection"),
    [
        ({}, Selection()),
        ({"instances": ("r-1", "r-1")}, Selection(("r-1",))),
        ({"instances": ("all",)}, Selection(is_all=True)),
        ({"instances": ("all", "r-1")}, Selection(("r-1",), is_all=True)),
        ({"tags": (("a", "b"), ("a", "b"))}, Selection(is_all=True, tags={"a": "b"})),
        ({"names": ("x*",)}, Selection(is_all=True, names=("x*",))),
        ({"resource_group": "rg-1"}, Selection(is_all=True, resource_group="rg-1")),
        ({"excluded": ("r-1",)}, Selection(is_all=True, excluded=frozenset({"r-1"}))),
    ],
)
def test_what_options_select(given: dict[str, object], selection: Selection) -> None:
    assert selection_of({**NOTHING, **given}) == selection


def test_a_list_of_instances_is_of_all_unless_some_are_named() -> None:
    assert selection_of(NOTHING, is_all=True) == Selection(is_all=True)
    named = {**NOTHING, "instances": ("r-1",)}
    assert selection_of(named, is_all=True) == Selection(("r-1",))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"instances": ("r-1",), "tags": (("a", "b"),)}, "--tag chooses among all"),
        ({"instances": ("r-1",), "excluded": ("r-2",)}, "--exclude chooses among all"),
        ({"instances": ("r-1", "all"), "excluded": ("r-1",)}, "--exclude r-1: --instance names"),
        ({"tags": (("a", "b"), ("a", "c"))}, "one value for each key"),
    ],
)
def test_options_that_contradict_each_other(given: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        selection_of({**NOTHING, **given})
