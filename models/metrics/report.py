"""The usual report of one ranker on held-out rows, and of several parts of them together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.metrics.groups import Column, Groups, GroupValues, binary, checked_rows, grouped
from models.metrics.probabilities import (
    auc,
    expected_calibration_error,
    log_loss,
    normalised_entropy,
)
from models.metrics.ranking import (
    exponential_gains,
    gauc,
    map_at_ks,
    mrr_at_ks,
    ndcg_at_ks,
    recall_at_ks,
)

__all__ = ["evaluate_graded", "evaluate_ranking", "pooled_report"]

_SUMS = ("rows", "rows_counted", "positives", "groups", "groups_excluded")
_OF_GROUPS = ("ndcg", "map", "mrr", "recall")


def evaluate_ranking(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Column | Groups,
    ks: Sequence[int] = (1, 3, 5, 10),
    probabilities: bool = True,
) -> dict[str, float]:
    """The usual report of binary ``labels``: means over the groups whose labels are not all equal.

    Keys: ``ndcg_at_<k>``; ``map_at_<k>``, ``mrr_at_<k>`` and ``recall_at_<k>`` of the largest k;
    ``auc``, ``gauc``, ``rows``, ``positives``, ``groups`` (those counted), ``rows_counted``
    (theirs), ``groups_excluded``; and ``log_loss``, ``normalised_entropy`` and
    ``expected_calibration_error`` where every score lies in [0, 1]. Scores that are no
    ``probabilities`` of these labels may do so by chance, and have none.
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
    return {**report, "positives": float(y.sum()), **_counts(ndcg)}


def evaluate_graded(
    grades: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Column | Groups,
    ks: Sequence[int] = (1, 3, 5, 10),
) -> dict[str, float]:
    """NDCG of whole-number ``grades`` from 0 with gains 2 ** g - 1 (:func:`exponential_gains`),
    means over the groups whose grades are not all equal; keys as of :func:`evaluate_ranking`."""
    y, s = checked_rows(grades, scores, groups)
    gains = exponential_gains(int(y.max()) if len(y) else 0)
    ndcg = ndcg_at_ks(y, s, grouped(groups), ks, gains)
    means = zip(ks, ndcg.means(), strict=True)
    return {**{f"ndcg_at_{k}": float(mean) for k, mean in means}, **_counts(ndcg)}


def _counts(ndcg: GroupValues) -> dict[str, float]:
    return {
        "rows": float(ndcg.sizes.sum()),
        "groups": float(len(ndcg.groups) - ndcg.undefined),
        "groups_excluded": float(ndcg.undefined),
        "rows_counted": float(ndcg.sizes[~np.isnan(ndcg.values[:, 0])].sum()),
    }


def pooled_report(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The report of parts, hours for instance, that share no group; keys of any of them.

    What is a mean over groups or rows is the very value of :func:`evaluate_ranking` on all rows:
    NDCG, MAP, MRR and recall, ``gauc``, ``log_loss``, and the counts. Three are means over the
    parts instead, weighted by rows, and so say how well a ranker does inside a part: ``auc``;
    ``normalised_entropy``, where 1 is what knowing every part's own rate gives; and
    ``expected_calibration_error``, which chance makes larger the smaller the parts are.

    Args:
        parts: reports of :func:`evaluate_ranking`; one part comes back as it is.
    """
    if len(parts) == 1:
        return dict(parts[0])
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {name: _pooled(name, parts) for name in names}


def _pooled(name: str, parts: Sequence[Mapping[str, float]]) -> float:
    if name in _SUMS:
        return float(sum(part.get(name, 0.0) for part in parts))
    if name == "normalised_entropy":
        known = [part for part in parts if math.isfinite(part.get(name, math.nan))]
        entropies = [{**part, "entropy": part["log_loss"] / part[name]} for part in known]
        return _mean("log_loss", "rows", known) / _mean("entropy", "rows", entropies)
    if name.split("_at_")[0] in _OF_GROUPS:
        return _mean(name, "groups", parts)
    return _mean(name, "rows_counted" if name == "gauc" else "rows", parts)


def _mean(name: str, weight: str, parts: Sequence[Mapping[str, float]]) -> float:
    """Weighted mean over the parts that know ``name``; NaN without any."""
    known = [part for part in parts if math.isfinite(part.get(name, math.nan))]
    weights = [part[weight] for part in known]
    if not sum(weights):
        return math.nan
    return float(np.average([part[name] for part in known], weights=weights))
