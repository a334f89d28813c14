"""Ranking and probability metrics: pure functions on numpy arrays; larger is better, but for loss.

A group is what is ranked together. Groups are given as int64 codes (see :func:`group_codes`) or as
strings; rows of a group need not be neighbours. No argument is changed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.kernels import auc_kernel, bootstrap_means, group_order, ndcg_kernel

__all__ = [
    "CalibrationCurve",
    "GroupValues",
    "Interval",
    "auc",
    "evaluate_ranking",
    "expected_calibration_error",
    "gauc",
    "group_auc",
    "group_codes",
    "log_loss",
    "ndcg_at_k",
    "ndcg_at_ks",
    "normalised_entropy",
    "paired_bootstrap",
    "reliability_curve",
]

_BLOCK: Final = 2048  # values; 16 KiB, half of a level-1 cache
_MAX_BLOCKS: Final = 1024
_RESAMPLES_AT_ONCE: Final = 64

Floats = npt.NDArray[np.float64]
Column: TypeAlias = npt.NDArray[Any] | pa.Array | pa.ChunkedArray | Sequence[str]


class GroupValues(NamedTuple):
    """One value a group: ``values`` (G,) or (G, K), ``groups`` (G,) ids, ``sizes`` (G,) rows."""

    values: Floats
    groups: npt.NDArray[np.generic]
    sizes: npt.NDArray[np.int64]


class Interval(NamedTuple):
    """A mean and the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float


class CalibrationCurve(NamedTuple):
    """Per non-empty bin: mean probability, share of positives, rows."""

    predicted: Floats
    observed: Floats
    rows: npt.NDArray[np.int64]


def group_codes(*columns: Column) -> npt.NDArray[np.int64]:
    """Codes 0 .. G-1, one a distinct combination of the columns' values, by first appearance.

    Columns are combined as columns: ("a", "bc") and ("ab", "c") stay two groups. A null is a value
    of its own.

    Raises:
        ValueError: without columns, or for columns of different lengths.
    """
    if not columns:
        raise ValueError("group_codes needs at least one column")
    codes, _ = _encode(columns[0])
    for column in columns[1:]:
        more, more_count = _encode(column)
        if len(more) != len(codes):
            raise ValueError(f"columns of {len(codes)} and {len(more)} rows cannot be combined")
        codes, _ = _encode(codes * np.int64(max(more_count, 1)) + more)
    return codes


def _encode(column: Column) -> tuple[npt.NDArray[np.int64], int]:
    """Dense codes by first appearance, and how many there are."""
    values = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
    if isinstance(values, pa.Array):
        values = pa.chunked_array([values])
    if len(values) == 0:
        return np.empty(0, dtype=np.int64), 0
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    encoded = values.dictionary_encode(null_encoding="encode").combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    codes = pc.cast(encoded.indices, pa.int64()).to_numpy(zero_copy_only=False)
    return codes, len(encoded.dictionary)


def _floats(values: npt.ArrayLike, what: str) -> Floats:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} have shape {array.shape}; one value a row is wanted")
    if np.isnan(array).any():
        count = int(np.isnan(array).sum())
        raise ValueError(f"{count} of {len(array)} {what} are NaN; leave those rows out first")
    return array


def _rows(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | None = None
) -> tuple[Floats, Floats]:
    y, s = _floats(labels, "labels"), _floats(scores, "scores")
    lengths = [len(y), len(s), *([len(groups)] if groups is not None else [])]
    if len(set(lengths)) > 1:
        raise ValueError(f"labels, scores and groups have {lengths} rows; they must be equal")
    return y, s


class _Grouped(NamedTuple):
    """Rows brought together by group: ``order`` (N,), ``starts`` (G + 1,), ``ids`` (G,)."""

    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    ids: npt.NDArray[np.generic]


