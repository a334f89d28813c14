"""Features of any keys at any times: the point-in-time join that samples are built with, without
Spark, and the newest published features.

A row asks at an instant and is answered as of the start of its hour, by features published by then:
the newest row of its keys with ``as_of`` at or before that hour, if it is not older than the view's
TTL, else the declared defaults. That is what ``samples`` hold for an impression of that instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from feature_store import hours as hr
from feature_store.point_in_time import alive, latest_known, stacked_attributes
from feature_store.schemas import TIMESTAMP
from feature_store.services import FeatureService
from feature_store.tables import Store, StoreError
from feature_store.transforms import from_bytes
from feature_store.views import ATTRIBUTES, AttributeView, FeatureView
from feature_store.windows import HOUR_MICROS, Ints, sample_matrix, timestamps

__all__ = ["FrameError", "get_historical_features", "newest_features"]

_DAY_HOURS: Final = 25
"""A business day at its longest. The hour that ends one writes every living key, so that many hours
before any instant hold the newest row of every key, whatever the time zone."""
_CHUNK_ROWS: Final = 1 << 17
_CLOCK: Final[dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]]] = {
    "hour_of_day": pc.hour,
    "day_of_week": pc.day_of_week,
}

Floats = npt.NDArray[np.float32]


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
            whatever else is to stand beside the features.
        time_zone: the business time zone, for the hour of the day and the day of the week.

    Returns:
        One row per input row, in its order: its columns, then the feature columns in the service's
        order, float32 and string.

    Raises:
        FrameError: for columns that are missing, of another type, or named as a feature.
        StoreError: when features that a row needs are not published.
    """
    frame = entity_df if isinstance(entity_df, pa.Table) else _from_pandas(entity_df)
    brought = [column for column in service.request if column not in _CLOCK]
    _check_frame(frame, service, [*dict.fromkeys((*service.key_columns(), *brought)), time_column])
    instants = _instants(frame[time_column], time_column)
    as_of = pc.cast(instants, pa.int64()).to_numpy() // HOUR_MICROS * HOUR_MICROS
    found = _features(store, frame, service, as_of)
    for name in service.request:
        if name in _CLOCK:
            local = pc.cast(instants, pa.timestamp("us", time_zone))
            found[name] = pc.cast(_CLOCK[name](local), pa.float32())
    for name in service.columns():
        if name in found:
            frame = frame.append_column(name, found[name])
    return frame


def newest_features(
    store: Store, keys: Any, service: FeatureService, as_of: str | None = None
) -> pa.Table:
    """``keys`` with the newest published features of ``service``, for a reader that serves.

    Args:
        keys: the key columns of the service as texts, and whatever else is to stand beside.
        as_of: the hour at whose start the features are read; by default the newest at whose start
            all of the service's views were published. Training never reads by default.

    Returns:
        One row per input row, in its order: its columns, ``as_of`` (the instant at which the
        features are valid, one for all rows), then the features of the service's views and
        attributes. The request columns are the request's to add.

    Raises:
        FrameError: for columns that are missing, of another type, or named as a feature.
        StoreError: when nothing is published, or not yet for ``as_of``.
    """
    frame = keys if isinstance(keys, pa.Table) else _from_pandas(keys)
    _check_frame(frame, service, service.key_columns())
    hour = hr.parse(as_of) if as_of is not None else _newest_hour(store, service)
    instant = int(hr.start_of(hour).timestamp()) * 1_000_000
    times = np.full(frame.num_rows, instant, np.int64)
    found = _features(store, frame, service, times)
    frame = frame.append_column("as_of", timestamps(times))
    for name in service.columns():
        if name in found:
            frame = frame.append_column(name, found[name])
    return frame


