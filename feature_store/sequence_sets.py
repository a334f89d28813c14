"""Sequences beside a training set's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import TABLES, TIMESTAMP, optional
from feature_store.sequence_views import SequenceView
from feature_store.tables import Store, StoreError
from feature_store.windows import Ints, key_codes

__all__ = ["with_sequences"]


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
        snapshots: Iceberg snapshot to read by table; else the current one.

    Raises:
        StoreError: when samples are of an hour that is not in ``hours``, or the sequences of an
            hour are not there.
    """
    at = snapshots or {}
    foreign = sorted(set(pc.unique(samples["hour"]).to_pylist()) - set(hours))
    if foreign:
        raise StoreError(f"samples of {foreign[0]} are not among the {len(hours)} hours given")
    for view in views:
        _require(store, view, hours)
        parts, rows = [], []
        for hour in sorted(set(hours)):
            mine = np.flatnonzero(pc.equal(samples["hour"], hour).to_numpy())
            if len(mine):
                found = store.read(view.table, [hour], snapshot_id=at.get(view.table))
                parts.append(_joined(samples.select([view.key, "as_of"]).take(mine), found, view))
                rows.append(mine)
        order = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        joined = pa.concat_tables(parts) if parts else _joined(samples, None, view)
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


def _joined(samples: pa.Table, found: pa.Table | None, view: SequenceView) -> pa.Table:
    """The list columns of ``samples``, from the sequences ``found`` of their hour."""
    schema = optional(TABLES[view.table].schema)
    found = schema.empty_table() if found is None else found
    place = _places(samples, found, view.key)
    columns = {}
    for element, name in zip(view.elements, view.columns(), strict=True):
        kind = schema.field(element).type
        lists = [*found[element].cast(kind).chunks, pa.array([[]], kind)]
        columns[name] = pa.chunked_array(lists).combine_chunks().take(pa.array(place))
    return pa.table(columns)


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
