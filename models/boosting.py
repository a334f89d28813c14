"""Steps of boosting that a ranker composes: mature labels, shared bins, a watch on the loss."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lightgbm.callback import CallbackEnv

from models.base import LABEL_PREFIX, Progress, SpecError, TrainingRefused

__all__ = ["Labels", "Watch", "mature_labels", "with_labels"]

_PROGRESS_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Labels:
    """Mature labels of one task: ``values`` (n,) of 0 and 1, ``rows`` (n,) or None for all."""

    values: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32] | None
    immature: int

    @property
    def positives(self) -> int:
        return int(np.count_nonzero(self.values))


class Watch:
    """A LightGBM callback: reports progress, and stops at a loss that is not finite."""

    order = 15  # before early stopping, at 30, compares the losses
    before_iteration = False

    def __init__(self, task: str, rounds: int, progress: Progress) -> None:
        self.task = task
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
                f"{self.task}: round {env.iteration + 1} of {self.rounds}, log loss {loss:.6f}"
            )


def mature_labels(table: pa.Table, task: str, what: str) -> Labels:
    """The non-null labels of ``task`` in ``table``, checked to be 0 or 1."""
    name = f"{LABEL_PREFIX}{task}"
    if name not in table.column_names:
        raise SpecError(
            f"the {what} rows have no column {name!r}; the source must declare the action, or "
            f"task {task!r} be dropped"
        )
    column = table.column(name)
    kind = column.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise SpecError(f"column {name!r} of the {what} rows is {kind}, not a number")
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


def with_labels(data: lgb.Dataset, labels: Labels) -> lgb.Dataset:
    """``data`` with the labels of one task, cut down to its mature rows; the bins are shared."""
    if labels.rows is None:
        return data.set_label(labels.values)
    part = data.subset([])
    # Set here because `subset` sorts its argument as a Python list: a second for a million rows.
    part.used_indices = labels.rows  # type: ignore[assignment]
    return part.construct().set_label(labels.values)
