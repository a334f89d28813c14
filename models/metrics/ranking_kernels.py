"""Compiled loops behind the ranking metrics. Shapes: N rows, G groups, K cut-offs.

``order`` (N,) lists the rows group by group, or is empty where they lie so; ``starts`` (G + 1,)
says where each group begins.

No metric needs the order of a group, but only the places of its relevant rows, those with a label
above 0: how many scores are above a row's own, and how many equal it. Most groups are short, or
have few such rows: scores are counted, without a branch. Only the others are sorted.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.kernels import compiled

__all__ = ["AUC", "HITS", "MAP", "MRR", "NDCG", "places_kernel", "ranking_kernel"]

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
    labels: Floats, scores: Floats, order: Ints, begin: int, size: int, every: Floats,
    gains: Floats, own: Floats,
) -> int:  # fmt: skip
    """Bring the scores of a group together in ``every``, the labels above 0 in ``gains``, their
    scores in ``own``; how many those are, or 0 where all labels are equal."""
    scattered = len(order) > 0
    count, alike = 0, 0
    start = 0.0
    for i in range(size):
        row = order[begin + i] if scattered else begin + i
        label = labels[row]
        if i == 0:
            start = label
        every[i] = scores[row]
        gains[count] = label
        own[count] = every[i]
        count += label > 0.0
        alike += label == start
    return count if alike < size else 0


@compiled
def _places(every: Floats, size: int, own: Floats, count: int, above: Ints, equal: Ints) -> None:
    """Of each of the first ``count`` values of ``own``: how many of the first ``size`` of ``every``
    are above it, and how many equal it."""
    if size <= _SHORT or count <= _FEW:
        for j in range(count):
            higher, same = 0, 0
            for i in range(size):
                higher += every[i] > own[j]
                same += every[i] == own[j]
            above[j], equal[j] = higher, same
        return
    ascending = every[:size].copy()
    _sort(ascending)
    for j in range(count):
        end = _search(ascending, own[j], True)
        above[j] = size - end
        equal[j] = end - _search(ascending, own[j], False)


@compiled
def _sort(values: Floats) -> None:
    """Heap sort in place, smallest first: what leaves the heap goes to the end."""
    last = len(values) - 1
    start = len(values) // 2
    while last > 0:
        if start > 0:
            start -= 1
        else:
            values[0], values[last] = values[last], values[0]
            last -= 1
        root = start
        while 2 * root + 1 <= last:
            child = 2 * root + 1
            if child < last and values[child + 1] > values[child]:
                child += 1
            if values[root] >= values[child]:
                break
            values[root], values[child] = values[child], values[root]
            root = child


@compiled
def _search(ascending: Floats, value: float, behind: bool) -> int:
    """How many values lie before ``value``, and those that equal it where it goes ``behind``."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < value or (behind and ascending[middle] == value):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def places_kernel(
    scores: Floats, order: Ints, starts: Ints, first: int, last: int, above: Ints, equal: Ints
) -> None:
    """Fills ``above`` and ``equal`` (N,) for the rows of groups ``first`` .. ``last`` - 1: how many
    scores of a row's group are above its own, and how many equal it, its own among them."""
    scattered = len(order) > 0
    longest = _longest(starts, first, last)
    every = np.empty(longest)
    higher, same = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for g in range(first, last):
        begin, size = starts[g], starts[g + 1] - starts[g]
        for i in range(size):
            every[i] = scores[order[begin + i] if scattered else begin + i]
        _places(every, size, every, size, higher, same)
        for i in range(size):
            row = order[begin + i] if scattered else begin + i
            above[row], equal[row] = higher[i], same[i]


