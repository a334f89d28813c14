"""Samples: every impression with the features of its group's ``as_of``, and nothing later.

A ranking group is (run hour, request), or (run hour, user, hour of the event) where impressions
have no request. Its ``as_of`` is the hour of its earliest impression, so that no running statistic
inside a group can tell the labels of the group.

All lookups, of behaviour and of attributes, are one as-of join: known rows and requests meet by
key in one partition, and the newest known row at or before each request answers it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F  # noqa: N812

from feature_store import hours as hr
from feature_store.schemas import SAMPLES
from feature_store.spark_io import meet
from feature_store.transforms import (
    KEY_COLUMNS,
    KEYS,
    PACKED,
    as_bytes,
    from_bytes,
    hour_text,
    keyed,
)
from feature_store.views import ATTRIBUTES, VIEWS, AttributeView, FeatureView
from feature_store.windows import HOUR_MICROS, Ints, epoch_hour, key_codes, sample_matrix

__all__ = [
    "KNOWN_ATTRIBUTES",
    "alive",
    "base_hours",
    "build_samples",
    "feature_hours",
    "impressions",
    "latest_known",
    "stacked_attributes",
    "unpack_samples",
]

# Texts travel as plain columns: Spark checks a batch's size after every row that it hands to
# Python, at a cost that for a list column grows with the batch, so that list columns are quadratic.
_TEXTS: Final = tuple(f"text{i}" for i in range(max(len(v.categorical) for v in ATTRIBUTES)))
_VALUES: Final = ", ".join(["numbers binary", *(f"{name} string" for name in _TEXTS)])
KNOWN_ATTRIBUTES: Final = (
    f"view int, k1 string, k2 string, as_of bigint, recorded bigint, {_VALUES}"
)
_ANSWERS: Final = f"hour string, event_id string, view int, {_VALUES}"
_IMPRESSION: Final = -1
"""In the column ``view``: the row is the impression itself, not the answer to a lookup."""

_NEWEST: Final = np.iinfo(np.int64).max


def base_hours(hours: Sequence[str], time_zone: str) -> list[str]:
    """Those of ``hours`` that end a business day: their features hold every living key."""
    return [h for h in hours if hr.day_of(h, time_zone) != hr.day_of(hr.add(h, 1), time_zone)]


def feature_hours(first: str, last: str, start: str, lateness: int, time_zone: str) -> list[str]:
    """The feature partitions that samples of [first, last] read: from a full base on.

    Args:
        start: first hour of the store; without a base the features since then are read.
        lateness: hours an event may be late; its group's ``as_of`` lies so much earlier.
    """
    earliest = hr.add(first, -lateness - 1)
    bases = base_hours(hr.hour_range(max(start, hr.add(earliest, -25)), earliest), time_zone)
    return hr.hour_range(bases[-1] if bases else start, hr.add(last, -1))


def impressions(events: DataFrame) -> DataFrame:
    """Impressions with their group.

    Grain: one row per impression event; adds ``sample_id``, ``group_id`` and ``as_of``.
    """
    event_hour = hour_text(F.col("event_time"))
    group = F.when(
        F.col("request_id").isNotNull(), F.concat_ws("|", "hour", F.lit("r"), "request_id")
    ).otherwise(F.concat_ws("|", "hour", F.lit("u"), "user_id", event_hour))
    in_group = Window.partitionBy("group_id")
    return (
        events.where("action = 'impression'")
        .withColumn("sample_id", F.coalesce("impression_id", "event_id"))
        .withColumn("group_id", group)
        .withColumn("as_of", F.date_trunc("hour", F.min("event_time").over(in_group)))
    )


def stacked_attributes(rows: pa.Table, number: int) -> pa.Table:
    """Rows of an entity table as rows of ``KNOWN_ATTRIBUTES``.

    What arrived in an hour is known from its end on.
    """
    view = ATTRIBUTES[number]
    hours = rows["hour"].combine_chunks().dictionary_encode()
    known_from = np.array([epoch_hour(h) + 1 for h in hours.dictionary.to_pylist()], np.int64)
    return pa.table(
        {
            "view": pa.array(np.full(rows.num_rows, len(VIEWS) + number, np.int32)),
            "k1": rows[view.key],
            "k2": pa.array([""] * rows.num_rows, pa.string()),
            "as_of": pa.array(known_from[hours.indices.to_numpy()] * HOUR_MICROS),
            "recorded": pc.cast(rows["valid_from"], pa.int64()),
            "numbers": as_bytes(_numbers(rows["numeric"], view.numeric)),
            **_texts(rows["categorical"], view.categorical),
        }
    )


def _numbers(maps: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """The named entries of a map column, (rows, names); NaN where there is none."""
    matrix = np.full((len(maps), len(names)), np.nan, np.float32)
    for place, name in enumerate(names):
        matrix[:, place] = pc.map_lookup(maps.combine_chunks(), name, "first").to_numpy(False)
    return matrix


def _texts(maps: pa.ChunkedArray, names: Sequence[str]) -> dict[str, pa.Array]:
    """The named entries of a map column as the columns ``_TEXTS``, the rest null."""
    maps = maps.combine_chunks()
    found = [pc.map_lookup(maps, name, "first") for name in names]
    found += [pa.nulls(len(maps), pa.string())] * (len(_TEXTS) - len(names))
    return dict(zip(_TEXTS, found, strict=True))


def latest_known(lookups: pa.Table, keys: Sequence[str]) -> Ints:
    """For every row, the index of the newest known row of its key with ``known.as_of <= as_of``.

    Args:
        lookups: key columns; ``as_of``; ``recorded``, which orders known rows of one ``as_of``; and
            ``asked``, which is false for known rows.

    Returns:
        (rows,), -1 where there is none. A known row finds itself.
    """
    codes = key_codes(lookups, keys)
    asked = lookups["asked"].to_numpy().astype(bool)
    recorded = np.where(asked, _NEWEST, lookups["recorded"].to_numpy())
    # Known rows sort before requests of the same instant: `<=`, inclusive.
    order = np.lexsort((recorded, lookups["as_of"].to_numpy(), codes))
    newest = np.maximum.accumulate(np.where(asked[order], -1, np.arange(len(order))))
    found = (newest >= 0) & (codes[order[newest]] == codes[order])
    result = np.full(len(order), -1, np.int64)
    result[order] = np.where(found, order[newest], -1)
    return result


def alive(view: FeatureView, asked: Ints, found: Ints) -> npt.NDArray[np.bool_]:
    """Whether rows as of ``found`` still count at ``asked``, both microseconds: the view's TTL."""
    young: npt.NDArray[np.bool_] = asked - found <= view.ttl_hours * HOUR_MICROS
    return young


