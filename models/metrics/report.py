"""The usual report of one ranker on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from models.metrics.groups import Column, Groups, binary, checked_rows, grouped
from models.metrics.probabilities import (
    auc,
    expected_calibration_error,
    log_loss,
    normalised_entropy,
)
from models.metrics.ranking import gauc, map_at_ks, mrr_at_ks, ndcg_at_ks, recall_at_ks

__all__ = ["evaluate_ranking"]


def evaluate_ranking(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Column | Groups,
    ks: Sequence[int] = (1, 3, 5, 10),
    probabilities: bool = True,
) -> dict[str, float]:
    """The usual report of binary ``labels``: means over the groups whose labels are not all equal.

    Keys: ``ndcg_at_<k>``; ``map_at_<k>``, ``mrr_at_<k>`` and ``recall_at_<k>`` of the largest k;
    ``auc``, ``gauc``, ``rows``, ``positives``, ``groups`` (those counted), ``groups_excluded``; and
    ``log_loss``, ``normalised_entropy`` and ``expected_calibration_error`` where every score lies
    in [0, 1]. Scores that are no ``probabilities`` of these labels may do so by chance, and have
    none.
    """
    y, s = checked_rows(labels, scores, groups)
    binary(y)
    by = grouped(groups)
    ndcg = ndcg_at_ks(y, s, by, ks)
    report = {f"ndcg_at_{k}": float(mean) for k, mean in zip(ks, ndcg.means(), strict=True)}
    last = max(ks)
    for name, metric in (("map", map_at_ks), ("mrr", mrr_at_ks), ("recall", recall_at_ks)):
        report[f"{name}_at_{last}"] = float(metric(y, s, by, (last,)).means()[0])
    report["auc"] = auc(y, s)
    report["gauc"] = gauc(y, s, by)
    if probabilities and len(s) and s.min() >= 0 and s.max() <= 1:
        report["log_loss"] = log_loss(y, s)
        report["normalised_entropy"] = normalised_entropy(y, s)
        report["expected_calibration_error"] = expected_calibration_error(y, s)
    report["rows"] = float(len(y))
    report["positives"] = float(y.sum())
    report["groups"] = float(len(by.ids) - ndcg.undefined)
    report["groups_excluded"] = float(ndcg.undefined)
    return report
