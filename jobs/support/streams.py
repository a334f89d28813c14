"""A training set as a model streams it, with what there is to say of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.digests import StreamDigest
from feature_store.labels import label_column
from feature_store.tables import Store
from feature_store.training_set import STREAMED, Recipe, training_batches
from jobs.support.provenance import Provenance
from jobs.support.training import held_out
from models.spilled_rows import SpilledRows

__all__ = ["Stream"]

_KEPT_ROWS = 256
"""Held-out rows kept of every hour, for the version's plots and its example."""


class _Tally:
    """What is counted of rows that pass by: digest, open labels by hour, some that are held out."""

    def __init__(self, tasks: tuple[str, ...], joined: tuple[str, ...]) -> None:
        self.digest = StreamDigest()
        self._tasks = tasks
        self._missing = dict.fromkeys(joined, 0)
        self._hours: dict[str, npt.NDArray[np.int64]] = {}
        self._kept: dict[str, list[pa.RecordBatch]] = {}
        self._first: pa.RecordBatch | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of one hour."""
        hour = batch["hour"][0].as_py()
        self.digest.update(batch)
        counts = [batch.num_rows, *(batch[label_column(task)].null_count for task in self._tasks)]
        self._hours[hour] = self._hours.get(hour, 0) + np.array(counts)
        for name in self._missing:
            self._missing[name] += batch[name].null_count
        kept = self._kept.setdefault(hour, [])
        room = _KEPT_ROWS - sum(part.num_rows for part in kept)
        if room > 0:
            rows = np.flatnonzero(held_out(batch["group_id"]))[:room]
            kept.append(batch.take(pa.array(rows)))
        if self._first is None:
            self._first = batch.slice(0, 1).take(pa.array([0]))

    def censored(self) -> pa.Table:
        """As :func:`feature_store.labels.censored_share` has it."""
        counts = np.array(list(self._hours.values())).reshape(len(self._hours), -1)
        shares = {
            task: counts[:, 1 + place] / counts[:, 0] for place, task in enumerate(self._tasks)
        }
        return pa.table({"hour": list(self._hours), "rows": counts[:, 0], **shares})

    def missing(self) -> dict[str, float]:
        """The share of rows without each of what was joined."""
        return {name: count / max(self.digest.rows, 1) for name, count in self._missing.items()}

    def kept(self) -> pa.Table:
        """Some of the held-out rows of every hour; the very first row where none is held out."""
        parts = [part for kept in self._kept.values() for part in kept if part.num_rows]
        return pa.Table.from_batches(parts or [self._first])


class Stream:
    """The rows of a recipe, as often as they are asked for.

    Args:
        tasks: labels that are learned.
    """

    def __init__(self, store: Store, recipe: Recipe, tasks: tuple[str, ...]) -> None:
        self._store = store
        self._recipe = recipe
        self._tasks = tasks
        self._tally: _Tally | None = None

    def rows(self) -> Iterator[pa.RecordBatch]:
        """All rows, hour after hour; the same every time."""
        joined = (*self._recipe.vectors, *self._recipe.similarities)
        tally = _Tally(self._tasks, joined) if self._tally is None else None
        for batch in training_batches(self._store, self._recipe):
            if tally is not None:
                tally.add(batch)
            yield batch
        self._tally = tally or self._tally

    @staticmethod
    def held(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """Which rows of ``batch`` stop the fit early."""
        return held_out(batch["group_id"])

    def parted(self, fitted: SpilledRows) -> pa.Table:
        """Give the rows to fit on to ``fitted``; returned are those that stop the fit early."""
        stopping = []
        for batch in self.rows():
            held = pa.array(self.held(batch))
            stopping.append(batch.filter(held))
            fitted.append(pa.Table.from_batches([batch.filter(pc.invert(held))]))
        return pa.Table.from_batches(stopping)

    def provenance(self) -> Provenance:
        """What the rows are; reads them all when no reader has come to their end."""
        tally = self._passed()
        digest = tally.digest
        censored = tally.censored()
        return Provenance(
            self._recipe, digest.rows, digest.hexdigest(), censored, self._tasks, STREAMED,
            tally.missing(),
        )  # fmt: skip

    def examples(self) -> pa.Table:
        """Some rows that were held out, of every hour."""
        return self._passed().kept()

    def _passed(self) -> _Tally:
        if self._tally is None:
            for _ in self.rows():
                pass
        if self._tally is None or not self._tally.digest.rows:
            raise RuntimeError("the training set has no rows; a model was fitted on nothing")
        return self._tally
