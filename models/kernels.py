"""How loops are compiled, and those that more than one module needs: groups, and draws.

Shapes: N rows, G groups, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

__all__ = [
    "bootstrap_means",
    "compiled",
    "compiled_loosely",
    "group_order",
    "group_runs",
    "mix",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_F = TypeVar("_F", bound=Callable[..., Any])


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
def group_runs(codes: Ints) -> Ints:
    """Where each group begins, and the row count at the end, of ``codes`` (N,) that never fall;
    empty of those that do."""
    rows = len(codes)
    groups, falls = min(rows, 1), 0
    for i in range(1, rows):
        groups += codes[i] != codes[i - 1]
        falls += codes[i] < codes[i - 1]
    if falls:
        return np.empty(0, dtype=np.int64)
    starts = np.zeros(groups + 1, dtype=np.int64)
    starts[groups] = rows
    g = 1
    for i in range(1, rows):
        if codes[i] != codes[i - 1]:
            starts[g] = i
            g += 1
    return starts


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
