"""Between Spark and the tables: read completed hours as a frame, stage a frame as hours.

Files are read and written by the tasks, with Arrow. Rows of an hour meet in one task, which sorts
them, writes one Parquet file and returns its path and its digest: sorted rows make equal content
equal bytes.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from feature_store.schemas import TABLES, optional
from feature_store.staged import Staged
from feature_store.tiles import ROW_GROUP

if TYPE_CHECKING:  # workers import this module: the catalog's packages would cost each a second
    from feature_store.tables import Store

__all__ = ["TARGET", "Target", "meet", "read_files", "read_hours", "stage"]

TARGET: Final = "_target"
"""Column that says which of several targets a row is for: its place in their sequence."""

_BUCKET: Final = "_bucket"
_MEET: Final = "_meet"
_WRITTEN: Final = "target int, hour string, bucket int, path string, rows bigint, digest string"
_BUCKET_ROWS: Final = 500_000

Reader = Callable[[pa.Table, int], pa.Table]


def read_files(
    spark: SparkSession,
    files: Sequence[tuple[int, str]],
    schema: str | StructType,
    reader: Reader,
    columns: Sequence[str] | None = None,
) -> DataFrame:
    """Rows of Parquet files, read and reshaped by the tasks.

    Args:
        files: (tag, path); the tag is handed to ``reader`` with the file's rows.
        schema: Spark schema of what ``reader`` returns.
        columns: those of the files that ``reader`` needs; all by default.
    """
    if not files:
        return spark.createDataFrame([], schema)
    wanted = None if columns is None else list(columns)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for entry in batch.to_pylist():
                rows = pq.read_table(entry["path"], columns=wanted)
                yield from reader(rows, entry["tag"]).to_batches()

    listed = spark.createDataFrame(list(files), "tag int, path string")
    return listed.mapInArrow(read, schema)


def read_hours(
    spark: SparkSession, store: Store, table: str, hours: Sequence[str], columns: Sequence[str]
) -> DataFrame:
    """``columns`` of completed ``hours``, in their declared types; empty without files."""
    declared = optional(TABLES[table].schema)
    chosen = pa.schema([declared.field(column) for column in columns])
    schema = from_arrow_schema(chosen)
    files = [(0, path) for path in store.files(table, hours)]

    def select(rows: pa.Table, _tag: int) -> pa.Table:
        return rows.select(list(columns)).cast(chosen)

    return read_files(spark, files, schema, select, columns)


def meet(rows: DataFrame, keys: Sequence[str]) -> DataFrame:
    """``rows`` with all rows of a key in one partition, for a ``mapInArrow`` that relies on it.

    ``repartition(*keys)`` does not promise that: after a join on the same keys Spark drops it as
    redundant and, knowing of nobody who relies on it, reads the join's shuffle by its writers.
    """
    return rows.withColumn(_MEET, F.xxhash64(*keys)).repartition(F.col(_MEET)).drop(_MEET)


@dataclass(frozen=True)
class Target:
    """A table that staged rows go to.

    Attributes:
        sort: columns that order an hour's rows totally, before ``unpack``.
        unpack: turns the rows of one file into the table's declared columns, where they are not in
            them yet.
    """

    table: str
    sort: tuple[str, ...]
    unpack: Callable[[pa.Table], pa.Table] | None = None


def stage(
    rows: DataFrame, store: Store, targets: Sequence[Target], hours: Sequence[str], largest: int
) -> list[Staged]:
    """Write ``rows`` under fresh paths, a file per target, hour and bucket, and digest each.

    ``hours`` without rows are staged as empty.

    Args:
        rows: has ``hour``, ``TARGET`` and, where hours are large, a column ``_bucket_key``: rows
            with equal keys stay together.
        largest: about how many rows the largest hour has; a large hour is split by the hash of the
            key, so that no task holds more than some 500,000 rows of one hour.
    """
    buckets = max(1, -(-largest // _BUCKET_ROWS))
    key = F.pmod(F.xxhash64("_bucket_key"), F.lit(buckets)) if buckets > 1 else F.lit(0)
    spread = rows.withColumn(_BUCKET, key.cast("int")).drop("_bucket_key")
    if len(hours) == 1 and buckets == 1:
        spread = spread.coalesce(1)
    else:
        spread = meet(spread, ("hour", _BUCKET))
    folders = [store.staging(target.table) for target in targets]
    schemas = [optional(TABLES[target.table].schema) for target in targets]

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            found = _write_files(pa.Table.from_batches(pieces), targets, folders, schemas)
            yield pa.RecordBatch.from_pylist(found, schema=_WRITTEN_SCHEMA)

    staged = [Staged(target.table) for target in targets]
    digests: dict[tuple[int, str], list[str]] = {}
    for row in sorted(spread.mapInArrow(write, _WRITTEN).collect()):
        of = staged[row.target]
        of.files.setdefault(row.hour, []).append(row.path)
        of.rows[row.hour] = of.rows.get(row.hour, 0) + row.rows
        digests.setdefault((row.target, row.hour), []).append(row.digest)
    for (target, hour), parts in digests.items():
        joined = hashlib.sha256("".join(parts).encode()).hexdigest()
        staged[target].content[hour] = parts[0] if len(parts) == 1 else joined
    return [of.add_empty(hours) for of in staged]


_WRITTEN_SCHEMA: Final = pa.schema(
    [
        ("target", pa.int32()),
        ("hour", pa.string()),
        ("bucket", pa.int32()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("digest", pa.string()),
    ]
)


def _write_files(
    rows: pa.Table, targets: Sequence[Target], folders: Sequence[str], schemas: Sequence[pa.Schema]
) -> list[Mapping[str, object]]:
    """One file per (target, hour, bucket) of a task's rows."""
    written: list[Mapping[str, object]] = []
    for number, target in enumerate(targets):
        mine = rows.filter(pc.equal(rows[TARGET], number))
        if not mine.num_rows:
            continue
        by = [(column, "ascending") for column in ("hour", _BUCKET, *target.sort)]
        mine = mine.take(pc.sort_indices(mine, sort_keys=by)).combine_chunks()
        hours = mine["hour"].combine_chunks().dictionary_encode()
        places = np.stack([hours.indices.to_numpy(), mine[_BUCKET].to_numpy()])
        starts = np.flatnonzero(np.diff(places, axis=1, prepend=-1).any(axis=0))
        for start, end in zip(starts, [*starts[1:], mine.num_rows], strict=True):
            place = {"target": number, "hour": mine["hour"][start].as_py(),
                     "bucket": mine[_BUCKET][start].as_py()}  # fmt: skip
            piece = mine.slice(start, end - start).drop_columns([_BUCKET, TARGET])
            piece = target.unpack(piece) if target.unpack else piece
            done = _write_file(piece, folders[number], schemas[number], place)
            written.append({**place, **done})
    return written


def _write_file(
    rows: pa.Table, folder: str, schema: pa.Schema, place: Mapping[str, object]
) -> dict[str, object]:
    # A fresh name: an attempt that Spark repeats must not overwrite what another one returned.
    path = Path(folder) / f"{place['hour']}-{uuid.uuid4().hex}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = rows.select(schema.names).cast(schema)
    pq.write_table(rows, path, compression="zstd", row_group_size=ROW_GROUP)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"path": str(path), "rows": rows.num_rows, "digest": digest}
