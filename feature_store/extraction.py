"""Day tiles and windowed features, from tile files to table files without moving a row.

A unit of work is one view and one range of key hashes. Whoever does it, a Spark task, reads what
it needs of that range, and writes its part of every hour under a fresh path.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import hours as hr
from feature_store.rowhash import sum_of_rows
from feature_store.schemas import TABLES, optional
from feature_store.tiles import HASHES, ROW_GROUP, KeyRange, day_tile, read_tiles
from feature_store.views import VIEWS, FeatureView
from feature_store.windows import HOUR_MICROS, Ints, timestamps, window_features

__all__ = ["Part", "Unit", "feature_rows", "work"]


@dataclass(frozen=True)
class Unit:
    """What one task does.

    Attributes:
        view: place in ``VIEWS``.
        first, last: hours whose features are made, or the hours of the day that is summed.
        folder: where the files go; a fresh path.
        changed: tile files of those hours, and of the hours that leave a window meanwhile.
        past: tile files of which only the rows of changed keys are needed.
        bases: hours of [first, last] that write every living key.
        day: sum ``changed`` into the day's tile instead of making features.
    """

    view: int
    first: str
    last: str
    folder: str
    changed: Sequence[str]
    past: Sequence[str] = ()
    bases: Sequence[str] = ()
    within: KeyRange = HASHES
    day: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Unit:
        values = json.loads(text)
        return cls(**{**values, "within": tuple(values["within"])})


@dataclass(frozen=True)
class Part:
    """A file that a unit wrote: its rows and their digest, whatever their order."""

    hour: str
    path: str
    rows: int
    digest: int


def work(unit: Unit) -> Iterator[Part]:
    """Do ``unit``; yields one part per hour that has rows."""
    view = VIEWS[unit.view]
    if unit.day:
        yield from _sum_day(unit, view)
        return
    for hour, rows, values in feature_rows(unit, view):
        yield _write(unit.folder, hour, rows, view.features_table, values)


def _sum_day(unit: Unit, view: FeatureView) -> Iterator[Part]:
    rows = day_tile(read_tiles(unit.changed, view.keys, unit.within), view.keys, unit.first)
    if rows.num_rows:
        rows = rows.append_column("hour", pa.repeat(unit.last, rows.num_rows))
        numbers = [rows["key_hash"].to_numpy(), rows["n"].to_numpy(), rows["total"].to_numpy()]
        values = np.stack(numbers, axis=1)
        yield _write(unit.folder, unit.last, rows, view.day_counts_table, values)


def feature_rows(unit: Unit, view: FeatureView) -> Iterator[tuple[str, pa.Table, Ints]]:
    """Features of every due key: by hour the rows, in the table's declared columns and sorted by
    key hash, and what their digest is made of, (rows, values)."""
    tiles = read_tiles(unit.changed, view.keys, unit.within)
    if unit.past:
        due = np.unique(tiles["key_hash"].to_numpy())
        past = read_tiles(unit.past, (), unit.within, only=due)
        tiles = pa.concat_tables([tiles, past], promote_options="default")
    place, as_of, values = window_features(tiles, view, unit.first, unit.last, unit.bases)
    hashes = tiles["key_hash"].to_numpy()[place]
    order = np.lexsort((hashes, as_of))
    instants, starts = np.unique(as_of[order], return_index=True)
    for at, chosen in zip(instants.tolist(), np.split(order, starts[1:]), strict=False):
        hour = hr.add("1970-01-01T00", at - 1)
        keys = tiles.select(view.keys).take(pa.array(place[chosen]))
        rows = _declared(view, keys, at, hour, values[chosen])
        yield hour, rows, np.concatenate([hashes[chosen, None], values[chosen]], axis=1)


def _declared(view: FeatureView, keys: pa.Table, at: int, hour: str, values: Ints) -> pa.Table:
    split = len(view.count_columns())
    counted = dict(zip(view.count_columns(), values[:, :split].T, strict=True))
    times = {
        name: timestamps(np.ascontiguousarray(column), never=0)
        for name, column in zip(view.recency_columns(), values[:, split:].T, strict=True)
    }
    as_of = timestamps(np.full(len(values), at * HOUR_MICROS))
    own = dict(zip(view.keys, keys.columns, strict=True))
    return pa.table({**own, "as_of": as_of, **counted, **times,
                     "hour": pa.repeat(hour, len(values))})  # fmt: skip


def _write(folder: str, hour: str, rows: pa.Table, table: str, values: Ints) -> Part:
    # A fresh name: an attempt that Spark repeats must not overwrite what another one returned.
    path = Path(folder) / f"{hour}-{uuid.uuid4().hex}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = optional(TABLES[table].schema)
    rows = rows.select(schema.names).cast(schema)
    pq.write_table(rows, path, compression="zstd", row_group_size=ROW_GROUP)
    return Part(hour, str(path), rows.num_rows, sum_of_rows(values))
