"""Rows of chosen keys, out of files that hold those of many."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import storage
from feature_store.schemas import TABLES, optional

__all__ = ["rows_of_keys"]


def rows_of_keys(
    paths: Sequence[str], table: str, columns: Sequence[str], key: str, wanted: pa.Array
) -> pa.Table:
    """``columns`` of the rows whose ``key`` is one of ``wanted``, in the table's declared types.

    Only the key is read of row groups without any.
    """
    declared = optional(TABLES[table].schema)
    schema = pa.schema([declared.field(name) for name in columns])
    pieces = [schema.empty_table()]
    for path in paths:
        file = storage.parquet_file(path)
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, columns=[key])[key]
            chosen = pc.is_in(keys, value_set=wanted, skip_nulls=True)
            if pc.any(chosen).as_py():
                rows = file.read_row_group(group, columns=schema.names).select(schema.names)
                pieces.append(rows.filter(chosen).cast(schema))
    return pa.concat_tables(pieces).combine_chunks()
