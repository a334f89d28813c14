"""What is known of keys as of given hours: the lookups behind samples, on Arrow and without Spark.

Each is one as-of join per view or entity table: of the rows with a request's keys the newest at or
before its hour answers, and a request without one gets the declared defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from feature_store import hours as hr
from feature_store.point_in_time import alive, latest_known, stacked_attributes
from feature_store.schemas import TIMESTAMP
from feature_store.tables import Store, StoreError
from feature_store.transforms import from_bytes, stacked_entities
from feature_store.views import ATTRIBUTES, AttributeView, DerivedKey, FeatureView
from feature_store.windows import HOUR_MICROS, Ints, epoch_hour, sample_matrix

__all__ = ["attributes", "behaviour", "derived_key"]

_DAY_HOURS: Final = 25
"""A business day at its longest. The hour that ends one writes every living key, so that many hours
before any instant hold the newest row of every key, whatever the time zone."""
_CHUNK_ROWS: Final = 1 << 17

Floats = npt.NDArray[np.float32]


class _Known(NamedTuple):
    """Rows of the features table that may answer, and where each is stored."""

    rows: pa.Table  # keys, as_of
    paths: Sequence[str]
    file: Ints  # (rows,) place in paths
    row: Ints  # (rows,) place in the file


def behaviour(store: Store, view: FeatureView, asked: pa.Table, places: Sequence[int]) -> Floats:
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
    days = [
        (rows, _needed(view, start, as_of[rows])) for rows in _days(np.flatnonzero(valid), as_of)
    ]
    files = _files(store, view.features_table, sorted({hour for _, day in days for hour in day}))
    for rows, hours in days:
        mine = asked.take(pa.array(rows))
        known = _known(view, [path for hour in hours for path in files.get(hour, ())], mine)
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


def _known(view: FeatureView, paths: Sequence[str], asked: pa.Table) -> _Known:
    """The stored rows with a first key that is asked for: keys and ``as_of`` only."""
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


def attributes(store: Store, view: AttributeView, asked: pa.Table) -> dict[str, pa.Array]:
    """Attributes of ``asked`` (k1, as_of) by column; null where nothing was known."""
    count = asked.num_rows
    rows = np.flatnonzero(asked["k1"].is_valid().to_numpy())
    mine = asked.take(pa.array(rows))
    arrived = _entity_rows(store, view.table, view.key, mine["k1"], mine["as_of"], ahead=0)
    known = stacked_attributes(arrived, ATTRIBUTES.index(view))
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


def _entity_rows(
    store: Store, table: str, key: str, wanted: pa.ChunkedArray, as_of: pa.ChunkedArray, ahead: int
) -> pa.Table:
    """Rows of the entities ``wanted`` that arrived in hours up to ``ahead`` - 1 after ``as_of``."""
    start = store.ledger.first_hour(table)
    last = _hour(int(as_of.to_numpy().max(initial=0)) + (ahead - 1) * HOUR_MICROS)
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
    found = pa.nulls(len(as_of), pa.string())
    for table, entity, column in key.lookups:
        requests = pa.table({entity: asked[entity], "as_of": as_of})
        mine = np.flatnonzero(asked[entity].is_valid().to_numpy(zero_copy_only=False))
        requests = requests.take(pa.array(mine))
        rows = _entity_rows(store, table, entity, requests[entity], requests["as_of"], ahead=1)
        rows = stacked_entities(rows, table)
        recorded = pc.cast(rows["valid_from"], pa.int64()).to_numpy()
        known = rows.append_column("as_of", pa.array(_hour_starts(rows["hour"])))
        source = np.full(len(as_of), -1, np.int64)
        source[mine] = _joined(known, requests, (entity,), recorded)
        chosen = pa.array(source, mask=source < 0)
        name = column.removeprefix("categorical.")
        found = pc.coalesce(found, rows[name].combine_chunks().take(chosen))
    return found


def _hour_starts(hours: pa.ChunkedArray) -> Ints:
    """Starts of named hours, in microseconds."""
    named = hours.combine_chunks().dictionary_encode()
    starts = np.array([epoch_hour(h) for h in named.dictionary.to_pylist()], np.int64)
    of_rows: Ints = starts[named.indices.to_numpy()] * HOUR_MICROS
    return of_rows
