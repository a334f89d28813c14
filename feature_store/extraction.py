"""Day tiles and windowed features, from tile files to table files without moving a row.

A unit of work is one view and one range of key hashes. Whoever does it, a Spark task, reads what
it needs of that range, and writes its part of every hour under a fresh path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from feature_store import hours as hr
from feature_store.parts import Part, write_part
from feature_store.rowhash import sum_of_rows
from feature_store.tiles import HASHES, KeyRange, day_tile, found_tiles, read_tiles
from feature_store.views import VIEWS, FeatureView
from feature_store.windows import (
    HOUR_MICROS,
    Ints,
    WindowSums,
    due_keys,
    epoch_hour,
    timestamps,
    window_features,
)

__all__ = ["Unit", "feature_rows", "work"]


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
        rows: about how many tiles it reads; whoever hands out units begins with the largest.
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
    rows: int = 0


def work(unit: Unit) -> Iterator[Part]:
    """Do ``unit``; yields one part per hour that has rows."""
    view = VIEWS[unit.view]
    if unit.day:
        yield from _sum_day(unit, view)
        return
    for hour, rows, values in feature_rows(unit, view):
        yield write_part(unit.folder, view.features_table, hour, rows, sum_of_rows(values))


def _sum_day(unit: Unit, view: FeatureView) -> Iterator[Part]:
    rows = day_tile(read_tiles(unit.changed, view.keys, unit.within), view.keys, unit.first)
    if rows.num_rows:
        rows = rows.append_column("hour", pa.repeat(unit.last, rows.num_rows))
        numbers = [rows["key_hash"].to_numpy(), rows["n"].to_numpy(), rows["total"].to_numpy()]
        digest = sum_of_rows(np.stack(numbers, axis=1))
        yield write_part(unit.folder, view.day_counts_table, unit.last, rows, digest)


def feature_rows(unit: Unit, view: FeatureView) -> Iterator[tuple[str, pa.Table, Ints]]:
    """Features of every due key: by hour the rows, in the table's declared columns and sorted by
    key hash, and what their digest is made of, (rows, values)."""
    if unit.first == unit.last and not unit.bases:
        yield from _hour_rows(unit, view)
        return
    tiles = read_tiles([*unit.changed, *unit.past], view.keys, unit.within)
    place, as_of, values = window_features(tiles, view, unit.first, unit.last, unit.bases)
    hashes = tiles["key_hash"].to_numpy()[place]
    order = np.lexsort((hashes, as_of))
    instants, starts = np.unique(as_of[order], return_index=True)
    for at, chosen in zip(instants.tolist(), np.split(order, starts[1:]), strict=False):
        hour = hr.add("1970-01-01T00", at - 1)
        keys = tiles.select(view.keys).take(pa.array(place[chosen]))
        rows = _declared(view, keys, at, hour, values[chosen])
        yield hour, rows, np.concatenate([hashes[chosen, None], values[chosen]], axis=1)


def _hour_rows(unit: Unit, view: FeatureView) -> Iterator[tuple[str, pa.Table, Ints]]:
    """:func:`feature_rows` of one hour, for the keys whose counts it changes."""
    tiles = read_tiles(unit.changed, view.keys, unit.within)
    as_of = epoch_hour(unit.last) + 1
    hashes, first = due_keys(tiles, view, as_of)
    if not len(hashes):
        return
    sums = WindowSums(view, hashes, as_of)
    rows, place = sums.find(tiles["key_hash"].to_numpy())
    sums.add(tiles.select(sums.columns).take(pa.array(rows)), place)
    for past, place in found_tiles(unit.past, unit.within, sums.columns, sums.find):
        sums.add(past, place)
    values = sums.values()
    keys = tiles.select(view.keys).take(pa.array(first))
    declared = _declared(view, keys, as_of, unit.last, values)
    yield unit.last, declared, np.concatenate([hashes[:, None], values], axis=1)


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
