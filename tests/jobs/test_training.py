"""Rows to fit on and rows to stop early on, held once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs.support.training import held_out, parted, split


def table(rows: int = 200_000) -> pa.Table:
    groups = pa.array([f"g{number // 8}" for number in range(rows)])
    schema = pa.schema([pa.field("group_id", pa.string(), nullable=False)])
    columns = {f"c{number}": np.random.default_rng(number).random(rows) for number in range(20)}
    made = pa.Table.from_arrays([groups], schema=schema)
    for name, values in columns.items():
        made = made.append_column(name, pa.array(values.tolist()))  # in Arrow's own memory
    return made


def test_a_group_is_on_one_side_and_no_row_is_lost() -> None:
    rows = table(2_000)
    fitted, stopping = split(rows)
    assert fitted.schema == stopping.schema == rows.schema
    assert not set(fitted["group_id"].to_pylist()) & set(stopping["group_id"].to_pylist())
    mask = pa.array(held_out(rows["group_id"]))
    assert stopping.equals(rows.filter(mask))
    assert 0 < stopping.num_rows < fitted.num_rows
    assert fitted.num_rows + stopping.num_rows == rows.num_rows


def test_rows_are_held_once() -> None:
    rows = table()
    size, before = rows.nbytes, pa.total_allocated_bytes()
    columns, schema = dict(zip(rows.column_names, rows.columns, strict=True)), rows.schema
    del rows
    pa.default_memory_pool().release_unused()
    parts = parted(columns, schema)
    assert columns == {}
    assert sum(part.num_rows for part in parts) == 200_000
    assert pa.total_allocated_bytes() < before + size / 4
