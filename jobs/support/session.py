"""The Spark session of the jobs that compute."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

__all__ = ["spark_session"]

_DEFAULTS: Mapping[str, str] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.python.daemon.module": "feature_store.spark_daemon",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "8",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    # Paths come from the catalog, file by file: listing them in tasks costs more than it saves.
    "spark.sql.sources.parallelPartitionDiscovery.threshold": "100000",
    # An hour's task list must not repeat a plan's text in every log.
    "spark.sql.debug.maxToStringFields": "50",
}


@contextmanager
def spark_session(job: str, configured: Mapping[str, str]) -> Iterator[SparkSession]:
    """A session that spark-submit's arguments, then ``configured``, then defaults describe."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if "PYSPARK_GATEWAY_PORT" in os.environ:  # else the conf below would overrule spark-submit's
        SparkContext._ensure_initialized()
    conf = SparkConf()
    for key, value in {**_DEFAULTS, **configured}.items():
        conf.setIfMissing(key, value)
    conf.setIfMissing("spark.app.name", f"rankmill-{job}")
    conf.setIfMissing("spark.master", os.environ.get("RANKMILL_SPARK_MASTER", "local[*]"))
    if (conf.get("spark.master") or "").startswith("local"):  # executors elsewhere must reach us
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    session = SparkSession.builder.config(conf=conf).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()
