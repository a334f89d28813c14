"""What is known of requests' keys at their time: the columns that samples and frames get.

A request asks as of an instant; the newest row of its keys at or before that answers it, and one
without any gets the declared defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store import storage
from feature_store.asof import joined
from feature_store.packing import as_bytes, from_bytes
from feature_store.schemas import TIMESTAMP
from feature_store.views import ATTRIBUTES, VIEWS, AttributeView, FeatureView
from feature_store.windows import HOUR_MICROS, Ints, hour_numbers, sample_matrix

__all__ = [
    "KNOWN_ATTRIBUTES",
    "TEXTS",
    "VALUES",
    "alive",
    "attribute_columns",
    "base_hours",
    "behaviour_rows",
    "feature_hours",
    "never",
    "stacked_attributes",
]

Floats = npt.NDArray[np.float32]

# Texts travel as plain columns: Spark checks a batch's size after every row that it hands to
# Python, at a cost that for a list column grows with the batch, so that list columns are quadratic.
TEXTS: Final = tuple(f"text{i}" for i in range(max(len(v.categorical) for v in ATTRIBUTES)))
VALUES: Final = ", ".join(["numbers binary", *(f"{name} string" for name in TEXTS)])
KNOWN_ATTRIBUTES: Final = f"view int, k1 string, k2 string, as_of bigint, recorded bigint, {VALUES}"
_CHUNK_ROWS: Final = 1 << 17


def base_hours(hours: Sequence[str], time_zone: str) -> list[str]:
    """Those of ``hours`` that end a business day: their features hold every living key."""
    return [h for h in hours if hr.day_of(h, time_zone) != hr.day_of(hr.add(h, 1), time_zone)]


def feature_hours(first: str, last: str, start: str, lateness: int, time_zone: str) -> list[str]:
    """The feature partitions that samples of [first, last] read: from a full base on.

    Args:
        start: first hour of the store; without a base the features since then are read.
        lateness: hours an event may be late; its group's ``as_of`` lies so much earlier.
    """
    earliest = hr.add(first, -lateness - 1)
    bases = base_hours(hr.hour_range(max(start, hr.add(earliest, -25)), earliest), time_zone)
    return hr.hour_range(bases[-1] if bases else start, hr.add(last, -1))


class _Known(NamedTuple):
    """Rows of the features table that may answer, and where each is stored."""

    rows: pa.Table  # keys, as_of
    paths: Sequence[str]
    file: Ints  # (rows,) place in paths
    row: Ints  # (rows,) place in the file


def never(view: FeatureView) -> Floats:
    """The view's sample columns of a key that never occurred, (columns,)."""
    width = len(view.count_columns()) + len(view.recency)
    zeros = np.zeros((1, width), np.int64)
    default: Floats = sample_matrix(view, zeros, np.zeros(1, np.int64))[0]
    return default


def behaviour_rows(
    view: FeatureView, paths: Sequence[str], asked: pa.Table
) -> Iterator[tuple[Ints, Floats]]:
    """Answers from files of the view's features table, in chunks.

    Args:
        asked: the view's keys, and ``as_of`` in microseconds.

    Yields:
        Rows of ``asked`` that are answered (rows,), and their sample columns (rows, columns).
    """
    known = _known(view, paths, asked)
    source = _answers(view, known, asked)
    as_of = asked["as_of"].to_numpy()
    rows = np.flatnonzero(source >= 0)
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        yield chunk, sample_matrix(view, _stored(view, known, source[chunk]), as_of[chunk])


def _known(view: FeatureView, paths: Sequence[str], asked: pa.Table) -> _Known:
    """The stored rows with a first key that is asked for: keys and ``as_of`` only."""
    wanted = asked[view.keys[0]].unique()
    names = [*view.keys, "as_of"]
    kinds = pa.schema([*((key, pa.string()) for key in view.keys), ("as_of", TIMESTAMP)])
    pieces, files, places = [kinds.empty_table()], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, path in enumerate(paths):
        rows = storage.parquet_file(path).read(columns=names).select(names).cast(kinds)
        row = np.flatnonzero(pc.is_in(rows[view.keys[0]], value_set=wanted).to_numpy())
        pieces.append(rows.take(pa.array(row)))
        files.append(np.full(len(row), number, np.int64))
        places.append(row.astype(np.int64))
    return _Known(pa.concat_tables(pieces), paths, np.concatenate(files), np.concatenate(places))


