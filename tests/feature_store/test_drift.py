"""The stability index on known values, by chance alone, and on distributions that were cut off."""

from __future__ import annotations

import math

import numpy as np
import pytest

from feature_store.drift import OTHER, chance_psi, largest_shift, pooled, psi, shares, top

HALVES, QUARTERS = {"a": 50, "b": 50}, {"a": 25, "b": 75}


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (HALVES, HALVES, 0.0),
        (HALVES, {"a": 5000, "b": 5000}, 0.0),
        (HALVES, QUARTERS, 0.25 * math.log(3)),
        ({"a": 10, "b": 20, "c": 70}, {"a": 20, "b": 20, "c": 60},
         -0.1 * math.log(0.5) + 0.1 * math.log(7 / 6)),
    ],
)  # fmt: skip
def test_known_values(now: dict[str, int], before: dict[str, int], expected: float) -> None:
    assert psi(now, before) == pytest.approx(expected, abs=1e-12)
    assert psi(before, now) == pytest.approx(expected, abs=1e-12), "symmetric"


def test_a_value_that_one_side_lacks_counts_as_half_an_event() -> None:
    expected = (0.5 - 0.005) * math.log(0.5 / 0.005) + (0.5 - 1) * math.log(0.5 / 1)
    assert psi(HALVES, {"b": 100}) == pytest.approx(expected)
    assert psi({"a": 100}, {"b": 100}) < math.inf


def test_nothing_has_not_drifted() -> None:
    for now, before in (({}, HALVES), (HALVES, {}), ({}, {})):
        assert psi(now, before) == chance_psi(now, before) == 0.0
    assert shares({}) == {}


def test_what_one_side_does_not_tell_apart_belongs_to_the_rest() -> None:
    """A value that fell below one hour's cut has not vanished."""
    assert psi({"a": 60, OTHER: 40}, {"a": 60, "b": 25, OTHER: 15}) == 0.0
    assert psi({"a": 60, "b": 40}, {"a": 60, "b": 40}) == 0.0
    assert psi({"a": 60, "b": 40}, {"a": 60, OTHER: 40}) == 0.0
    assert psi({"a": 60, "b": 40}, {"a": 60, "c": 40}) > 3


def test_chance_explains_the_index_of_equal_distributions() -> None:
    """Its mean over draws from one distribution is (values - 1) * (1 / n + 1 / m)."""
    random = np.random.default_rng(7)
    chances = [0.4, 0.3, 0.2, 0.07, 0.03]
    drawn = [
        [dict(zip("abcde", random.multinomial(n, chances).tolist(), strict=True))
         for n in (2000, 10_000)]
        for _ in range(2000)
    ]  # fmt: skip
    mean = np.mean([psi(now, before) for now, before in drawn])
    assert chance_psi(*drawn[0]) == pytest.approx(4 * (1 / 2000 + 1 / 10_000))
    assert mean == pytest.approx(chance_psi(*drawn[0]), rel=0.05)


def test_the_most_frequent_values_are_kept_and_no_row_is_lost() -> None:
    counts = {"d": 1, "b": 5, "a": 5, "c": 3, OTHER: 2}
    assert top(counts, 2) == {"a": 5, "b": 5, OTHER: 6}
    assert top(counts, 9) == {"a": 5, "b": 5, "c": 3, "d": 1, OTHER: 2}
    assert top({}, 3) == {}
    assert pooled([HALVES, QUARTERS, {"c": 1}]) == {"a": 75, "b": 125, "c": 1}


def test_the_largest_shift_is_named() -> None:
    now, before = {"a": 10, "b": 45, "c": 45}, {"a": 40, "b": 30, "c": 30}
    assert largest_shift(now, before) == ("a", 0.4, 0.1)
