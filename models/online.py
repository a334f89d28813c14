"""What a system downstream needs to go on from a registered version: small batches, one after the
other, from the weights and accumulators that batch training left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.base import FeatureSpec, ModelError, Ranker
from models.deep import DeepRanker
from models.trainer import Trainer

__all__ = ["OnlineLearner", "labelled_batches"]


class OnlineLearner:
    """Updates a deep ranker in place, batch by batch.

    Args:
        learning_rate: of an update; by default that of the batch training.

    Raises:
        ModelError: for a model that is not trained by gradients.
    """

    def __init__(self, model: Ranker, learning_rate: float | None = None) -> None:
        if not isinstance(model, DeepRanker):
            raise ModelError(
                f"a model of family {model.family} takes no gradient steps; load a deep ranker, "
                "such as mmoe_ranker"
            )
        self.model = model
        loop = model.config.training
        rate = loop.learning_rate if learning_rate is None else learning_rate
        self._trainer = Trainer(model.module, model.objectives, replace(loop, learning_rate=rate))
        self._trainer.optimizer.restore(model.accumulators, model.steps)

    def update(self, rows: pa.Table | pa.RecordBatch) -> dict[str, float]:
        """One step on labelled rows; each task's loss before it, for tasks with a mature row.

        Raises:
            SpecError: for rows without the columns of the model's FeatureSpec.
            TrainingRefused: for a loss that is not finite; the model stays as it was.
        """
        losses, mature = self._trainer.step(self.model.encode(rows))
        self.model.adopt(self._trainer)
        found = zip(self.model.tasks, losses.tolist(), mature.tolist(), strict=True)
        return {task: loss for task, loss, count in found if count}


def labelled_batches(path: Path, spec: FeatureSpec, size: int) -> Iterator[pa.RecordBatch]:
    """Rows of a Parquet file as ``spec`` reads them, ``size`` at a time; at least a label is known.

    Raises:
        ModelError: for a file that is not there.
        SpecError: for one that lacks a column, or holds another type.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}; name a Parquet file of labelled rows")
    with pq.ParquetFile(path) as file:
        spec.check(file.schema_arrow.empty_table())
        wanted = [*spec.columns, *spec.labels, *(column.name for column in spec.training_only)]
        for batch in file.iter_batches(size, columns=wanted):
            known = pc.is_valid(batch.column(spec.labels[0]))
            for label in spec.labels[1:]:
                known = pc.or_(known, pc.is_valid(batch.column(label)))
            if (kept := batch.filter(known)).num_rows:
                yield kept
