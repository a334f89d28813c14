"""Hours that no task can hold: Spark moves rows to where they meet, and the same kernels run there.

Rows of all views share one frame: ``view`` is the view's place in ``VIEWS``, ``k1`` and ``k2`` are
its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from feature_store.asof import latest_known
from feature_store.attribution import COLUMNS, attribute
from feature_store.counting import (
    COUNTED,
    EVENT_COLUMNS,
    KEY_COLUMNS,
    tiles_of_all_views,
)
from feature_store.derived import EntityFiles, with_derived_keys
from feature_store.packing import as_bytes, from_bytes
from feature_store.point_in_time import (
    KNOWN_ATTRIBUTES,
    TEXTS,
    VALUES,
    alive,
    never,
    stacked_attributes,
)
from feature_store.samples import SHOWN, impressions
from feature_store.schemas import BEHAVIOUR, EVENTS, OUTCOMES, SAMPLES, optional
from feature_store.sequence_views import BEHAVIOUR_ACTIONS
from feature_store.spark_io import meet, read_files, read_hours
from feature_store.views import ATTRIBUTES, VIEWS, AttributeView
from feature_store.windows import Ints, sample_matrix

if TYPE_CHECKING:  # workers import this module: the catalog's packages would cost each a second
    from feature_store.tables import Store

__all__ = [
    "PACKED",
    "spread_behaviour",
    "spread_counts",
    "spread_impressions",
    "spread_outcomes",
    "spread_samples",
    "stacked_features",
    "unpack_samples",
]

KEYS: Final = ("view", "k1", "k2")
PACKED: Final = "packed"
"""A view's stored values as bytes: int64 counts, then last times in microseconds (0 = never). Spark
copies bytes as they are, where it would convert an array element by element."""

FEATURE_ROWS: Final = f"view int, k1 string, k2 string, as_of bigint, {PACKED} binary, hour string"
_NO_KEY: Final = ""
_ANSWERS: Final = f"hour string, event_id string, view int, {VALUES}"
_IMPRESSION: Final = -1
"""In the column ``view``: the row is the impression itself, not the answer to a lookup."""


def spread_counts(
    spark: SparkSession, store: Store, hours: Sequence[str], entities: EntityFiles, partitions: int
) -> DataFrame:
    """Partial tiles of all views, rows of ``counting.COUNTED``, of events met by user."""

    def tiles(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            yield from tiles_of_all_views(pieces, entities).to_batches()

    events = read_hours(spark, store, "events", hours, EVENT_COLUMNS)
    return meet(events, ("hour", "user_id"), partitions).mapInArrow(tiles, COUNTED)


def spread_impressions(
    spark: SparkSession, store: Store, hours: Sequence[str], entities: EntityFiles,
    time_zone: str, partitions: int,
) -> DataFrame:  # fmt: skip
    """``samples.impressions`` of ``hours``, the impressions of a group met."""
    schema = from_arrow_schema(SHOWN)

    def grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            events = with_derived_keys(pa.Table.from_batches(pieces), entities)
            yield from impressions(events, time_zone).to_batches()

    events = read_hours(spark, store, "events", hours, EVENTS.names)
    events = events.where("action = 'impression'")
    group = events.withColumn("_of", F.coalesce("request_id", "user_id"))
    met = meet(group, ("hour", "_of"), partitions)
    return met.drop("_of").mapInArrow(grouped, schema)


def _requests(shown: DataFrame) -> DataFrame:
    """One lookup per impression and view whose keys it has."""
    narrow = shown.select(
        "event_id", "hour", F.unix_micros("as_of").alias("as_of"),
        *KEY_COLUMNS,
    )  # fmt: skip
    behaved = _keyed(narrow).select("event_id", "hour", "as_of", *KEYS)
    places = [
        F.when(
            F.col(view.key).isNotNull(),
            F.struct(
                F.lit(len(VIEWS) + number).alias("view"),
                F.col(view.key).alias("k1"),
                F.lit("").alias("k2"),
            ),
        )
        for number, view in enumerate(ATTRIBUTES)
    ]
    attributes = narrow.withColumn("_place", F.explode(F.array(*places)))
    attributes = attributes.where("_place IS NOT NULL").select(
        "event_id", "hour", "as_of", "_place.*"
    )
    return behaved.unionByName(attributes)


def _answers(
    requests: DataFrame, features: DataFrame, attributes: DataFrame, partitions: int
) -> DataFrame:
    """The as-of join of all views. Grain: one row per impression and view."""
    known = features.drop("hour").withColumn("recorded", F.lit(0).cast("bigint"))
    lookups = (
        known.unionByName(attributes, allowMissingColumns=True)
        .withColumn("asked", F.lit(False))
        .unionByName(requests.withColumn("asked", F.lit(True)), allowMissingColumns=True)
    )

    def partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            for answered in _looked_up(pa.Table.from_batches(pieces)):
                yield from answered.to_batches()

    return meet(lookups, KEYS, partitions).mapInArrow(partition, _ANSWERS)


def _looked_up(lookups: pa.Table) -> Iterator[pa.Table]:
    """Answers to the requests of one partition, view by view."""
    lookups = lookups.combine_chunks()
    newest = latest_known(lookups, KEYS)
    asked = lookups["asked"].to_numpy().astype(bool)
    views = lookups["view"].to_numpy()
    for number in np.unique(views[asked]):
        rows = np.flatnonzero(asked & (views == number))
        source = newest[rows]
        if number < len(VIEWS):
            numbers = _behaviour(lookups, int(number), rows, source)
            texts = [pa.nulls(len(rows), pa.string())] * len(TEXTS)
        else:
            known = lookups.take(pa.array(source, mask=source < 0))
            numbers, texts = known["numbers"], [known[name] for name in TEXTS]
        answered = lookups.select(["hour", "event_id", "view"]).take(pa.array(rows))
        for name, column in zip(("numbers", *TEXTS), (numbers, *texts), strict=True):
            answered = answered.append_column(name, column)
        yield answered


def _behaviour(lookups: pa.Table, number: int, rows: Ints, source: Ints) -> pa.BinaryArray:
    """Sample columns of a feature view for the requests ``rows``, answered by ``source``."""
    view = VIEWS[number]
    width = len(view.count_columns()) + len(view.recency)
    as_of = lookups["as_of"].to_numpy()
    hit = (source >= 0) & alive(view, as_of[rows], as_of[source])
    values = np.zeros((len(rows), width), np.int64)
    found = lookups[PACKED].combine_chunks().take(pa.array(source[hit]))
    values[hit] = from_bytes(found, np.int64, width)
    return as_bytes(sample_matrix(view, values, as_of[rows]))


def spread_samples(
    spark: SparkSession, shown: DataFrame, features: Sequence[Sequence[str]],
    attributes: Sequence[Sequence[str]], partitions: int,
) -> DataFrame:  # fmt: skip
    """Samples of the impressions ``shown``, written once and without outcomes.

    Grain: one row per impression and one per answered lookup of it; :func:`unpack_samples` puts
    them together when an hour's rows are written.

    Args:
        shown: result of :func:`spread_impressions`.
        features: by view the files of its features that any of the hours may read.
        attributes: by attribute view the files of its entity table.
        partitions: that the lookups meet in, at least; an impression makes one for every view.
    """
    answers = _answers(
        _requests(shown),
        read_files(spark, _tagged(features), FEATURE_ROWS, stacked_features),
        read_files(spark, _tagged(attributes), KNOWN_ATTRIBUTES, stacked_attributes),
        partitions,
    )
    plain = [c for c in SAMPLES.names if c in shown.columns]
    rows = shown.select("event_id", *plain).withColumn("view", F.lit(_IMPRESSION))
    return rows.unionByName(answers, allowMissingColumns=True)


def _tagged(files: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    return [(number, path) for number, paths in enumerate(files) for path in paths]


def unpack_samples(rows: pa.Table) -> pa.Table:
    """``samples`` in their declared columns, from rows of :func:`spread_samples` of one hour."""
    views = rows["view"].to_numpy()
    shown = rows.filter(pa.array(views == _IMPRESSION))
    columns = {name: shown[name] for name in shown.column_names}
    for number, view in enumerate(VIEWS):
        default = never(view)
        mine = rows.filter(pa.array(views == number))
        matrix = np.repeat(default[None], shown.num_rows, axis=0)
        answers = from_bytes(mine["numbers"].combine_chunks(), np.float32, len(default))
        matrix[_places(mine, shown)] = answers
        columns |= dict(zip(view.sample_columns(), matrix.T, strict=True))
    for number, attributes in enumerate(ATTRIBUTES):
        mine = rows.filter(pa.array(views == len(VIEWS) + number))
        columns |= _attribute_columns(mine, shown, attributes)
    return pa.table({name: columns[name] for name in SAMPLES.names})


def _places(answers: pa.Table, shown: pa.Table) -> Ints:
    """Which impression each answer belongs to."""
    ids = shown["event_id"].combine_chunks()
    places: Ints = pc.index_in(answers["event_id"], value_set=ids).to_numpy()
    return places


def _attribute_columns(
    answers: pa.Table, shown: pa.Table, view: AttributeView
) -> dict[str, pa.Array]:
    answers = answers.filter(pc.is_valid(answers["numbers"]))
    places = _places(answers, shown)
    matrix = np.full((shown.num_rows, len(view.numeric)), np.nan, np.float32)
    numbers = answers["numbers"].combine_chunks()
    matrix[places] = from_bytes(numbers, np.float32, len(view.numeric))
    columns = {
        name: pa.array(column, from_pandas=True)
        for name, column in zip(view.dense(), matrix.T, strict=True)
    }
    index = np.full(shown.num_rows, -1, np.int64)
    index[places] = np.arange(len(places))
    chosen = pa.array(index, mask=index < 0)
    for text, name in zip(TEXTS, view.sparse(), strict=False):
        columns[name] = answers[text].take(chosen)
    return columns


def spread_outcomes(
    spark: SparkSession, store: Store, earlier: Sequence[str], hours: Sequence[str],
    windows: Mapping[str, int], lookback: int, partitions: int,
) -> DataFrame:  # fmt: skip
    """Outcomes of ``hours``, with the impressions of these and of ``earlier``, met by user."""
    declared = pa.array(sorted(windows))

    def attributed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if not pieces:
            return
        rows = pa.Table.from_batches(pieces)
        shown = rows.filter(pc.equal(rows["action"], "impression"))
        mine = pc.and_(pc.is_in(rows["action"], declared), pc.greater_equal(rows["hour"], hours[0]))
        yield from attribute(rows.filter(mine), shown, windows, lookback).to_batches()

    events = read_hours(spark, store, "events", [*earlier, *hours], COLUMNS)
    events = events.where(F.col("action").isin("impression", *windows))
    schema = from_arrow_schema(optional(OUTCOMES))
    return meet(events, ("user_id",), partitions).mapInArrow(attributed, schema)


def spread_behaviour(
    spark: SparkSession, store: Store, hours: Sequence[str], outcomes: Sequence[str],
    entities: EntityFiles,
) -> DataFrame:  # fmt: skip
    """Rows of table ``behaviour`` of ``hours``, with what the files ``outcomes`` attribute."""
    schema = optional(BEHAVIOUR)

    def keyed_events(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = with_derived_keys(pa.Table.from_batches([batch]), entities)
            yield from rows.select(names).to_batches()

    names = [name for name in schema.names if name != "sample_id"]
    events = read_hours(spark, store, "events", hours, EVENTS.names)
    acted = events.where(F.col("action").isin(list(BEHAVIOUR_ACTIONS)))
    plain = from_arrow_schema(pa.schema([schema.field(name) for name in names]))
    columns = ("hour", "event_id", "sample_id")
    attributed = read_files(
        spark,
        [(0, path) for path in outcomes],
        "hour string, event_id string, sample_id string",
        lambda rows, _tag: rows.select(columns),
        columns,
    )
    rows = acted.mapInArrow(keyed_events, plain).join(attributed, ["hour", "event_id"], "left")
    return rows.select(*schema.names)


def _keyed(rows: DataFrame) -> DataFrame:
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
