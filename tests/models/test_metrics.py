"""Metrics against scikit-learn, naive loops and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics as reference

from models import metrics
from models.metrics import comparison


def _case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, 80)
    groups = np.repeat(rng.permutation(80) * 7, sizes)
    shuffled = rng.permutation(len(groups))
    scores = rng.random(len(groups))
    if ties:
        scores = np.round(scores, 1)
    labels = (rng.random(len(groups)) < 0.3).astype(np.float64)
    return labels, scores, groups[shuffled]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_ndcg_equals_scikit_learn(ties: bool, k: int) -> None:
    labels, scores, groups = _case(3, ties)
    labels = labels * np.random.default_rng(5).integers(1, 4, len(labels))
    found = metrics.ndcg_at_k(labels, scores, groups, k)
    assert found.groups.tolist() == sorted(set(groups.tolist()))
    for value, group, size in zip(*found, strict=True):
        y, s = labels[groups == group], scores[groups == group]
        assert size == len(y)
        if (y == y[0]).all():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(reference.ndcg_score([y], [s], k=k), abs=1e-9)


def test_ndcg_of_ties_is_the_mean_over_all_orders() -> None:
    labels, scores = np.array([1.0, 0, 2, 0, 1]), np.array([0.5, 0.5, 0.1, 0.5, 0.1])
    discounts = 1 / np.log2(np.arange(2, 7))
    best = np.sort(labels)[::-1][:3] @ discounts[:3]
    orders = [
        [*first, *second]
        for first in itertools.permutations([0, 1, 3])
        for second in itertools.permutations([2, 4])
    ]
    expected = np.mean([labels[order][:3] @ discounts[:3] / best for order in orders])
    found = metrics.ndcg_at_k(labels, scores, np.zeros(5, dtype=np.int64), 3)
    assert found.values[0] == pytest.approx(expected, abs=1e-12)


def test_ndcg_reads_strings_nulls_and_scattered_groups_alike() -> None:
    labels, scores, groups = _case(9, ties=True)
    by_number = metrics.ndcg_at_k(labels, scores, groups, 5)
    texts = pa.array([f"request-{group}" for group in groups])
    for given in (texts, pa.chunked_array([texts[:10], texts[10:]]), texts.dictionary_encode()):
        by_text = metrics.ndcg_at_k(labels, scores, given, 5)
        found = dict(zip(by_text.groups.tolist(), by_text.values.tolist(), strict=True))
        for value, group in zip(by_number.values, by_number.groups, strict=True):
            assert found[f"request-{group}"] == pytest.approx(value, nan_ok=True)


def test_groups_larger_than_the_insertion_sort_are_ranked_right() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 5, 1000).astype(float), rng.integers(0, 300, 1000) / 7
    found = metrics.ndcg_at_k(labels, scores, np.zeros(1000, dtype=np.int64), 50)
    assert found.values[0] == pytest.approx(
        reference.ndcg_score([labels], [scores], k=50), abs=1e-9
    )


@pytest.mark.parametrize("ties", [False, True])
def test_auc_and_gauc_equal_scikit_learn(ties: bool) -> None:
    labels, scores, groups = _case(4, ties)
    assert metrics.auc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores), abs=1e-9
    )
    weighted, rows = 0.0, 0
    for group in set(groups.tolist()):
        y, s = labels[groups == group], scores[groups == group]
        if 0 < y.sum() < len(y):
            weighted += len(y) * reference.roc_auc_score(y, s)
            rows += len(y)
    assert metrics.gauc(labels, scores, groups) == pytest.approx(weighted / rows, abs=1e-9)


def test_one_class_has_no_auc() -> None:
    assert np.isnan(metrics.auc([1, 1], [0.1, 0.2]))
    assert np.isnan(metrics.gauc([1, 1, 0], [0.1, 0.2, 0.3], ["a", "a", "b"]))


def test_constant_scores_give_one_half() -> None:
    labels, _, groups = _case(8, ties=False)
    flat = np.full(len(labels), 0.25)
    assert metrics.auc(labels, flat) == pytest.approx(0.5)
    assert metrics.gauc(labels, flat, groups) == pytest.approx(0.5)


def test_log_loss_equals_scikit_learn() -> None:
    labels, scores, _ = _case(6, ties=False)
    scores[:3] = [0.0, 1.0, 1e-300]
    assert metrics.log_loss(labels, scores) == pytest.approx(
        reference.log_loss(labels, scores), abs=1e-9
    )


def test_group_codes_combine_columns_as_columns() -> None:
    codes = metrics.group_codes(["a", "ab", "a", "ab"], ["bc", "c", "bc", "d"])
    assert codes.tolist() == [0, 1, 0, 2]
    assert metrics.group_codes(np.array([9, 9, 2])).tolist() == [0, 0, 1]
    assert metrics.group_codes(pa.array(["x", None, None])).tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="2 and 1"):
        metrics.group_codes(["a", "b"], ["c"])


@pytest.mark.parametrize(
    ("labels", "scores", "groups", "text"),
    [
        ([1, 0], [0.5, float("nan")], ["a", "a"], "1 of 2 scores are NaN"),
        ([1, float("nan")], [0.5, 0.5], ["a", "a"], "labels are NaN"),
        ([1, 0], [0.5], ["a", "a"], "must be equal"),
        ([1, -1], [0.5, 0.5], ["a", "a"], "negative"),
    ],
)
def test_bad_rows_are_refused(
    labels: list[float], scores: list[float], groups: list[str], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        metrics.ndcg_at_k(labels, scores, groups, 3)


def test_no_argument_is_changed() -> None:
    labels, scores, groups = _case(2, ties=True)
    before = labels.copy(), scores.copy(), groups.copy()
    metrics.evaluate_ranking(labels, scores, groups)
    for array, copy in zip((labels, scores, groups), before, strict=True):
        assert np.array_equal(array, copy)


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


def test_reliability_of_true_probabilities_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(50_000)
    curve = metrics.reliability_curve(rng.random(50_000) < p, p)
    assert curve.rows.sum() == 50_000
    assert len(curve.rows) == 10
    assert np.abs(curve.predicted - curve.observed).max() < 0.03
    flat = metrics.reliability_curve([0, 1, 1], [0.5, 0.5, 0.5])
    assert flat.observed.tolist() == pytest.approx([2 / 3])


def test_report_counts_groups_and_knows_probabilities() -> None:
    labels, scores, groups = [1, 0, 0, 0, 1, 1], [0.9, 0.1, 0.3, 0.2, 0.5, 0.6], list("aabbcc")
    report = metrics.evaluate_ranking(labels, scores, groups, ks=(1, 2))
    assert report["ndcg_at_1"] == 1.0
    assert (report["groups"], report["groups_excluded"]) == (1.0, 2.0)
    assert report["gauc"] == 1.0
    assert report["log_loss"] == pytest.approx(reference.log_loss(labels, scores), abs=1e-9)
    assert "log_loss" not in metrics.evaluate_ranking(labels, np.array(scores) * 9, groups)
    nothing = metrics.evaluate_ranking([], [], np.empty(0, dtype=np.int64))
    assert nothing["groups"] == 0.0
    assert np.isnan(nothing["ndcg_at_10"])
