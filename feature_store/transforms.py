"""Feature views to Spark: events to counts, counts to features, for all views in one pass.

Spark moves rows to where they meet and sums them. Rows of all views share one frame: ``view`` is
the view's place in ``VIEWS``, ``k1`` and ``k2`` are its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812

from feature_store.counting import COUNTED, count_batches, merged
from feature_store.extraction import Part, Unit, work
from feature_store.views import BOTS, DERIVED_KEYS, VIEWS, BotRule, FeatureView

__all__ = [
    "FEATURE_ROWS",
    "KEYS",
    "KEY_COLUMNS",
    "PACKED",
    "TILE_COLUMNS",
    "as_bytes",
    "count_tiles",
    "derived_columns",
    "entity_schema",
    "from_bytes",
    "hour_text",
    "keyed",
    "latest_before",
    "run_units",
    "stacked_entities",
    "stacked_features",
    "unpack_tiles",
    "with_derived_keys",
    "without_bots",
]

KEYS: Final = ("view", "k1", "k2")
PACKED: Final = "packed"
"""A view's stored values as bytes: int64 counts, then last times in microseconds (0 = never). Spark
copies bytes as they are, where it would convert an array element by element."""

FEATURE_ROWS: Final = f"view int, k1 string, k2 string, as_of bigint, {PACKED} binary, hour string"
TILE_COLUMNS: Final = ("key_hash", "tile", "action", "n", "total", "last_at")
KEY_COLUMNS: Final = tuple(dict.fromkeys(key for view in VIEWS for key in view.keys))
"""Every column that some view is keyed by."""

_NO_KEY: Final = ""
_MAP_PREFIX: Final = "categorical."


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


def with_derived_keys(
    events: DataFrame, entities: Mapping[str, DataFrame], small: bool = False
) -> DataFrame:
    """``events`` plus a column per ``DERIVED_KEYS``, as known in the event's hour.

    Grain: unchanged, one row per event.

    Args:
        entities: by table; its key, the columns of :func:`derived_columns` and ``valid_from``,
            ``hour``.
        small: whether all fit into every task's memory, so that the events need not move.
    """
    joined = events
    for table, (key, columns) in derived_columns().items():
        known = latest_before(entities[table], key).select(
            F.col(key).alias("_key"),
            *(F.col(column).alias(f"_{table}_{column}") for column in columns),
            "known_from",
            "known_to",
        )
        known = F.broadcast(known) if small else known
        valid = (F.col("hour") >= F.col("known_from")) & (F.col("hour") < F.col("known_to"))
        joined = joined.join(known, (F.col(key) == F.col("_key")) & valid, "left").drop(
            "_key", "known_from", "known_to"
        )
    found = {
        derived.name: F.coalesce(
            *(F.col(f"_{table}_{_plain(column)}") for table, _, column in derived.lookups)
        )
        for derived in DERIVED_KEYS
    }
    looked_up = [f"_{t}_{c}" for t, (_, columns) in derived_columns().items() for c in columns]
    return joined.withColumns(found).drop(*looked_up)


def derived_columns() -> dict[str, tuple[str, list[str]]]:
    """What ``DERIVED_KEYS`` look up: by entity table its key and the columns, maps resolved."""
    found: dict[str, tuple[str, list[str]]] = {}
    for derived in DERIVED_KEYS:
        for table, key, column in derived.lookups:
            found.setdefault(table, (key, []))[1].append(_plain(column))
    return found


def _plain(column: str) -> str:
    return column.removeprefix(_MAP_PREFIX)


def stacked_entities(rows: pa.Table, table: str) -> pa.Table:
    """Rows of an entity table with the columns that :func:`with_derived_keys` needs of them."""
    key = derived_columns()[table][0]
    columns = {name: rows[name] for name in (key, "valid_from", "hour")}
    for derived in DERIVED_KEYS:
        for of, _, column in derived.lookups:
            if of != table:
                continue
            name = _plain(column)
            if column == name:
                columns[name] = rows[name]
            else:
                entries = rows["categorical"].combine_chunks()
                columns[name] = pc.map_lookup(entries, name, "first")
    return pa.table(columns)


def entity_schema(table: str) -> str:
    """The Spark schema of :func:`stacked_entities`."""
    key, columns = derived_columns()[table]
    texts = ", ".join(f"{column} string" for column in columns)
    return f"{key} string, valid_from timestamp, hour string, {texts}"


def without_bots(events: DataFrame, rule: BotRule = BOTS) -> DataFrame:
    """Events of users who, in the hour of arrival, behave as ``rule`` says that people do not.

    Grain: unchanged, one row per event that is left.
    """
    of_user = Window.partitionBy("user_id", "hour")

    def count(action: str) -> Column:
        return F.sum(F.when(F.col("action") == action, 1).otherwise(0)).over(of_user)

    shown, clicked = F.col("_shown"), F.col("_clicked")
    eager = (shown >= rule.min_impressions) & (clicked > shown * rule.max_click_rate)
    counted = events.withColumns(
        {
            "_events": F.count(F.lit(1)).over(of_user),
            "_shown": count("impression"),
            "_clicked": count("click"),
        }
    )
    people = counted.where((F.col("_events") <= rule.max_events) & ~eager)
    return people.drop("_events", "_shown", "_clicked")


def keyed(rows: DataFrame) -> DataFrame:
    """Every row once per view whose keys it has, with the columns ``view``, ``k1`` and ``k2``."""
    places = []
    for number, view in enumerate(VIEWS):
        keys = [F.col(key) for key in view.keys]
        present = keys[0].isNotNull()
        for other in keys[1:]:
            present = present & other.isNotNull()
        second = keys[1] if len(keys) > 1 else F.lit(_NO_KEY)
        place = F.struct(F.lit(number).alias("view"), keys[0].alias("k1"), second.alias("k2"))
        places.append(F.when(present, place))
    exploded = rows.withColumn("_place", F.explode(F.array(*places))).where("_place IS NOT NULL")
    return exploded.select("*", "_place.*").drop("_place")


def count_tiles(events: DataFrame) -> DataFrame:
    """Exact integer sums of all views; :func:`unpack_tiles` merges what tasks have of one key.

    Grain: at least one row per view, key, half-hour of arrival (``tile``) and action. Events
    without one of a view's keys do not count for it, nor do those of bots.
    """
    columns = (*KEY_COLUMNS, "action", "value", "event_time", "ingested_at", "hour")
    return without_bots(events).select(*columns).mapInArrow(count_batches, COUNTED)


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


def run_units(spark: SparkSession, units: Sequence[Unit]) -> list[tuple[Unit, Part]]:
    """Have the tasks do ``units``; what they wrote, by unit and hour. Nothing is visible yet."""
    if not units:
        return []

    def do(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for entry in batch.to_pylist():
                found = [
                    {"unit": entry["unit"], "hour": part.hour, "path": part.path,
                     "rows": part.rows, "digest": f"{part.digest:032x}"}
                    for part in work(Unit.from_json(entry["what"]))
                ]  # fmt: skip
                yield pa.RecordBatch.from_pylist(found, schema=_PARTS)

    listed = [(number, unit.to_json()) for number, unit in enumerate(units)]
    # One task each: the default would put several heavy ones into one.
    tasks = spark.sparkContext.parallelize(listed, len(listed))
    done = spark.createDataFrame(tasks, "unit int, what string").mapInArrow(do, _PART_ROWS)
    return [
        (units[row.unit], Part(row.hour, row.path, row.rows, int(row.digest, 16)))
        for row in sorted(done.collect())
    ]


_PART_ROWS: Final = "unit int, hour string, path string, rows bigint, digest string"
_PARTS: Final = pa.schema(
    [
        ("unit", pa.int32()),
        ("hour", pa.string()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("digest", pa.string()),
    ]
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
    """Rows of ``count_tiles`` of one hour, merged, in the columns of the view's counts table."""
    rows = merged(rows)
    keys = dict(zip(view.keys, (rows["k1"], rows["k2"]), strict=False))
    return pa.table({**keys, **{name: rows[name] for name in TILE_COLUMNS}, "hour": rows["hour"]})
