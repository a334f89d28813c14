"""Distributions as counts by value, and how far two of them lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["OTHER", "Counts", "chance_psi", "largest_shift", "pooled", "psi", "shares", "top"]

Counts = dict[str, int]

OTHER: Final = "(other)"
_ABSENT: Final = 0.5  # events that a value is taken to have where it was not seen at all


def pooled(distributions: Iterable[Mapping[str, int]]) -> Counts:
    """All of them as one, every row counted alike."""
    total: Counts = {}
    for counts in distributions:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total


def top(counts: Mapping[str, int], limit: int) -> Counts:
    """The ``limit`` most frequent values, the rest as one; equal counts by name."""
    named = sorted((name for name in counts if name != OTHER), key=lambda n: (-counts[n], n))
    kept = {name: counts[name] for name in named[:limit]}
    rest = sum(counts.values()) - sum(kept.values())
    return {**kept, OTHER: rest} if rest else kept


def _aligned(now: Mapping[str, int], before: Mapping[str, int]) -> tuple[Counts, Counts]:
    """Both over the same values; what only one side tells apart belongs to the rest, if any."""
    names = set(now) | set(before)
    if OTHER in before:
        names &= set(before)
    if OTHER in now:
        names &= set(now)
    names -= {OTHER}
    sides = []
    for counts in (now, before):
        kept = {name: counts.get(name, 0) for name in sorted(names)}
        sides.append({**kept, OTHER: sum(counts.values()) - sum(kept.values())})
    if not any(side[OTHER] for side in sides):
        for side in sides:
            del side[OTHER]
    return sides[0], sides[1]


def psi(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    """Population stability index of two distributions, given as counts by value; 0 when equal.

    ``sum over values of (p - q) * ln(p / q)`` with shares p now and q before: formula and
    distribution in B. Yurdakul, *Statistical Properties of Population Stability Index*, Western
    Michigan University, 2018. Below .1 is customarily called stable, above .25 a shift. A value
    that one side lacks counts as half an event there, so that the index stays finite.

    >>> round(psi({"a": 50, "b": 50}, {"a": 25, "b": 75}), 4)
    0.2747
    """
    left, right = _aligned(now, before)
    rows, rows_before = sum(left.values()), sum(right.values())
    if not rows or not rows_before:
        return 0.0
    return math.fsum(_term(left[name] or _ABSENT, rows, right[name] or _ABSENT, rows_before)
                     for name in left)  # fmt: skip


def _term(count: float, rows: int, count_before: float, rows_before: int) -> float:
    share, share_before = count / rows, count_before / rows_before
    return (share - share_before) * math.log(share / share_before)


def chance_psi(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    """The index that chance alone explains, on average: (values - 1) * (1 / n + 1 / m).

    Without any change it is distributed as chi-square with ``values - 1`` degrees of freedom times
    ``1 / n + 1 / m`` (Yurdakul 2018), n and m being the rows on either side.
    """
    left, right = _aligned(now, before)
    rows, rows_before = sum(left.values()), sum(right.values())
    if not rows or not rows_before:
        return 0.0
    return (len(left) - 1) * (1 / rows + 1 / rows_before)


def largest_shift(now: Mapping[str, int], before: Mapping[str, int]) -> tuple[str, float, float]:
    """The value that adds most to the index, its share before and its share now."""
    left, right = _aligned(now, before)
    rows, rows_before = sum(left.values()), sum(right.values())
    name = max(left, key=lambda n: _term(left[n] or _ABSENT, rows, right[n] or _ABSENT,
                                         rows_before))  # fmt: skip
    return name, right[name] / rows_before, left[name] / rows


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Counts as shares of their sum; nothing of nothing."""
    rows = sum(counts.values())
    return {name: count / rows for name, count in counts.items()} if rows else {}
