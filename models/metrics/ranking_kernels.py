"""Compiled loops behind the ranking metrics. Shapes: N rows, G groups, K cut-offs.

``order`` (N,) lists the rows group by group, or is empty where they lie so; ``starts`` (G + 1,)
says where each group begins.

No metric needs the whole order of a group, but only, of each row with a label above 0, how many
scores are above its own and how many equal it. Most groups are short and have few such rows: those
scores are counted, without a branch; only long groups are sorted.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.kernels import compiled

__all__ = ["AUC", "HITS", "MAP", "MRR", "NDCG", "ranking_kernel"]

NDCG: Final = 0
MAP: Final = 1
MRR: Final = 2
HITS: Final = 3
"""Relevant rows expected among the first ranks: what recall and precision are made of."""
AUC: Final = 4
"""Of any cut-off; labels are 0 and 1."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Up to so many rows, or relevant rows, scores are counted; beyond, sorted and searched.
_SHORT = 48
_FEW = 16


@compiled
def _longest(starts: Ints, first: int, last: int) -> int:
    longest = 0
    for g in range(first, last):
        longest = max(longest, starts[g + 1] - starts[g])
    return longest


@compiled
def _relevant(
    labels: Floats, scores: Floats, order: Ints, begin: int, size: int, gains: Floats, own: Floats,
    every: Floats,
) -> int:  # fmt: skip
    """Brings a group's scores together in ``every``, and the labels above 0 in ``gains`` with
    their scores in ``own``; how many those are, or 0 where all labels are equal."""
    count = 0
    scattered = len(order) > 0
    differ = False
    start = labels[order[begin]] if scattered and size > 0 else 0.0
    if not scattered and size > 0:
        start = labels[begin]
    for i in range(size):
        row = order[begin + i] if scattered else begin + i
        label, score = labels[row], scores[row]
        every[i] = score
        gains[count] = label
        own[count] = score
        count += label > 0.0
        differ |= label != start
    return count if differ else 0


@compiled
def _places(every: Floats, size: int, own: Floats, count: int, above: Ints, equal: Ints) -> None:
    """Of each of the first ``count`` scores of ``own``: how many of the ``size`` scores in
    ``every`` are above it, and how many equal it (itself among them). Changes ``every``."""
    if size <= _SHORT or count <= _FEW:
        for j in range(count):
            higher, same = 0, 0
            for i in range(size):
                higher += every[i] > own[j]
                same += every[i] == own[j]
            above[j], equal[j] = higher, same
        return
    ascending = np.sort(every[:size])
    for j in range(count):
        end = np.searchsorted(ascending, own[j], side="right")
        above[j] = size - end
        equal[j] = end - np.searchsorted(ascending, own[j], side="left")


@compiled
def _by_rank(gains: Floats, above: Ints, equal: Ints, count: int) -> None:
    """Sort the relevant rows in place, highest score first."""
    if count > _SHORT:
        order = np.argsort(above[:count])
        gains[:count] = gains[:count][order]
        above[:count], equal[:count] = above[:count][order], equal[:count][order]
        return
    for i in range(1, count):
        gain, place, same = gains[i], above[i], equal[i]
        j = i - 1
        while j >= 0 and above[j] > place:
            gains[j + 1], above[j + 1], equal[j + 1] = gains[j], above[j], equal[j]
            j -= 1
        gains[j + 1], above[j + 1], equal[j + 1] = gain, place, same


@compiled
def _descending(values: Floats, count: int) -> None:
    """Sort the first ``count`` values in place, largest first."""
    if count > _SHORT:
        values[:count] = np.sort(values[:count])[::-1]
        return
    for i in range(1, count):
        value = values[i]
        j = i - 1
        while j >= 0 and values[j] < value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value


