"""One hour's features by plain PySpark, from raw events: python features_spark.py TASK.json."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyspark
from features_sql import JOINED, features, with_seconds
from pyspark.sql import SparkSession


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    begun = time.monotonic()
    spark = (
        SparkSession.builder.master(f"local[{task['cores']}]")
        .config("spark.driver.memory", task["memory"])
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "8")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", task["out"])
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    started = time.monotonic()
    for table in ("events", "items", "rooms"):
        spark.read.parquet(*task[table]).createOrReplaceTempView(table)
    spark.sql(JOINED.format(seconds="unix_seconds(e.ingested_at)")).persist().createTempView(
        "joined"
    )
    for view in with_seconds(task["views"], "unix_micros(event_time) / 1000000"):
        rows = spark.sql(features(view, task["as_of"], "joined")).coalesce(1)
        rows.write.option("compression", "zstd").parquet(f"{task['out']}/{view['name']}.parquet")
    seconds = time.monotonic() - started
    print(
        json.dumps({"seconds": seconds, "session": started - begun, "version": pyspark.__version__})
    )
    spark.stop()


main()
