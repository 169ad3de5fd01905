"""How far sweeps go: a few places, all of them, or as many as a budget of seconds allows."""

import itertools

import pytest

from tests import sweeps


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is spent at once."""
    monkeypatch.setattr(sweeps, "FULL", True)
    monkeypatch.setattr(sweeps, "BUDGET", 1e-9)
    monkeypatch.setattr(sweeps, "_UNTIL", 0.0)


def test_strides_are_dense_at_first() -> None:
    assert [*itertools.islice(sweeps.strides(3), 8)] == [1, 2, 3, 5, 7, 10, 14, 19]
    assert [*itertools.islice(sweeps.strides(10**9), 4)] == [1, 2, 3, 4]


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "BUDGET", 0.0)
    for full, expected in ((False, 4), (True, 100)):
        monkeypatch.setattr(sweeps, "FULL", full)
        assert sweeps.extent(4, 100) == expected
        assert [*sweeps.within_share(range(9))] == [*range(9)]
        assert sweeps.shuffled(range(9)) == [*range(9)]


def test_which_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the usual suite no row and no column is left out."""
    monkeypatch.setattr(sweeps, "FULL", False)
    assert sweeps.pairs("abcd", [1, 2, 3]) == [("a", 1), ("b", 2), ("c", 3), ("d", 1)]
    monkeypatch.setattr(sweeps, "FULL", True)
    assert sweeps.pairs("ab", [1, 2]) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_how_many_on_a_budget(budget: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sweeps.extent(4, 100), sweeps.extent(4, 100, on_budget=7)) == (20, 7)
    assert [*sweeps.within_share(range(9))] == [0]
    orders = set[tuple[int, ...]]()
    for seed in (1, 1, 2):
        monkeypatch.setattr(sweeps, "SEED", seed)
        orders.add(tuple(sweeps.shuffled(range(9))))
    assert len(orders) == 2
    assert all(sorted(order) == [*range(9)] for order in orders)
    with pytest.raises(pytest.skip.Exception, match="the budget is spent"):
        sweeps.pytest_runtest_setup()
