"""What events are joined with before anything is counted or looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyspark.sql import DataFrame, SparkSession

from feature_store.spark_io import read_hours
from feature_store.tables import Store
from feature_store.transforms import with_category

__all__ = ["categorised"]

_SMALL_ROWS: Final = 1_000_000


def categorised(
    spark: SparkSession, store: Store, events: DataFrame, known: Sequence[str]
) -> DataFrame:
    """``events`` with the category of their item or room, from entities of the hours ``known``."""
    entities = {
        table: read_hours(spark, store, table, known, (key, "category", "valid_from", "hour"))
        for table, key in (("items", "item_id"), ("rooms", "room_id"))
    }
    rows = sum(
        completion.rows
        for table in entities
        for completion in store.ledger.readable(table, known[0], known[-1]).values()
    )
    return with_category(events, **entities, small=rows <= _SMALL_ROWS)
