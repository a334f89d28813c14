"""Whom a ranker shows: the exposure of rows and of targets, and how it is spread.

Rows are ranked inside their group. Rows of equal scores have no order: what is said of them is the
expected value over all orders of the ties, each being as likely as any other, as in
:mod:`models.metrics.ranking`. Targets (an item, a host) are seen in many groups; what they got is
summed by their id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.metrics.groups import Column, Floats, Groups, Ints, checked_floats, grouped, over_groups
from models.metrics.ranking_kernels import places_kernel

__all__ = [
    "ExposureSums",
    "coverage",
    "exposures",
    "first_places",
    "gini",
    "logged_exposures",
    "popularity_lift",
    "tail",
    "tail_share",
]

Bools = npt.NDArray[np.bool_]
_T = TypeVar("_T", bound=np.generic)


def exposures(scores: npt.ArrayLike, groups: Column | Groups, k: int | None = None) -> Floats:
    """The exposure of every row, (N,), when its group is ordered by score, the largest first.

    A row on rank r gets 1 / log2(1 + r), and none beyond rank ``k``: Singh and Joachims, Fairness
    of Exposure in Rankings, KDD 2018, section 3. Rows with equal scores share the mean of the
    exposures of the ranks that they occupy.

    Raises:
        ValueError: for NaN, a cut-off below 1, or lengths that differ.
    """
    s, by = _ranked(scores, groups)
    above, equal = _places(s, by)
    longest = int(by.sizes.max(initial=0))
    summed = np.zeros(longest + 1)
    np.cumsum(1 / np.log2(np.arange(longest) + 2.0), out=summed[1:])
    cut = longest if k is None else min(_cut_off(k), longest)
    shared: Floats = summed[np.minimum(above + equal, cut)] - summed[np.minimum(above, cut)]
    return shared / equal


def first_places(scores: npt.ArrayLike, groups: Column | Groups, k: int) -> Floats:
    """The chance of every row, (N,), to be among the first ``k`` of its group.

    Of t tied rows of which only m find a place there, each has the chance m / t.

    Raises:
        ValueError: as :func:`exposures`.
    """
    s, by = _ranked(scores, groups)
    above, equal = _places(s, by)
    chances: Floats = np.clip(_cut_off(k) - above, 0, equal) / equal
    return chances


def logged_exposures(
    positions: npt.ArrayLike, groups: Column | Groups, k: int | None = None
) -> Floats:
    """The exposure of every row, (N,), in the order in which its group was served.

    Positions (1 is the top; NaN is unknown) only order the rows: a group on a second page hands out
    the same places as one on the first, and as every ranker of it. A group of which any position is
    unknown is NaN.

    Raises:
        ValueError: for a cut-off below 1, or lengths that differ.
    """
    served = np.asarray(positions, dtype=np.float64)
    by = grouped(groups)
    found = exposures(np.where(np.isnan(served), np.inf, -served), by, k)
    unknown = _summed(np.isnan(served).astype(np.float64), by) > 0
    found[_spread(unknown, by)] = np.nan
    return found


def gini(values: npt.ArrayLike) -> float:
    """The Gini coefficient of what targets got, (T,): 0 where all got the same, 1 - 1 / T where one
    got everything.

    2 sum(i x_i) / (T sum(x)) - (T + 1) / T with x ascending, i from 1: half of the mean absolute
    difference over the mean (Gini, 1912). NaN without a target, or where nobody got anything.

    Raises:
        ValueError: for a value that is NaN, infinite or negative.
    """
    x = np.sort(_amounts(values, "values"))
    total, count = float(x.sum()), len(x)
    if total == 0:
        return math.nan
    weighted = float(np.arange(1, count + 1) @ (x / total))
    return max(2 * weighted / count - (count + 1) / count, 0.0)


def tail(popularity: npt.ArrayLike, share: float = 0.2) -> Bools:
    """Which targets are the tail, (T,): the least popular ones that together hold at most ``share``
    of all popularity.

    Of equally popular targets, those that are given first come into the tail first: give them in an
    order that means nothing and stays the same, such as that of their ids. A target without any
    popularity is always in the tail.

    Raises:
        ValueError: for a popularity that is NaN, infinite or negative, or a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the tail's share is {share}; it must lie in [0, 1]")
    p = _amounts(popularity, "popularities")
    order = np.argsort(p, kind="stable")
    held = np.cumsum(p[order])
    # .29 x 100 is below 29: what is rounded away must not keep a target out.
    limit = share * held[-1] * (1 + 1e-12) if len(p) else 0.0
    mask = np.zeros(len(p), dtype=np.bool_)
    mask[order] = held <= limit
    return mask


