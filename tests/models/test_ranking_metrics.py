"""Metrics of an order: against all orders of the ties, and against scikit-learn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings

from models import metrics
from models.metrics import groups as grouping
from models.metrics import ranking_kernels

KS = (1, 2, 3, 5, 9)
Order = Sequence[float]


def orders(labels: Sequence[float], scores: Sequence[float]) -> Iterator[list[float]]:
    """The labels in every order in which no score is above an earlier one."""
    ranked = sorted(set(scores), reverse=True)
    ties = [[y for y, s in zip(labels, scores, strict=True) if s == score] for score in ranked]
    for chosen in itertools.product(*(itertools.permutations(tie) for tie in ties)):
        yield [label for tie in chosen for label in tie]


def dcg(order: Order, k: int) -> float:
    return sum(y / math.log2(rank + 2) for rank, y in enumerate(order[:k]))


def ndcg(order: Order, k: int) -> float:
    return dcg(order, k) / dcg(sorted(order, reverse=True), k)


def average_precision(order: Order, k: int) -> float:
    hits = [y > 0 for y in order]
    found = sum(sum(hits[: i + 1]) / (i + 1) for i in range(min(k, len(order))) if hits[i])
    return found / sum(hits)


def reciprocal_rank(order: Order, k: int) -> float:
    return next((1 / (i + 1) for i, y in enumerate(order[:k]) if y > 0), 0.0)


def recall(order: Order, k: int) -> float:
    return sum(y > 0 for y in order[:k]) / sum(y > 0 for y in order)


def precision(order: Order, k: int) -> float:
    return sum(y > 0 for y in order[:k]) / k


METRICS: dict[Callable[..., metrics.GroupValues], Callable[[Order, int], float]] = {
    metrics.ndcg_at_ks: ndcg,
    metrics.map_at_ks: average_precision,
    metrics.mrr_at_ks: reciprocal_rank,
    metrics.recall_at_ks: recall,
    metrics.precision_at_ks: precision,
}
ROWS = st.lists(st.tuples(st.sampled_from([0, 0, 1, 2, 5]), st.integers(0, 3)), max_size=6)


@given(st.lists(ROWS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_metric_is_the_mean_over_all_orders_of_the_ties(
    slates: list[list[tuple[int, int]]],
) -> None:
    labels, scores = ([row[i] for slate in slates for row in slate] for i in (0, 1))
    groups = metrics.groups_of_sizes([len(slate) for slate in slates])
    for metric, of_order in METRICS.items():
        found = metric(labels, scores, groups, KS)
        for slate, values in zip(slates, found.values, strict=True):
            grades = [grade for grade, _ in slate]
            if len(set(grades)) < 2:
                assert np.isnan(values).all()
                continue
            every = list(orders(grades, [score for _, score in slate]))
            wanted = [np.mean([of_order(order, k) for order in every]) for k in KS]
            assert values == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_of_long_groups_are_those_of_their_orders(
    metric: Callable[..., metrics.GroupValues],
) -> None:
    """Hundreds of relevant rows, sorted and not counted, without ties: there is one order."""
    rng = np.random.default_rng(4)
    labels, scores = rng.integers(0, 4, 700).astype(float), rng.permutation(700) / 3
    ks = (1, 10, 200, 5000)
    found = metric(labels, scores, metrics.groups_of_sizes([700]), ks)
    order = labels[np.argsort(-scores)].tolist()
    assert found.values[0] == pytest.approx([METRICS[metric](order, k) for k in ks], abs=1e-9)


def test_places_are_counted_and_sorted_alike() -> None:
    rng = np.random.default_rng(8)
    for size, count, kinds in ((10, 4, 3), (700, 5, 50), (700, 300, 50), (49, 17, 10**6)):
        every = rng.integers(0, kinds, size) / 7
        own = rng.permutation(every)[:count]
        above, equal = np.empty(count, np.int64), np.empty(count, np.int64)
        ranking_kernels._places(every, size, own, count, above, equal)
        assert above.tolist() == (every > own[:, None]).sum(axis=1).tolist()
        assert equal.tolist() == (every == own[:, None]).sum(axis=1).tolist()


def test_map_equals_scikit_learn_where_nothing_is_tied() -> None:
    labels, scores, groups = _case(12, ties=False)
    found = metrics.map_at_ks(labels, scores, groups, (1000,))
    for (value,), group in zip(found.values, found.groups, strict=True):
        y, s = labels[groups == group], scores[groups == group]
        if 0 < y.sum() < len(y):
            assert value == pytest.approx(reference.average_precision_score(y, s), abs=1e-9)
        else:
            assert np.isnan(value)


def test_gains_are_those_of_the_grades() -> None:
    labels, scores, groups = _case(5, ties=True)
    grades = labels * np.random.default_rng(2).integers(1, 5, len(labels))
    by_grade = metrics.ndcg_at_k(grades, scores, groups, 5, metrics.exponential_gains(4))
    by_gain = metrics.ndcg_at_k(2**grades - 1, scores, groups, 5)
    assert np.array_equal(by_grade.values, by_gain.values, equal_nan=True)
    assert metrics.exponential_gains(3) == (0.0, 1.0, 3.0, 7.0)
    for odd in (1.5, 5.0, -1.0):
        with pytest.raises(ValueError, match=f"a label is {odd}; grades 0 to 4 have gains"):
            metrics.ndcg_at_k([0, odd], [1, 2], ["a", "a"], 5, metrics.exponential_gains(4))


def test_groups_without_an_order_are_nan_and_counted() -> None:
    groups = metrics.groups_of_sizes([0, 1, 2, 2, 2, 0])
    labels, scores = [1, 0, 0, 1, 1, 0, 3], [1, 2, 3, 4, 5, 6, 7]
    for metric in METRICS:
        found = metric(labels, scores, groups, (1, 2))
        assert np.isnan(found.values[:, 0]).tolist() == [True, True, True, True, False, True]
        assert found.undefined == 5
        assert found.sizes.tolist() == [0, 1, 2, 2, 2, 0]
        assert found.means() == pytest.approx(found.values[4])
    nothing = metrics.ndcg_at_ks([], [], np.empty(0, dtype=np.int64), (1, 2))
    assert np.isnan(nothing.means()).tolist() == [True, True]


def test_values_do_not_depend_on_threads_or_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, groups = _case(21, ties=True)
    by = metrics.grouped(groups)
    whole = {metric: metric(labels, scores, by, KS).values.tobytes() for metric in METRICS}
    monkeypatch.setattr(grouping, "_ROWS_AT_ONCE", 50)
    for cores in (1, 2, 7):
        monkeypatch.setattr(grouping, "_threads", lambda cores=cores: cores)
        for metric, wanted in whole.items():
            assert metric(labels, scores, by, KS).values.tobytes() == wanted


def test_every_group_is_worked_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_ROWS_AT_ONCE", 10)
    for sizes in ([], [0], [3] * 20, [100, 1, 1], [0, 0, 50, 0, 50, 0]):
        seen = np.zeros(len(sizes), dtype=int)

        def work(first: int, last: int, seen: np.ndarray = seen) -> None:
            seen[first:last] += 1

        grouping.over_groups(metrics.groups_of_sizes(sizes), work)
        assert seen.tolist() == [1] * len(sizes)


def test_groups_that_lie_together_are_not_sorted() -> None:
    together = metrics.grouped(np.array([-5, -5, 7, 900, 900]))
    assert together.ids.tolist() == [-5, 7, 900]
    assert together.sizes.tolist() == [2, 1, 2]
    assert not len(together.order)
    texts = metrics.grouped(["b", "b", "a"])
    assert (texts.ids.tolist(), len(texts.order)) == (["b", "a"], 0)
    apart = metrics.grouped(np.array([7, 3, 7]))
    assert (apart.ids.tolist(), apart.order.tolist()) == ([3, 7], [1, 0, 2])


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
    for column in (texts, pa.chunked_array([texts[:10], texts[10:]]), texts.dictionary_encode()):
        by_text = metrics.ndcg_at_k(labels, scores, column, 5)
        found = dict(zip(by_text.groups.tolist(), by_text.values.tolist(), strict=True))
        for value, group in zip(by_number.values, by_number.groups, strict=True):
            assert found[f"request-{group}"] == pytest.approx(value, nan_ok=True)


def test_long_groups_are_ranked_right() -> None:
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


def test_groups_must_have_as_many_rows() -> None:
    with pytest.raises(ValueError, match=r"\[2, 2, 3\] rows"):
        metrics.map_at_ks([0, 1], [1, 2], metrics.groups_of_sizes([3]), (1,))
    with pytest.raises(ValueError, match="a group has -1 rows"):
        metrics.groups_of_sizes([2, -1])
    with pytest.raises(ValueError, match="cut-offs"):
        metrics.mrr_at_ks([0, 1], [1, 2], ["a", "a"], (0,))
    with pytest.raises(ValueError, match="a label is inf"):
        metrics.ndcg_at_k([0, np.inf], [1, 2], ["a", "a"], 1)
