"""Keys that an event does not carry but its entities do: category, host, shop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.asof import joined
from feature_store.keyed_files import rows_of_keys
from feature_store.views import DERIVED_KEYS, DerivedKey
from feature_store.windows import hour_numbers

__all__ = ["EntityFiles", "derived_columns", "with_derived_keys"]

_MAP_PREFIX: Final = "categorical."

EntityFiles = Mapping[str, Sequence[str]]
"""By entity table the files that are known; see :func:`derived_columns` for the tables."""


def derived_columns(
    keys: Sequence[DerivedKey] = DERIVED_KEYS,
) -> dict[str, tuple[str, list[str]]]:
    """What ``keys`` look up: by entity table its key and its columns, as declared there."""
    found: dict[str, tuple[str, list[str]]] = {}
    for derived in keys:
        for table, key, column in derived.lookups:
            found.setdefault(table, (key, []))[1].append(column)
    return found


def with_derived_keys(
    events: pa.Table, files: EntityFiles, keys: Sequence[DerivedKey] = DERIVED_KEYS
) -> pa.Table:
    """``events`` plus a column per derived key, as known in the event's ``hour``.

    What arrived in an hour is known to that hour's events; of several rows of one hour the newest
    ``valid_from`` counts. Grain: unchanged, in order.
    """
    looked_up: dict[tuple[str, str], pa.ChunkedArray] = {}
    for table, (key, columns) in derived_columns(keys).items():
        wanted = pc.unique(pc.drop_null(events[key]))
        stored = {key, "valid_from", "hour", *(column.split(".")[0] for column in columns)}
        arrived = rows_of_keys(files.get(table, ()), table, sorted(stored), key, wanted)
        known = _looked_up(arrived, key, columns)
        place = _places(events, known, key)
        for column in columns:
            looked_up[table, column] = known[column].take(place)
    for derived in keys:
        found = [looked_up[table, column] for table, _, column in derived.lookups]
        events = events.append_column(derived.name, pc.coalesce(*found))
    return events


def _looked_up(rows: pa.Table, key: str, columns: Sequence[str]) -> pa.Table:
    texts = {column: _column(rows, column) for column in (key, "hour", *columns)}
    return pa.table({**texts, "recorded": pc.cast(rows["valid_from"], pa.int64())})


def _column(rows: pa.Table, column: str) -> pa.Array | pa.ChunkedArray:
    if not column.startswith(_MAP_PREFIX):
        return rows[column]
    entries = rows["categorical"].combine_chunks()
    return pc.map_lookup(entries, column.removeprefix(_MAP_PREFIX), "first")


def _places(events: pa.Table, known: pa.Table, key: str) -> pa.Array:
    """For every event the place in ``known`` of what was known of its key; null for nothing."""
    has_key = np.flatnonzero(pc.is_valid(events[key]).to_numpy())
    asked = events.select([key, "hour"]).take(pa.array(has_key))
    heard, wanted = (
        rows.append_column("as_of", pa.array(hour_numbers(rows["hour"]))) for rows in (known, asked)
    )
    place = np.full(len(events), -1, np.int64)
    place[has_key] = joined(heard, wanted, (key,), known["recorded"].to_numpy())
    return pa.array(place, mask=place < 0)
