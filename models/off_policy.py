"""What another ranking policy would have earned, told from the log of the policy that served.

A row of the log is an action (an item, at a position), its reward, and the probability ``logged``
that the serving policy had of it; ``target`` is the probability that the policy to be judged has of
the same action in the same place. :func:`weigh` refuses what cannot be weighed and says how well
the two policies overlap; the estimators take what it returns:

    log = weigh(clicks, logged, target, requests)
    ips(log, seed=1), snips(log, seed=1), doubly_robust(log, predicted, expected, seed=1)

A value is the expected reward of a row (an impression), or, by :func:`item_position_ips`, of a
request. Rows of one request are drawn together in the intervals.

Every estimate here is a ratio of sums over requests, sum(a) / sum(b). Its interval is that of
:func:`models.metrics.paired_bootstrap` over the terms v + (a - v b) / mean(b), whose mean is the
estimate v itself: exact resampling where b is constant, and the delta method otherwise (Owen, Monte
Carlo theory, methods and examples, 2013, section 9.2, equations 9.8 and 9.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.errors import ModelError
from models.metrics import group_codes, paired_bootstrap
from models.metrics.groups import Column, Floats

__all__ = [
    "Estimate",
    "Overlap",
    "OverlapRule",
    "PropensityError",
    "WeightedLog",
    "doubly_robust",
    "effective_size",
    "ips",
    "item_position_ips",
    "snips",
    "weigh",
]

Level: TypeAlias = Literal["good", "poor", "unusable"]
Values: TypeAlias = npt.ArrayLike | pa.Array | pa.ChunkedArray

_STANDARD_ERRORS: Final = 4.0  # a mean weight further from 1 than this is no chance
_ROUNDING: Final = 1e-6  # that a probability may exceed 1 by: sums of 32-bit numbers do


class PropensityError(ModelError):
    """Rows that no off-policy estimate can be made of; the message says which, and what to do."""


@dataclass(frozen=True)
class OverlapRule:
    """When overlap is called poor, and when unusable: (poor, unusable) bounds.

    They are conventions of this project, not of the literature; ``off_policy_coverage`` among the
    benchmarks shows what the intervals are worth on either side of them.

    Attributes:
        effective_rows: fewer effective rows than this.
        effective_share: a smaller share of effective rows in all rows than this.
        largest_share: a row that carries more than this share of all weight.
        effective_rewards: fewer effective rewarded rows than this.
    """

    effective_rows: tuple[float, float] = (1000.0, 100.0)
    effective_share: tuple[float, float] = (0.05, 0.005)
    largest_share: tuple[float, float] = (0.01, 0.1)
    effective_rewards: tuple[float, float] = (30.0, 10.0)


class Overlap(NamedTuple):
    """How much of the target policy the log can speak of.

    Attributes:
        level: ``good``, ``poor`` (read the intervals with care) or ``unusable`` (do not read them).
        warning: a sentence for whoever reads the estimate; empty where the level is good.
        rows: N.
        effective_rows: Kish's effective size of the weights; see :func:`effective_size`.
        effective_share: of N.
        largest_share: of the sum of the weights, in one row.
        effective_rewards: the effective size of the weighted rewards: how many rewarded rows speak.
        mean_weight: before clipping; 1 in expectation where the log covers the target policy.
        zero_share: of rows that the target policy would never show.
        clipped_share: of rows whose weight was clipped.
    """

    level: Level
    warning: str
    rows: int
    effective_rows: float
    effective_share: float
    largest_share: float
    effective_rewards: float
    mean_weight: float
    zero_share: float
    clipped_share: float


class Estimate(NamedTuple):
    """The value of the target policy, the bounds of its interval, and how far to trust them."""

    estimator: str
    value: float
    low: float
    high: float
    overlap: Overlap


@dataclass(frozen=True)
class WeightedLog:
    """N rows ready to be estimated from; made by :func:`weigh`.

    Attributes:
        rewards: (N,).
        weights: (N,) target / logged, clipped where it was asked for.
        requests: (N,) codes 0 .. R-1; a row of its own each where the log has no requests.
        overlap: how well the policies overlap.
    """

    rewards: Floats
    weights: Floats
    requests: npt.NDArray[np.int64]
    overlap: Overlap


def effective_size(weights: npt.ArrayLike) -> float:
    """(sum |w|)^2 / sum w^2: of how many equally weighted rows the variance is; 0 where all are 0.

    Kish, Survey Sampling, 1965, section 11.7.
    """
    w = np.abs(np.asarray(weights, dtype=np.float64))
    largest = float(w.max(initial=0.0))
    if largest == 0:
        return 0.0
    w = w / largest  # squares of tiny weights would vanish
    return float(w.sum() ** 2 / np.dot(w, w))


def weigh(
    rewards: Values,
    logged: Values,
    target: Values,
    requests: Column | None = None,
    clip: float | None = None,
    rule: OverlapRule | None = None,
) -> WeightedLog:
    """The importance weights target / logged of N rows, and what they are worth.

    Args:
        rewards: (N,) finite; clicks, or an amount.
        logged: (N,) probabilities in (0, 1] that the serving policy had of what it showed.
        target: (N,) probabilities in [0, 1] that the judged policy has of the same.
        requests: (N,) whose rows belong together; without them each row stands alone.
        clip: the largest weight allowed (truncated importance sampling: Ionides, Journal of
            Computational and Graphical Statistics 17, 2008). It lowers the variance and, where
            rewards are not negative, draws the estimate of IPS down.
        rule: when overlap is called poor.

    Raises:
        PropensityError: for no rows, lengths that differ, anything null or not finite, a
            probability out of range, a clip that is not positive, or a target policy that would
            show none of the rows.
    """
    r, p, q = (
        _finite(column, name)
        for column, name in ((rewards, "rewards"), (logged, "logged"), (target, "target"))
    )
    codes = np.arange(len(r)) if requests is None else _request_codes(requests)
    lengths = [len(r), len(p), len(q), len(codes)]
    if len(set(lengths)) > 1 or not len(r):
        raise PropensityError(
            f"rewards, logged, target and requests have {lengths} rows; give one of each a row, "
            "and at least one row"
        )
    _check_probabilities(p, q)
    with np.errstate(over="ignore"):  # refused below
        raw = q / p
    if clip is not None and not clip > 0:
        raise PropensityError(f"clip is {clip}; give the largest weight allowed, above 0, or None")
    weights = raw if clip is None else np.minimum(raw, clip)
    if not np.isfinite(raw.sum()) or raw.sum() == 0:
        raise PropensityError(
            f"the weights of {len(raw)} rows add up to {raw.sum()}: the log says nothing about "
            "the target policy; judge one that shows what was shown, or log with exploration"
        )
    found = _overlap(r, raw, weights, q, codes, rule or OverlapRule())
    return WeightedLog(r, weights, codes, found)


def _request_codes(requests: Column) -> npt.NDArray[np.int64]:
    column = requests if isinstance(requests, pa.Array | pa.ChunkedArray) else pa.array(requests)
    if column.null_count:
        raise PropensityError(
            f"requests is null in {column.null_count} of {len(column)} rows; name each row's "
            "request, or give none where rows stand alone"
        )
    return group_codes(column)


def _finite(column: Values, name: str) -> Floats:
    """The column as (N,) floats; a null or anything not finite is refused."""
    if isinstance(column, pa.Array | pa.ChunkedArray):
        values = np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    else:
        values = np.asarray(column, dtype=np.float64)
    if values.ndim != 1:
        raise PropensityError(f"{name} has shape {values.shape}; give one value a row")
    odd = ~np.isfinite(values)
    if odd.any():
        raise PropensityError(
            f"{name} is null or not finite in {odd.sum()} of {len(values)} rows, first in row "
            f"{int(np.argmax(odd))}: {values[np.argmax(odd)]}; leave out the requests of such rows "
            "where they are missing by chance, or have the serving policy log its propensities"
        )
    return values


def _check_probabilities(logged: Floats, target: Floats) -> None:
    shown = (
        "what was shown had a chance in (0, 1]: log the probability of the action as served; "
        "a rank or a score is none"
    )
    judged = "give the judged policy's probability of the shown action, in [0, 1]"
    for values, name, bad, remedy in (
        (logged, "logged", (logged <= 0) | (logged > 1 + _ROUNDING), shown),
        (target, "target", (target < 0) | (target > 1 + _ROUNDING), judged),
    ):
        if bad.any():
            raise PropensityError(
                f"{name} is {values[bad][0]} in {bad.sum()} of {len(values)} rows, first in row "
                f"{int(np.argmax(bad))}; {remedy}"
            )


def _overlap(
    rewards: Floats, raw: Floats, weights: Floats, target: Floats,
    requests: npt.NDArray[np.int64], rule: OverlapRule,
) -> Overlap:  # fmt: skip
    rows = len(raw)
    effective = effective_size(weights)
    numbers = {
        "effective_rows": effective,
        "effective_share": effective / rows,
        "largest_share": float(weights.max() / weights.sum()),
        "effective_rewards": effective_size(weights * rewards),
    }
    level, reasons = _judged(numbers, rule)
    mean = float(raw.mean())
    off = np.bincount(requests, raw - mean)
    error = float(np.sqrt(np.dot(off, off))) / rows
    if abs(mean - 1) > _STANDARD_ERRORS * error + 1e-9:
        level = "poor" if level == "good" else level
        reasons.append(
            f"the weights average {mean:.3f} and not 1 (standard error {error:.3f}): the target "
            "policy shows what the log cannot, or the propensities are wrong"
        )
    return Overlap(
        level,
        _sentence(level, reasons),
        rows,
        mean_weight=mean,
        zero_share=float((target == 0).mean()),
        clipped_share=float((weights < raw).mean()),
        **numbers,
    )


def _judged(numbers: dict[str, float], rule: OverlapRule) -> tuple[Level, list[str]]:
    """The worst level that a number has, and a reason for each that is not good."""
    words = {
        "effective_rows": "only {:,.0f} effective rows, and {:,.0f} are wanted",
        "effective_share": "only {:.2%} of the rows count, and {:.1%} are wanted",
        "largest_share": "one row carries {:.1%} of the weight, and {:.1%} is the most wanted",
        "effective_rewards": "only {:,.1f} effective rewarded rows, and {:,.0f} are wanted",
    }
    level: Level = "good"
    reasons = []
    for name, text in words.items():
        sign = -1.0 if name == "largest_share" else 1.0
        poor, unusable = getattr(rule, name)
        if sign * numbers[name] < sign * poor:
            reasons.append(text.format(numbers[name], poor))
            worse = sign * numbers[name] < sign * unusable
            level = "unusable" if worse or level == "unusable" else "poor"
    return level, reasons


def _sentence(level: Level, reasons: list[str]) -> str:
    if level == "good":
        return ""
    advice = {
        "poor": "read the interval with care, beside another estimator",
        "unusable": "do not decide by this estimate: log more exploration, or test online",
    }[level]
    return f"The overlap with the log is {level}: {'; '.join(reasons)}; {advice}."


def ips(log: WeightedLog, seed: int, resamples: int = 1000, level: float = 0.95) -> Estimate:
    """Inverse propensity scoring, mean(w r): unbiased without a clip, where the log covers the
    target policy.

    Horvitz and Thompson, Journal of the American Statistical Association 47, 1952; for policies:
    Dudik, Langford and Li, Doubly Robust Policy Evaluation and Learning, ICML 2011, section 2.
    """
    ones = np.ones(len(log.rewards))
    return _estimate("ips", log, log.weights * log.rewards, ones, seed, resamples, level)


def snips(log: WeightedLog, seed: int, resamples: int = 1000, level: float = 0.95) -> Estimate:
    """Self-normalised IPS, sum(w r) / sum(w): a little biased, never outside the rewards' range,
    and untouched when a constant is added to all rewards.

    Swaminathan and Joachims, The Self-Normalized Estimator for Counterfactual Learning, NIPS 2015,
    section 4. Interval: the delta method; see the module.
    """
    weighted = log.weights * log.rewards
    return _estimate("snips", log, weighted, log.weights, seed, resamples, level)


def doubly_robust(
    log: WeightedLog,
    predicted: Values,
    expected: Values,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """mean(expected + w (r - predicted)): right where the propensities or the predictions are.

    Dudik, Langford and Li, Doubly Robust Policy Evaluation and Learning, ICML 2011, section 3.

    Args:
        log: from :func:`weigh`.
        predicted: (N,) predicted rewards q(x, a) of the logged actions, each by a model that was
            not fitted on the row's request (cross-fitting: Chernozhukov et al., Econometrics
            Journal 21, 2018); otherwise the interval is too narrow.
        expected: (N,) of the same model, sum over a of target(a | x) q(x, a), all actions.
        seed: of the resampling.
        resamples: of the bootstrap.
        level: of the interval.

    Raises:
        PropensityError: for predictions that are not finite, or not one a row.
    """
    q, mean = _finite(predicted, "predicted"), _finite(expected, "expected")
    if not len(q) == len(mean) == len(log.rewards):
        raise PropensityError(
            f"predicted and expected have {len(q)} and {len(mean)} rows, the log has "
            f"{len(log.rewards)}; give one of each a row of the log"
        )
    terms = mean + log.weights * (log.rewards - q)
    return _estimate("doubly_robust", log, terms, np.ones(len(terms)), seed, resamples, level)


def item_position_ips(
    log: WeightedLog, seed: int, resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """The reward of a whole request, by IPS for each item at its position: the sum of w r over the
    request's rows, averaged over requests.

    Unbiased where a reward depends on the item and its position and not on the rest of the slate
    (the item-position model): Li et al., Offline Evaluation of Ranking Policies with Click Models,
    KDD 2018, section 4. The probabilities are those of the item at that position.
    """
    rows_beside = np.bincount(log.requests)[log.requests]
    weighted = log.weights * log.rewards
    return _estimate("item_position_ips", log, weighted, 1 / rows_beside, seed, resamples, level)


def _estimate(
    name: str, log: WeightedLog, above: Floats, below: Floats, seed: int, resamples: int,
    level: float,
) -> Estimate:  # fmt: skip
    """sum(above) / sum(below) over rows, (N,) each, and its interval over requests."""
    value = float(above.sum() / below.sum())
    parts = np.bincount(log.requests, above), np.bincount(log.requests, below)
    terms = value + (parts[0] - value * parts[1]) / parts[1].mean()
    _, low, high = paired_bootstrap(terms, seed, resamples, level)
    return Estimate(name, value, low, high, log.overlap)
