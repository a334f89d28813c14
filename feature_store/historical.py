"""Features of any keys at any times: the point-in-time join that samples are built with, without
Spark, and the newest published features.

A row asks at an instant and is answered as of the start of its hour, by features published by then:
the newest row of its keys with ``as_of`` at or before that hour, if it is not older than the view's
TTL, else the declared defaults. That is what ``samples`` hold for an impression of that instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.embedding_sets import beside_keys
from feature_store.lookups import attributes, behaviour, derived_key
from feature_store.schemas import TIMESTAMP
from feature_store.services import FeatureService
from feature_store.tables import Store, StoreError
from feature_store.views import DERIVED_KEYS
from feature_store.windows import HOUR_MICROS, Ints, timestamps

__all__ = ["FrameError", "get_historical_features", "newest_features"]

_CLOCK: Final[dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]]] = {
    "hour_of_day": pc.hour,
    "day_of_week": pc.day_of_week,
}
_DERIVED: Final = {key.name: key for key in DERIVED_KEYS}


class FrameError(ValueError):
    """A frame of keys and times that cannot be answered: names the columns and what to do."""


def get_historical_features(
    store: Store,
    entity_df: Any,
    service: FeatureService,
    time_column: str = "event_time",
    *,
    time_zone: str,
) -> pa.Table:
    """``entity_df`` with the features of ``service`` that were published by each row's time.

    Rows whose keys are null or unknown get the views' defaults. Besides the result, memory follows
    one day of the keys asked for.

    Args:
        entity_df: an Arrow table, or anything that ``pa.Table.from_pandas`` takes: the key columns
            as texts, a time-zone aware ``time_column``, the request columns of the service, and
            whatever else is to stand beside the features. A key of ``DERIVED_KEYS`` that it lacks
            is looked up by the item or room, as known in the row's hour.
        time_zone: the business time zone, for the hour of the day and the day of the week.

    Returns:
        One row per input row, in its order: its columns, then the feature columns in the service's
        order, float32 and string, and its node embeddings of the day before.

    Raises:
        FrameError: for columns that are missing, of another type, or named as a feature.
        StoreError: when features that a row needs are not published.
    """
    frame = entity_df if isinstance(entity_df, pa.Table) else _from_pandas(entity_df)
    brought = [column for column in service.request if column not in _CLOCK]
    keys = dict.fromkeys((*service.key_columns(), *(c for c in brought if c in _DERIVED)))
    _check_frame(frame, service, keys, [*brought, time_column])
    instants = _instants(frame[time_column], time_column)
    as_of = pc.cast(instants, pa.int64()).to_numpy() // HOUR_MICROS * HOUR_MICROS
    texts = _keys(store, frame, keys, as_of)
    found = _features(store, texts, service, as_of)
    local = pc.cast(instants, pa.timestamp("us", time_zone))
    for name in service.request:
        if name in _CLOCK:
            found[name] = pc.cast(_CLOCK[name](local), pa.float32())
        elif name not in frame.column_names:
            found[name] = texts[name]
    found |= beside_keys(store, texts, as_of, service.vectors, service.similarities, time_zone)
    return _with_features(frame, found, service)


def newest_features(
    store: Store, keys: Any, service: FeatureService, as_of: str | None = None, *,
    time_zone: str | None = None,
) -> pa.Table:  # fmt: skip
    """``keys`` with the newest published features of ``service``, for a reader that serves.

    Args:
        keys: the key columns of the service as texts, and whatever else is to stand beside.
        as_of: the hour at whose start the features are read; by default the newest at whose start
            all of the service's views were published. Training never reads by default.
        time_zone: the business time zone; needed by a service with node embeddings, which are
            those of the day before ``as_of``.

    Returns:
        One row per input row, in its order: its columns, ``as_of`` (the instant at which the
        features are valid, one for all rows), then the features of the service's views and
        attributes, and its node embeddings. The request columns are the request's to add.

    Raises:
        FrameError: for columns that are missing, of another type, or named as a feature, and for
            node embeddings without a time zone.
        StoreError: when nothing is published, or not yet for ``as_of``.
    """
    frame = keys if isinstance(keys, pa.Table) else _from_pandas(keys)
    _check_frame(frame, service, service.key_columns())
    if "as_of" in frame.column_names:
        raise FrameError("the frame has a column 'as_of'; drop or rename it")
    if time_zone is None and (service.vectors or service.similarities):
        raise FrameError(
            f"feature service {service.name!r} reads node embeddings of the day before; "
            "pass time_zone, the business time zone"
        )
    hour = hr.parse(as_of) if as_of is not None else _newest_hour(store, service)
    instant = int(hr.start_of(hour).timestamp()) * 1_000_000
    times = np.full(frame.num_rows, instant, np.int64)
    texts = _keys(store, frame, service.key_columns(), times)
    found = _features(store, texts, service, times)
    found |= beside_keys(
        store, texts, times, service.vectors, service.similarities, time_zone or "UTC"
    )
    return _with_features(frame.append_column("as_of", timestamps(times)), found, service)


def _from_pandas(frame: Any) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def _with_features(
    frame: pa.Table, found: Mapping[str, pa.Array], service: FeatureService
) -> pa.Table:
    for name in (*service.columns(), *service.embedding_columns()):
        if name in found:
            frame = frame.append_column(name, found[name])
    return frame


def _check_frame(
    frame: pa.Table, service: FeatureService, keys: Iterable[str], others: Sequence[str] = ()
) -> None:
    """Raise FrameError for a frame that lacks ``keys`` or ``others``, or that names features."""
    there = set(frame.column_names)
    own = [key for key in keys if key in there or key not in _DERIVED]
    lookups = [look for key in keys if key not in own for look in _DERIVED[key].lookups]
    texts = dict.fromkeys((*own, *(entity for _, entity, _ in lookups)))
    missing = [c for c in dict.fromkeys((*texts, *others)) if c not in there and c not in _DERIVED]
    if missing:
        raise FrameError(
            f"feature service {service.name!r} needs the columns {missing}, and the frame has "
            f"{frame.column_names}; add them, null where a row has none"
        )
    features = {*service.columns(), *service.embedding_columns()}
    taken = sorted((features & there) - {*texts, *others})
    if taken:
        raise FrameError(f"the frame has columns named as features, {taken}; drop or rename them")
    for key in texts:
        kind = frame.schema.field(key).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.null()):
            raise FrameError(f"key column {key!r} is {kind}; keys are texts, cast it to string")


def _keys(store: Store, frame: pa.Table, names: Iterable[str], as_of: Ints) -> dict[str, pa.Array]:
    """Key columns as texts: the frame's own, and derived keys that it lacks."""

    def own(name: str) -> pa.Array:
        return pc.cast(frame[name], pa.string()).combine_chunks()

    found = {}
    for name in names:
        if name in frame.column_names:
            found[name] = own(name)
        else:
            key = _DERIVED[name]
            asked = {entity: own(entity) for _, entity, _ in key.lookups}
            found[name] = derived_key(store, key, asked, as_of)
    return found


