"""Intervals and p-values of paired differences, against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from models import metrics
from models.metrics import comparison
from tests.models.click_worlds import covered


def test_bootstrap_has_the_width_of_the_central_limit() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.3, 50_000)
    found = metrics.paired_bootstrap(values, seed=4, resamples=2000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_bootstrap_of_three_values_is_the_exact_distribution() -> None:
    # 27 equally likely resamples of (0, 1, 5); the share of each mean is known.
    values = np.array([0.0, 1.0, 5.0])
    means = comparison._resampled_means(values, 11, 54_000)
    drawn = np.round(means * 3).astype(int)
    expected = np.bincount([a + b + c for a in (0, 1, 5) for b in (0, 1, 5) for c in (0, 1, 5)])
    share = np.bincount(drawn, minlength=16) / len(means)
    assert np.abs(share - expected / 27).max() < 0.01
    assert (share[expected == 0] == 0).all()


def test_bootstrap_draws_every_block_alike() -> None:
    # More values than one block holds, the last block being short.
    values = np.zeros(3 * 2048 + 100)
    values[-100:] = 1.0
    means = comparison._resampled_means(values, 5, 4000)
    assert means.mean() == pytest.approx(values.mean(), rel=0.01)
    assert means.std() == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.05)


def test_bootstrap_repeats_under_its_seed_and_leaves_out_nan() -> None:
    values = np.random.default_rng(2).normal(size=500)
    first = metrics.paired_bootstrap(values, seed=1)
    assert first == metrics.paired_bootstrap(np.append(values, np.nan), seed=1)
    assert first != metrics.paired_bootstrap(values, seed=2)
    assert all(np.isnan(bound) for bound in metrics.paired_bootstrap([np.nan], seed=1))


def test_intervals_hold_the_true_difference_as_often_as_they_say() -> None:
    """At 80 %, where too wide shows as well as too narrow; chance alone fails it once in 10,000."""
    worlds, level = 150, 0.8
    streams = np.random.SeedSequence(3).spawn(worlds)
    held = sum(covered(np.random.default_rng(s), 400, level, 300) for s in streams)
    low, high = stats.binom.interval(1 - 1e-4, worlds, level)
    assert low <= held <= high


def test_a_detectable_difference_is_found_as_often_as_asked() -> None:
    rng = np.random.default_rng(6)
    spread = rng.gamma(0.5, 1.0, 800) * rng.choice([-1, 1], 800)
    spread -= spread.mean()
    for power, level in ((0.8, 0.95), (0.5, 0.8)):
        shift = metrics.minimum_detectable_difference(spread, power, level)
        samples = (rng.choice(spread, 800) + shift for _ in range(1500))
        found = sum(metrics.paired_p_value(sample) < 1 - level for sample in samples)
        low, high = stats.binom.interval(1 - 1e-4, 1500, power)
        assert low <= found <= high


def test_detectable_difference_is_the_known_multiple_of_the_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    error = values.std(ddof=1) / 20
    found = metrics.minimum_detectable_difference(np.append(values, np.nan))
    assert found == pytest.approx(2.8015852 * error, rel=1e-7)
    assert np.isnan(metrics.minimum_detectable_difference([0.1]))
    with pytest.raises(ValueError, match="power 1"):
        metrics.minimum_detectable_difference(values, power=1)


def test_p_value_is_the_normal_one() -> None:
    values = np.random.default_rng(9).normal(0.1, 1, 300)
    z = values.mean() / stats.sem(values)
    found = metrics.paired_p_value(np.append(np.nan, values))
    assert found == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-12)
    assert metrics.paired_p_value(-values) == pytest.approx(found)
    assert metrics.paired_p_value(np.zeros(5)) == 1.0
    assert metrics.paired_p_value(np.ones(5)) == 0.0
    assert np.isnan(metrics.paired_p_value([1.0]))


def test_holm_is_the_step_down_procedure() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert metrics.holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert metrics.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert len(metrics.holm([])) == 0


def test_benjamini_hochberg_equals_scipy() -> None:
    p = np.random.default_rng(3).random(40) ** 3
    assert metrics.benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert (metrics.benjamini_hochberg(p) <= metrics.holm(p)).all()
    for adjust in (metrics.holm, metrics.benjamini_hochberg):
        with pytest.raises(ValueError, match=r"a p-value is 1\.5"):
            adjust([0.1, 1.5])