def tail_share(exposure: npt.ArrayLike, mask: npt.ArrayLike) -> float:
    """The share of all exposure that the targets of ``mask`` got; both (T,). NaN without any.

    Raises:
        ValueError: for an exposure that is NaN, infinite or negative, or lengths that differ.
    """
    got, inside = _amounts(exposure, "exposures"), np.asarray(mask, dtype=np.bool_)
    _same_length(exposures=len(got), mask=len(inside))
    total = float(got.sum())
    return float(got[inside].sum()) / total if total else math.nan


def coverage(first: npt.ArrayLike, at_least: float = 0.0) -> float:
    """The share of targets that are ever among the first; NaN without a target.

    Args:
        first: (T,) sums of a target's chances to be among the first, as of :func:`first_places`.
        at_least: how much of it a target needs; at 0, any above 0.

    Raises:
        ValueError: for a chance that is NaN, infinite or negative.
    """
    chances = _amounts(first, "chances")
    if not len(chances):
        return math.nan
    return float(np.mean(chances >= at_least if at_least > 0 else chances > 0))


def popularity_lift(
    exposure: npt.ArrayLike, popularity: npt.ArrayLike, groups: Column | Groups
) -> float:
    """How much more popular what is shown is than what there was to show; 1 where it is not.

    The mean over groups of the popularity weighted by exposure, over the mean over groups of the
    plain mean popularity. This is a definition of this project, after the popularity lift of
    Abdollahpouri et al., The Impact of Popularity Bias on Fairness and Calibration in
    Recommendation, 2019, which is a relative difference of two such means: there of a user's
    recommendations and profile, here of a group as it is ranked and as it is.

    A group without exposure is left out. NaN where no group, or no popularity, is left.

    Args:
        exposure, popularity: (N,), by row.

    Raises:
        ValueError: for a value that is NaN, infinite or negative, or lengths that differ.
    """
    e, p = _amounts(exposure, "exposures"), _amounts(popularity, "popularities")
    by = grouped(groups)
    _same_length(exposures=len(e), popularities=len(p), groups=by.rows)
    shown, offered = _weights(e, by)
    return _over(float(shown @ p), float(offered @ p))


_KEY: Final = "target"
_SCHEMA: Final = pa.schema(
    [
        pa.field(_KEY, pa.string()),
        pa.field("impressions", pa.int64()),
        pa.field("exposure", pa.float64()),
        pa.field("first", pa.float64()),
        pa.field("logged", pa.float64()),
        pa.field("shown", pa.float64()),
        pa.field("offered", pa.float64()),
    ]
)


@dataclass(frozen=True)
class ExposureSums:
    """What targets got over some hours. Sums of hours add up to the sums of all of them.

    Memory follows the number of distinct targets. A group must not be split over two parts.

    Attributes:
        table: one row per target, in the order of their ids: ``target``, ``impressions`` (its rows,
            which are its popularity), ``exposure``, ``first`` (chances to be among the first),
            ``logged`` (exposure in the order that was served; null where positions were never
            known), and what the popularity lift is made of: ``shown`` and ``offered``, the sums of
            its shares of a group's exposure and of a group's rows.
        first: how many ranks are the first ones.
        k: the last rank that is exposed; None for all.
    """

    table: pa.Table
    first: int
    k: int | None = None

    @classmethod
    def of(
        cls, targets: pa.Array | pa.ChunkedArray, scores: npt.ArrayLike, groups: Column | Groups,
        first: int = 10, k: int | None = None, positions: npt.ArrayLike | None = None,
    ) -> ExposureSums:  # fmt: skip
        """The sums of rows (N,) of whole groups.

        Args:
            targets: ids, texts without null.
            positions: where rows were served, see :func:`logged_exposures`; None where nobody
                knows.

        Raises:
            ValueError: for a null target, NaN scores, a cut-off below 1, or lengths that differ.
        """
        if targets.null_count:
            raise ValueError(f"{targets.null_count} of {len(targets)} targets are null; leave them "
                             "out first")  # fmt: skip
        s, by = _ranked(scores, groups)
        _same_length(targets=len(targets), scores=len(s))
        exposure = exposures(s, by, k)
        logged = np.full(len(s), np.nan)
        if positions is not None:
            logged = logged_exposures(positions, by, k)
        shown, offered = _weights(exposure, by)
        columns = [targets.cast(pa.string()), np.ones(len(s), np.int64), exposure,
                   first_places(s, by, first), pa.array(logged, from_pandas=True), shown,
                   offered]  # fmt: skip
        return cls(_by_target(pa.table(columns, schema=_SCHEMA)), first, k)

    def add(self, other: ExposureSums) -> ExposureSums:
        """The sums of both.

        Raises:
            ValueError: for sums of other cut-offs.
        """
        if (self.first, self.k) != (other.first, other.k):
            raise ValueError(
                f"sums with first {self.first} and k {self.k} cannot be added to those with first "
                f"{other.first} and k {other.k}; sum both with the same"
            )
        both = pa.concat_tables([self.table, other.table])
        return ExposureSums(_by_target(both), self.first, self.k)

    def summary(self, share: float = 0.2, at_least: float = 0.0) -> Mapping[str, float]:
        """``gini``, ``tail_share``, ``tail_share_logged``, ``coverage``, ``popularity_lift``: NaN
        where one is not known.

        Popularity is the impressions of these hours; all targets are those that have any. The tail
        in the order that was served is that of the groups whose positions are all known.

        Args:
            share: of popularity that the tail holds at most (see :func:`tail`).
            at_least: see :func:`coverage`.
        """
        impressions, exposure = self._column("impressions"), self._column("exposure")
        mask = tail(impressions, share)
        logged = np.nan_to_num(self._column("logged"))
        lift = _over(
            float(self._column("shown") @ impressions), float(self._column("offered") @ impressions)
        )
        return {
            "gini": gini(exposure),
            "tail_share": tail_share(exposure, mask),
            "tail_share_logged": tail_share(logged, mask),
            "coverage": coverage(self._column("first"), at_least),
            "popularity_lift": lift,
        }

    def _column(self, name: str) -> Floats:
        values: Floats = self.table[name].to_numpy().astype(np.float64)
        return values


