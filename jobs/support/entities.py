"""What events are joined with before anything is counted or looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from feature_store.spark_io import read_files
from feature_store.tables import Store
from feature_store.transforms import (
    derived_columns,
    entity_schema,
    stacked_entities,
    with_derived_keys,
)

__all__ = ["with_keys"]

_SMALL_ROWS: Final = 1_000_000


def with_keys(
    spark: SparkSession, store: Store, events: DataFrame, known: Sequence[str]
) -> DataFrame:
    """``events`` with their ``DERIVED_KEYS``, from the entities of the hours ``known``."""
    entities = {
        table: read_files(
            spark,
            [(0, path) for path in store.files(table, known)],
            entity_schema(table),
            _reader(table),
        )
        for table in derived_columns()
    }
    rows = sum(
        completion.rows
        for table in entities
        for completion in store.ledger.readable(table, known[0], known[-1]).values()
    )
    return with_derived_keys(events, entities, small=rows <= _SMALL_ROWS)


def _reader(table: str) -> Callable[[pa.Table, int], pa.Table]:
    return lambda rows, _tag: stacked_entities(rows, table)