@compiled
def ranking_kernel(
    metric: int, labels: Floats, scores: Floats, order: Ints, starts: Ints, ks: Ints, first: int,
    last: int, values: Floats,
) -> None:  # fmt: skip
    """Fills ``values`` (G, K) of groups ``first`` .. ``last`` - 1 with a metric at each cut-off;
    NaN where all labels of a group are equal."""
    longest = _longest(starts, first, last)
    gains, own, every = np.empty(longest), np.empty(longest), np.empty(longest)
    above, equal = np.empty(longest, np.int64), np.empty(longest, np.int64)
    summed = _summed_discounts(longest)
    for g in range(first, last):
        begin, size = starts[g], starts[g + 1] - starts[g]
        count = _relevant(labels, scores, order, begin, size, gains, own, every)
        if count == 0:
            values[g] = np.nan
            continue
        _places(every, size, own, count, above, equal)
        if metric == NDCG:
            _ndcg(gains, above, equal, count, size, summed, ks, g, values)
        elif metric == MAP:
            _average_precision(gains, above, equal, count, ks, g, values)
        elif metric == MRR:
            _reciprocal_rank(above, equal, count, ks, g, values)
        elif metric == HITS:
            _hits(above, equal, count, ks, g, values)
        else:
            values[g] = _area(above, equal, count, size)


@compiled
def _summed_discounts(size: int) -> Floats:
    """The sums of the first 0, 1, .. ``size`` discounts."""
    summed = np.zeros(size + 1)
    for i in range(size):
        summed[i + 1] = summed[i] + 1.0 / np.log2(i + 2.0)
    return summed


@compiled
def _ndcg(
    gains: Floats, above: Ints, equal: Ints, count: int, size: int, summed: Floats, ks: Ints,
    g: int, values: Floats,
) -> None:  # fmt: skip
    _by_rank(gains, above, equal, count)
    for c in range(len(ks)):
        k = min(ks[c], size)
        total = 0.0
        for j in range(count):
            if above[j] < k:
                end = min(above[j] + equal[j], k)
                total += gains[j] * (summed[end] - summed[above[j]]) / equal[j]
        values[g, c] = total
    _descending(gains, count)
    for c in range(len(ks)):
        best = 0.0
        for i in range(min(ks[c], count)):
            best += gains[i] * (summed[i + 1] - summed[i])
        values[g, c] /= best


@compiled
def _average_precision(
    gains: Floats, above: Ints, equal: Ints, count: int, ks: Ints, g: int, values: Floats
) -> None:
    _by_rank(gains, above, equal, count)
    for c in range(len(ks)):
        total = 0.0
        j = 0
        while j < count and above[j] < ks[c]:
            place, tied = above[j], equal[j]
            relevant = 1
            while j + relevant < count and above[j + relevant] == place:
                relevant += 1
            step = (relevant - 1) / (tied - 1) if tied > 1 else 0.0
            precisions = 0.0
            for i in range(min(tied, ks[c] - place)):
                precisions += (j + 1 + i * step) / (place + i + 1)
            total += precisions * relevant / tied
            j += relevant
        values[g, c] = total / count


@compiled
def _reciprocal_rank(
    above: Ints, equal: Ints, count: int, ks: Ints, g: int, values: Floats
) -> None:
    best, relevant = 0, 0
    for j in range(count):
        if above[j] < above[best]:
            best = j
    for j in range(count):
        relevant += above[j] == above[best]
    place, tied = above[best], equal[best]
    for c in range(len(ks)):
        total = 0.0
        chance = relevant / tied
        for i in range(min(tied - relevant + 1, ks[c] - place)):
            total += chance / (place + i + 1)
            if i + 1 < tied:
                chance *= (tied - i - relevant) / (tied - i - 1)
        values[g, c] = total


@compiled
def _hits(above: Ints, equal: Ints, count: int, ks: Ints, g: int, values: Floats) -> None:
    for c in range(len(ks)):
        hits = 0.0
        for j in range(count):
            hits += min(max(ks[c] - above[j], 0), equal[j]) / equal[j]
        values[g, c] = hits


@compiled
def _area(above: Ints, equal: Ints, count: int, size: int) -> float:
    won = 0.0
    for j in range(count):
        won += size - above[j] - equal[j] / 2
    # Positives among themselves, and each with itself, are worth count * count / 2.
    return (won - count * count / 2) / (count * (size - count))
