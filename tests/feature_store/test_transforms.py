"""What Spark is asked to do, on a real session: rows that meet, and tasks."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.extraction import Unit, work
from feature_store.schemas import TABLES, optional
from feature_store.spark_io import _runs, meet, read_hours, run_tasks
from feature_store.tables import Store, StoreError
from feature_store.tiles import key_ranges
from feature_store.views import VIEWS
from tests.feature_store.test_tables import FIRST, SECOND, commit
from tests.session import uses_spark

pytestmark = uses_spark

START = "2026-11-01T00"


def at(hour: int, minute: int = 0) -> dt.datetime:
    return hr.start_of(hr.add(START, hour)) + dt.timedelta(minutes=minute)


def test_rows_of_a_key_meet_after_a_join_on_it(spark: SparkSession) -> None:
    """Spark drops a second partitioning by the same keys, and may then read the join's shuffle by
    its writers: a key would be scattered."""
    draw = random.Random(7)
    rows = [(draw.randrange(3), str(draw.randrange(12)), n) for n in range(4000)]
    schema = "view int, k1 string, n int"
    # from Python, hence of unknown size: a join is replanned as it runs, as it is over files
    tiles = spark.createDataFrame(rows, schema).mapInArrow(lambda b: b, schema)
    joined = tiles.join(tiles.select("view", "k1").distinct(), ["view", "k1"], "left_semi")

    def keys_of(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            table = pa.Table.from_batches(pieces).group_by(["view", "k1"]).aggregate([])
            yield from table.to_batches()

    for frame in (tiles, joined):
        found = meet(frame, ("view", "k1")).mapInArrow(keys_of, "view int, k1 string").collect()
        assert len(found) == len(set(found)) == 36, "every key in one partition only"


def test_runs_are_whole_wherever_a_batch_ends() -> None:
    rows = [("a", 0)] * 5 + [("a", 1)] * 2 + [("b", 1)] * 4 + [("c", 0)]
    table = pa.table({"hour": [hour for hour, _ in rows], "bucket": [n for _, n in rows],
                      "row": range(len(rows))})  # fmt: skip
    for size in (1, 2, 3, 5, 100):
        batches = [table.schema.empty_table().to_batches(), table.to_batches(size)]
        found = list(_runs((one for part in batches for one in part), ("hour", "bucket")))
        assert [run.num_rows for run in found] == [5, 2, 4, 1]
        assert pa.concat_tables(found)["row"].to_pylist() == list(range(len(rows)))
    assert list(_runs([], ("hour",))) == []


def test_hours_are_the_same_whoever_reads_them(store: Store, spark: SparkSession) -> None:
    """By Arrow in the tasks, or by Spark where the setting says so; nobody else."""
    commit(store, {FIRST: (1, 2), SECOND: (3,)})
    columns = ("value", "gate", "hour")
    found = {}
    try:
        for reader in ("arrow", "spark"):
            spark.conf.set("spark.rankmill.reader", reader)
            rows = read_hours(spark, store, "gate_results", [FIRST, SECOND], columns)
            found[reader] = sorted(rows.collect()), rows.dtypes
        spark.conf.set("spark.rankmill.reader", "hive")
        with pytest.raises(StoreError, match=r"spark\.rankmill\.reader is 'hive'; write arrow"):
            read_hours(spark, store, "gate_results", [FIRST], columns)
    finally:
        spark.conf.unset("spark.rankmill.reader")
    assert found["arrow"] == found["spark"]
    assert len(found["arrow"][0]) == 3


def test_units_are_done_by_tasks(spark: SparkSession, tmp_path: Path) -> None:
    """What a unit writes is the same wherever it is done."""
    view, hour = VIEWS[0], START
    tile = at(0, 30)
    counts = pa.table({
        "user_id": [f"u{i}" for i in range(9)], "key_hash": [i * 2**59 for i in range(9)],
        "tile": [tile] * 9, "action": ["click"] * 9, "n": range(9), "total": [0] * 9,
        "last_at": [tile] * 9, "hour": [hour] * 9,
    }).cast(optional(TABLES[view.counts_table].schema))  # fmt: skip
    pq.write_table(counts, tmp_path / "tiles.parquet")
    path = str(tmp_path / "tiles.parquet")
    units = [
        Unit(0, hour, hour, str(tmp_path / "out"), [path], within=keys) for keys in key_ranges(3)
    ]
    units.append(Unit(0, hour, hour, str(tmp_path / "day"), [path], day=True))
    done = run_tasks(spark, units, work)
    assert [part.rows for part in done] == [6, 3, 9]
    tables = [view.features_table, view.features_table, view.day_counts_table]
    assert [part.table for part in done] == tables
    here = [part for unit in units for part in work(unit)]
    for part, mine in zip(done, here, strict=True):
        assert (part.hour, part.rows, part.digest) == (mine.hour, mine.rows, mine.digest)
        assert pq.read_table(part.path).equals(pq.read_table(mine.path))
    assert run_tasks(spark, [], work) == []
