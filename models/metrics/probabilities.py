"""Metrics of probabilities, and of one order of all rows."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.metrics.groups import Floats, binary, checked_rows

__all__ = [
    "CalibrationCurve",
    "auc",
    "calibration_sums",
    "calibration_sums_curve",
    "expected_calibration_error",
    "log_loss",
    "normalised_entropy",
    "reliability_curve",
]

_LOGITS: Final = np.linspace(-12, 12, 241)
"""Bounds of the fine bins of :func:`calibration_sums`: a tenth of a logit apart."""


class CalibrationCurve(NamedTuple):
    """Per non-empty bin: mean probability, share of positives, rows."""

    predicted: Floats
    observed: Floats
    rows: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean distance of predicted from observed rate, weighted by rows; NaN without a bin."""
        if not len(self.rows):
            return float("nan")
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.rows))


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve, ties at their mid-rank; NaN where there is one class only."""
    y, s = checked_rows(labels, scores)
    binary(y)
    positives = float(y.sum())
    negatives = len(y) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    order = np.argsort(s)
    ranked = s[order]
    first = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    sizes = np.diff(np.append(first, len(s)))
    # A block of ties that starts at 0-based `first` has the mean 1-based rank first + (size+1)/2.
    hits = np.add.reduceat(y[order], first)
    rank_sum = float(np.dot(hits, first + (sizes + 1) / 2))
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _probable(probabilities: Floats) -> None:
    if len(probabilities) and (probabilities.min() < 0 or probabilities.max() > 1):
        low, high = probabilities.min(), probabilities.max()
        raise ValueError(f"probabilities lie in [{low}, {high}], not in [0, 1]")


def log_loss(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> float:
    """Mean negative log likelihood, of rows that weigh ``weights``; probabilities are clipped to
    the machine epsilon from 0, 1."""
    y, p = checked_rows(labels, probabilities)
    binary(y)
    if not len(y):
        return float("nan")
    _probable(p)
    edge = np.finfo(np.float64).eps
    p = np.clip(p, edge, 1 - edge)
    likelihood = np.where(y == 1, np.log(p), np.log1p(-p))
    if weights is not None:
        return float(-np.average(likelihood, weights=np.asarray(weights, dtype=np.float64)))
    return float(-np.mean(likelihood))


def normalised_entropy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Log loss over the entropy of the labels' own rate: 1 is what knowing that rate alone gives,
    and smaller is better; NaN where there is one class only, or no row.

    He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014, equation 1.
    """
    y, p = checked_rows(labels, probabilities)
    loss = log_loss(y, p)
    rate = float(y.mean()) if len(y) else float("nan")
    if not 0 < rate < 1:
        return float("nan")
    return loss / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def reliability_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> CalibrationCurve:
    """Predicted against observed rate in ``bins`` bins of equal row counts, ties kept together."""
    y, p = checked_rows(labels, probabilities)
    binary(y)
    if bins < 1:
        raise ValueError(f"{bins} bins; at least 1 is wanted")
    if not len(y):
        return CalibrationCurve(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64))
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    code = np.searchsorted(edges, p, side="left")
    rows = np.bincount(code, minlength=len(edges) + 1)
    used = rows > 0
    predicted = np.bincount(code, weights=p, minlength=len(rows))[used] / rows[used]
    observed = np.bincount(code, weights=y, minlength=len(rows))[used] / rows[used]
    return CalibrationCurve(predicted, observed, rows[used])


def expected_calibration_error(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> float:
    """Mean distance of predicted from observed rate over ``bins`` bins, weighted by their rows.

    The bins are those of :func:`reliability_curve`: quantiles of the probabilities, so of equal row
    counts, and no bin is decided by a few rows; ties stay together. Smaller is better, in units of
    probability; NaN without a row. Chance alone makes it positive: a calibrated model has about
    sqrt(2 r (1 - r) / (pi n)) a bin of n rows and rate r, so compare it on equally many rows only.

    Formula: Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian
    Binning, AAAI 2015, there with bins of equal width.

    Raises:
        ValueError: for probabilities outside [0, 1], labels other than 0 and 1, or no bin.
    """
    y, p = checked_rows(labels, probabilities)
    _probable(p)
    return reliability_curve(y, p, bins).error


def calibration_sums(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Floats:
    """Rows, sum of probabilities and sum of labels in fine bins of the logit, (242, 3).

    Those of parts of the rows add up to those of all, so a curve of any number of rows takes no
    more room than this; :func:`calibration_sums_curve` draws it.

    Raises:
        ValueError: for probabilities outside [0, 1], or labels other than 0 and 1.
    """
    y, p = checked_rows(labels, probabilities)
    binary(y)
    _probable(p)
    edges = 1 / (1 + np.exp(-_LOGITS))
    code, size = np.searchsorted(edges, p, side="left"), len(edges) + 1
    sums = (np.bincount(code, weights=w, minlength=size) for w in (np.ones(len(p)), p, y))
    return np.stack(list(sums), axis=1)


def calibration_sums_curve(sums: npt.ArrayLike, bins: int = 10) -> CalibrationCurve:
    """The curve of :func:`calibration_sums`, (242, 3): neighbouring fine bins in ``bins`` bins of
    about equal row counts. A fine bin is never split, so there may be fewer."""
    found = np.asarray(sums, dtype=np.float64)
    used = found[found[:, 0] > 0]
    if not len(used):
        return CalibrationCurve(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64))
    middle = np.cumsum(used[:, 0]) - used[:, 0] / 2
    code = np.minimum((middle / used[:, 0].sum() * bins).astype(np.int64), bins - 1)
    _, code = np.unique(code, return_inverse=True)
    rows, told, positives = (np.bincount(code, weights=column) for column in used.T)
    return CalibrationCurve(told / rows, positives / rows, rows.astype(np.int64))
