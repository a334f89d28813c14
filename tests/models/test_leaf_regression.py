"""The logistic regression on leaves against scikit-learn, closed forms, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from models import ConfigError, ModelError, TrainingRefused
from models.gbdt_leaves import LeafRows
from models.leaf_regression import LeafRegression

SIZES = (5, 9, 2, 16)
LEAVES = sum(SIZES)


def _rows(rows: int, seed: int) -> tuple[LeafRows, np.ndarray]:
    """Leaves of four trees, and labels of a linear model on them."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *SIZES[:-1]])
    ids = (np.column_stack([rng.integers(0, size, rows) for size in SIZES]) + offsets).astype(
        np.int32
    )
    odds = np.random.default_rng(0).normal(size=LEAVES)[ids].sum(axis=1) - 1
    labels = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    return LeafRows("v1", {"click": ids}, {"click": LEAVES}), labels


def _one_hot(rows: LeafRows) -> csr_matrix:
    ids = rows.ids["click"]
    starts = np.arange(0, ids.size + 1, ids.shape[1])
    return csr_matrix((np.ones(ids.size), ids.ravel(), starts), shape=(len(ids), LEAVES))


@pytest.mark.parametrize("l2", [0.3, 10.0])
def test_it_equals_scikit_learn(l2: float) -> None:
    rows, labels = _rows(3000, seed=1)
    found = LeafRegression.fit(rows, "click", labels, l2)
    reference = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000)
    reference.fit(_one_hot(rows), labels)
    assert found.weights == pytest.approx(reference.coef_[0], abs=5e-3)
    assert found.bias == pytest.approx(reference.intercept_[0], abs=5e-3)
    fresh, _ = _rows(500, seed=2)
    told = reference.predict_proba(_one_hot(fresh))[:, 1]
    assert found.predict(fresh) == pytest.approx(told, abs=1e-4)


def test_it_finds_the_world_that_made_the_labels() -> None:
    rows, labels = _rows(100_000, seed=3)
    found = LeafRegression.fit(rows, "click", labels)
    truth = np.random.default_rng(0).normal(size=LEAVES)
    odds = truth[rows.ids["click"]].sum(axis=1) - 1
    assert found.predict(rows) == pytest.approx(1 / (1 + np.exp(-odds)), abs=0.05)


def test_the_penalty_pulls_to_the_centre_alone() -> None:
    rows, labels = _rows(2000, seed=4)
    centre = np.random.default_rng(5).normal(size=LEAVES)
    before = centre.copy()
    held = LeafRegression.fit(rows, "click", labels, l2=1e9, centre=centre)
    assert held.weights == pytest.approx(centre, abs=1e-4)
    assert held.predict(rows).mean() == pytest.approx(labels.mean(), abs=1e-4), "the bias is free"
    flat = LeafRegression.fit(rows, "click", labels, l2=1e9)
    assert flat.predict(rows) == pytest.approx(labels.mean(), abs=1e-4)
    assert np.array_equal(centre, before)


def test_leaves_without_rows_keep_the_weight_of_the_centre() -> None:
    rows, labels = _rows(2000, seed=6)
    wider = replace(rows, leaves={"click": LEAVES + 3})
    assert not LeafRegression.fit(wider, "click", labels).weights[-3:].any()
    centre = np.full(LEAVES + 3, 0.7)
    found = LeafRegression.fit(wider, "click", labels, centre=centre)
    assert found.weights[-3:].tolist() == [0.7] * 3


def test_far_scores_are_probabilities() -> None:
    rows = LeafRows("v1", {"click": np.array([[0], [1]], dtype=np.int32)}, {"click": 2})
    model = LeafRegression("v1", "click", np.array([-2000.0, 2000.0]), 0.0)
    assert model.predict(rows).tolist() == [0.0, 1.0]


def test_what_cannot_be_fitted_is_refused() -> None:
    rows, labels = _rows(100, seed=7)
    for l2 in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"l2 is {l2}"):
            LeafRegression.fit(rows, "click", labels, l2)
    with pytest.raises(TrainingRefused, match=r"'click' has one class only: 0 positives of 100"):
        LeafRegression.fit(rows, "click", np.zeros(100))
    with pytest.raises(TrainingRefused, match="1 of 100 labels are neither 0 nor 1, such as nan"):
        LeafRegression.fit(rows, "click", np.append(labels[1:], np.nan))
    with pytest.raises(ModelError, match=r"100 rows of leaves and labels of shape \(99,\)"):
        LeafRegression.fit(rows, "click", labels[1:])
    with pytest.raises(ModelError, match="no leaves of task 'order', but of click"):
        LeafRegression.fit(rows, "order", labels)
    with pytest.raises(ModelError, match="centre has 3 weights"):
        LeafRegression.fit(rows, "click", labels, centre=np.zeros(3))
    none = replace(rows, ids={"click": rows.ids["click"][:0]})
    with pytest.raises(TrainingRefused, match="0 positives of 0"):
        LeafRegression.fit(none, "click", [])


def test_ids_beyond_the_leaves_are_refused() -> None:
    rows, labels = _rows(100, seed=8)
    fitted = LeafRegression.fit(rows, "click", labels)
    assert fitted.predict(replace(rows, ids={"click": rows.ids["click"][:0]})).shape == (0,)
    with pytest.raises(ModelError, match=f"{LEAVES} weights, and there are {LEAVES + 1} leaves"):
        fitted.predict(replace(rows, leaves={"click": LEAVES + 1}))
    for wrong in (LEAVES, -1):
        ids = rows.ids["click"].copy()
        ids[3, 2] = wrong
        with pytest.raises(ModelError, match=rf"{wrong}.* {LEAVES} leaves"):
            fitted.predict(replace(rows, ids={"click": ids}))
