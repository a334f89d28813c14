"""What is known of keys as of given hours: the lookups behind samples, on Arrow and without Spark.

Each is one as-of join per view or entity table: of the rows with a request's keys the newest at or
before its hour answers, and a request without one gets the declared defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from feature_store import hours as hr
from feature_store.derived import with_derived_keys
from feature_store.point_in_time import attribute_columns, behaviour_rows, never
from feature_store.tables import Store, StoreError
from feature_store.views import AttributeView, DerivedKey, FeatureView
from feature_store.windows import HOUR_MICROS, Ints

__all__ = ["attributes", "behaviour", "derived_key"]

_DAY_HOURS: Final = 25
"""A business day at its longest. The hour that ends one writes every living key, so that many hours
before any instant hold the newest row of every key, whatever the time zone."""

Floats = npt.NDArray[np.float32]


def behaviour(store: Store, view: FeatureView, asked: pa.Table, places: Sequence[int]) -> Floats:
    """Sample columns ``places`` of ``view``, (columns, rows): one contiguous run per column."""
    result = np.empty((len(places), asked.num_rows), np.float32)
    result[:] = never(view)[places, None]
    valid = np.ones(asked.num_rows, bool)
    for key in view.keys:
        valid &= asked[key].is_valid().to_numpy()
    as_of = asked["as_of"].to_numpy()
    start = store.ledger.first_hour(view.features_table)
    if start is None:
        raise StoreError(f"{view.features_table} holds no hour yet; run extract_features.py")
    days = [
        (rows, _needed(view, start, as_of[rows])) for rows in _days(np.flatnonzero(valid), as_of)
    ]
    files = _files(store, view.features_table, sorted({hour for _, day in days for hour in day}))
    for rows, hours in days:
        paths = [path for hour in hours for path in files.get(hour, ())]
        for chunk, matrix in behaviour_rows(view, paths, asked.take(pa.array(rows))):
            result[:, rows[chunk]] = matrix[:, places].T
    return result


def _hour(micros: int) -> str:
    return hr.add("1970-01-01T00", micros // HOUR_MICROS)


def _days(rows: Ints, as_of: Ints) -> Iterator[Ints]:
    """``rows`` in groups that ask on the same day (UTC), in time order."""
    days = as_of[rows] // (24 * HOUR_MICROS)
    order = np.argsort(days, kind="stable")
    edges = np.flatnonzero(np.diff(days[order])) + 1
    yield from (group for group in np.split(rows[order], edges) if len(group))


def _needed(view: FeatureView, start: str, as_of: Ints) -> list[str]:
    """The hours of features that requests ``as_of`` read, of a table that begins at ``start``."""
    first, last = (_hour(int(end)) for end in (as_of.min(), as_of.max()))
    back = min(_DAY_HOURS, view.ttl_hours + 1)
    return hr.hour_range(max(start, hr.add(first, -back)), hr.add(last, -1))


def _files(store: Store, table: str, hours: Sequence[str]) -> dict[str, list[str]]:
    """Files by hour; StoreError unless every one of ``hours`` is published."""
    there = set(store.readable_hours(table, hours[0], hours[-1])) if hours else set()
    missing = [hour for hour in hours if hour not in there]
    if missing:
        raise StoreError(
            f"{table} of {missing[0]} is not published ({len(missing)} of {len(hours)} hours that "
            f"the frame needs). Run: spark-submit jobs/extract_features.py --from-hour "
            f"{missing[0]} --to-hour {missing[-1]}, or leave out the rows that ask after it"
        )
    return store.files_by_hour(table, hours)


def attributes(store: Store, view: AttributeView, asked: pa.Table) -> dict[str, pa.Array]:
    """Attributes of ``asked`` (k1, as_of) by column; null where nothing was known."""
    arrived = _entity_rows(store, view.table, view.key, asked["k1"], asked["as_of"])
    return attribute_columns(view, arrived, asked)


def _entity_rows(
    store: Store, table: str, key: str, wanted: pa.ChunkedArray, as_of: pa.ChunkedArray
) -> pa.Table:
    """Rows of the entities ``wanted`` that arrived in hours before ``as_of``."""
    start = store.ledger.first_hour(table)
    last = _hour(int(as_of.to_numpy().max(initial=0)) - HOUR_MICROS)
    hours = store.readable_hours(table, start, last) if start is not None else []
    rows = store.dataset(table, hours)
    return rows.to_table(filter=ds.field(key).isin(wanted.unique()))


def derived_key(
    store: Store, key: DerivedKey, asked: Mapping[str, pa.Array], as_of: Ints
) -> pa.Array:
    """A key that requests do not carry, from their entities as known in the hour of ``as_of``.

    As with impressions, what arrives within that very hour counts.

    Args:
        asked: by the lookups' key columns, texts; of equal length.
    """
    hours, place = np.unique(as_of, return_inverse=True)
    names = pa.array([_hour(int(hour)) for hour in hours], pa.string())
    requests = pa.table({**asked, "hour": names.take(pa.array(place))})
    files = {}
    for table, _, _ in key.lookups:
        start = store.ledger.first_hour(table)
        known: list[str] = []
        if start is not None and len(names):
            known = store.readable_hours(table, start, names[-1].as_py())
        files[table] = store.files(table, known)
    return with_derived_keys(requests, files, [key])[key.name].combine_chunks()