def _from_pandas(frame: Any) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def _check_frame(frame: pa.Table, service: FeatureService, needed: Sequence[str]) -> None:
    missing = [column for column in needed if column not in frame.column_names]
    if missing:
        raise FrameError(
            f"feature service {service.name!r} needs the columns {missing}, and the frame has "
            f"{frame.column_names}; add them, null where a row has none"
        )
    features = set(service.columns()) - set(needed)
    taken = [column for column in frame.column_names if column in features]
    if taken:
        raise FrameError(f"the frame has columns named as features, {taken}; drop or rename them")
    for key in service.key_columns():
        kind = frame.schema.field(key).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.null()):
            raise FrameError(f"key column {key!r} is {kind}; keys are texts, cast it to string")


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
    store: Store, frame: pa.Table, service: FeatureService, as_of: Ints
) -> dict[str, pa.Array]:
    """Columns of the service's views and attributes for the frame's keys at ``as_of``."""
    keys = {key: pc.cast(frame[key], pa.string()).combine_chunks() for key in service.key_columns()}
    found: dict[str, pa.Array] = {}
    for view in service.feature_views():
        asked = pa.table({**{key: keys[key] for key in view.keys}, "as_of": as_of})
        served = service.served(view)
        places = [view.sample_columns().index(column) for column in served]
        matrix = _behaviour(store, view, asked, places)
        found |= {name: pa.array(column) for name, column in zip(served, matrix, strict=True)}
    for attributes in service.attribute_views():
        asked = pa.table({"k1": keys[attributes.key], "as_of": as_of})
        found |= _attributes(store, attributes, asked)
    return found


# -- behaviour: feature views ----------------------------------------------------------------------


class _Known(NamedTuple):
    """Rows of the features table that may answer, and where each is stored."""

    rows: pa.Table  # keys, as_of
    paths: Sequence[str]
    file: Ints  # (rows,) place in paths
    row: Ints  # (rows,) place in the file


def _behaviour(store: Store, view: FeatureView, asked: pa.Table, places: Sequence[int]) -> Floats:
    """Sample columns ``places`` of ``view``, (columns, rows): one contiguous run per column."""
    width = len(view.count_columns()) + len(view.recency)
    result = np.empty((len(places), asked.num_rows), np.float32)
    never = sample_matrix(view, np.zeros((1, width), np.int64), np.zeros(1, np.int64))[0, places]
    result[:] = never[:, None]
    valid = np.ones(asked.num_rows, bool)
    for key in view.keys:
        valid &= asked[key].is_valid().to_numpy()
    as_of = asked["as_of"].to_numpy()
    start = store.ledger.first_hour(view.features_table)
    if start is None:
        raise StoreError(f"{view.features_table} holds no hour yet; run extract_features.py")
    for rows in _days(np.flatnonzero(valid), as_of):
        first, last = (_hour(int(end)) for end in (as_of[rows].min(), as_of[rows].max()))
        back = min(_DAY_HOURS, view.ttl_hours + 1)
        needed = hr.hour_range(max(start, hr.add(first, -back)), hr.add(last, -1))
        mine = asked.take(pa.array(rows))
        known = _known(store, view, needed, mine)
        source = _answers(view, known, mine)
        for chunk in _chunks(np.flatnonzero(source >= 0)):
            values = _stored(view, known, source[chunk])
            matrix = sample_matrix(view, values, as_of[rows[chunk]])
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


def _chunks(rows: Ints) -> Iterator[Ints]:
    for start in range(0, len(rows), _CHUNK_ROWS):
        yield rows[start : start + _CHUNK_ROWS]


def _known(store: Store, view: FeatureView, hours: Sequence[str], asked: pa.Table) -> _Known:
    """The rows of ``hours`` with a first key that is asked for: keys and ``as_of`` only."""
    table = view.features_table
    there = set(store.readable_hours(table, hours[0], hours[-1])) if hours else set()
    missing = [hour for hour in hours if hour not in there]
    if missing:
        raise StoreError(
            f"{table} of {missing[0]} is not published ({len(missing)} of {len(hours)} hours that "
            f"the frame needs). Run: spark-submit jobs/extract_features.py --from-hour "
            f"{missing[0]} --to-hour {missing[-1]}, or leave out the rows that ask after it"
        )
    paths = store.files(table, hours)
    wanted = asked[view.keys[0]].unique()
    names = [*view.keys, "as_of"]
    kinds = pa.schema([*((key, pa.string()) for key in view.keys), ("as_of", TIMESTAMP)])
    pieces, files, places = [kinds.empty_table()], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, path in enumerate(paths):
        rows = pq.read_table(path, columns=names).select(names).cast(kinds)
        row = np.flatnonzero(pc.is_in(rows[view.keys[0]], value_set=wanted).to_numpy())
        pieces.append(rows.take(pa.array(row)))
        files.append(np.full(len(row), number, np.int64))
        places.append(row.astype(np.int64))
    return _Known(pa.concat_tables(pieces), paths, np.concatenate(files), np.concatenate(places))


