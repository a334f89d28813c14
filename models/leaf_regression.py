"""Logistic regression on leaf ids, in one batch: what a streaming linear model could start from,
and the measure of how much signal the leaves carry.

The log odds of a row are ``bias + weights[ids].sum()``. Minimised is the sum of the log losses plus
``l2 / 2`` times the squared distance of the weights from a centre (0 unless given); the bias is
free. That is scikit-learn's LogisticRegression with C = 1 / l2 on one-hot leaves, without their
matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from models.base import ConfigError, ModelError, TrainingRefused
from models.gbdt_leaves import LeafRows
from models.kernels import compiled
from models.leaf_layout import StaleTreesError

__all__ = ["LeafRegression"]

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int32]

_ITERATIONS: Final = 1000
_GRADIENT: Final = 1e-3  # largest component at a solution, in standard errors of the weights


@dataclass(frozen=True)
class LeafRegression:
    """A fitted model of one task: ``weights`` (leaves,) and ``bias``, in log odds."""

    tree_version: str
    task: str
    weights: Floats
    bias: float

    @classmethod
    def fit(
        cls,
        rows: LeafRows,
        task: str,
        labels: npt.ArrayLike,
        l2: float = 1.0,
        centre: Floats | None = None,
    ) -> LeafRegression:
        """Fit by L-BFGS; the problem is convex, so that nothing is random.

        Args:
            labels: (rows,) of 0 and 1; rows whose label is immature must have been left out.
            centre: (leaves,) weights towards which ``l2`` pulls, such as ``LeafEncoder.values``.

        Raises:
            ConfigError: for an ``l2`` that is not above 0.
            ModelError: for shapes that do not fit, or ids that are no leaves.
            TrainingRefused: for labels of one class or other than 0 and 1, or a fit that does not
                come to an end.
        """
        if not 0 < l2 < math.inf:
            raise ConfigError(f"l2 is {l2}; it must be above 0 and finite")
        ids, leaves = _checked_ids(rows, task)
        y = _checked_labels(labels, len(ids), task)
        around = np.zeros(leaves + 1) if centre is None else np.append(centre, 0.0)
        if around.shape != (leaves + 1,):
            raise ModelError(f"the centre has {len(around) - 1} weights; {leaves} are wanted")
        # In units of each weight's curvature at even odds, rare and frequent leaves are alike.
        rows_of = np.append(_by_leaf(ids, np.ones_like(y), leaves), len(y))
        pull = np.append(np.full(leaves, l2), 0.0)
        scale = 1 / np.sqrt(pull + rows_of / 4)

        def loss(steps: Floats) -> tuple[float, Floats]:
            away = scale * steps
            point = around + away
            margins = _margins(ids, point[:-1]) + point[-1]
            value = np.logaddexp(0, margins).sum() - y @ margins + pull @ away**2 / 2
            slopes = _sigmoid(margins) - y
            gradient = np.append(_by_leaf(ids, slopes, leaves), slopes.sum()) + pull * away
            return float(value), scale * gradient

        found = around + scale * _minimised(loss, len(around), task)
        return cls(rows.tree_version, task, found[:-1], float(found[-1]))

    def predict(self, rows: LeafRows) -> Floats:
        """The probability of a positive label, (rows,).

        Raises:
            StaleTreesError: for leaves of other trees than those that it was fitted on.
            ModelError: for rows without leaves of its task, or with other leaves.
        """
        if rows.tree_version != self.tree_version:
            raise StaleTreesError(
                f"the linear model of task {self.task!r} was fitted on leaves of tree version "
                f"{self.tree_version[:12]!r}, and these are leaves of {rows.tree_version[:12]!r}; "
                "fit it anew on leaves of the new trees, or encode the rows by the old ones"
            )
        ids, leaves = _checked_ids(rows, self.task)
        if leaves != len(self.weights):
            raise ModelError(
                f"the linear model of task {self.task!r} has {len(self.weights)} weights, and "
                f"there are {leaves} leaves; fit it anew"
            )
        return _sigmoid(_margins(ids, self.weights) + self.bias)


def _checked_ids(rows: LeafRows, task: str) -> tuple[Ids, int]:
    """The ids of ``task`` and the number of its leaves; the compiled loops check no bound."""
    if task not in rows.ids:
        raise ModelError(f"there are no leaves of task {task!r}, but of {', '.join(rows.ids)}")
    ids, leaves = np.ascontiguousarray(rows.ids[task], dtype=np.int32), rows.leaves[task]
    if ids.size and not (ids.min() >= 0 and ids.max() < leaves):
        raise ModelError(
            f"leaf ids of task {task!r} lie in {ids.min()} .. {ids.max()}, and there are {leaves} "
            "leaves; encode the rows again"
        )
    return ids, leaves


def _checked_labels(labels: npt.ArrayLike, rows: int, task: str) -> Floats:
    y = np.asarray(labels, dtype=np.float64)
    if y.shape != (rows,):
        raise ModelError(f"{rows} rows of leaves and labels of shape {y.shape} do not fit together")
    odd = y[(y != 0) & (y != 1)]
    if len(odd):
        raise TrainingRefused(
            f"task {task!r}: {len(odd):,} of {rows:,} labels are neither 0 nor 1, such as {odd[0]};"
            " leave immature rows out"
        )
    if not 0 < y.sum() < rows:
        raise TrainingRefused(
            f"task {task!r} has one class only: {int(y.sum()):,} positives of {rows:,} rows; fit "
            "on a longer span"
        )
    return y


def _sigmoid(margins: Floats) -> Floats:
    # By tanh, which does not overflow.
    probabilities: Floats = (1 + np.tanh(margins / 2)) / 2
    return probabilities


def _minimised(loss: Callable[[Floats], tuple[float, Floats]], size: int, task: str) -> Floats:
    """Where ``loss``, which returns its gradient as well, is least; the search starts from 0."""
    point = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [point], max_iter=_ITERATIONS, tolerance_grad=_GRADIENT, tolerance_change=0.0,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        value, gradient = loss(point.detach().numpy())
        point.grad = torch.from_numpy(gradient)
        return value

    search.step(closure)  # type: ignore[no-untyped-call]
    found: Floats = point.detach().numpy()
    steepest = float(np.abs(loss(found)[1]).max())
    # A line search that ends within rounding of the minimum may leave a little more.
    if not steepest <= 10 * _GRADIENT:
        raise TrainingRefused(
            f"task {task!r}: after {_ITERATIONS} iterations the gradient is still {steepest:.2g} "
            f"and not {_GRADIENT:.2g}; raise l2, or fit on more rows"
        )
    return found


@compiled
def _margins(ids: Ids, weights: Floats) -> Floats:
    """The sum of the weights of each row's leaves, (rows,)."""
    rows, trees = ids.shape
    margins = np.empty(rows)
    for i in range(rows):
        total = 0.0
        for t in range(trees):
            total += weights[ids[i, t]]
        margins[i] = total
    return margins


@compiled
def _by_leaf(ids: Ids, slopes: Floats, leaves: int) -> Floats:
    """The sum of the slopes of the rows in each leaf, (leaves,)."""
    rows, trees = ids.shape
    total = np.zeros(leaves)
    for i in range(rows):
        for t in range(trees):
            total[ids[i, t]] += slopes[i]
    return total