def _by_target(rows: pa.Table) -> pa.Table:
    """Sums by target, in the order of their ids; a sum of nulls is null. In one thread: the order
    of a sum, and so its last bits, are the same every time."""
    summed = rows.group_by(_KEY, use_threads=False).aggregate(
        [(name, "sum") for name in _SCHEMA.names[1:]]
    )
    named = summed.select([_KEY, *(f"{name}_sum" for name in _SCHEMA.names[1:])])
    return named.rename_columns(_SCHEMA.names).cast(_SCHEMA).sort_by(_KEY)


def _ranked(scores: npt.ArrayLike, groups: Column | Groups) -> tuple[Floats, Groups]:
    s, by = checked_floats(scores, "scores"), grouped(groups)
    _same_length(scores=len(s), groups=by.rows)
    return s, by


def _places(s: Floats, by: Groups) -> tuple[Ints, Ints]:
    """By row how many of its group are above it, and how many are level with it, itself among them;
    (N,) each."""
    above, equal = np.empty(len(s), np.int64), np.empty(len(s), np.int64)

    def part(first: int, last: int) -> None:
        places_kernel(s, by.order, by.starts, first, last, above, equal)

    over_groups(by, part)
    return above, equal


def _weights(exposure: Floats, by: Groups) -> tuple[Floats, Floats]:
    """By row its share of its group's exposure, and of its group's rows; (N,) each, 0 in a group
    without exposure."""
    totals = _spread(_summed(exposure, by), by)
    seen = totals > 0
    shown = np.divide(exposure, totals, out=np.zeros(len(exposure)), where=seen)
    return shown, seen / _spread(by.sizes, by)


def _summed(values: Floats, by: Groups) -> Floats:
    """Sums (G,) of ``values`` (N,) by group."""
    there = by.sizes > 0
    sums = np.zeros(len(by.sizes))
    if there.any():
        lying = values[by.order] if len(by.order) else values
        sums[there] = np.add.reduceat(lying, by.starts[:-1][there])
    return sums


def _spread(values: npt.NDArray[_T], by: Groups) -> npt.NDArray[_T]:
    """By row the value of its group: (N,) of (G,)."""
    lying = np.repeat(values, by.sizes)
    if not len(by.order):
        return lying
    spread = np.empty_like(lying)
    spread[by.order] = lying
    return spread


def _amounts(values: npt.ArrayLike, what: str) -> Floats:
    """Doubles (N,), finite and not negative."""
    array = checked_floats(values, what)
    if len(array) and (array.min() < 0 or np.isinf(array.max())):
        odd = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"one of the {what} is {odd}; they must be finite and not negative")
    return array


def _cut_off(k: int) -> int:
    if k < 1:
        raise ValueError(f"the cut-off is {k}; it must be at least 1")
    return k


def _over(above: float, below: float) -> float:
    return above / below if below else math.nan


def _same_length(**lengths: int) -> None:
    if len(set(lengths.values())) > 1:
        raise ValueError(f"rows differ: {lengths}; they must be equal")