def _grouped(groups: Column) -> _Grouped:
    if isinstance(groups, np.ndarray) and groups.dtype.kind in "iu":
        numbers = np.ascontiguousarray(groups, dtype=np.int64)
        top = int(numbers.max()) + 1 if len(numbers) else 0
        if len(numbers) and int(numbers.min()) >= 0 and top <= 2 * len(numbers) + 1024:
            order, starts = group_order(numbers, top)
            used = np.flatnonzero(np.diff(starts))
            return _Grouped(order, np.append(starts[used], np.int64(len(numbers))), used)
    codes, count = _encode(groups)
    order, starts = group_order(codes, count)
    first = order[starts[:-1]]
    ids = groups[first] if isinstance(groups, np.ndarray) else _take(groups, first)
    return _Grouped(order, starts, ids)


def _take(
    groups: pa.Array | pa.ChunkedArray | Sequence[str], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.generic]:
    values = groups if isinstance(groups, pa.Array | pa.ChunkedArray) else pa.array(groups)
    taken: npt.NDArray[np.generic] = np.asarray(values.take(pa.array(rows)).to_pylist())
    return taken


def ndcg_at_ks(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column, ks: Sequence[int]
) -> GroupValues:
    """NDCG at every cut-off of ``ks``: values (G, K) over one sort of each group.

    The gain of a row is its label (at least 0), its discount 1 / log2(1 + rank); the ideal order
    is by label. Rows with equal scores share the mean of the discounts of the ranks that they
    occupy, which is the expected value over all orders of the tie (McSherry and Najork, 2008).
    A group whose labels are all equal is NaN: every order of it is as good as any other.

    Raises:
        ValueError: for NaN, a negative label, a cut-off below 1, or lengths that differ.
    """
    y, s = _rows(labels, scores, groups)
    if not ks or min(ks) < 1:
        raise ValueError(f"cut-offs {list(ks)} must be at least 1")
    if len(y) and y.min() < 0:
        raise ValueError(f"a label is {y.min()}; gains must not be negative")
    order, starts, ids = _grouped(groups)
    values = ndcg_kernel(y, s, order, starts, np.asarray(ks, dtype=np.int64))
    return GroupValues(values, ids, np.diff(starts))


def ndcg_at_k(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column, k: int) -> GroupValues:
    """NDCG at ``k``, values (G,); see :func:`ndcg_at_ks`."""
    found = ndcg_at_ks(labels, scores, groups, (k,))
    return found._replace(values=found.values[:, 0])


def group_auc(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column) -> GroupValues:
    """Area under the ROC curve inside each group, (G,); NaN where a group has one class only."""
    y, s = _rows(labels, scores, groups)
    _binary(y)
    order, starts, ids = _grouped(groups)
    return GroupValues(auc_kernel(y, s, order, starts), ids, np.diff(starts))


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column) -> float:
    """Mean AUC of the groups that have both labels, weighted by their rows; NaN without any."""
    found = group_auc(labels, scores, groups)
    return _weighted(found.values, found.sizes)


def _weighted(values: Floats, sizes: npt.NDArray[np.int64]) -> float:
    there = ~np.isnan(values)
    if not there.any():
        return float("nan")
    return float(np.average(values[there], weights=sizes[there]))


