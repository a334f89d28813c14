"""Between Spark and the tables: hand out work, read completed hours as a frame, stage a frame.

Files are read and written by the tasks, with Arrow. Hours that fit a task are one task's work, from
files to files; of larger ones Spark moves the rows to where they meet. Whoever has an hour's rows
sorts them and writes a Parquet file: sorted rows make equal content equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from feature_store import storage
from feature_store.parts import Part, Target, staged_parts, write_hours
from feature_store.schemas import TABLES, optional
from feature_store.staged import Staged, StoreError

if TYPE_CHECKING:  # workers import this module: the catalog's packages would cost each a second
    from feature_store.tables import Store

__all__ = ["TARGET", "meet", "read_files", "read_hours", "run_tasks", "stage"]

TARGET: Final = "_target"
"""Column that says which of several targets a row is for: its place in their sequence."""

_BUCKET: Final = "_bucket"
_MEET: Final = "_meet"
_BUCKET_ROWS: Final = 500_000
_READER: Final = "spark.rankmill.reader"
_CHECKSUMS: Final = "parquet.page.verify-checksum.enabled"

Reader = Callable[[pa.Table, int], pa.Table]
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def read_files(
    spark: SparkSession,
    files: Sequence[tuple[int, str]],
    schema: str | StructType,
    reader: Reader,
    columns: Sequence[str] | Mapping[int, Sequence[str]] | None = None,
) -> DataFrame:
    """Rows of Parquet files, read and reshaped by the tasks.

    Args:
        files: (tag, path); the tag is handed to ``reader`` with the file's rows.
        schema: Spark schema of what ``reader`` returns.
        columns: those of the files that ``reader`` needs, or such by tag; all by default.
    """
    if not files:
        return spark.createDataFrame([], schema)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for entry in batch.to_pylist():
                wanted = columns[entry["tag"]] if isinstance(columns, Mapping) else columns
                rows = storage.read_table(entry["path"], wanted)
                yield from reader(rows, entry["tag"]).to_batches()

    listed = spark.createDataFrame(list(files), "tag int, path string")
    return listed.mapInArrow(read, schema)


def read_hours(
    spark: SparkSession, store: Store, table: str, hours: Sequence[str], columns: Sequence[str]
) -> DataFrame:
    """``columns`` of completed ``hours``, in their declared types; empty without files.

    Read by Arrow in the tasks, which needs nothing installed; by Spark itself where the setting
    ``spark.rankmill.reader`` says ``spark``, which for a bucket needs hadoop-aws on the cluster.

    Raises:
        StoreError: for another value of the setting.
    """
    declared = optional(TABLES[table].schema)
    chosen = pa.schema([declared.field(column) for column in columns])
    schema = from_arrow_schema(chosen)
    files = [(0, path) for path in store.files(table, hours)]
    reader = spark.conf.get(_READER, "arrow")
    if reader not in ("arrow", "spark"):
        raise StoreError(f"{_READER} is {reader!r}; write arrow or spark")
    if reader == "spark" and files:
        by_itself = spark.read.schema(schema).option(_CHECKSUMS, "true")
        return by_itself.parquet(*(storage.hadoop_path(path) for _, path in files))

    def select(rows: pa.Table, _tag: int) -> pa.Table:
        return rows.select(list(columns)).cast(chosen)

    return read_files(spark, files, schema, select, columns)


def meet(rows: DataFrame, keys: Sequence[str], partitions: int | None = None) -> DataFrame:
    """``rows`` with all rows of a key in one partition, for a ``mapInArrow`` that relies on it.

    Args:
        partitions: at least so many; the session's default where that is more, or None.

    ``repartition(*keys)`` does not promise that: after a join on the same keys Spark drops it as
    redundant and, knowing of nobody who relies on it, reads the join's shuffle by its writers.
    """
    met = rows.withColumn(_MEET, F.xxhash64(*keys))
    usual = int(rows.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    if partitions is not None and partitions > usual:
        return met.repartition(partitions, F.col(_MEET)).drop(_MEET)
    return met.repartition(F.col(_MEET)).drop(_MEET)


def stage(
    rows: DataFrame, store: Store, targets: Sequence[Target], sizes: Mapping[str, int],
    most: int = _BUCKET_ROWS,
) -> list[Staged]:  # fmt: skip
    """Write ``rows`` under fresh paths, a file per target, hour and bucket, and digest each.

    Hours without rows are staged as empty.

    Args:
        rows: has ``hour``, ``TARGET`` and a column ``_bucket_key``: rows with equal keys stay
            together.
        sizes: the hours, and about how many rows each has; a large one is split by the hash of the
            key into buckets ...
        most: ... of about so many rows, of which a task holds one at a time.
    """
    spread = rows.withColumn(_BUCKET, _bucket(sizes, most)).drop("_bucket_key")
    buckets = sum(-(-count // most) for count in sizes.values())
    spread = meet(spread, ("hour", _BUCKET), buckets).sortWithinPartitions("hour", _BUCKET)
    folders = [store.staging(target.table) for target in targets]

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for bucket in _runs(batches, ("hour", _BUCKET)):
            parts = _write_files(bucket, targets, folders)
            found = [{**asdict(part), "digest": f"{part.digest:032x}"} for part in parts]
            yield pa.RecordBatch.from_pylist(found, schema=_PARTS)

    written = spread.mapInArrow(write, _PART_ROWS).collect()
    parts = [Part(**{**row.asDict(), "digest": int(row.digest, 16)}) for row in sorted(written)]
    return staged_parts(parts, [target.table for target in targets], list(sizes))


def _runs(batches: Iterable[pa.RecordBatch], keys: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of ``batches`` in runs of equal ``keys``, each run as one table."""
    held: list[pa.RecordBatch] = []
    last: tuple[Any, ...] = ()
    for batch in batches:
        columns = [batch[key] for key in keys]
        turns = np.zeros(max(batch.num_rows - 1, 0), bool)
        for column in columns:
            turns |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        starts = [0, *(np.flatnonzero(turns) + 1).tolist()] if batch.num_rows else []
        for start, end in zip(starts, [*starts[1:], batch.num_rows], strict=False):
            mine = tuple(column[start].as_py() for column in columns)
            if held and mine != last:
                yield pa.Table.from_batches(held)
                held = []
            held.append(batch.slice(start, end - start))
            last = mine
    if held:
        yield pa.Table.from_batches(held)


