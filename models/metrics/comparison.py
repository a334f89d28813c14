"""Two rankers on the same groups: how sure a difference is, and how small a one would show."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.kernels import bootstrap_means

__all__ = [
    "Interval",
    "NormalInterval",
    "benjamini_hochberg",
    "holm",
    "interval_of_sums",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "paired_p_value",
]

_BLOCK: Final = 2048  # values; 16 KiB, half of a level-1 cache
_MAX_BLOCKS: Final = 1024
_RESAMPLES_AT_ONCE: Final = 64

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and the bounds of its bootstrap interval."""

    mean: float
    low: float
    high: float


class NormalInterval(NamedTuple):
    """A mean, the bounds of its interval by the normal distribution, and the p-value of 0."""

    mean: float
    low: float
    high: float
    p_value: float


def interval_of_sums(
    count: float, total: float, squares: float, level: float = 0.95
) -> NormalInterval:
    """The mean of values of which only their number, sum and sum of squares were kept.

    Sums of parts add up, so the values themselves need not be held. With hundreds of values it
    agrees with :func:`paired_bootstrap` and :func:`paired_p_value`. NaN without a value; with one
    only the mean is known.
    """
    if not count:
        return NormalInterval(math.nan, math.nan, math.nan, math.nan)
    mean = total / count
    if count < 2:
        return NormalInterval(mean, math.nan, math.nan, math.nan)
    variance = max(squares / count - mean**2, 0.0) * count / (count - 1)
    error = math.sqrt(variance / count)
    wide = NormalDist().inv_cdf((1 + level) / 2) * error
    return NormalInterval(mean, mean - wide, mean + wide, _two_sided(mean, error))


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
    values = _defined(differences)
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"{resamples} resamples at level {level}: wanted are >= 1 and (0, 1)")
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


def _defined(differences: npt.ArrayLike) -> Floats:
    """Differences of the groups that are not NaN."""
    values = np.ascontiguousarray(differences, dtype=np.float64).ravel()
    values = values[~np.isnan(values)]
    if np.isinf(values).any():
        raise ValueError("a difference is infinite; the mean of such groups says nothing")
    return values


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else float("nan")


def minimum_detectable_difference(
    differences: npt.ArrayLike, power: float = 0.8, level: float = 0.95
) -> float:
    """The smallest true difference that a two-sided test of these many groups would find.

    ``power`` is how often it would, at confidence ``level``; in units of the metric. Differences
    vary as these do: the paired standard error times the quantiles z((1 + level) / 2) + z(power) of
    the normal distribution, so 2.80 standard errors by default (Bloom, Minimum Detectable Effects,
    Evaluation Review 19(5), 1995). Groups that are NaN are left out; NaN with fewer than two.

    Raises:
        ValueError: for a power or level outside (0, 1), or infinite differences.
    """
    if not (0 < power < 1 and 0 < level < 1):
        raise ValueError(f"power {power} at level {level}: both must lie in (0, 1)")
    normal = NormalDist()
    quantiles = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
    return quantiles * _standard_error(_defined(differences))


def paired_p_value(differences: npt.ArrayLike) -> float:
    """Two-sided p-value of no mean difference, by the normal distribution of the paired mean.

    Groups that are NaN are left out. NaN with fewer than two; 1 where all differences are 0. With
    hundreds of groups it agrees with :func:`paired_bootstrap`: below 1 - level about when that
    interval leaves 0 out.

    Raises:
        ValueError: for infinite differences.
    """
    values = _defined(differences)
    error = _standard_error(values)
    if math.isnan(error):
        return float("nan")
    return _two_sided(float(values.mean()), error)


def _two_sided(mean: float, error: float) -> float:
    if error == 0:
        return 0.0 if mean else 1.0
    return math.erfc(abs(mean) / error / math.sqrt(2))


def holm(p_values: npt.ArrayLike) -> Floats:
    """P-values (M,) adjusted for M comparisons; those below a are significant together at a.

    The chance that any of them is a false alarm stays below a, however they depend on each other:
    for deciding whether one of many candidates may be promoted. Holm, A Simple Sequentially
    Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6(2), 1979.

    Raises:
        ValueError: for a value outside [0, 1], or NaN.
    """
    p, order = _ascending(p_values)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(np.minimum(p * np.arange(len(p), 0, -1), 1.0))
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    """P-values (M,) adjusted so that of those below a, a share of a is expected to be false alarms.

    For looking through many segments or features, where some false alarms may be had: it finds more
    than :func:`holm`. Holds for independent or positively dependent comparisons, as segments of the
    same rankers are. Benjamini and Hochberg, Controlling the False Discovery Rate, Journal of the
    Royal Statistical Society B 57(1), 1995.

    Raises:
        ValueError: for a value outside [0, 1], or NaN.
    """
    p, order = _ascending(p_values)
    scaled = p * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def _ascending(p_values: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    values = np.asarray(p_values, dtype=np.float64).ravel()
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        raise ValueError(f"a p-value is {values[wrong][0]}; it must lie in [0, 1]")
    order = np.argsort(values, kind="stable")
    return values[order], order
