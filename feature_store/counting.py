"""Events to tiles: exact integer sums per key, half-hour of arrival and action, on Arrow.

Counting is additive: any split of the events gives partial tiles that merge to the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.rowhash import key_hashes
from feature_store.schemas import TIMESTAMP
from feature_store.views import VALUE_ACTIONS, VIEWS, FeatureView
from feature_store.windows import TILE_MICROS

__all__ = ["COUNTED", "count_batches", "merged", "partial_tiles"]

COUNTED: Final = (
    "view int, k1 string, k2 string, key_hash bigint, tile timestamp, action string, n bigint, "
    "total bigint, last_at timestamp, hour string"
)
_CHUNK_ROWS: Final = 1 << 18
"""So many events are counted at once: memory stays bounded, and most keys meet already here."""

_SUMS: Final = [("n", "sum"), ("total", "sum"), ("last_at", "max")]
_SUMMED: Final = {"n_sum": "n", "total_sum": "total", "last_at_max": "last_at"}


def count_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Partial tiles of all views, rows of ``COUNTED``, from events with every view's keys."""
    pieces: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pieces.append(batch)
        rows += batch.num_rows
        if rows >= _CHUNK_ROWS:
            yield from _count(pieces)
            pieces, rows = [], 0
    if pieces:
        yield from _count(pieces)


def _count(pieces: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    events = _measured(pa.Table.from_batches(pieces))
    for number, view in enumerate(VIEWS):
        yield from partial_tiles(events, number, view).combine_chunks().to_batches()


def _measured(events: pa.Table) -> pa.Table:
    """``events`` with what is summed: n, total (exact integer units), last_at, and the tile."""
    arrived = pc.cast(events["ingested_at"], pa.int64()).to_numpy()
    value = pc.fill_null(events["value"], 0.0).to_numpy()
    total = np.zeros(events.num_rows, np.int64)
    for action, factor in VALUE_ACTIONS.items():
        mine = pc.equal(events["action"], action).to_numpy()
        total[mine] = np.floor(value[mine] * factor + 0.5).astype(np.int64)
    tile = pa.array(arrived // TILE_MICROS * TILE_MICROS).cast(TIMESTAMP)
    return (
        events.append_column("tile", tile)
        .append_column("n", pa.array(np.ones(events.num_rows, np.int64)))
        .append_column("total", pa.array(total))
        .append_column("last_at", pc.cast(events["event_time"], TIMESTAMP))
    )


def partial_tiles(events: pa.Table, number: int, view: FeatureView) -> pa.Table:
    """Tiles of one view. Events without one of its keys do not count for it."""
    counts = pc.is_in(events["action"], pa.array(view.actions))
    for key in view.keys:
        counts = pc.and_(counts, pc.is_valid(events[key]))
    by = [*view.keys, "tile", "action", "hour"]
    mine = events.select([*by, "n", "total", "last_at"]).filter(counts)
    summed = mine.group_by(by, use_threads=False).aggregate(_SUMS)
    second = summed[view.keys[1]] if len(view.keys) > 1 else pa.repeat("", summed.num_rows)
    return pa.table(
        {
            "view": pa.array(np.full(summed.num_rows, number, np.int32)),
            "k1": summed[view.keys[0]],
            "k2": second,
            "key_hash": pa.array(key_hashes([summed[key] for key in view.keys])),
            **{name: summed[name] for name in ("tile", "action")},
            **{name: summed[column] for column, name in _SUMMED.items()},
            "hour": summed["hour"],
        }
    )


def merged(tiles: pa.Table) -> pa.Table:
    """Partial tiles of one view and hour as one row per key, tile and action, in order."""
    by = ["key_hash", "k1", "k2", "tile", "action", "hour"]
    summed = tiles.group_by(by, use_threads=False).aggregate(_SUMS)
    names = [_SUMMED.get(name, name) for name in summed.column_names]
    order = [(name, "ascending") for name in by]
    return summed.rename_columns(names).sort_by(order)