def _bucket(sizes: Mapping[str, int], most: int) -> Column:
    """Which of its hour's buckets a row is in: as many as the hour needs, whatever the others."""
    buckets = F.lit(0).cast("bigint")
    for hour, rows in sizes.items():
        if rows > most:
            number = F.pmod(F.xxhash64("_bucket_key"), F.lit(-(-rows // most)))
            buckets = F.when(F.col("hour") == hour, number).otherwise(buckets)
    return buckets.cast("int")


_PART_ROWS: Final = "table string, hour string, path string, rows bigint, digest string"
_PARTS: Final = pa.schema(
    [
        ("table", pa.string()),
        ("hour", pa.string()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("digest", pa.string()),
    ]
)


def _write_files(
    rows: pa.Table, targets: Sequence[Target], folders: Sequence[str]
) -> Iterator[Part]:
    """One file per target that the rows of an hour's bucket are for."""
    for number, (target, folder) in enumerate(zip(targets, folders, strict=True)):
        mine = rows.filter(pc.equal(rows[TARGET], number)) if len(targets) > 1 else rows
        yield from write_hours(mine.drop_columns([_BUCKET, TARGET]), target, folder)


def run_tasks(
    spark: SparkSession, tasks: Sequence[_Task], do: Callable[[_Task], Iterable[_Result]]
) -> list[_Result]:
    """What ``do`` yields of each of ``tasks``, each done by a Spark task, in order.

    Plain pickled objects, since the first query of a session costs seconds that a task does not.
    """
    if not tasks:
        return []
    handed = spark.sparkContext.parallelize(list(tasks), len(tasks))  # one task each
    return handed.flatMap(do).collect()
