"""Small Arrow helpers that the adapters share: instants, free attributes, bounded slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours
from feature_store.schemas import OUTCOME_ACTIONS
from feature_store.sources.base import SourceError

__all__ = [
    "MAX_BATCH_ROWS",
    "attribute_map",
    "checked_windows",
    "checked_zone",
    "hour_of_micros",
    "micros_of",
    "sliced",
    "with_schema",
]

MAX_BATCH_ROWS = 65536
_HOUR_MICROS = 3_600_000_000


def micros_of(hour: str) -> int:
    """Microseconds since the epoch at the start of ``hour``."""
    return round(hours.start_of(hour).timestamp()) * 1_000_000


def hour_of_micros(micros: int) -> str:
    """The hour that covers an instant, given in microseconds since the epoch."""
    return hours.add("1970-01-01T00", micros // _HOUR_MICROS)


def sliced(batch: pa.RecordBatch, rows: int = MAX_BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """``batch`` in slices of at most ``rows`` rows, in order; nothing for an empty one."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def with_schema(columns: Mapping[str, pa.Array], count: int, schema: pa.Schema) -> pa.RecordBatch:
    """``count`` rows of ``schema``; a column that is not given is null."""
    arrays = [
        columns[field.name] if field.name in columns else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def attribute_map(columns: Mapping[str, pa.Array], kind: pa.DataType) -> pa.MapArray:
    """One map per row from attribute names to values of ``kind``; nulls and NaN are left out.

    Args:
        columns: attribute name to a column of n values; every column has the same n.

    Returns:
        n maps; the keys of each are in the order of ``columns``.
    """
    names = list(columns)
    flat = pa.concat_arrays([_chunk(columns[name]).cast(kind) for name in names])
    rows = len(flat) // len(names)
    by_row = np.arange(len(names) * rows).reshape(len(names), rows).T.ravel()  # row-major
    values = flat.take(pa.array(by_row))
    valid = values.is_valid()
    if pa.types.is_floating(kind):
        valid = pc.and_(valid, pc.invert(pc.fill_null(pc.is_nan(values), False)))
    keep = valid.to_numpy(zero_copy_only=False)
    keys = pa.array(names).take(pa.array(by_row[keep] // max(rows, 1)))
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(keep.reshape(rows, len(names)).sum(axis=1), out=offsets[1:])
    return pa.MapArray.from_arrays(pa.array(offsets), keys, values.filter(valid))


def _chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def checked_windows(windows: Mapping[str, int], source: str) -> dict[str, int]:
    """``windows`` as a dict, when every action exists and every window is a number of seconds.

    Raises:
        SourceError: naming the action and what it may be.
    """
    if not isinstance(windows, Mapping):
        raise SourceError(f"source {source!r}: windows is {windows!r}; map actions to seconds")
    for action, seconds in windows.items():
        if action not in OUTCOME_ACTIONS:
            raise SourceError(
                f"source {source!r}: windows names the unknown action {action!r}; "
                f"the actions are {', '.join(OUTCOME_ACTIONS)}"
            )
        if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 0:
            raise SourceError(
                f"source {source!r}: the window of {action!r} is {seconds!r}; "
                "write a whole number of seconds, 0 or more"
            )
    return dict(windows)


def checked_zone(time_zone: str, source: str) -> str:
    """``time_zone`` when it is a zone of the tz database; SourceError otherwise."""
    try:
        ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SourceError(
            f"source {source!r}: {time_zone!r} is not a time zone; write one as Asia/Shanghai"
        ) from error
    return time_zone