def _instants(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column of times as microseconds in UTC."""
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        raise FrameError(
            f"time column {name!r} is {column.type}; make it a timestamp with a time zone"
        )
    if column.null_count:
        raise FrameError(f"time column {name!r} is null in {column.null_count} rows; drop them")
    return pc.cast(column, TIMESTAMP, safe=False)


def _newest_hour(store: Store, service: FeatureService) -> str:
    newest = {v.features_table: store.ledger.last_hour(v.features_table)
              for v in service.feature_views()}  # fmt: skip
    published = [hour for hour in newest.values() if hour is not None]
    if not newest or len(published) < len(newest):
        empty = sorted(table for table, hour in newest.items() if hour is None)
        raise StoreError(
            f"feature service {service.name!r} has no published features in {empty}; "
            "run extract_features.py, or name the hour"
        )
    return hr.add(min(published), 1)


def _features(
    store: Store, keys: Mapping[str, pa.Array], service: FeatureService, as_of: Ints
) -> dict[str, pa.Array]:
    """Columns of the service's views and attributes for ``keys`` at ``as_of``."""
    found: dict[str, pa.Array] = {}
    for view in service.feature_views():
        asked = pa.table({**{key: keys[key] for key in view.keys}, "as_of": as_of})
        served = service.served(view)
        places = [view.sample_columns().index(column) for column in served]
        matrix = behaviour(store, view, asked, places)
        found |= {name: pa.array(column) for name, column in zip(served, matrix, strict=True)}
    for entity in service.attribute_views():
        asked = pa.table({"k1": keys[entity.key], "as_of": as_of})
        found |= attributes(store, entity, asked)
    return found
