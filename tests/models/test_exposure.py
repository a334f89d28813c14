"""Whom a ranker shows: against all orders of the ties, by hand, and summed over hours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from models import metrics
from models.metrics import ranking_kernels

SCORES = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=4)
CUTS = (None, 1, 2, 4, 9)


def ranks(scores: Sequence[float]) -> list[list[int]]:
    """The rank of every row, in every order in which no score is above an earlier one."""
    found = []
    for order in itertools.permutations(range(len(scores))):
        ordered = [scores[row] for row in order]
        if ordered == sorted(ordered, reverse=True):
            found.append([order.index(row) + 1 for row in range(len(scores))])
    return found


def worth(rank: int, k: int | None) -> float:
    return 1 / math.log2(1 + rank) if k is None or rank <= k else 0.0


@given(SCORES)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_exposure_is_the_mean_over_all_orders_of_the_ties(slates: list[list[int]]) -> None:
    scores = [float(score) for slate in slates for score in slate]
    groups = metrics.groups_of_sizes([len(slate) for slate in slates])
    every = [ranks(slate) for slate in slates]
    for k in CUTS:
        wanted = [
            np.mean([worth(order[row], k) for order in orders])
            for slate, orders in zip(slates, every, strict=True)
            for row in range(len(slate))
        ]
        np.testing.assert_allclose(
            metrics.exposures(scores, groups, k), wanted, rtol=1e-12, atol=1e-12
        )
        if k is not None:
            wanted = [
                np.mean([order[row] <= k for order in orders])
                for slate, orders in zip(slates, every, strict=True)
                for row in range(len(slate))
            ]
            np.testing.assert_allclose(
                metrics.first_places(scores, groups, k), wanted, rtol=1e-12, atol=1e-12
            )


def test_long_and_short_groups_agree_and_rows_may_lie_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    groups, scores = rng.integers(0, 5, 2000), rng.integers(0, 40, 2000).astype(float)
    found = metrics.exposures(scores, groups, 30)
    order = np.argsort(groups, kind="stable")
    together = metrics.exposures(scores[order], groups[order], 30)
    np.testing.assert_allclose(found[order], together, rtol=1e-12)
    named = metrics.exposures(scores, [f"g{code}" for code in groups], 30)
    np.testing.assert_array_equal(found, named)
    for code in range(5):
        mine = np.flatnonzero(groups == code)
        above = (scores[mine][None] > scores[mine][:, None]).sum(axis=1)
        level = (scores[mine][None] == scores[mine][:, None]).sum(axis=1)
        for row, a, t in zip(mine, above, level, strict=True):
            wanted = sum(worth(rank, 30) for rank in range(a + 1, a + t + 1)) / t
            assert found[row] == pytest.approx(wanted, rel=1e-12)
    assert min(np.bincount(groups)) > ranking_kernels._SHORT
    monkeypatch.setattr("models.metrics.groups._ROWS_AT_ONCE", 300)
    np.testing.assert_array_equal(metrics.exposures(scores, groups, 30), found)


def test_exposure_of_one_row_of_ties_and_of_nothing() -> None:
    assert metrics.exposures([0.3], [7]).tolist() == [1.0]
    assert metrics.first_places([0.3], [7], 5).tolist() == [1.0]
    tied = metrics.exposures([1.0, 1.0, 1.0], np.zeros(3, np.int64))
    np.testing.assert_allclose(tied, (1 + 1 / math.log2(3) + 1 / 2) / 3, rtol=1e-15)
    assert metrics.first_places([1.0, 1.0, 1.0], np.zeros(3, np.int64), 2).tolist() == [2 / 3] * 3
    empty = np.zeros(0, np.int64)
    assert metrics.exposures(empty, empty).shape == (0,)
    assert metrics.first_places(empty, empty, 3).shape == (0,)
    assert metrics.logged_exposures(empty, empty).shape == (0,)


def test_exposure_refuses_what_has_no_order() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        metrics.exposures([1.0, math.nan], [0, 0])
    with pytest.raises(ValueError, match="cut-off is 0"):
        metrics.exposures([1.0, 2.0], np.zeros(2, np.int64), 0)
    with pytest.raises(ValueError, match="cut-off is -1"):
        metrics.first_places([1.0, 2.0], np.zeros(2, np.int64), -1)
    with pytest.raises(ValueError, match="'scores': 2, 'groups': 3"):
        metrics.exposures([1.0, 2.0], np.zeros(3, np.int64))


def test_positions_order_a_group_and_an_unknown_one_hides_it() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2])
    found = metrics.logged_exposures([12, 11, 1, math.nan, 3, 3], groups)
    second = 1 / math.log2(3)
    np.testing.assert_allclose(
        found, [second, 1, math.nan, math.nan, (1 + second) / 2, (1 + second) / 2]
    )


def test_gini_by_hand() -> None:
    assert metrics.gini([2, 2, 2]) == 0
    assert metrics.gini([0, 0, 0, 5]) == pytest.approx(3 / 4)
    # Mean absolute difference of 1, 2, 3, 4 is 20 / 16, the mean 2.5: half of .5.
    assert metrics.gini([4, 1, 3, 2]) == pytest.approx(0.25)
    assert metrics.gini([7]) == 0
    assert math.isnan(metrics.gini([])) and math.isnan(metrics.gini([0, 0]))
    rng = np.random.default_rng(1)
    x = rng.exponential(size=50)
    wanted = np.abs(x[:, None] - x[None]).mean() / (2 * x.mean())
    assert metrics.gini(x) == pytest.approx(wanted, rel=1e-12)
    for wrong in ([1, -1], [1, math.nan], [1, math.inf]):
        with pytest.raises(ValueError, match=r"negative|NaN"):
            metrics.gini(wrong)


def test_tail_is_the_least_popular_up_to_its_share() -> None:
    assert metrics.tail([50, 10, 10, 30]).tolist() == [False, True, True, False]
    assert metrics.tail([50, 10, 11, 29]).tolist() == [False, True, False, False]
    assert metrics.tail([10, 10, 10, 70]).tolist() == [True, True, False, False], "the first given"
    assert metrics.tail([29, 71], 0.29).tolist() == [True, False]
    assert metrics.tail([0, 0, 9]).tolist() == [True, True, False]
    assert metrics.tail([0, 1, 2], 1.0).all()
    assert metrics.tail([]).tolist() == []
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        metrics.tail([1, 2], 1.5)
    assert metrics.tail_share([6, 1, 1], [False, True, True]) == 0.25
    assert math.isnan(metrics.tail_share([0, 0], [True, False]))
    with pytest.raises(ValueError, match="'exposures': 2, 'mask': 1"):
        metrics.tail_share([1, 2], [True])


def test_coverage_counts_targets_that_come_first() -> None:
    assert metrics.coverage([0, 0.1, 2, 0]) == 0.5
    assert metrics.coverage([0, 0.1, 2, 0], at_least=1) == 0.25
    assert math.isnan(metrics.coverage([]))


def test_popularity_lift_by_hand() -> None:
    groups = np.array([0, 0, 1, 1])
    # Groups weigh alike: (10 + 2) / 2 shown, (5.5 + 3) / 2 there to show.
    assert metrics.popularity_lift([1, 0, 0, 3], [10, 1, 4, 2], groups) == pytest.approx(6 / 4.25)
    assert metrics.popularity_lift([2, 2, 1, 1], [10, 1, 4, 2], groups) == pytest.approx(1)
    # A group that shows nothing is left out of both means.
    assert metrics.popularity_lift([1, 0, 0, 0], [10, 1, 4, 2], groups) == pytest.approx(10 / 5.5)
    assert math.isnan(metrics.popularity_lift([0, 0, 0, 0], [10, 1, 4, 2], groups))
    assert math.isnan(metrics.popularity_lift([1, 1, 1, 1], [0, 0, 0, 0], groups))


def hour(seed: int, rows: int = 400) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, rows // 8, rows)
    positions = rng.integers(1, 30, rows).astype(float)
    positions[rng.random(rows) < 0.02] = np.nan
    return {"targets": np.minimum(rng.geometric(0.05, rows), 60), "groups": groups,
            "scores": rng.integers(0, 9, rows) / 9, "positions": positions}  # fmt: skip


def sums(rows: dict[str, np.ndarray], positions: bool = True) -> metrics.ExposureSums:
    targets = pa.array([f"i{target}" for target in rows["targets"]])
    return metrics.ExposureSums.of(
        targets, rows["scores"], rows["groups"], 3,
        positions=rows["positions"] if positions else None,
    )  # fmt: skip


def test_two_hours_added_are_both_at_once() -> None:
    first, second = hour(1), hour(2)
    second["groups"] = second["groups"] + 10_000
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    at_once = sums(both)
    for added in (sums(first).add(sums(second)), sums(second).add(sums(first))):
        assert added.table["target"].equals(at_once.table["target"])
        for name in at_once.table.column_names[1:]:
            mine, theirs = added.table[name].to_numpy(), at_once.table[name].to_numpy()
            np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-12)
        assert added.summary() == pytest.approx(at_once.summary(), rel=1e-12)
    assert at_once.table.num_rows == len(set(both["targets"].tolist()))


def test_a_summary_is_made_of_the_parts() -> None:
    rows = hour(3)
    found = sums(rows).summary()
    ids, codes = np.unique([f"i{target}" for target in rows["targets"]], return_inverse=True)
    exposure = metrics.exposures(rows["scores"], rows["groups"])
    popularity = np.bincount(codes)
    mask = metrics.tail(popularity)
    logged = np.nan_to_num(metrics.logged_exposures(rows["positions"], rows["groups"]))
    chances = metrics.first_places(rows["scores"], rows["groups"], 3)
    assert len(popularity) == len(ids)
    assert found == pytest.approx(
        {
            "gini": metrics.gini(np.bincount(codes, exposure)),
            "tail_share": metrics.tail_share(np.bincount(codes, exposure), mask),
            "tail_share_logged": metrics.tail_share(np.bincount(codes, logged), mask),
            "coverage": metrics.coverage(np.bincount(codes, chances)),
            "popularity_lift": metrics.popularity_lift(exposure, popularity[codes], rows["groups"]),
        },
        rel=1e-12,
    )
    assert 0 < found["coverage"] <= 1 and 0 < found["tail_share"] < 1


def test_what_nobody_knows_is_nan() -> None:
    known = sums(hour(4))
    unknown = sums(hour(5), positions=False)
    assert math.isnan(unknown.summary()["tail_share_logged"])
    assert unknown.table["logged"].null_count == unknown.table.num_rows
    both = known.add(unknown)
    np.testing.assert_allclose(
        np.nansum(both.table["logged"].to_numpy()), np.nansum(known.table["logged"].to_numpy())
    )
    nothing = metrics.ExposureSums.of(pa.array([], pa.string()), [], np.zeros(0, np.int64), 3)
    assert all(math.isnan(value) for value in nothing.summary().values())
    assert nothing.add(known).summary() == pytest.approx(known.summary())


def test_sums_refuse_null_targets_other_lengths_and_other_cut_offs() -> None:
    groups = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="1 of 2 targets are null"):
        metrics.ExposureSums.of(pa.array(["a", None]), [1.0, 2.0], groups)
    with pytest.raises(ValueError, match="'targets': 1, 'scores': 2"):
        metrics.ExposureSums.of(pa.array(["a"]), [1.0, 2.0], groups)
    three = metrics.ExposureSums.of(pa.array(["a", "b"]), [1.0, 2.0], groups, 3)
    with pytest.raises(ValueError, match="first 3 and k None cannot be added"):
        three.add(metrics.ExposureSums.of(pa.array(["a", "b"]), [1.0, 2.0], groups, 5))


def test_no_argument_is_changed() -> None:
    rows = hour(6)
    kept = {name: values.copy() for name, values in rows.items()}
    sums(rows)
    for name, values in kept.items():
        np.testing.assert_array_equal(rows[name], values)
