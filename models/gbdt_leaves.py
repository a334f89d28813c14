"""Rows as the leaves that they fall into: the input of a linear model that learns as events stream
in.

He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014, section 3: each
tree is a categorical feature whose value is the leaf, and a row becomes as many ones among all
leaves as there are trees. ``weights[ids].sum(1)`` is then the log odds of a linear model, and with
the leaves' own values as weights those of the trees themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.base import ModelError
from models.gbdt import GBDTRanker
from models.leaf_layout import LeafLayout

__all__ = ["LeafEncoder", "LeafRows"]

_VALUES: Final = re.compile(r"^leaf_value=(.*)$", re.MULTILINE)
_AT_ONCE: Final = 2**22  # ids of a chunk; LightGBM returns them in 8 bytes each
_BATCH: Final = 8192


@dataclass(frozen=True)
class LeafRows:
    """Leaf ids of rows, by task.

    Attributes:
        tree_version: of the trees; the ids mean nothing to any other.
        ids: by task (rows, trees) int32, each in 0 .. ``leaves[task]`` - 1.
        leaves: by task the number of leaves of all trees.
    """

    tree_version: str
    ids: Mapping[str, npt.NDArray[np.int32]]
    leaves: Mapping[str, int]


class LeafEncoder:
    """Turns rows into leaf ids of a fitted ranker.

    Args:
        tree_version: the one that the consumer was fitted on; None for a consumer that starts now.

    Raises:
        StaleTreesError: when the ranker's trees are of another version.
        ModelError: for a ranker that is not fitted.
    """

    def __init__(self, ranker: GBDTRanker, tree_version: str | None = None) -> None:
        self._texts = {task: ranker.booster_text(task) for task in ranker.tasks}
        self.layout = LeafLayout.of(ranker.tree_version, self._texts)
        if tree_version is not None:
            self.layout.check(tree_version)
        self._ranker = ranker
        self._boosters = {task: lgb.Booster(model_str=text) for task, text in self._texts.items()}

    def encode(self, table: pa.Table) -> LeafRows:
        """The leaf ids of every row.

        Memory: 4 bytes a row and tree, and at most 64 MiB besides; see :meth:`batches` for tables
        of which no more than a part shall be held.

        Raises:
            SpecError: for a table without the columns of the ranker's FeatureSpec.
        """
        # The very columns that the trees are fitted on and predict from.
        matrix = self._ranker.matrix(table)
        ids = {task: self._ids(task, matrix) for task in self.layout.tasks}
        leaves = {task: of.leaves for task, of in self.layout.tasks.items()}
        return LeafRows(self.layout.tree_version, ids, leaves)

    def batches(self, table: pa.Table, rows: int = _BATCH) -> Iterator[LeafRows]:
        """The leaf ids of ``rows`` rows at a time, in the order of the table.

        Raises:
            ModelError: for fewer than one row at a time.
            SpecError: for a table without the columns of the ranker's FeatureSpec.
        """
        if rows < 1:
            raise ModelError(f"batches of {rows} rows; ask for at least 1")
        for first in range(0, table.num_rows, rows):
            yield self.encode(table.slice(first, rows))

    def values(self, task: str) -> npt.NDArray[np.float64]:
        """The trees' own value of every leaf of ``task``, (leaves,): what a linear model starts
        from that shall say at first what the trees say.

        For trees fitted by log loss they are log odds, the base rate's among those of tree 0: that
        of all rows, also where the trees were fitted on a share of the negatives.
        """
        parts = [np.array(found.split(), float) for found in _VALUES.findall(self._texts[task])]
        parts[0] += math.log(self._ranker.config.negative_share)  # times the odds
        values: npt.NDArray[np.float64] = np.concatenate(parts)
        return values

    def _ids(self, task: str, matrix: pa.Table) -> npt.NDArray[np.int32]:
        layout = self.layout.tasks[task]
        offsets = np.array(layout.offsets, dtype=np.int32)
        ids = np.empty((matrix.num_rows, layout.trees), dtype=np.int32)
        step = max(_AT_ONCE // layout.trees, 1)
        for first in range(0, matrix.num_rows, step):
            found = self._boosters[task].predict(
                matrix.slice(first, step),
                pred_leaf=True,
                num_iteration=-1,
                num_threads=self._ranker.config.threads,
            )
            np.add(found, offsets, out=ids[first : first + step], casting="same_kind")
        return ids