def _answers(view: FeatureView, known: _Known, asked: pa.Table) -> Ints:
    """For every row asked, the index of the known row that answers it; -1 for none."""
    source = joined(known.rows, asked, view.keys, np.zeros(known.rows.num_rows, np.int64))
    at = np.append(pc.cast(known.rows["as_of"], pa.int64()).to_numpy(), 0)
    fresh = alive(view, asked["as_of"].to_numpy(), at[source])
    return np.where((source >= 0) & fresh, source, -1)


def _stored(view: FeatureView, known: _Known, source: Ints) -> npt.NDArray[np.int64]:
    """Stored values of the known rows ``source``, (rows, counts + recency), 0 = never."""
    columns = [*view.count_columns(), *view.recency_columns()]
    distinct, place = np.unique(source, return_inverse=True)
    values = np.zeros((len(distinct), len(columns)), np.int64)
    for number in np.unique(known.file[distinct]):
        here = np.flatnonzero(known.file[distinct] == number)
        rows = storage.parquet_file(known.paths[number]).read(columns=columns)
        rows = rows.take(pa.array(known.row[distinct[here]]))
        for column, name in enumerate(columns):
            values[here, column] = pc.fill_null(pc.cast(rows[name], pa.int64()), 0).to_numpy()
    return values[place]


def stacked_attributes(rows: pa.Table, number: int) -> pa.Table:
    """Rows of an entity table as rows of ``KNOWN_ATTRIBUTES``.

    What arrived in an hour is known from its end on.
    """
    view = ATTRIBUTES[number]
    return pa.table(
        {
            "view": pa.array(np.full(rows.num_rows, len(VIEWS) + number, np.int32)),
            "k1": rows[view.key],
            "k2": pa.array([""] * rows.num_rows, pa.string()),
            "as_of": pa.array((hour_numbers(rows["hour"]) + 1) * HOUR_MICROS),
            "recorded": pc.cast(rows["valid_from"], pa.int64()),
            "numbers": as_bytes(_numbers(rows["numeric"], view.numeric)),
            **_texts(rows["categorical"], view.categorical),
        }
    )


def _numbers(maps: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """The named entries of a map column, (rows, names); NaN where there is none."""
    matrix = np.full((len(maps), len(names)), np.nan, np.float32)
    for place, name in enumerate(names):
        matrix[:, place] = pc.map_lookup(maps.combine_chunks(), name, "first").to_numpy(False)
    return matrix


def _texts(maps: pa.ChunkedArray, names: Sequence[str]) -> dict[str, pa.Array]:
    """The named entries of a map column as the columns ``TEXTS``, the rest null."""
    maps = maps.combine_chunks()
    found = [pc.map_lookup(maps, name, "first") for name in names]
    found += [pa.nulls(len(maps), pa.string())] * (len(TEXTS) - len(names))
    return dict(zip(TEXTS, found, strict=True))


def alive(view: FeatureView, asked: Ints, found: Ints) -> npt.NDArray[np.bool_]:
    """Whether rows as of ``found`` still count at ``asked``, both microseconds: the view's TTL."""
    young: npt.NDArray[np.bool_] = asked - found <= view.ttl_hours * HOUR_MICROS
    return young


def attribute_columns(
    view: AttributeView, arrived: pa.Table, asked: pa.Table
) -> dict[str, pa.Array]:
    """Attributes of ``asked`` (k1, as_of) by column, from rows of the entity table that arrived;
    null where nothing was known."""
    count = asked.num_rows
    rows = np.flatnonzero(asked["k1"].is_valid().to_numpy())
    mine = asked.take(pa.array(rows))
    known = stacked_attributes(arrived, ATTRIBUTES.index(view))
    source = np.full(count, -1, np.int64)
    source[rows] = joined(known, mine, ("k1",), known["recorded"].to_numpy())
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
