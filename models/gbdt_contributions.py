"""What each feature adds to the score of a row: Shapley values of trees, as LightGBM computes them.

Lundberg, Erion and Lee, Consistent Individualized Feature Attribution for Tree Ensembles,
arXiv:1802.03888, 2018, algorithm 2 (TreeSHAP); Lundberg et al., From local explanations to global
understanding with explainable AI for trees, Nature Machine Intelligence 2, 2020. A feature that is
not known follows the rows that were fitted (the path-dependent form).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.base import ModelError
from models.gbdt import GBDTRanker

__all__ = ["Contributions", "contributions", "spread_rows"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contributions:
    """Contributions to the raw score of one task's booster, in its own units: log odds among the
    rows that it was fitted on, or the score of a ranking objective.

    Attributes:
        features: the F columns that the booster reads.
        values: (n, F); with ``base`` a row of them adds up to the row's raw score.
        base: the mean raw score of what was fitted.
        ranks: (n, F) the feature's value by its rank among the n rows, from 0 to 1, ties sharing
            the mean; NaN where it is missing, and for codes of sparse columns, which have no order.
    """

    features: tuple[str, ...]
    values: Floats
    base: float
    ranks: Floats

    def top(self, count: int) -> list[int]:
        """The columns with the largest mean absolute contribution, the largest first."""
        sizes = np.abs(self.values).mean(axis=0)
        return [int(column) for column in np.argsort(-sizes, kind="stable")[:count]]


def spread_rows(table: pa.Table, most: int) -> pa.Table:
    """At most ``most`` rows, evenly spread over ``table``: the same ones each time."""
    if table.num_rows <= most:
        return table
    return table.take(pa.array(np.linspace(0, table.num_rows - 1, most).astype(np.int64)))


def contributions(model: GBDTRanker, table: pa.Table) -> Mapping[str, Contributions]:
    """By task what each feature adds to the raw score of each row of ``table``.

    It takes time in proportion to rows, trees, leaves and the square of their depth: pass some
    thousand rows (:func:`spread_rows`).

    Raises:
        SpecError: for a table without the columns of the model's FeatureSpec.
        ModelError: for a model that is not fitted, or a table without rows.
    """
    if not table.num_rows:
        raise ModelError("contributions of no rows; pass at least one")
    # The very columns that the trees are fitted on and predict from.
    matrix = model.matrix(table)
    ranks = np.full((matrix.num_rows, len(model.spec.columns)), np.nan)
    for column, name in enumerate(model.spec.dense):
        ranks[:, column] = _ranks(matrix.column(name))
    found = {}
    for task in model.tasks:
        booster = lgb.Booster(model_str=model.booster_text(task))
        parts = booster.predict(matrix, pred_contrib=True, num_threads=model.config.threads)
        whole = np.asarray(parts, dtype=np.float64)
        found[task] = Contributions(model.spec.columns, whole[:, :-1], float(whole[0, -1]), ranks)
    return found


def _ranks(column: pa.ChunkedArray) -> Floats:
    """Ranks of numbers from 0 to 1, (n,); ties share the mean, what is missing is NaN."""
    numbers = pc.cast(column, pa.float64()).to_numpy()
    ranks = np.full(len(numbers), np.nan)
    known = ~np.isnan(numbers)
    if known.any():
        _, inverse, counts = np.unique(numbers[known], return_inverse=True, return_counts=True)
        middles = np.cumsum(counts) - (counts + 1) / 2
        ranks[known] = middles[inverse] / max(int(known.sum()) - 1, 1)
    return ranks
