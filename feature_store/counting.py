"""Events to tiles: exact integer sums per key, half-hour of arrival and action, on Arrow.

Counting is additive: any split of the events by users gives partial tiles that merge to the same
ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import storage
from feature_store.derived import EntityFiles, with_derived_keys
from feature_store.parts import Part, Target, write_hours
from feature_store.rowhash import key_hashes, sum_of_rows
from feature_store.schemas import EVENTS, TIMESTAMP
from feature_store.views import BOTS, VALUE_ACTIONS, VIEWS, BotRule, FeatureView
from feature_store.windows import TILE_MICROS, key_codes

__all__ = [
    "COUNTED",
    "EVENT_COLUMNS",
    "KEY_COLUMNS",
    "CountTask",
    "count",
    "measured",
    "merge_target",
    "merged",
    "partial_tiles",
    "tiles_of_all_views",
    "without_bots",
]

KEY_COLUMNS: Final = tuple(dict.fromkeys(key for view in VIEWS for key in view.keys))
"""Every column that some view is keyed by."""

EVENT_COLUMNS: Final = tuple(
    name
    for name in EVENTS.names
    if name in {*KEY_COLUMNS, "action", "value", "event_time", "ingested_at", "hour"}
)
"""What is read of events."""

COUNTED: Final = (
    "view int, k1 string, k2 string, key_hash bigint, tile timestamp, action string, n bigint, "
    "total bigint, last_at timestamp, hour string"
)
"""The Spark schema of partial tiles of all views: ``view`` is the view's place in ``VIEWS``."""

_SUMS: Final = [("n", "sum"), ("total", "sum"), ("last_at", "max")]
_SUMMED: Final = {"n_sum": "n", "total_sum": "total", "last_at_max": "last_at"}


@dataclass(frozen=True)
class CountTask:
    """Whole hours that are small enough to be counted by one task.

    Attributes:
        events: their files.
        folders: where each view's files go; fresh paths.
    """

    events: Sequence[str]
    entities: EntityFiles
    folders: Sequence[str]


def count(task: CountTask) -> Iterator[Part]:
    """Write the tiles of every view; one part per view and hour that has any."""
    pieces = [storage.read_table(path, EVENT_COLUMNS) for path in task.events]
    if not pieces:
        return
    events = with_derived_keys(without_bots(pa.concat_tables(pieces)), task.entities)
    rows = measured(events)
    for number, view in enumerate(VIEWS):
        target = Target(view.counts_table, _ORDER, partial(_declared, view=view), digest)
        yield from write_hours(partial_tiles(rows, number, view), target, task.folders[number])


def merge_target(view: FeatureView) -> Target:
    """Where partial tiles of the view go once those of a key have met."""
    return Target(view.counts_table, _ORDER, partial(merged, view=view), digest)


def tiles_of_all_views(pieces: Sequence[pa.RecordBatch], entities: EntityFiles) -> pa.Table:
    """Partial tiles, rows of ``COUNTED``, of all events that their users made in their hours."""
    events = with_derived_keys(without_bots(pa.Table.from_batches(pieces)), entities)
    rows = measured(events)
    return pa.concat_tables(partial_tiles(rows, number, view) for number, view in enumerate(VIEWS))


def without_bots(events: pa.Table, rule: BotRule = BOTS) -> pa.Table:
    """Events of users who, in the hour of arrival, behave as ``rule`` says that people do.

    Grain: unchanged, one row per event that is left.

    Args:
        events: all events of their users in their hours.
    """
    codes = key_codes(events, ("user_id", "hour"))
    size = int(codes.max(initial=-1)) + 1

    def totals(action: str) -> np.ndarray:
        chosen = pc.equal(events["action"], action).to_numpy()
        return np.bincount(codes[chosen], minlength=size)

    shown, clicked = totals("impression"), totals("click")
    eager = (shown >= rule.min_impressions) & (clicked > shown * rule.max_click_rate)
    bots = eager | (np.bincount(codes, minlength=size) > rule.max_events)
    return events.filter(pa.array(~bots[codes])) if bots.any() else events


def measured(events: pa.Table) -> pa.Table:
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


_ORDER: Final = ("key_hash", "k1", "k2", "tile", "action")


def merged(tiles: pa.Table, view: FeatureView) -> pa.Table:
    """Partial tiles of one view and hour, in order and in the columns of its counts table."""
    summed = tiles.group_by([*_ORDER, "hour"], use_threads=False).aggregate(_SUMS)
    names = [_SUMMED.get(name, name) for name in summed.column_names]
    ordered = summed.rename_columns(names).sort_by([(name, "ascending") for name in _ORDER])
    return _declared(ordered, view)


def _declared(tiles: pa.Table, view: FeatureView) -> pa.Table:
    keys = dict(zip(view.keys, (tiles["k1"], tiles["k2"]), strict=False))
    own = ("key_hash", "tile", "action", "n", "total", "last_at", "hour")
    return pa.table({**keys, **{name: tiles[name] for name in own}})


def digest(tiles: pa.Table) -> int:
    """The sum of the names of rows of a counts table: the same however they are split."""
    columns = [tiles["key_hash"], tiles["tile"], tiles["n"], tiles["total"], tiles["last_at"]]
    numbers = [pc.cast(column, pa.int64()).to_numpy() for column in columns]
    return sum_of_rows(np.stack([*numbers, key_hashes([tiles["action"]])], axis=1))
