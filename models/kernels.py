"""Compiled loops behind the metrics. Shapes: N rows, G groups, K cut-offs, B resamples.

``order`` (N,) lists the rows group by group, ``starts`` (G + 1,) says where each group begins in
it; ``order`` may be empty, and the rows are then already in group order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

__all__ = [
    "auc_kernel",
    "bootstrap_means",
    "compiled",
    "compiled_loosely",
    "group_order",
    "mix",
    "ndcg_kernel",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_F = TypeVar("_F", bound=Callable[..., Any])

# Groups up to this size are sorted by insertion, in place; longer ones by a heap.
_SMALL = 32


def compiled(function: _F) -> _F:
    """``function`` in machine code, kept between processes, without the interpreter's lock."""
    return cast("_F", numba.njit(cache=True, nogil=True)(function))


def compiled_loosely(function: _F) -> _F:
    """As :func:`compiled`, but sums may be taken in any order, so that loops run on vectors."""
    loose = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
    return cast("_F", loose(function))


@compiled
def group_order(codes: Ints, count: int) -> tuple[Ints, Ints]:
    """A stable counting sort of ``codes`` in 0 .. ``count`` - 1: ``order`` and ``starts``."""
    rows = len(codes)
    starts = np.zeros(count + 1, dtype=np.int64)
    for i in range(rows):
        starts[codes[i] + 1] += 1
    for g in range(count):
        starts[g + 1] += starts[g]
    place = starts[:-1].copy()
    order = np.empty(rows, dtype=np.int64)
    for i in range(rows):
        code = codes[i]
        order[place[code]] = i
        place[code] += 1
    return order, starts


@compiled
def _heap_sort(scores: Floats, labels: Floats, size: int) -> None:
    """Heap sort, smallest score at the root: what leaves the heap first goes to the end."""
    last = size - 1
    start = size // 2
    while last > 0:
        if start > 0:
            start -= 1
        else:
            scores[0], scores[last] = scores[last], scores[0]
            labels[0], labels[last] = labels[last], labels[0]
            last -= 1
        root = start
        while 2 * root + 1 <= last:
            child = 2 * root + 1
            if child < last and scores[child + 1] < scores[child]:
                child += 1
            if scores[root] <= scores[child]:
                break
            scores[root], scores[child] = scores[child], scores[root]
            labels[root], labels[child] = labels[child], labels[root]
            root = child


@compiled
def _descending(scores: Floats, labels: Floats, size: int) -> None:
    """Sort the first ``size`` scores in place, largest first, taking the labels along.

    They must be two arrays.
    """
    if size <= _SMALL:
        for i in range(1, size):
            score, label = scores[i], labels[i]
            j = i - 1
            while j >= 0 and scores[j] < score:
                scores[j + 1] = scores[j]
                labels[j + 1] = labels[j]
                j -= 1
            scores[j + 1] = score
            labels[j + 1] = label
    else:
        _heap_sort(scores, labels, size)


@compiled
def _longest(starts: Ints) -> int:
    longest = 0
    for g in range(len(starts) - 1):
        longest = max(longest, starts[g + 1] - starts[g])
    return longest


@compiled
def ndcg_kernel(labels: Floats, scores: Floats, order: Ints, starts: Ints, ks: Ints) -> Floats:
    """NDCG (G, K) at each cut-off; NaN for groups whose labels are all equal."""
    groups = len(starts) - 1
    longest = _longest(starts)
    values = np.full((groups, len(ks)), np.nan)
    y, s = np.empty(longest), np.empty(longest)
    ideal, unused = np.empty(longest), np.empty(longest)
    # summed[i] is the sum of the first i discounts.
    summed = np.zeros(longest + 1)
    for i in range(longest):
        summed[i + 1] = summed[i] + 1.0 / np.log2(i + 2.0)
    for g in range(groups):
        begin = starts[g]
        size = starts[g + 1] - begin
        same = True
        for i in range(size):
            row = order[begin + i]
            y[i] = labels[row]
            s[i] = scores[row]
            ideal[i] = y[i]
            same = same and y[i] == y[0]
        if same:
            continue
        _descending(s, y, size)
        _descending(ideal, unused, size)
        for c in range(len(ks)):
            k = min(ks[c], size)
            best = 0.0
            for i in range(k):
                best += ideal[i] * (summed[i + 1] - summed[i])
            values[g, c] = _tied_gain(s, y, summed, size, k) / best
    return values


