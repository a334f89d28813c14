"""How tests use Spark: the marks of one that does, and the settings of the session they share."""

from __future__ import annotations

import shutil

import pytest

__all__ = ["SETTINGS", "uses_spark"]

uses_spark = [
    pytest.mark.spark,
    pytest.mark.skipif(shutil.which("java") is None, reason="a Spark session needs Java"),
    # pyspark leaves the sockets of its gateway to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SETTINGS = {
    "spark.master": "local[2]",
    # Small partitions stay apart, as large ones would.
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.adaptive.coalescePartitions.enabled": "false",
}
