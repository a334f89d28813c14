"""Graded rows for the ranking objectives: whole groups, in order, with the grade of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.base import SparseColumn, SpecError, TooFewPositives, TrainingRefused
from models.boosting import Labels, mature_labels
from models.gbdt_config import NDCG, GBDTConfig
from models.kernels import group_order
from models.metrics import group_codes, groups_of_sizes, ndcg_at_k

__all__ = ["GROUP_COLUMN", "Graded", "graded_rows", "graded_targets", "mean_ndcg", "ndcg_of"]

GROUP_COLUMN: Final = "group_id"
"""The column that says which rows are ranked together."""

_MOST_ROWS: Final = 10_000  # of a group; LightGBM's own limit
_CUT: Final = 10

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Graded:
    """Groups that say something of an order, and how many do not.

    Attributes:
        labels: grades (n,) of the rows in use, group after group, with the ``order`` in which the
            table's rows give them, and the ``groups``' sizes.
        groups: how many there are.
        immature: groups left out for a row whose first task is not known yet.
        alike: groups left out because all of their grades are equal.
    """

    labels: Labels
    groups: int
    immature: int
    alike: int


def graded_targets(
    train: pa.Table, valid: pa.Table, config: GBDTConfig, position: SparseColumn | None
) -> tuple[Graded, Graded]:
    """The graded rows of both tables.

    Raises:
        SpecError: for a column that is not there.
        TrainingRefused: for too few rows above grade 0, no early-stopping group that has two
            grades, labels other than 0 and 1, or a group of more rows than LightGBM takes.
    """
    fitted = graded_rows(train, config, position, "training")
    stopping = graded_rows(valid, config, None, "early-stopping")
    if fitted.labels.positives < config.min_positives:
        raise TooFewPositives(
            f"the graded rows have too few positives: {fitted.labels.positives:,} of "
            f"{len(fitted.labels.values):,} training rows are above grade 0 in groups of two "
            f"grades ({fitted.alike:,} groups left out for one grade, {fitted.immature:,} as "
            f"immature), and {config.min_positives:,} are wanted; train on a longer span, or "
            "lower min_positives"
        )
    if not len(stopping.labels.values):
        raise TrainingRefused(
            f"no early-stopping group has two grades ({stopping.alike:,} groups have one, "
            f"{stopping.immature:,} are immature); train on a longer span"
        )
    return fitted, stopping


def graded_rows(
    table: pa.Table, config: GBDTConfig, position: SparseColumn | None, what: str
) -> Graded:
    """The rows of ``table`` by group, with their grades: the highest of the labels that they have.

    Groups stay whole. One is left out when a label of the first task is null in it, or when all of
    its grades are equal: no order of it is better than another (LambdaRank finds no pair in it).
    A null label of another task lifts nothing. Groups come by first appearance, and rows of a
    group stay as they were.

    Args:
        position: the column of positions, where the objective takes them into account.
    """
    _require(table, [GROUP_COLUMN, *([position.name] if position else [])], what)
    grades, known = _grades(table, config, what)
    codes = group_codes(table.column(GROUP_COLUMN))
    count = int(codes.max()) + 1 if len(codes) else 0
    order, starts = group_order(codes, count)
    sizes = np.diff(starts)
    mature, differ = _usable(grades[order], known[order], starts)
    used = mature & differ
    _check_sizes(sizes[used], what)
    rows = order[np.repeat(used, sizes)]
    labels = Labels(
        values=grades[rows],
        rows=None,
        immature=int((~known).sum()),
        order=None if _is_all(rows, table.num_rows) else rows,
        groups=sizes[used].astype(np.int32),
        positions=_positions(table, position)[rows] if position else None,
    )
    return Graded(labels, int(used.sum()), int((~mature).sum()), int((mature & ~differ).sum()))


def _require(table: pa.Table, names: Sequence[str], what: str) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise SpecError(
            f"the {what} rows have no column {', '.join(missing)}; a ranking objective reads it "
            "of every row"
        )


def _grades(
    table: pa.Table, config: GBDTConfig, what: str
) -> tuple[npt.NDArray[np.float32], Bools]:
    """Grades (N,), and of which rows the first task's label is known (N,)."""
    grades = np.zeros(table.num_rows, dtype=np.float32)
    known = np.ones(table.num_rows, dtype=bool)
    for task, grade in config.graded.items():
        labels = mature_labels(table, task, what)
        rows = np.arange(table.num_rows) if labels.rows is None else labels.rows
        if task == config.tasks[0] and labels.rows is not None:
            known[:] = False
            known[rows] = True
        lifted = rows[labels.values == 1]
        grades[lifted] = np.maximum(grades[lifted], grade)
    return grades, known


def _usable(grades: npt.NDArray[np.float32], known: Bools, starts: Ints) -> tuple[Bools, Bools]:
    """Of rows in group order: whether a group's labels are mature (G,), and its grades differ."""
    if len(starts) == 1:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    first = starts[:-1]
    differ = np.minimum.reduceat(grades, first) < np.maximum.reduceat(grades, first)
    return np.logical_and.reduceat(known, first), differ


def _check_sizes(sizes: Ints, what: str) -> None:
    if len(sizes) and sizes.max() > _MOST_ROWS:
        raise TrainingRefused(
            f"a group of the {what} rows has {sizes.max():,} rows, and LightGBM ranks at most "
            f"{_MOST_ROWS:,}; look at how {GROUP_COLUMN} is made"
        )


def _is_all(rows: Ints, count: int) -> bool:
    return len(rows) == count and bool((rows == np.arange(count)).all())


def _positions(table: pa.Table, column: SparseColumn) -> npt.NDArray[np.int32]:
    """Positions from 1 on, the last bucket for all beyond it, 0 where there is none."""
    filled = pc.cast(pc.fill_null(table.column(column.name), 0), pa.int64()).to_numpy()
    codes: npt.NDArray[np.int32] = np.clip(filled, 0, column.buckets - 1).astype(np.int32)
    return codes


def mean_ndcg(
    grades: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.int32],
    gains: Sequence[float],
) -> float:
    """Mean NDCG@10 of groups of neighbouring rows, ``gains`` by grade.

    LightGBM's own ranks tied rows as they lie in the table. Samples lie as they were shown, which
    is better than chance, so that a model with few leaves would look good for saying nothing; here
    tied rows share the mean of their discounts (see :func:`models.metrics.ndcg_at_ks`).
    """
    found = ndcg_at_k(grades, scores, groups_of_sizes(sizes), _CUT, gains)
    return float(found.means())


def ndcg_of(gains: Sequence[float]) -> Callable[[Any, lgb.Dataset], tuple[str, float, bool]]:
    """:func:`mean_ndcg` of a Dataset, as a metric of LightGBM's."""

    def measured(scores: Any, data: lgb.Dataset) -> tuple[str, float, bool]:
        grades: Any = data.get_label()
        sizes: Any = data.get_group()
        return NDCG, mean_ndcg(grades, np.asarray(scores, np.float64), sizes, gains), True

    return measured