def _answers(view: FeatureView, known: _Known, asked: pa.Table) -> Ints:
    """For every row asked, the index of the known row that answers it; -1 for none."""
    source = _joined(known.rows, asked, view.keys, np.zeros(known.rows.num_rows, np.int64))
    at = np.append(pc.cast(known.rows["as_of"], pa.int64()).to_numpy(), 0)
    fresh = alive(view, asked["as_of"].to_numpy(), at[source])
    return np.where((source >= 0) & fresh, source, -1)


def _joined(known: pa.Table, asked: pa.Table, keys: Sequence[str], recorded: Ints) -> Ints:
    """The as-of join: the place in ``known`` of the newest row at or before each row asked; -1."""
    count = known.num_rows
    instants = [pc.cast(rows["as_of"], pa.int64()).to_numpy() for rows in (known, asked)]
    lookups = pa.concat_tables([known.select(keys), asked.select(keys)])
    lookups = lookups.append_column("as_of", pa.array(np.concatenate(instants)))
    order = np.concatenate([recorded, np.zeros(asked.num_rows, np.int64)])
    lookups = lookups.append_column("recorded", pa.array(order))
    lookups = lookups.append_column("asked", pa.array(np.arange(lookups.num_rows) >= count))
    return latest_known(lookups, keys)[count:]


def _stored(view: FeatureView, known: _Known, source: Ints) -> npt.NDArray[np.int64]:
    """Stored values of the known rows ``source``, (rows, counts + recency), 0 = never."""
    columns = [*view.count_columns(), *view.recency_columns()]
    distinct, place = np.unique(source, return_inverse=True)
    values = np.zeros((len(distinct), len(columns)), np.int64)
    for number in np.unique(known.file[distinct]):
        here = np.flatnonzero(known.file[distinct] == number)
        rows = pq.read_table(known.paths[number], columns=columns)
        rows = rows.take(pa.array(known.row[distinct[here]]))
        for column, name in enumerate(columns):
            values[here, column] = pc.fill_null(pc.cast(rows[name], pa.int64()), 0).to_numpy()
    return values[place]


# -- attributes ------------------------------------------------------------------------------------


def _attributes(store: Store, view: AttributeView, asked: pa.Table) -> dict[str, pa.Array]:
    """Attributes of ``asked`` (k1, as_of) by column; null where nothing was known."""
    count = asked.num_rows
    rows = np.flatnonzero(asked["k1"].is_valid().to_numpy())
    mine = asked.take(pa.array(rows))
    known = _attribute_rows(store, view, mine)
    source = np.full(count, -1, np.int64)
    source[rows] = _joined(known, mine, ("k1",), known["recorded"].to_numpy())
    hit = np.flatnonzero(source >= 0)
    matrix = np.full((count, len(view.numeric)), np.nan, np.float32)
    numbers = known["numbers"].combine_chunks().take(pa.array(source[hit]))
    matrix[hit] = from_bytes(numbers, np.float32, len(view.numeric))
    chosen = pa.array(source, mask=source < 0)
    texts = [known[f"text{i}"].combine_chunks().take(chosen) for i in range(len(view.categorical))]
    dense = {
        name: pa.array(np.ascontiguousarray(column), from_pandas=True)
        for name, column in zip(view.dense(), matrix.T, strict=True)
    }
    return {**dense, **dict(zip(view.sparse(), texts, strict=True))}


def _attribute_rows(store: Store, view: AttributeView, asked: pa.Table) -> pa.Table:
    """What is known of the entities asked for, as rows of ``KNOWN_ATTRIBUTES``."""
    start = store.ledger.first_hour(view.table)
    last = _hour(int(asked["as_of"].to_numpy().max(initial=0)) - 1)
    hours = store.readable_hours(view.table, start, last) if start is not None else []
    columns = [view.key, "hour", "valid_from", "numeric", "categorical"]
    wanted = ds.field(view.key).isin(asked["k1"].unique())
    rows = store.dataset(view.table, hours).to_table(columns=columns, filter=wanted)
    return stacked_attributes(rows, ATTRIBUTES.index(view))
