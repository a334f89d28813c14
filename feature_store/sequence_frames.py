"""Sequences on Spark: behaviour and offers meet the hour's requests by key, in one pass for all
views.

Which keys are asked for is read by the tasks from the hour's own samples, so that only rows of
those keys leave the files and nothing that grows with users passes the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from feature_store.schemas import BEHAVIOUR, ROOM_ITEMS
from feature_store.sequence_views import (
    CORE,
    EXPLAIN,
    SEQUENCE_VIEWS,
    STAY,
    SequenceView,
)
from feature_store.sequences import ASKED, KNOWN, PACKED_TEXTS, pack, sequences, unpack
from feature_store.spark_io import TARGET, Target, meet, read_files
from feature_store.windows import timestamps

__all__ = [
    "behaviour",
    "known_behaviour",
    "known_offers",
    "offers",
    "requests",
    "sequence_rows",
    "targets",
]

_USER, _ROOM = "user_id", "room_id"
_KNOWN: Final = (
    "entity string, key string, known bigint, at bigint, ends bigint, tie string, action string, "
    "item_id string, room_id string, category string, stay bigint, link string"
)
_ASKED: Final = "entity string, key string, as_of bigint, hour string"
_OFFERS: Final = (
    "room_id string, item_id string, valid_from timestamp, valid_to timestamp, core boolean, "
    "hour string"
)
_ROWS: Final = ", ".join(
    ["view int, key string, as_of bigint, hour string, numbers binary"]
    + [f"{name} binary" for name in PACKED_TEXTS]
)
_MILLISECONDS: Final = 1000


def behaviour(events: DataFrame, outcomes: DataFrame) -> DataFrame:
    """Rows of table ``behaviour``. Grain: unchanged, one row per event.

    Args:
        events: those of ``BEHAVIOUR_ACTIONS``, with ``category``.
        outcomes: ``event_id``, ``sample_id`` and ``hour`` of the same hours' outcomes.
    """
    return events.join(outcomes, ["hour", "event_id"], "left").select(*BEHAVIOUR.names)


@lru_cache(maxsize=2)
def _wanted(samples: tuple[str, ...], key: str) -> pa.Array:
    """The distinct keys of sample files; a task reads many files, and asks for each of them."""
    found = [pq.read_table(path, columns=[key])[key] for path in samples]
    chunks = [chunk for column in found for chunk in column.chunks]
    return pc.unique(pa.chunked_array(chunks, pa.string()))


def _of_wanted(rows: pa.Table, samples: Sequence[str] | None, key: str) -> pa.Table:
    """The rows whose key occurs in the files ``samples``; all where that is None."""
    if samples is None:
        return rows.filter(pc.is_valid(rows[key]))
    return rows.filter(pc.is_in(rows[key], value_set=_wanted(tuple(samples), key), skip_nulls=True))


def known_behaviour(
    spark: SparkSession, files: Sequence[str], samples: Sequence[str] | None
) -> DataFrame:
    """Files of table ``behaviour`` as known rows of the users in the files ``samples``.

    Args:
        samples: None for all users.
    """

    def read(rows: pa.Table, _tag: int) -> pa.Table:
        rows = _of_wanted(rows, samples, _USER)
        stayed = pc.equal(rows["action"], STAY)
        seconds = pc.if_else(stayed, pc.fill_null(rows["value"], 0.0), 0.0)
        return pa.table(
            {
                "entity": pa.repeat(_USER, rows.num_rows),
                "key": rows[_USER],
                "known": pc.cast(rows["ingested_at"], pa.int64()),
                "at": pc.cast(rows["event_time"], pa.int64()),
                "ends": pa.nulls(rows.num_rows, pa.int64()),
                "tie": rows["event_id"],
                **{name: rows[name] for name in ("action", "item_id", "room_id", "category")},
                "stay": pc.cast(pc.round(pc.multiply(seconds, _MILLISECONDS)), pa.int64()),
                "link": rows["sample_id"],
            }
        )

    columns = [name for name in BEHAVIOUR.names if name != "hour"]
    return read_files(spark, [(0, path) for path in files], _KNOWN, read, columns)


def offers(spark: SparkSession, files: Sequence[str], samples: Sequence[str] | None) -> DataFrame:
    """Files of table ``room_items``, the rows of the rooms in the files ``samples`` (None: all)."""

    def read(rows: pa.Table, _tag: int) -> pa.Table:
        return _of_wanted(rows, samples, _ROOM)

    return read_files(spark, [(0, path) for path in files], _OFFERS, read, ROOM_ITEMS.names)


def known_offers(rows: DataFrame) -> DataFrame:
    """Rows of :func:`offers`, with ``category``, as known rows; each is known from its hour on."""
    hour = F.to_timestamp("hour", "yyyy-MM-dd'T'HH")
    return rows.select(
        F.lit(_ROOM).alias("entity"),
        F.col("room_id").alias("key"),
        F.unix_micros(hour).alias("known"),
        F.unix_micros("valid_from").alias("at"),
        F.unix_micros("valid_to").alias("ends"),
        F.col("item_id").alias("tie"),
        F.when(F.col("core"), CORE).otherwise(EXPLAIN).alias("action"),
        "item_id", "room_id", "category",
    )  # fmt: skip


def requests(spark: SparkSession, samples: Sequence[str], entities: Sequence[str]) -> DataFrame:
    """What the files ``samples`` ask for, of the entities' keys ``user_id`` and ``room_id``.

    Grain: one row per entity, key, ``as_of`` and hour of a file.
    """

    def read(rows: pa.Table, _tag: int) -> pa.Table:
        asked = []
        for entity in entities:
            mine = rows.filter(pc.is_valid(rows[entity])).select([entity, "as_of", "hour"])
            mine = mine.group_by(mine.column_names, use_threads=False).aggregate([])
            asked.append(
                pa.table(
                    {
                        "entity": pa.repeat(entity, mine.num_rows),
                        "key": mine[entity],
                        "as_of": pc.cast(mine["as_of"], pa.int64()),
                        "hour": mine["hour"],
                    }
                )
            )
        return pa.concat_tables(asked)

    columns = (*entities, "as_of", "hour")
    return read_files(spark, [(0, path) for path in samples], _ASKED, read, columns)


def sequence_rows(known: Sequence[DataFrame], asked: DataFrame) -> DataFrame:
    """Sequences of all views, for ``stage`` with :func:`targets`.

    Grain: one row per view, key, ``as_of`` and hour that was asked for and has elements.
    """
    rows = asked.withColumn("asked", F.lit(True))
    for frame in known:
        answering = frame.withColumn("asked", F.lit(False))
        rows = rows.unionByName(answering, allowMissingColumns=True)

    def partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            yield from _answered(pa.Table.from_batches(pieces))

    found = meet(rows, ("entity", "key")).mapInArrow(partition, _ROWS)
    return found.withColumns({TARGET: F.col("view"), "_bucket_key": F.col("key")})


def _answered(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """The sequences that one partition's requests ask for."""
    for number, view in enumerate(SEQUENCE_VIEWS):
        mine = rows.filter(pc.equal(rows["entity"], view.key))
        asked = mine.filter(mine["asked"]).select(ASKED.names)
        asked = asked.group_by(ASKED.names, use_threads=False).aggregate([])
        known = mine.filter(pc.invert(mine["asked"])).select(KNOWN.names)
        for found in sequences(view, known, asked):
            filled = pa.array(np.diff(found.offsets) > 0)
            table = found.asked
            table = table.append_column("view", pa.repeat(np.int32(number), table.num_rows))
            for name, column in pack(view, found).items():
                table = table.append_column(name, column)
            names = ["view", *ASKED.names, "numbers", *PACKED_TEXTS]
            yield from table.select(names).filter(filled).to_batches()


def targets() -> list[Target]:
    """Where the rows of :func:`sequence_rows` go."""
    return [
        Target(view.table, ("key", "as_of"), partial(_unpacked, view=view))
        for view in SEQUENCE_VIEWS
    ]


def _unpacked(rows: pa.Table, view: SequenceView) -> pa.Table:
    """Rows of :func:`sequence_rows` in the declared columns of the view's table."""
    return pa.table(
        {
            view.key: rows["key"],
            "as_of": timestamps(rows["as_of"].to_numpy()),
            **unpack(view, rows),
            "hour": rows["hour"],
        }
    )
