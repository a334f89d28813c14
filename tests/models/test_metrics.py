"""Groups, metrics of probabilities, and the report, against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics as reference

from models import metrics


def test_log_loss_equals_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    labels, scores = (rng.random(2000) < 0.3).astype(np.float64), rng.random(2000)
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
    assert (report["gauc"], report["map_at_2"], report["mrr_at_2"]) == (1.0, 1.0, 1.0)
    assert report["recall_at_2"] == 1.0
    assert report["log_loss"] == pytest.approx(reference.log_loss(labels, scores), abs=1e-9)
    assert "log_loss" not in metrics.evaluate_ranking(labels, np.array(scores) * 9, groups)
    nothing = metrics.evaluate_ranking([], [], np.empty(0, dtype=np.int64))
    assert nothing["groups"] == 0.0
    assert np.isnan(nothing["ndcg_at_10"])