def _requests(shown: DataFrame) -> DataFrame:
    """One lookup per impression and view whose keys it has."""
    narrow = shown.select(
        "event_id", "hour", F.unix_micros("as_of").alias("as_of"),
        *KEY_COLUMNS,
    )  # fmt: skip
    behaviour = keyed(narrow).select("event_id", "hour", "as_of", *KEYS)
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
    return behaviour.unionByName(attributes)


def _answers(requests: DataFrame, features: DataFrame, attributes: DataFrame) -> DataFrame:
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

    return meet(lookups, KEYS).mapInArrow(partition, _ANSWERS)


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
            texts = [pa.nulls(len(rows), pa.string())] * len(_TEXTS)
        else:
            known = lookups.take(pa.array(source, mask=source < 0))
            numbers, texts = known["numbers"], [known[name] for name in _TEXTS]
        answered = lookups.select(["hour", "event_id", "view"]).take(pa.array(rows))
        for name, column in zip(("numbers", *_TEXTS), (numbers, *texts), strict=True):
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


def _context(time_zone: str) -> dict[str, Column]:
    local = F.from_utc_timestamp("event_time", time_zone)
    return {
        "hour_of_day": F.hour(local).cast("float"),
        "day_of_week": ((F.dayofweek(local) + 5) % 7).cast("float"),
    }


def build_samples(
    shown: DataFrame, features: DataFrame, attributes: DataFrame, time_zone: str
) -> DataFrame:
    """Samples of the impressions ``shown``, written once and without outcomes.

    Grain: one row per impression and one per answered lookup of it; :func:`unpack_samples` puts
    them together when an hour's rows are written.

    Args:
        shown: result of :func:`impressions`, with its derived keys.
        features: rows of ``transforms.FEATURE_ROWS``.
        attributes: rows of ``KNOWN_ATTRIBUTES``.
    """
    answers = _answers(_requests(shown), features, attributes)
    samples = shown.withColumns(_context(time_zone))
    plain = [c for c in SAMPLES.names if c in samples.columns]
    rows = samples.select("event_id", *plain).withColumn("view", F.lit(_IMPRESSION))
    return rows.unionByName(answers, allowMissingColumns=True)


def unpack_samples(rows: pa.Table) -> pa.Table:
    """``samples`` in their declared columns, from rows of :func:`build_samples` of one hour."""
    views = rows["view"].to_numpy()
    shown = rows.filter(pa.array(views == _IMPRESSION))
    columns = {name: shown[name] for name in shown.column_names}
    for number, view in enumerate(VIEWS):
        width = len(view.count_columns()) + len(view.recency)
        never = sample_matrix(view, np.zeros((1, width), np.int64), np.zeros(1, np.int64))
        mine = rows.filter(pa.array(views == number))
        matrix = np.repeat(never, shown.num_rows, axis=0)
        answers = from_bytes(mine["numbers"].combine_chunks(), np.float32, never.shape[1])
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
    for text, name in zip(_TEXTS, view.sparse(), strict=False):
        columns[name] = answers[text].take(chosen)
    return columns
