"""Intervals of differences that are no means over groups."""

from __future__ import annotations

import numpy as np

from models.metrics import auc

__all__ = ["auc_interval"]

RESAMPLES = 500


def auc_interval(
    labels: np.ndarray, ours: np.ndarray, base: np.ndarray, groups: np.ndarray, seed: int
) -> list[float]:
    """AUC of ``ours`` minus that of ``base`` with its 95 % interval, groups drawn again."""
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(groups.max() + 2))
    drawn = []
    for _ in range(RESAMPLES):
        picked = rng.integers(0, len(starts) - 1, len(starts) - 1)
        sizes = starts[picked + 1] - starts[picked]
        offsets = np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = order[np.arange(int(sizes.sum())) - offsets + np.repeat(starts[picked], sizes)]
        drawn.append(auc(labels[rows], ours[rows]) - auc(labels[rows], base[rows]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [float(auc(labels, ours) - auc(labels, base)), float(low), float(high)]
