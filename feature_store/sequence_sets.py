"""Sequences beside a training set's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import storage
from feature_store.schemas import TABLES, TIMESTAMP, optional
from feature_store.sequence_views import SequenceView
from feature_store.tables import Store, StoreError
from feature_store.windows import Ints, key_codes

__all__ = ["Placed", "placed", "sequence_files", "with_sequences"]


def with_sequences(
    store: Store,
    samples: pa.Table,
    views: Sequence[SequenceView],
    hours: Sequence[str],
    snapshots: Mapping[str, int] | None = None,
) -> pa.Table:
    """``samples`` with a list column ``<view>_<element>`` per view and element, newest last.

    A sample without a sequence has an empty list; none is null. Beside the result, one hour of one
    view is held at a time.

    Args:
        samples: has ``hour``, ``as_of`` and the views' keys; rows stay as they are, in their order.
        hours: the hours of ``samples``.
        snapshots: Iceberg snapshot to read by table; a table without one is taken as empty. By
            default the current ones are read.

    Raises:
        StoreError: when samples are of an hour that is not in ``hours``, or the sequences of an
            hour are not there; at given snapshots there is no telling that.
    """
    foreign = sorted(set(pc.unique(samples["hour"]).to_pylist()) - set(hours))
    if foreign:
        raise StoreError(f"samples of {foreign[0]} are not among the {len(hours)} hours given")
    for view in views:
        if snapshots is None:
            _require(store, view, hours)
        files = sequence_files(store, view, hours, snapshots)
        parts, rows = [], []
        for hour in sorted(set(hours)):
            mine = np.flatnonzero(pc.equal(samples["hour"], hour).to_numpy())
            if len(mine):
                keys = samples.select([view.key, "as_of"]).take(mine)
                parts.append(pa.table(placed(keys, view, files[hour]).columns()))
                rows.append(mine)
        order = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        if not parts:
            parts = [pa.table(placed(samples, view, []).columns())]
        joined = pa.concat_tables(parts)
        if (order != np.arange(len(order))).any():
            joined = joined.take(pa.array(np.argsort(order)))
        for name in joined.column_names:
            samples = samples.append_column(name, joined[name])
    return samples


def _require(store: Store, view: SequenceView, hours: Sequence[str]) -> None:
    there = set(store.readable_hours(view.table, min(hours), max(hours))) if hours else set()
    missing = sorted(set(hours) - there)
    if missing:
        raise StoreError(
            f"{view.table} of {missing[0]} is not there ({len(missing)} of {len(hours)} hours). "
            f"Run: spark-submit jobs/build_samples.py --from-hour {missing[0]} "
            f"--to-hour {missing[-1]}"
        )


@dataclass(frozen=True)
class Placed:
    """The sequences of one view and hour, and which of them each sample has.

    Attributes:
        elements: by column ``<view>_<element>`` the lists, an empty one last.
        places: index into the lists, one per sample.
    """

    elements: Mapping[str, pa.ListArray]
    places: Ints

    def columns(self, start: int = 0, stop: int | None = None) -> dict[str, pa.ListArray]:
        """The list columns of the samples [start, stop)."""
        mine = pa.array(self.places[start:stop])
        return {name: lists.take(mine) for name, lists in self.elements.items()}


def placed(samples: pa.Table, view: SequenceView, files: Sequence[str]) -> Placed:
    """The sequences of ``view`` that ``samples`` of an hour have.

    Args:
        files: the hour's files of the view's table.
    """
    schema = optional(TABLES[view.table].schema)
    found = storage.dataset(files, schema).to_table()
    elements = {}
    for element, name in zip(view.elements, view.columns(), strict=True):
        lists = [*found[element].chunks, pa.array([[]], schema.field(element).type)]
        elements[name] = pa.chunked_array(lists).combine_chunks()
    return Placed(elements, _places(samples, found, view.key))


def sequence_files(
    store: Store, view: SequenceView, hours: Sequence[str], snapshots: Mapping[str, int] | None
) -> Mapping[str, Sequence[str]]:
    """The files of ``view`` by hour, from one plan; ``snapshots`` as of :func:`with_sequences`."""
    if snapshots is not None and view.table not in snapshots:
        return {hour: [] for hour in hours}
    snapshot = None if snapshots is None else snapshots[view.table]
    return store.files_by_hour(view.table, hours, snapshot_id=snapshot)


def _places(samples: pa.Table, found: pa.Table, key: str) -> Ints:
    """Which row of ``found`` has each sample's key and as_of; their number where none has."""
    sides = [
        pa.table({"key": pc.fill_null(rows[key], ""), "as_of": rows["as_of"].cast(TIMESTAMP)})
        for rows in (found, samples)
    ]
    codes = key_codes(pa.concat_tables(sides), ("key", "as_of"))
    row_of = np.full(int(codes.max(initial=-1)) + 1, found.num_rows)
    row_of[codes[: found.num_rows]] = np.arange(found.num_rows)
    places = row_of[codes[found.num_rows :]]
    return np.where(pc.is_valid(samples[key]).to_numpy(), places, found.num_rows)
