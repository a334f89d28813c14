"""Feature views to Spark: events to counts, counts to features, for all views in one pass.

Spark moves rows to where they meet and sums them; the arithmetic of windows runs on whole
partitions in ``windows``, since plans of hundreds of columns are slow to compile and slower to
run. Rows of all views share one frame: ``view`` is the view's place in ``VIEWS``, ``k1`` and
``k2`` its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812

from feature_store import hours as hr
from feature_store.spark_io import meet
from feature_store.views import VALUE_ACTIONS, VIEWS, FeatureView
from feature_store.windows import HOUR_MICROS, timestamps, window_features

__all__ = [
    "FEATURE_ROWS",
    "KEYS",
    "PACKED",
    "TILES",
    "as_bytes",
    "count_tiles",
    "extract_windows",
    "from_bytes",
    "hour_text",
    "keyed",
    "latest_before",
    "stacked_features",
    "stacked_tiles",
    "unpack_features",
    "unpack_tiles",
    "with_category",
]

KEYS: Final = ("view", "k1", "k2")
PACKED: Final = "packed"
"""A view's stored values as bytes: int64 counts, then last times in microseconds (0 = never). Spark
copies bytes as they are, where it would convert an array element by element."""

_KEY_SCHEMA: Final = "view int, k1 string, k2 string"
TILES: Final = (
    f"{_KEY_SCHEMA}, tile timestamp, action string, n bigint, total bigint, last_at timestamp, "
    "hour string"
)
FEATURE_ROWS: Final = f"{_KEY_SCHEMA}, as_of bigint, {PACKED} binary, hour string"
_NO_KEY: Final = ""


def hour_text(column: Column) -> Column:
    """The hour that covers a timestamp, as ``2026-11-11T05``."""
    return F.date_format(column, "yyyy-MM-dd'T'HH")


def latest_before(entities: DataFrame, key: str) -> DataFrame:
    """Entity rows with the hours during which each is the newest that had arrived.

    Grain: one row per key and arrival hour; ``known_from`` (inclusive) and ``known_to`` (exclusive)
    bound it as hour texts. Of several rows of one hour the newest ``valid_from`` counts.
    """
    in_time = Window.partitionBy(key).orderBy("hour", "valid_from")
    following = F.lead("hour").over(in_time)
    return (
        entities.withColumn("known_to", following)
        .where("known_to IS NULL OR known_to > hour")
        .withColumnRenamed("hour", "known_from")
        .withColumn("known_to", F.coalesce("known_to", F.lit("9999")))
    )


def with_category(
    events: DataFrame, items: DataFrame, rooms: DataFrame, small: bool = False
) -> DataFrame:
    """``events`` plus ``category``: its item's, else its room's, as known in the event's hour.

    Grain: unchanged, one row per event.

    Args:
        items, rooms: have their key, ``category``, ``valid_from`` and ``hour``.
        small: whether both fit into every task's memory, so that the events need not move.
    """
    joined = events
    for entities, key in ((items, "item_id"), (rooms, "room_id")):
        known = latest_before(entities, key).select(
            F.col(key).alias("_key"),
            F.col("category").alias(f"_{key}_category"),
            "known_from",
            "known_to",
        )
        known = F.broadcast(known) if small else known
        valid = (F.col("hour") >= F.col("known_from")) & (F.col("hour") < F.col("known_to"))
        joined = joined.join(known, (F.col(key) == F.col("_key")) & valid, "left").drop(
            "_key", "known_from", "known_to"
        )
    category = F.coalesce("_item_id_category", "_room_id_category")
    return joined.withColumn("category", category).drop("_item_id_category", "_room_id_category")


def keyed(rows: DataFrame, when: Sequence[Column | None] = (None,) * len(VIEWS)) -> DataFrame:
    """Every row once per view whose keys it has, with the columns ``view``, ``k1`` and ``k2``.

    Args:
        when: a condition per view on the rows that count for it; None for all.
    """
    places = []
    for number, (view, condition) in enumerate(zip(VIEWS, when, strict=True)):
        keys = [F.col(key) for key in view.keys]
        present = keys[0].isNotNull()
        for other in (*keys[1:], *([condition] if condition is not None else [])):
            present = present & (other if other is condition else other.isNotNull())
        second = keys[1] if len(keys) > 1 else F.lit(_NO_KEY)
        place = F.struct(F.lit(number).alias("view"), keys[0].alias("k1"), second.alias("k2"))
        places.append(F.when(present, place))
    exploded = rows.withColumn("_place", F.explode(F.array(*places))).where("_place IS NOT NULL")
    return exploded.select("*", "_place.*").drop("_place")


def count_tiles(events: DataFrame) -> DataFrame:
    """Exact integer sums of all views.

    Grain: one row per view, key, half-hour of arrival (``tile``) and action. Events without one of
    a view's keys do not count for it.
    """
    counted = [F.col("action").isin(list(view.actions)) for view in VIEWS]
    unit = F.lit(1)
    for action, factor in VALUE_ACTIONS.items():
        unit = F.when(F.col("action") == action, F.lit(factor)).otherwise(unit)
    valued = F.col("action").isin(list(VALUE_ACTIONS))
    total = F.when(valued, F.round(F.coalesce("value", F.lit(0.0)) * unit)).otherwise(F.lit(0.0))
    tile = F.timestamp_seconds(F.floor(F.unix_seconds("ingested_at") / 1800) * 1800)
    narrow = events.select(
        "user_id", "item_id", "room_id", "category", "action", "hour", "event_time",
        tile.alias("tile"), total.cast("long").alias("total"),
    )  # fmt: skip
    return (
        keyed(narrow, counted)
        .groupBy(*KEYS, "tile", "action", "hour")
        .agg(
            F.count(F.lit(1)).alias("n"),
            F.sum("total").alias("total"),
            F.max("event_time").alias("last_at"),
        )
        .select(*KEYS, "tile", "action", "n", "total", "last_at", "hour")
    )


def stacked_tiles(rows: pa.Table, view: int) -> pa.Table:
    """Rows of a view's counts table as rows of ``TILES``."""
    columns = {name: rows[name] for name in ("tile", "action", "n", "total", "last_at", "hour")}
    return pa.table({**_stacked_keys(rows, view), **columns})


