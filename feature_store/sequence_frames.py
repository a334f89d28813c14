"""Sequences from files to files: behaviour and offers meet the hours' requests by key, in one pass
for all views.

Which keys are asked for is read from the hours' own samples, so that only rows of those keys leave
the files and nothing that grows with users passes the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from feature_store import storage
from feature_store.derived import EntityFiles, with_derived_keys
from feature_store.keyed_files import rows_of_keys
from feature_store.parts import Part, Target, write_hours
from feature_store.schemas import BEHAVIOUR, ROOM_ITEMS
from feature_store.sequence_views import (
    CORE,
    EXPLAIN,
    SEQUENCE_VIEWS,
    STAY,
    SequenceView,
)
from feature_store.sequences import ASKED, KNOWN, PACKED_TEXTS, pack, sequences, unpack
from feature_store.spark_io import TARGET, meet, read_files
from feature_store.windows import HOUR_MICROS, hour_numbers, timestamps

__all__ = ["SequenceTask", "sequence_parts", "spread_sequences", "targets"]

_USER, _ROOM = "user_id", "room_id"
_ENTITIES: Final = (_USER, _ROOM)
_ROWS: Final = ", ".join(
    ["view int, key string, as_of bigint, hour string, numbers binary"]
    + [f"{name} binary" for name in PACKED_TEXTS]
)
_BEHAVED: Final = [name for name in BEHAVIOUR.names if name != "hour"]
_MILLISECONDS: Final = 1000


@dataclass(frozen=True)
class SequenceTask:
    """Sequences for the samples of whole hours.

    Attributes:
        samples: files of the hours' samples, which ask.
        behaviour: files of all that users did and the samples may know.
        offers: files of table ``room_items`` up to the hours.
        folders: by sequence view where its files go; fresh paths.
    """

    samples: Sequence[str]
    behaviour: Sequence[str]
    offers: Sequence[str]
    entities: EntityFiles
    folders: Sequence[str]


def sequence_parts(task: SequenceTask) -> Iterator[Part]:
    """Write the sequences of every view; a part per view and hour that has any."""
    behaved = rows_of_keys(
        task.behaviour, "behaviour", _BEHAVED, _USER, _wanted(tuple(task.samples), _USER)
    )
    offered = rows_of_keys(
        task.offers, "room_items", ROOM_ITEMS.names, _ROOM, _wanted(tuple(task.samples), _ROOM)
    )
    known = pa.concat_tables(
        [_known_behaviour(behaved), _known_offers(offered, task.entities)]
    )  # fmt: skip
    asked = pa.concat_tables([_asked(storage.read_table(path, _ASKING)) for path in task.samples])
    found = list(_answered(known, asked))
    for number, target in enumerate(targets()):
        mine = [rows for rows in found if rows["view"][0].as_py() == number]
        if mine:
            yield from write_hours(pa.concat_tables(mine), target, task.folders[number])


_ASKING: Final = [*_ENTITIES, "as_of", "hour"]


@lru_cache(maxsize=2)
def _wanted(samples: tuple[str, ...], key: str) -> pa.Array:
    """The distinct keys of sample files; a task reads many files, and asks for each of them."""
    found = [storage.read_table(path, [key])[key] for path in samples]
    chunks = [chunk for column in found for chunk in column.chunks]
    return pc.unique(pc.drop_null(pa.chunked_array(chunks, pa.string())))


def _known_behaviour(rows: pa.Table) -> pa.Table:
    """Rows of table ``behaviour`` as known rows of their users."""
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
        },
        _KNOWN,
    )


def _known_offers(rows: pa.Table, entities: EntityFiles) -> pa.Table:
    """Rows of table ``room_items`` as known rows of their rooms; each is known from its hour on."""
    rows = with_derived_keys(rows, entities)
    count = rows.num_rows
    return pa.table(
        {
            "entity": pa.repeat(_ROOM, count),
            "key": rows[_ROOM],
            "known": pa.array(hour_numbers(rows["hour"]) * HOUR_MICROS),
            "at": pc.cast(rows["valid_from"], pa.int64()),
            "ends": pc.cast(rows["valid_to"], pa.int64()),
            "tie": rows["item_id"],
            "action": pc.if_else(rows["core"], CORE, EXPLAIN),
            **{name: rows[name] for name in ("item_id", "room_id", "category")},
            "stay": pa.nulls(count, pa.int64()),
            "link": pa.nulls(count, pa.string()),
        },
        _KNOWN,
    )


_KNOWN: Final = pa.schema([("entity", pa.string()), *KNOWN])
_REQUEST: Final = pa.schema([("entity", pa.string()), *ASKED])


def _asked(rows: pa.Table) -> pa.Table:
    """What samples ask for. Grain: one row per entity, key, ``as_of`` and hour."""
    asked = []
    for entity in _ENTITIES:
        mine = rows.filter(pc.is_valid(rows[entity])).select([entity, "as_of", "hour"])
        mine = mine.group_by(mine.column_names, use_threads=False).aggregate([])
        columns = [pa.repeat(entity, mine.num_rows), mine[entity],
                   pc.cast(mine["as_of"], pa.int64()), mine["hour"]]  # fmt: skip
        asked.append(pa.table(columns, schema=_REQUEST))
    return pa.concat_tables(asked)


def _answered(known: pa.Table, asked: pa.Table) -> Iterator[pa.Table]:
    """The sequences with elements that ``asked`` asks for, of one view each, as bytes."""
    for number, view in enumerate(SEQUENCE_VIEWS):
        requests = asked.filter(pc.equal(asked["entity"], view.key)).select(ASKED.names)
        requests = requests.group_by(ASKED.names, use_threads=False).aggregate([])
        mine = known.filter(pc.equal(known["entity"], view.key)).select(KNOWN.names)
        for found in sequences(view, mine, requests):
            filled = pa.array(np.diff(found.offsets) > 0)
            table = found.asked
            table = table.append_column("view", pa.repeat(np.int32(number), table.num_rows))
            for name, column in pack(view, found).items():
                table = table.append_column(name, column)
            rows = table.select(["view", *ASKED.names, "numbers", *PACKED_TEXTS]).filter(filled)
            if rows.num_rows:
                yield rows


def spread_sequences(
    spark: SparkSession, samples: Sequence[str], behaviour: Sequence[str], offers: Sequence[str],
    entities: EntityFiles, partitions: int,
) -> DataFrame:  # fmt: skip
    """Sequences of all views where no task can hold the hours, for ``stage`` with :func:`targets`.

    Every row of ``behaviour`` and ``offers`` moves to its key: most keys are asked for.

    Grain: one row per view, key, ``as_of`` and hour that was asked for and has elements.
    """
    known, requests = from_arrow_schema(_KNOWN), from_arrow_schema(_REQUEST)
    rows = read_files(
        spark, _untagged(samples), requests, lambda rows, _: _asked(rows), _ASKING
    ).withColumn("asked", F.lit(True))
    for frame in (
        read_files(
            spark, _untagged(behaviour), known, lambda rows, _: _known_behaviour(rows), _BEHAVED
        ),
        read_files(
            spark, _untagged(offers), known, lambda rows, _: _known_offers(rows, entities),
            ROOM_ITEMS.names,
        ),
    ):  # fmt: skip
        answering = frame.withColumn("asked", F.lit(False))
        rows = rows.unionByName(answering, allowMissingColumns=True)

    def partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            met = pa.Table.from_batches(pieces)
            for found in _answered(met.filter(pc.invert(met["asked"])), met.filter(met["asked"])):
                yield from found.to_batches()

    found = meet(rows, ("entity", "key"), partitions).mapInArrow(partition, _ROWS)
    return found.withColumns({TARGET: F.col("view"), "_bucket_key": F.col("key")})


def _untagged(paths: Sequence[str]) -> list[tuple[int, str]]:
    return [(0, path) for path in paths]


def targets() -> list[Target]:
    """Where sequences go, in the order of their views."""
    return [
        Target(view.table, ("key", "as_of"), partial(_unpacked, view=view))
        for view in SEQUENCE_VIEWS
    ]


def _unpacked(rows: pa.Table, view: SequenceView) -> pa.Table:
    """Sequences as bytes in the declared columns of the view's table."""
    return pa.table(
        {
            view.key: rows["key"],
            "as_of": timestamps(rows["as_of"].to_numpy()),
            **unpack(view, rows),
            "hour": rows["hour"],
        }
    )
