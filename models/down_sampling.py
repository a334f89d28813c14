"""Negative down-sampling: which rows a task is fitted on, and losses that are those of all rows.

Each task keeps its positives and, of its own negatives, those whose hash falls into the share. A
row can so be left out for one task and kept for another: for every task alone the share of its
negatives is the same whatever the features say, which is what
:func:`models.calibration.undo_down_sampling` needs. A row that was kept for all tasks because one
of them is positive would break that for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.base import SpecError, TrainingRefused, encode_sparse
from models.boosting import Labels
from models.calibration import undo_down_sampling
from models.gbdt_config import BINARY_METRIC
from models.metrics import log_loss

__all__ = [
    "SAMPLE_COLUMN",
    "Bools",
    "corrected_loss",
    "drawn",
    "loss_of_all",
    "without_negatives",
]

SAMPLE_COLUMN: Final = "sample_id"
"""The column that names an impression, and decides whether it is kept as a negative."""

_BUCKETS: Final = 2**31 - 1

Bools = npt.NDArray[np.bool_]


def drawn(table: pa.Table, share: float) -> Bools:
    """Which rows (N,) are kept where they are negative: about ``share`` of them, by the hash of
    their id alone, so that any rerun, order of rows and window of hours draws the same.

    Raises:
        SpecError: for a table whose impressions have no id.
    """
    if SAMPLE_COLUMN not in table.column_names:
        raise SpecError(
            f"the training rows have no column {SAMPLE_COLUMN!r}, by which negatives are drawn; "
            "add it, or leave negative_share at 1"
        )
    codes = encode_sparse(table.column(SAMPLE_COLUMN), _BUCKETS)
    kept: Bools = codes <= share * (_BUCKETS - 1)
    return kept


def without_negatives(labels: Labels, kept: Bools, task: str) -> Labels:
    """``labels`` of a task with all positives, and the negatives among the rows ``kept`` (N,).

    Raises:
        TrainingRefused: when no negative is left.
    """
    rows = np.arange(len(kept), dtype=np.int32) if labels.rows is None else labels.rows
    used = (labels.values != 0) | kept[rows]
    left = int(np.count_nonzero(used)) - labels.positives
    if not left:
        raise TrainingRefused(
            f"task {task!r}: negative_share kept none of its "
            f"{len(labels.values) - labels.positives:,} negative training rows; raise it"
        )
    return replace(labels, values=labels.values[used], rows=rows[used])


def loss_of_all(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    share: float,
    weights: npt.ArrayLike | None,
    sampled: bool,
) -> float:
    """Log loss of the corrected probabilities; NaN where one of them is not finite.

    Args:
        probabilities: as a booster gives them that was fitted on ``share`` of the negatives.
        weights: what the rows weigh besides.
        sampled: of such rows: each negative then stands for 1 / ``share`` of them.
    """
    y, found = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if not np.isfinite(found).all():
        return float("nan")
    weighing = None if weights is None else np.asarray(weights, dtype=np.float64)
    if sampled:
        weighing = np.where(y == 0, 1 / share, 1.0) * (1.0 if weighing is None else weighing)
    return log_loss(y, undo_down_sampling(found, share), weighing)


def corrected_loss(
    share: float, fitted: lgb.Dataset
) -> Callable[[Any, lgb.Dataset], tuple[str, float, bool]]:
    """:func:`loss_of_all` as a metric of LightGBM's; only ``fitted`` holds sampled rows."""

    def measured(found: Any, data: lgb.Dataset) -> tuple[str, float, bool]:
        weights: Any = data.get_weight()
        labels: Any = data.get_label()
        return BINARY_METRIC, loss_of_all(labels, found, share, weights, data is fitted), False

    return measured
