"""One hour of one table from Arrow, in as many batches as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import storage
from feature_store.schemas import TABLES, TableSpec, optional
from feature_store.staged import Staged, StoreError

if TYPE_CHECKING:
    from feature_store.tables import Store

__all__ = ["HourWriter", "conform"]


class HourWriter:
    """Writes one hour of one table from Arrow, in as many batches as it takes."""

    def __init__(self, store: Store, table: str, hour: str) -> None:
        self._spec = TABLES[table]
        self._table, self._hour = table, hour
        self._path = f"{store.staging(table)}/{hour}.parquet"
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows; columns are put in the table's order and cast to its types.

        Raises:
            StoreError: for a missing column, a value that does not fit, or a null in a key.
        """
        if rows.num_rows == 0:
            return
        table = conform(rows, self._table, self._spec)
        if self._writer is None:
            self._writer = storage.parquet_writer(self._path, table.schema)
        self._writer.write_table(table)
        self._rows += table.num_rows

    def close(self, staged: Staged) -> None:
        """Finish the file and add it to ``staged``; an hour without rows is added as empty."""
        if self._writer is None:
            staged.add_empty([self._hour])
            return
        self._writer.close()
        staged.files[self._hour] = [self._path]
        staged.rows[self._hour] = self._rows
        staged.content[self._hour] = storage.sha256(self._path)


def conform(rows: pa.Table | pa.RecordBatch, name: str, spec: TableSpec) -> pa.Table:
    """``rows`` in the order and types of table ``name``.

    Raises:
        StoreError: for a missing column, a value that does not fit, or a null in a key.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    there = set(table.column_names)  # made anew at every look
    missing = [column for column in spec.schema.names if column not in there]
    if missing:
        raise StoreError(f"rows for table {name} lack the columns {missing}")
    try:
        table = table.select(spec.schema.names).cast(optional(spec.schema))
    # A value that does not fit, and a type that Arrow has no cast from: both are the caller's rows.
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StoreError(f"rows do not fit table {name}: {error}") from error
    for column in spec.schema:
        nulls = table.column(column.name).null_count
        if nulls and not column.nullable:
            raise StoreError(f"{nulls} rows for table {name} have a null {column.name}")
    return table
