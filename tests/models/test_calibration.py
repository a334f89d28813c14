"""Calibration: what the error measures, and the correction after negative down-sampling."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import calibration, metrics
from models.calibration import as_down_sampled, undo_down_sampling
from models.plots import STOPPING_ROWS, reliability_figure


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope and intercept of a logistic regression, by Newton's method."""
    rows, found = np.column_stack([x, np.ones_like(x)]), np.zeros(2)
    for _ in range(15):
        p = 1 / (1 + np.exp(-rows @ found))
        found += np.linalg.solve((rows * (p * (1 - p))[:, None]).T @ rows, rows.T @ (y - p))
    return found


def _world(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some 6 % clicks of a known logistic model."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    return x, (rng.random(rows) < 1 / (1 + np.exp(3.2 - 1.2 * x))).astype(np.float64)


@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5])
def test_a_model_of_sampled_negatives_is_calibrated_after_the_correction(kept: float) -> None:
    x, y = _world(200_000, seed=1)
    used = (y == 1) | (np.random.default_rng(2).random(len(y)) < kept)
    slope, intercept = _fit(x[used], y[used])
    fresh, told = _world(200_000, seed=3)
    sampled = 1 / (1 + np.exp(-(slope * fresh + intercept)))
    corrected = undo_down_sampling(sampled, kept)
    assert metrics.expected_calibration_error(told, corrected) < 0.005
    assert corrected.mean() == pytest.approx(told.mean(), rel=0.05)
    assert metrics.expected_calibration_error(told, sampled) > 0.04
    # As good as the model that saw every row.
    slope, intercept = _fit(x, y)
    whole = metrics.log_loss(told, 1 / (1 + np.exp(-(slope * fresh + intercept))))
    assert metrics.log_loss(told, corrected) < whole + 0.001 < metrics.log_loss(told, sampled)
    assert metrics.auc(told, corrected) == metrics.auc(told, sampled)


@given(st.floats(0, 1), st.floats(1e-6, 1))
def test_correction_and_inverse_cancel(p: float, kept: float) -> None:
    assert as_down_sampled(undo_down_sampling(p, kept), kept) == pytest.approx(p, abs=1e-9)
    assert undo_down_sampling(as_down_sampled(p, kept), kept) == pytest.approx(p, abs=1e-9)


def test_correction_is_the_published_formula_in_any_shape() -> None:
    p = np.random.default_rng(0).random((3, 4))
    before = p.copy()
    assert undo_down_sampling(p, 0.03) == pytest.approx(p / (p + (1 - p) / 0.03), abs=1e-15)
    assert as_down_sampled(p, 0.03) == pytest.approx(p / (p + (1 - p) * 0.03), abs=1e-15)
    assert np.array_equal(undo_down_sampling(p, 1.0), p)
    assert np.array_equal(p, before)
    ends = np.array([0.0, 1.0])
    for kept in (1e-300, 0.5):
        assert np.array_equal(undo_down_sampling(ends, kept), ends)
        assert np.array_equal(as_down_sampled(ends, kept), ends)
    assert undo_down_sampling([], 0.5).shape == (0,)


@pytest.mark.parametrize("kept", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(kept: float) -> None:
    for function in (undo_down_sampling, as_down_sampled):
        with pytest.raises(ValueError, match=rf"is {kept}; it must lie in \(0, 1\]"):
            function([0.5], kept)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_scores_that_are_no_probabilities_are_refused(value: float) -> None:
    for function in (undo_down_sampling, as_down_sampled):
        with pytest.raises(ValueError, match=rf"1 of 2 .*{value}.*sigmoid"):
            function([0.5, value], 0.5)


def test_the_error_is_the_weighted_distance_of_the_bins() -> None:
    # Three rows tie at .2, so that bins of one and three rows remain.
    labels, told = [1, 0, 0, 1], [0.9, 0.2, 0.2, 0.2]
    expected = (1 * abs(0.9 - 1) + 3 * abs(0.2 - 1 / 3)) / 4
    assert metrics.expected_calibration_error(labels, told, bins=2) == pytest.approx(expected)
    assert metrics.expected_calibration_error([1, 0], [1.0, 0.0]) == 0
    assert metrics.expected_calibration_error([0, 1], [1.0, 0.0]) == 1
    assert np.isnan(metrics.expected_calibration_error([], []))


def test_the_error_of_true_probabilities_is_what_chance_makes_of_it() -> None:
    rng = np.random.default_rng(4)
    p = np.full(20_000, 0.3) + rng.normal(0, 1e-9, 20_000)  # told apart, but all alike
    found = [metrics.expected_calibration_error(rng.random(len(p)) < p, p) for _ in range(200)]
    chance = np.sqrt(2 * 0.3 * 0.7 / (np.pi * len(p) / 10))
    assert np.mean(found) == pytest.approx(chance, rel=0.05)
    wide = rng.random(20_000)
    biased = np.clip(wide + 0.1, 0, 1)
    error = metrics.expected_calibration_error(rng.random(len(wide)) < wide, biased)
    assert error == pytest.approx((biased - wide).mean(), abs=0.01)


def test_the_error_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(ValueError, match=r"probabilities lie in \[0\.5, 3\.0\]"):
        metrics.expected_calibration_error([0, 1], [0.5, 3.0])
    with pytest.raises(ValueError, match="0 bins"):
        metrics.expected_calibration_error([0, 1], [0.5, 0.5], bins=0)
    with pytest.raises(ValueError, match=r"a label is 0\.5"):
        metrics.expected_calibration_error([0, 0.5], [0.5, 0.5])


def test_normalised_entropy_is_one_for_the_base_rate() -> None:
    labels = np.array([1, 0, 0, 0])
    assert metrics.normalised_entropy(labels, np.full(4, 0.25)) == pytest.approx(1, abs=1e-12)
    half = metrics.normalised_entropy(labels, np.full(4, 0.5))
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert half == pytest.approx(np.log(2) / entropy, abs=1e-12)
    assert metrics.normalised_entropy(labels, labels) == pytest.approx(0, abs=1e-12)
    for one_class in ([1, 1], [0, 0], []):
        assert np.isnan(metrics.normalised_entropy(one_class, np.full(len(one_class), 0.5)))


def test_the_report_of_probabilities_tells_their_calibration() -> None:
    labels, scores, groups = [1, 0, 0, 1], [0.9, 0.1, 0.3, 0.6], list("aabb")
    report = metrics.evaluate_ranking(labels, scores, groups)
    for name in ("normalised_entropy", "expected_calibration_error"):
        assert report[name] == getattr(metrics, name)(labels, scores)
        assert name not in metrics.evaluate_ranking(labels, np.array(scores) * 9, groups)


def test_examples_run() -> None:
    assert doctest.testmod(calibration).failed == 0


def test_the_figure_names_the_error() -> None:
    labels, told = [1, 0, 0, 1], [0.9, 0.1, 0.3, 0.6]
    figure = reliability_figure({"click": labels}, {"click": told}, "Four rows")
    assert figure.get_suptitle() == "Four rows"
    long = reliability_figure({"click": labels}, {"click": told}, STOPPING_ROWS)
    assert long.get_suptitle().replace("\n", " ") == STOPPING_ROWS
    long.canvas.draw()
    box = long._suptitle.get_window_extent()
    assert box.x0 > 0
    assert box.x1 < long.bbox.width
    error = metrics.expected_calibration_error(labels, told)
    assert figure.axes[0].get_title() == f"click: reliability (4 rows, error {error:.4f})"