def _binary(labels: Floats) -> None:
    if not ((labels == 0) | (labels == 1)).all():
        odd = labels[(labels != 0) & (labels != 1)][0]
        raise ValueError(f"a label is {odd}; AUC and log loss want 0 and 1")


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve, ties at their mid-rank; NaN where there is one class only."""
    y, s = _rows(labels, scores)
    _binary(y)
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
    y, p = _rows(labels, probabilities)
    _binary(y)
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
    y, p = _rows(labels, probabilities)
    loss = log_loss(y, p)
    rate = float(y.mean()) if len(y) else float("nan")
    if not 0 < rate < 1:
        return float("nan")
    return loss / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def reliability_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 10
) -> CalibrationCurve:
    """Predicted against observed rate in ``bins`` bins of equal row counts, ties kept together."""
    y, p = _rows(labels, probabilities)
    _binary(y)
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
    y, p = _rows(labels, probabilities)
    _probable(p)
    curve = reliability_curve(y, p, bins)
    if not len(y):
        return float("nan")
    return float(np.average(np.abs(curve.predicted - curve.observed), weights=curve.rows))


def paired_bootstrap(
    differences: npt.ArrayLike, seed: int, resamples: int = 1000, level: float = 0.95
) -> Interval:
    """Mean of per-group differences and its percentile bootstrap interval.

    Each of the ``resamples`` draws as many groups as there are, uniformly and with replacement,
    and takes their mean; the bounds are the (1 - level) / 2 quantiles of those means. Groups that
    are NaN (undefined) are left out before. NaN throughout without any group.

    How it is drawn: how many draws fall into each block of neighbouring values is multinomial, and
    inside a block they are uniform; together that is exactly the plain bootstrap, but the values
    are read from the processor's cache. Memory: one copy of the differences, and at most 1,024
    counts a resample.

    Raises:
        ValueError: for fewer than 1 resample, a level outside (0, 1), or infinite differences.
    """
    values = np.ascontiguousarray(differences, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"{resamples} resamples at level {level}: wanted are >= 1 and (0, 1)")
    if np.isinf(values).any():
        raise ValueError("a difference is infinite; the mean of such groups says nothing")
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    means = _resampled_means(values, seed, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def _resampled_means(values: Floats, seed: int, resamples: int) -> Floats:
    block = max(_BLOCK, -(-len(values) // _MAX_BLOCKS))
    sizes = np.full(-(-len(values) // block), block)
    sizes[-1] = len(values) - block * (len(sizes) - 1)
    rng = np.random.default_rng(seed)
    stream = np.uint64(rng.integers(2**63))

    def part(first: int, counts: npt.NDArray[np.int64]) -> Floats:
        return bootstrap_means(values, counts, block, stream, first)

    # The compiled loop holds no lock, so parts run on every core; each has its own streams.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        parts = []
        for first in range(0, resamples, _RESAMPLES_AT_ONCE):
            many = min(_RESAMPLES_AT_ONCE, resamples - first)
            counts = rng.multinomial(len(values), sizes / len(values), size=many)
            parts.append(pool.submit(part, first, counts))
        return np.concatenate([item.result() for item in parts])


def evaluate_ranking(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Column,
    ks: Sequence[int] = (1, 3, 5, 10),
    probabilities: bool = True,
) -> dict[str, float]:
    """The usual report of binary ``labels``: means over the groups whose labels are not all equal.

    Keys: ``ndcg_at_<k>``, ``auc``, ``gauc``, ``rows``, ``positives``, ``groups`` (those counted),
    ``groups_excluded``, and ``log_loss``, ``normalised_entropy`` and
    ``expected_calibration_error`` where every score lies in [0, 1]. Scores that are no
    ``probabilities`` of these labels may do so by chance, and have none.
    """
    y, s = _rows(labels, scores, groups)
    _binary(y)
    order, starts, _ = _grouped(groups)
    ndcg = ndcg_kernel(y, s, order, starts, np.asarray(ks, dtype=np.int64))
    counted = ~np.isnan(ndcg[:, 0])
    report = {
        f"ndcg_at_{k}": float(ndcg[counted, i].mean()) if counted.any() else float("nan")
        for i, k in enumerate(ks)
    }
    report["auc"] = auc(y, s)
    report["gauc"] = _weighted(auc_kernel(y, s, order, starts), np.diff(starts))
    if probabilities and len(s) and s.min() >= 0 and s.max() <= 1:
        report["log_loss"] = log_loss(y, s)
        report["normalised_entropy"] = normalised_entropy(y, s)
        report["expected_calibration_error"] = expected_calibration_error(y, s)
    report["rows"] = float(len(y))
    report["positives"] = float(y.sum())
    report["groups"] = float(counted.sum())
    report["groups_excluded"] = float((~counted).sum())
    return report