@compiled
def ranking_kernel(
    metric: int, labels: Floats, scores: Floats, order: Ints, starts: Ints, ks: Ints, first: int,
    last: int, values: Floats,
) -> None:  # fmt: skip
    """Fills ``values`` (G, K) of groups ``first`` .. ``last`` - 1 with a metric at each cut-off;
    NaN where all labels of a group are equal."""
    longest = _longest(starts, first, last)
    every, gains, own = np.empty(longest), np.empty(longest), np.empty(longest)
    above, equal = np.empty(longest, np.int64), np.empty(longest, np.int64)
    higher, same = np.empty(longest, np.int64), np.empty(longest, np.int64)
    weights = _summed_weights(metric, longest)
    for g in range(first, last):
        begin, size = starts[g], starts[g + 1] - starts[g]
        count = _relevant(labels, scores, order, begin, size, every, gains, own)
        if count == 0:
            values[g] = np.nan
            continue
        _places(every, size, own, count, above, equal)
        if metric == NDCG:
            _places(gains, count, gains, count, higher, same)
        elif metric == MAP:
            _places(own, count, own, count, higher, same)
        for c in range(len(ks)):
            k = min(ks[c], size)
            if metric == NDCG:
                found = _discounted(gains, count, above, equal, weights, k)
                best = _discounted(gains, count, higher, same, weights, k)
                values[g, c] = min(found / best, 1.0)  # equal sums may differ in the last bit
            elif metric == MAP:
                values[g, c] = _precisions(count, above, equal, higher, same, weights, k) / count
            elif metric == MRR:
                values[g, c] = _reciprocal_rank(count, above, equal, k)
            elif metric == HITS:
                values[g, c] = _hits(count, above, equal, k)
            else:
                values[g, c] = _area(count, above, equal, size)


@compiled
def _summed_weights(metric: int, size: int) -> Floats:
    """The sums of the first 0, 1, .. ``size`` discounts, or for MAP reciprocal ranks."""
    summed = np.zeros(size + 1)
    for i in range(size):
        weight = 1.0 / (i + 1.0) if metric == MAP else 1.0 / np.log2(i + 2.0)
        summed[i + 1] = summed[i] + weight
    return summed


@compiled
def _discounted(
    gains: Floats, count: int, above: Ints, equal: Ints, summed: Floats, k: int
) -> float:
    """Expected discounted gain of the first k ranks: of tied rows, each has the mean discount."""
    total = 0.0
    for j in range(count):
        begin, end = min(above[j], k), min(above[j] + equal[j], k)
        total += gains[j] * (summed[end] - summed[begin]) / equal[j]
    return total


@compiled
def _precisions(
    count: int, above: Ints, equal: Ints, higher: Ints, same: Ints, summed: Floats, k: int
) -> float:
    """Sum of the precisions expected at the relevant rows of the first k ranks; ``higher`` and
    ``same`` are the relevant rows above one, and equal to it."""
    total = 0.0
    for j in range(count):
        begin, end = above[j], min(above[j] + equal[j], k)
        if begin >= k:
            continue
        if equal[j] == 1:
            total += (higher[j] + 1) / (begin + 1)
            continue
        # At rank begin + 1 + i the precision is (higher + 1 + i * step) / (begin + 1 + i).
        step = (same[j] - 1) / (equal[j] - 1)
        constant = higher[j] + 1 - step * (begin + 1)
        total += (step * (end - begin) + constant * (summed[end] - summed[begin])) / equal[j]
    return total


@compiled
def _reciprocal_rank(count: int, above: Ints, equal: Ints, k: int) -> float:
    """Expected 1 / rank, up to k, of the first relevant row."""
    best, relevant = 0, 0
    for j in range(count):
        if above[j] < above[best]:
            best = j
    for j in range(count):
        relevant += above[j] == above[best]
    place, tied = above[best], equal[best]
    total = 0.0
    chance = relevant / tied  # that the i-th of the tied rows is the first relevant one
    for i in range(min(tied - relevant + 1, k - place)):
        total += chance / (place + i + 1)
        if i + 1 < tied:
            chance *= (tied - i - relevant) / (tied - i - 1)
    return total


@compiled
def _hits(count: int, above: Ints, equal: Ints, k: int) -> float:
    """Relevant rows expected among the first k ranks."""
    hits = 0.0
    for j in range(count):
        hits += min(max(k - above[j], 0), equal[j]) / equal[j]
    return hits


@compiled
def _area(count: int, above: Ints, equal: Ints, size: int) -> float:
    """Share of pairs of a relevant row and another that are in order, ties counted half."""
    won = 0.0
    for j in range(count):
        won += size - above[j] - equal[j] / 2
    # Relevant rows among themselves, and each with itself, are worth count * count / 2.
    return (won - count * count / 2) / (count * (size - count))
