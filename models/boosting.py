"""Steps of boosting that a ranker composes: mature labels and what their rows weigh, shared bins, a
watch on the loss."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lightgbm.callback import CallbackEnv

from models.base import LABEL_PREFIX, ModelError, Progress, SpecError, TrainingRefused
from models.sample_weights import LabelWeight

__all__ = ["Labels", "Watch", "mature_labels", "weighted", "with_labels"]

_PROGRESS_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Labels:
    """What a booster learns of a table's rows.

    Attributes:
        values: (n,) 0 or 1; for a ranking objective the grade.
        rows: (n,) those of the binned rows that are mature, ascending; None for all.
        immature: rows of the table whose label is not known yet.
        weights: (n,) what a row weighs; None where all weigh the same.
        order: (n,) the table's rows in the order in which they are to be binned; None as they are.
        groups: (G,) how many rows in turn are ranked together; they add up to n.
        positions: (n,) codes of the positions at which the rows were shown.
    """

    values: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32] | None
    immature: int
    weights: npt.NDArray[np.float32] | None = None
    order: npt.NDArray[np.int64] | None = None
    groups: npt.NDArray[np.int32] | None = None
    positions: npt.NDArray[np.int32] | None = None

    @property
    def positives(self) -> int:
        return int(np.count_nonzero(self.values))


class Watch:
    """A LightGBM callback: reports progress, and stops at a loss that is not finite.

    ``measure`` is how the loss is called.
    """

    order = 15  # before early stopping, at 30, compares the losses
    before_iteration = False

    def __init__(
        self, task: str, rounds: int, progress: Progress, measure: str = "log loss"
    ) -> None:
        self.task = task
        self.measure = measure
        self.rounds = rounds
        self.progress = progress
        self.last = time.perf_counter()

    def __call__(self, env: CallbackEnv) -> None:
        for entry in env.evaluation_result_list or []:
            if not math.isfinite(entry[2]):
                raise TrainingRefused(
                    f"task {self.task!r}: the {entry[0]} loss is {entry[2]} at round "
                    f"{env.iteration + 1}; look for infinite values in the dense columns, or "
                    "lower the learning rate"
                )
        now = time.perf_counter()
        if env.evaluation_result_list and now - self.last >= _PROGRESS_SECONDS:
            self.last = now
            loss = env.evaluation_result_list[-1][2]
            self.progress(
                f"{self.task}: round {env.iteration + 1 - env.begin_iteration} of {self.rounds}, "
                f"{self.measure} {loss:.6f}"
            )


def mature_labels(table: pa.Table, task: str, what: str) -> Labels:
    """The non-null labels of ``task`` in ``table``, checked to be 0 or 1."""
    column = _label_column(table, task, what)
    rows = None
    if column.null_count:
        rows = np.flatnonzero(pc.is_valid(column).to_numpy()).astype(np.int32)
    mature = pc.cast(column.drop_null(), pa.float32())
    values = np.ascontiguousarray(mature.to_numpy(), dtype=np.float32)
    wrong = values[(values != 0) & (values != 1)]
    if len(wrong):
        raise TrainingRefused(
            f"task {task!r}: {len(wrong):,} of {len(values):,} mature {what} labels are neither 0 "
            f"nor 1, such as {float(wrong[0])}; derive a yes/no label in the labels of the source"
        )
    return Labels(values, rows, column.null_count)


def _label_column(table: pa.Table, label: str, what: str) -> pa.ChunkedArray:
    name = f"{LABEL_PREFIX}{label}"
    if name not in table.column_names:
        raise SpecError(
            f"the {what} rows have no column {name!r}; the source must declare the action, or "
            f"{label!r} be dropped from the configuration"
        )
    column = table.column(name)
    kind = column.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise SpecError(f"column {name!r} of the {what} rows is {kind}, not a number")
    return column


def weighted(
    labels: Labels, table: pa.Table, task: str, added: Mapping[str, LabelWeight], what: str
) -> Labels:
    """``labels`` with the weights of their rows: 1 for a negative row, for a positive one what
    ``added`` says of the task itself (1 unless it does) plus what the other labels add.

    A null label adds nothing.

    Raises:
        SpecError: for a label that ``table`` does not have, or that is no number.
        TrainingRefused: for a value from which no weight can be made.
    """
    if not added:
        return labels
    positive = np.flatnonzero(labels.values)
    rows = positive if labels.rows is None else labels.rows[positive]
    total = np.full(len(rows), added[task].amount if task in added else 1.0)
    for label, weight in added.items():
        if label != task:
            column = pc.cast(_label_column(table, label, what), pa.float64())
            values = pc.fill_null(column, 0.0).to_numpy()[rows]
            _check_amounts(values, label, task, weight.log, what)
            total += weight.of(values)
    weights = np.ones(len(labels.values), dtype=np.float32)
    weights[positive] = total
    return replace(labels, weights=None if (weights == 1).all() else weights)


def _check_amounts(
    values: npt.NDArray[np.float64], label: str, task: str, log: bool, what: str
) -> None:
    fits = (values >= 0) & np.isfinite(values) if log else (values == 0) | (values == 1)
    wrong = values[~fits]
    if len(wrong):
        hint = "make it a number of at least 0" if log else "weigh an amount by {log: number}"
        raise TrainingRefused(
            f"sample_weights.{task}.{label}: {len(wrong):,} of {len(values):,} values of "
            f"{LABEL_PREFIX}{label} in positive {what} rows give no weight, such as "
            f"{float(wrong[0])}; {hint}"
        )


def with_labels(data: lgb.Dataset, labels: Labels) -> lgb.Dataset:
    """``data`` with the labels of one task, cut down to its mature rows; the bins are shared."""
    if labels.rows is None:
        return _described(data, labels)
    part = data.subset([])
    # Set here because `subset` sorts its argument as a Python list: a second for a million rows.
    part.used_indices = labels.rows  # type: ignore[assignment]
    return _described(part.construct(), labels)


def _described(data: lgb.Dataset, labels: Labels) -> lgb.Dataset:
    # `set_weight(None)` would leave the weights of the task before.
    data.set_label(labels.values).set_field("weight", labels.weights)
    if labels.groups is not None:
        if int(labels.groups.sum()) != data.num_data():
            raise ModelError(
                f"groups of {int(labels.groups.sum()):,} rows for {data.num_data():,} binned ones; "
                "bin the rows in the order of their groups"
            )
        data.set_group(labels.groups)
    if labels.positions is not None:
        data.set_position(labels.positions)
    return data