def stacked_features(rows: pa.Table, view: int) -> pa.Table:
    """Rows of a view's features table as rows of ``FEATURE_ROWS``."""
    declared = VIEWS[view]
    times = [pc.fill_null(pc.cast(rows[c], pa.int64()), 0) for c in declared.recency_columns()]
    values = [rows[c].to_numpy() for c in declared.count_columns()]
    packed = np.stack([*values, *(t.to_numpy() for t in times)], axis=1)
    return pa.table(
        {
            **_stacked_keys(rows, view),
            "as_of": pc.cast(rows["as_of"], pa.int64()),
            PACKED: as_bytes(packed),
            "hour": rows["hour"],
        }
    )


def _stacked_keys(rows: pa.Table, view: int) -> dict[str, pa.Array | pa.ChunkedArray]:
    keys = VIEWS[view].keys
    second = rows[keys[1]] if len(keys) > 1 else pa.array([_NO_KEY] * rows.num_rows, pa.string())
    return {
        "view": pa.array(np.full(rows.num_rows, view, np.int32)),
        "k1": rows[keys[0]],
        "k2": second,
    }


def _own_keys(rows: pa.Table, view: FeatureView) -> dict[str, pa.ChunkedArray]:
    return dict(zip(view.keys, (rows["k1"], rows["k2"]), strict=False))


def extract_windows(
    tiles: DataFrame, first: str, last: str, base_hours: Sequence[str]
) -> DataFrame:
    """Windowed sums of every key that changed, see :func:`feature_store.windows.window_features`.

    Grain: one row per view, key and ``as_of``, in partition ``hour`` = as_of - 1h.

    Args:
        tiles: counts of hours [first - MAX_WINDOW, last].
        base_hours: hours of [first, last] that write every living key.
    """

    def partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if not pieces:
            return
        rows = pa.Table.from_batches(pieces)
        for number, view in enumerate(VIEWS):
            mine = rows.filter(pc.equal(rows["view"], number))
            yield from _feature_rows(mine, number, view, first, last, base_hours).to_batches()

    return meet(tiles.drop("tile"), KEYS).mapInArrow(partition, FEATURE_ROWS)


def _feature_rows(
    tiles: pa.Table, number: int, view: FeatureView, first: str, last: str, bases: Sequence[str]
) -> pa.Table:
    keys, as_of, values = window_features(tiles, view, first, last, bases, keys=("k1", "k2"))
    distinct, position = np.unique(as_of, return_inverse=True)
    names = pa.array([hr.add("1970-01-01T00", int(hour) - 1) for hour in distinct], pa.string())
    return pa.table(
        {
            "view": pa.array(np.full(len(as_of), number, np.int32)),
            "k1": keys["k1"],
            "k2": keys["k2"],
            "as_of": pa.array(as_of * HOUR_MICROS),
            PACKED: as_bytes(values),
            "hour": names.take(pa.array(position)),
        }
    )


def as_bytes(matrix: npt.NDArray[np.int64] | npt.NDArray[np.float32]) -> pa.BinaryArray:
    """Rows of a matrix (N, K) as N byte strings, native byte order."""
    data = pa.py_buffer(np.ascontiguousarray(matrix))
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * (matrix.shape[1] * matrix.itemsize)
    buffers = [None, pa.py_buffer(offsets), data]
    return pa.Array.from_buffers(pa.binary(), len(matrix), buffers)


def from_bytes(rows: pa.Array, kind: type[np.generic], width: int) -> npt.NDArray[Any]:
    """The matrix (N, ``width``) behind :func:`as_bytes`; no row may be null."""
    if not len(rows):
        return np.zeros((0, width), kind)
    offsets = np.frombuffer(rows.buffers()[1], np.int32)[rows.offset : rows.offset + len(rows) + 1]
    data = np.frombuffer(rows.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.view(kind).reshape(len(rows), width)


def unpack_tiles(rows: pa.Table, view: FeatureView) -> pa.Table:
    """Rows of ``TILES`` in the declared columns of a view's counts table."""
    columns = {name: rows[name] for name in ("tile", "action", "n", "total", "last_at", "hour")}
    return pa.table({**_own_keys(rows, view), **columns})


def unpack_features(rows: pa.Table, view: FeatureView) -> pa.Table:
    """Rows of ``FEATURE_ROWS`` in the declared columns of a view's features table."""
    width = len(view.count_columns()) + len(view.recency)
    values = from_bytes(rows[PACKED].combine_chunks(), np.int64, width)
    split = len(view.count_columns())
    counted = dict(zip(view.count_columns(), values[:, :split].T, strict=True))
    times = {
        name: timestamps(np.ascontiguousarray(column), never=0)
        for name, column in zip(view.recency_columns(), values[:, split:].T, strict=True)
    }
    as_of = timestamps(rows["as_of"].to_numpy())
    own = _own_keys(rows, view)
    return pa.table({**own, "as_of": as_of, **counted, **times, "hour": rows["hour"]})
