"""Hours judged apart and pooled, against all rows judged at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models import metrics

ROWS = 5


class World:
    """Rows of groups in four hours; the last has one label only."""

    def __init__(self, groups: int = 2000) -> None:
        rng = np.random.default_rng(11)
        self.groups = np.repeat(np.arange(groups), ROWS)
        self.hour = self.groups * 4 // groups
        self.told = rng.beta(1, 5, len(self.groups))
        self.labels = (rng.random(len(self.groups)) < self.told).astype(np.float64)
        self.labels[self.hour == 3] = 0.0

    def parts(self) -> list[dict[str, float]]:
        return [
            metrics.evaluate_ranking(self.labels[m], self.told[m], self.groups[m])
            for m in (self.hour == h for h in range(4))
        ]


def test_means_over_groups_and_rows_pool_exactly() -> None:
    world = World()
    whole = metrics.evaluate_ranking(world.labels, world.told, world.groups)
    pooled = metrics.pooled_report(world.parts())
    assert set(pooled) == set(whole)
    for name in set(whole) - {"auc", "normalised_entropy", "expected_calibration_error"}:
        assert pooled[name] == pytest.approx(whole[name], abs=1e-12), name


def test_auc_and_entropy_are_those_inside_the_hours() -> None:
    world, parts = World(), World().parts()
    pooled = metrics.pooled_report(parts)
    assert math.isnan(parts[3]["auc"])
    known = parts[:3]
    rows = [part["rows"] for part in known]
    assert pooled["auc"] == pytest.approx(np.average([p["auc"] for p in known], weights=rows))
    loss = entropy = 0.0
    for hour in range(3):
        labels = world.labels[world.hour == hour]
        rate = labels.mean()
        entropy -= len(labels) * (rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
        loss += len(labels) * metrics.log_loss(labels, world.told[world.hour == hour])
    assert pooled["normalised_entropy"] == pytest.approx(loss / entropy)


def test_one_part_and_parts_of_other_keys() -> None:
    [first, *_] = World().parts()
    assert metrics.pooled_report([first]) == first
    scores = {k: v for k, v in first.items() if k not in ("log_loss", "normalised_entropy")}
    pooled = metrics.pooled_report([first, scores])
    assert pooled["rows"] == 2 * first["rows"]
    assert pooled["log_loss"] == first["log_loss"]
    nothing = metrics.evaluate_ranking([], [], np.empty(0, dtype=np.int64))
    assert math.isnan(metrics.pooled_report([nothing, nothing])["ndcg_at_10"])


def test_calibration_sums_of_hours_make_the_curve_of_all() -> None:
    world = World()
    parts = [
        metrics.calibration_sums(world.labels[world.hour == h], world.told[world.hour == h])
        for h in range(4)
    ]
    whole = metrics.calibration_sums(world.labels, world.told)
    np.testing.assert_allclose(sum(parts), whole, atol=1e-9)
    curve = metrics.calibration_sums_curve(whole)
    assert len(curve.rows) == 10
    assert curve.rows.sum() == len(world.told)
    assert curve.rows.min() > 0.07 * len(world.told)
    assert np.average(curve.predicted, weights=curve.rows) == pytest.approx(world.told.mean())
    assert np.average(curve.observed, weights=curve.rows) == pytest.approx(world.labels.mean())
    assert (np.diff(curve.predicted) > 0).all()
    exact = metrics.expected_calibration_error(world.labels, world.told)
    assert curve.error == pytest.approx(exact, abs=0.004)


def test_calibration_sums_refuse_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"not in \[0, 1\]"):
        metrics.calibration_sums([0, 1], [0.2, 1.2])
    with pytest.raises(ValueError, match="want 0 and 1"):
        metrics.calibration_sums([0, 2], [0.2, 0.2])
    ends = metrics.calibration_sums([0, 1], [0.0, 1.0])
    assert metrics.calibration_sums_curve(ends).error == 0
    empty = metrics.calibration_sums_curve(metrics.calibration_sums([], []))
    assert len(empty.rows) == 0
    assert math.isnan(empty.error)


def test_an_interval_of_sums_is_that_of_the_values() -> None:
    values = np.random.default_rng(3).normal(0.02, 0.2, 900)
    found = metrics.interval_of_sums(len(values), values.sum(), (values**2).sum())
    half = 1.959963985 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert found.p_value == pytest.approx(metrics.paired_p_value(values))
    drawn = metrics.paired_bootstrap(values, seed=1)
    assert (found.low, found.high) == pytest.approx((drawn.low, drawn.high), abs=0.002)


def test_an_interval_of_few_values() -> None:
    assert all(map(math.isnan, metrics.interval_of_sums(0, 0.0, 0.0)))
    alone = metrics.interval_of_sums(1, 0.5, 0.25)
    assert alone.mean == 0.5
    assert math.isnan(alone.low)
    same = metrics.interval_of_sums(3, 0.3, 0.03)
    assert same.low == pytest.approx(0.1)
    assert same.p_value < 1e-6
