"""The parent of Spark's Python workers, with what they need imported before they are forked.

Set as ``spark.python.daemon.module``. Spark starts several workers per task; each would otherwise
spend a second or two of CPU on the same imports.
"""

from __future__ import annotations

import pyarrow.compute
import pyarrow.parquet  # noqa: F401
from pyspark.daemon import manager

import feature_store.extraction
import feature_store.samples
import feature_store.sequence_frames
import feature_store.spark_io
import feature_store.transforms  # noqa: F401

if __name__ == "__main__":
    manager()