@compiled
def _tied_gain(s: Floats, y: Floats, summed: Floats, size: int, k: int) -> float:
    """Expected DCG of the first ``k`` ranks: each tie shares the mean discount of its ranks."""
    total = 0.0
    first = 0
    while first < k:
        last = first + 1
        gain = y[first]
        while last < size and s[last] == s[first]:
            gain += y[last]
            last += 1
        total += gain * (summed[min(last, k)] - summed[first]) / (last - first)
        first = last
    return total


@compiled
def auc_kernel(labels: Floats, scores: Floats, order: Ints, starts: Ints) -> Floats:
    """AUC (G,) inside each group for labels of 0 and 1, ties counted half; NaN with one class."""
    groups = len(starts) - 1
    longest = _longest(starts)
    values = np.full(groups, np.nan)
    y, s = np.empty(longest), np.empty(longest)
    for g in range(groups):
        begin = starts[g]
        size = starts[g + 1] - begin
        positives = 0.0
        for i in range(size):
            row = order[begin + i]
            y[i] = labels[row]
            s[i] = scores[row]
            positives += y[i]
        if positives == 0.0 or positives == size:
            continue
        _descending(s, y, size)
        above, won, first = 0.0, 0.0, 0
        while first < size:
            last = first
            hits = 0.0
            while last < size and s[last] == s[first]:
                hits += y[last]
                last += 1
            misses = (last - first) - hits
            won += misses * (above + hits / 2)
            above += hits
            first = last
        values[g] = won / (positives * (size - positives))
    return values


@compiled
def mix(state: np.uint64) -> np.uint64:
    """The output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@compiled
def _drawn_sum(values: Floats, begin: int, size: int, draws: int, state: np.uint64) -> float:
    """Sum of ``draws`` draws with replacement from values[begin : begin + size].

    Indices are 32 random bits times the size, shifted (Lemire, 2019), with his rejection step, so
    that each is exactly as likely as any other.
    """
    wide = np.uint64(size)
    start = np.uint64(begin)
    half = np.uint64(32)
    low_bits = np.uint64(0xFFFFFFFF)
    reject = (np.uint64(1) << half) % wide
    total = 0.0
    left = draws
    while left > 0:
        state += np.uint64(0x9E3779B97F4A7C15)
        bits = mix(state)
        first = (bits & low_bits) * wide
        second = (bits >> half) * wide
        if (first & low_bits) >= reject:
            total += values[start + (first >> half)]
            left -= 1
        if left > 0 and (second & low_bits) >= reject:
            total += values[start + (second >> half)]
            left -= 1
    return total


@compiled
def bootstrap_means(
    values: Floats, counts: Ints, block: int, seed: np.uint64, first: int
) -> Floats:
    """Means (B,) of resamples first .. first + B - 1 of ``values`` (N,), N below 2**32.

    ``counts`` (B, M) says how many draws of each resample fall into each of the M blocks of
    ``block`` neighbouring values.
    """
    resamples, blocks = counts.shape
    means = np.empty(resamples)
    for b in range(resamples):
        stream = mix(seed + np.uint64(first + b) * np.uint64(0x9E3779B97F4A7C15))
        total = 0.0
        for m in range(blocks):
            size = min(block, len(values) - m * block)
            stream = mix(stream + np.uint64(m + 1))
            total += _drawn_sum(values, m * block, size, counts[b, m], stream)
        means[b] = total / len(values)
    return means
