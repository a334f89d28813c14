"""Counts to windowed features, on Arrow tables with NumPy: the inner loop of feature extraction.

A window's sum is a difference of two running sums. All sums are exact integers, so any split of the
hours into runs, and of the keys into partitions, gives the same features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.schemas import TIMESTAMP
from feature_store.views import (
    TILE_MINUTES,
    VALUE_ACTIONS,
    FeatureView,
    Rate,
    Trend,
)

__all__ = [
    "HOUR_MICROS",
    "TILES_PER_HOUR",
    "TILE_MICROS",
    "Ints",
    "WindowSums",
    "due_keys",
    "epoch_hour",
    "hour_names",
    "hour_numbers",
    "key_codes",
    "sample_matrix",
    "timestamps",
    "window_features",
    "window_tiles",
]

HOUR_MICROS: Final = 3_600_000_000
TILE_MICROS: Final = TILE_MINUTES * 60_000_000
TILES_PER_HOUR: Final = HOUR_MICROS // TILE_MICROS
_EPOCH: Final = "1970-01-01T00"

Ints = npt.NDArray[np.int64]


def epoch_hour(hour: str) -> int:
    """Hours since 1970-01-01T00 UTC."""
    return hr.difference(hour, _EPOCH)


def hour_numbers(names: pa.ChunkedArray) -> Ints:
    """Hours since 1970 of hours' names, (rows,)."""
    encoded = names.combine_chunks().dictionary_encode()
    numbers = np.array([epoch_hour(name) for name in encoded.dictionary.to_pylist()], np.int64)
    of_rows: Ints = numbers[encoded.indices.to_numpy()]
    return of_rows


def hour_names(numbers: Ints) -> pa.Array:
    """Hours' names from hours since 1970; the inverse of :func:`hour_numbers`."""
    distinct, place = np.unique(numbers, return_inverse=True)
    names = pa.array([hr.add(_EPOCH, int(number)) for number in distinct], pa.string())
    return names.take(pa.array(place))


def key_codes(table: pa.Table, keys: Sequence[str]) -> Ints:
    """One integer per row, equal where all key columns are equal; shape (rows,), in 0..n-1.

    Keys are compared column by column; none may be null.
    """
    codes = np.zeros(table.num_rows, np.int64)
    for key in keys:
        encoded = table[key].combine_chunks().dictionary_encode()
        codes = codes * (len(encoded.dictionary) + 1) + encoded.indices.to_numpy()
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return codes


class _Tiled(NamedTuple):
    """Measures per key and half-hour of arrival, sorted by key, then tile; P pairs."""

    code: Ints  # (P,)
    tile: Ints  # (P,) half-hours since the epoch
    running: Ints  # (P + 1, measures): sums of all pairs before
    latest: Ints  # (P, recency): newest event_time so far of the key, microseconds, 0 = never


def _tiled(tiles: pa.Table, view: FeatureView, codes: Ints) -> _Tiled:
    numbers = pc.cast(tiles["tile"], pa.int64()).to_numpy() // TILE_MICROS
    start, span = int(numbers.min()), int(numbers.max() - numbers.min()) + 1
    pairs, inverse = np.unique(codes * span + (numbers - start), return_inverse=True)
    places = dict(_rows_by_action(tiles))
    n, total = tiles["n"].to_numpy(), tiles["total"].to_numpy()
    sums = np.zeros((len(pairs), len(view.measures())), np.int64)
    for column, measure in enumerate(view.measures()):
        name = measure.removesuffix("_total")
        chosen = places.get(name, _NOTHING)
        amounts = total if measure != name else n
        np.add.at(sums[:, column], inverse[chosen], amounts[chosen])
    last_at = pc.cast(tiles["last_at"], pa.int64()).to_numpy()
    latest = np.zeros((len(pairs), len(view.recency)), np.int64)
    for column, name in enumerate(view.recency):
        chosen = places.get(name, _NOTHING)
        np.maximum.at(latest[:, column], inverse[chosen], last_at[chosen])
    running = np.zeros((len(pairs) + 1, sums.shape[1]), np.int64)
    np.cumsum(sums, axis=0, out=running[1:])
    code, tile = pairs // span, pairs % span + start
    return _Tiled(code, tile, running, _latest_so_far(code, latest))


_NOTHING: Final = np.zeros(0, np.int64)


def _rows_by_action(tiles: pa.Table) -> list[tuple[str, Ints]]:
    actions = tiles["action"].combine_chunks()
    coded = pa.types.is_dictionary(actions.type)
    encoded = actions if coded else pc.dictionary_encode(actions)
    indices = encoded.indices.to_numpy()
    return [
        (action, np.flatnonzero(indices == place))
        for place, action in enumerate(encoded.dictionary.to_pylist())
    ]


def _latest_so_far(code: Ints, latest: Ints) -> Ints:
    """Running maximum inside every key: each key is shifted above all earlier ones."""
    if latest.size == 0:
        return latest
    never = latest == 0
    floor = int(latest[~never].min()) - 1 if (~never).any() else 0
    relative = np.where(never, 0, latest - floor)
    height = int(relative.max()) + 1
    if int(code.max()) > (2**62) // height:
        raise ValueError(
            f"{int(code.max())} keys in one partition are too many; use more partitions"
        )
    shifted = np.maximum.accumulate(relative + (code * height)[:, None], axis=0)
    relative = shifted - (code * height)[:, None]
    return np.where(relative == 0, 0, relative + floor)


def window_tiles(view: FeatureView) -> tuple[int, ...]:
    """The view's windows in half-hours."""
    return tuple(minutes // TILE_MINUTES for minutes in view.windows)


def window_features(
    tiles: pa.Table, view: FeatureView, first: str, last: str, base_hours: Sequence[str]
) -> tuple[Ints, Ints, Ints]:
    """Windowed sums at every ``as_of`` in (first, last + 1h] at which a key's counts changed.

    A count changes when a tile enters a window, at the next full hour, and when it leaves it.

    Args:
        tiles: counts of hours [first - view.span_hours, last], all rows of every key that is in
            it; earlier ones have left every window. Columns key_hash, tile, action, n, total,
            last_at. A tile may stand for more than a half-hour when none of the windows asked for
            here begins inside it.
        base_hours: hours of [first, last] that write every living key, changed or not.

    Returns:
        For N rows the place in ``tiles`` of a row with the same key (N,), ``as_of`` in epoch hours
        (N,), and the values (N, counts + recency): the view's ``count_columns``, then its
        ``recency_columns`` in microseconds, 0 where it never happened in the longest window.
    """
    width = len(view.count_columns()) + len(view.recency)
    if tiles.num_rows == 0:
        return _NOTHING, _NOTHING, np.zeros((0, width), np.int64)
    hashes = tiles["key_hash"].to_numpy()
    _, representative, codes = np.unique(hashes, return_index=True, return_inverse=True)
    tiled = _tiled(tiles, view, codes)
    code, as_of = _change_points(tiled, view, epoch_hour(first), epoch_hour(last), base_hours)
    origin = int(tiled.tile.min())
    stride = int(tiled.tile.max()) - origin + TILES_PER_HOUR * view.span_hours + 4
    ranks = tiled.code * stride + (tiled.tile - origin)

    def before(tile: Ints) -> Ints:
        """How many pairs precede (code, tile): the index of its running sum."""
        return np.searchsorted(ranks, code * stride + np.clip(tile - origin, 0, stride - 1))

    now = as_of * TILES_PER_HOUR
    end = before(now)
    sums = [tiled.running[end] - tiled.running[before(now - w)] for w in window_tiles(view)]
    latest = np.where((end > 0)[:, None], tiled.latest[end - 1], 0)
    latest = np.where(latest >= ((as_of - view.span_hours) * HOUR_MICROS)[:, None], latest, 0)
    return representative[code], as_of, np.concatenate([*sums, latest], axis=1)


def _change_points(
    tiled: _Tiled, view: FeatureView, first: int, last: int, base_hours: Sequence[str]
) -> tuple[Ints, Ints]:
    """(key code, as_of) at which a row is due: sorted by both, distinct."""
    codes, instants = [], []

    def add(chosen: npt.NDArray[np.bool_], at: Ints) -> None:
        codes.append(tiled.code[chosen])
        instants.append(at[chosen])

    for after in (0, *window_tiles(view)):
        at = (tiled.tile + after) // TILES_PER_HOUR + 1
        add((at > first) & (at <= last + 1), at)
    hour = tiled.tile // TILES_PER_HOUR
    for base in base_hours:
        at = np.full_like(hour, epoch_hour(base) + 1)
        add((hour < at) & (at <= hour + 1 + view.span_hours), at)
    code, as_of = np.concatenate(codes), np.concatenate(instants)
    span = last - first + 2
    points = np.unique(code * span + (as_of - first))
    return points // span, points % span + first


def due_keys(tiles: pa.Table, view: FeatureView, as_of: int) -> tuple[Ints, Ints]:
    """The keys whose counts change at ``as_of`` (epoch hour): hashes in order, and a row of each.

    Args:
        tiles: at least the tiles that enter or leave a window of the view at ``as_of``.
    """
    number = pc.cast(tiles["tile"], pa.int64()).to_numpy() // TILE_MICROS
    changes = np.zeros(len(number), bool)
    for after in (0, *window_tiles(view)):
        changes |= (number + after) // TILES_PER_HOUR + 1 == as_of
    rows = np.flatnonzero(changes)
    hashes, first = np.unique(tiles["key_hash"].to_numpy()[rows], return_index=True)
    return hashes, rows[first]


class WindowSums:
    """Windowed sums of some keys at one instant, fed tile by tile: memory follows the keys alone.

    What a tile adds to, by its age, is the shortest window that holds it; the longer ones hold it
    as well.

    Args:
        keys: key hashes, sorted and distinct, (K,).
        as_of: epoch hour at whose start the windows end.
    """

    def __init__(self, view: FeatureView, keys: Ints, as_of: int) -> None:
        self.columns = ["tile", "action", "n"]
        measures = view.measures()
        self.columns += ["total"] if any(m.endswith("_total") for m in measures) else []
        self.columns += ["last_at"] if view.recency else []
        self._view, self._keys, self._as_of = view, keys, as_of
        self._windows = np.sort(np.array(window_tiles(view)))
        self._place = {measure: place for place, measure in enumerate(measures)}
        self._sums = np.zeros((len(self._windows), len(keys), len(measures)), np.int64)
        self._latest = np.zeros((len(keys), len(view.recency)), np.int64)

    def find(self, hashes: Ints) -> tuple[Ints, Ints]:
        """Which of ``hashes`` are keys, and which ones: rows and places, both (hits,)."""
        if not len(self._keys):
            return _NOTHING, _NOTHING
        place = np.searchsorted(self._keys, hashes)
        place[place == len(self._keys)] = 0
        rows = np.flatnonzero(self._keys[place] == hashes)
        return rows, place[rows]

    def add(self, tiles: pa.Table, key: Ints) -> None:
        """Add ``tiles``, with the columns ``columns``, of the keys at the places ``key``."""
        now = self._as_of * TILES_PER_HOUR
        age = now - pc.cast(tiles["tile"], pa.int64()).to_numpy() // TILE_MICROS
        window = np.searchsorted(self._windows, age)
        inside = window < len(self._windows)
        for action, rows in _rows_by_action(tiles):
            counted = rows[inside[rows]]
            for measure, column in ((action, "n"), (f"{action}_total", "total")):
                place = self._place.get(measure)
                if place is not None:
                    at = (window[counted], key[counted], place)
                    np.add.at(self._sums, at, tiles[column].to_numpy()[counted])
            if action in self._view.recency:
                last = pc.cast(tiles["last_at"], pa.int64()).to_numpy()[rows]
                recent = self._latest[:, self._view.recency.index(action)]
                np.maximum.at(recent, key[rows], last)

    def values(self) -> Ints:
        """As :func:`window_features` gives them, (K, counts + recency)."""
        summed = np.cumsum(self._sums, axis=0)
        place = np.searchsorted(self._windows, window_tiles(self._view))
        oldest = (self._as_of - self._view.span_hours) * HOUR_MICROS
        latest = np.where(self._latest >= oldest, self._latest, 0)
        return np.concatenate([*summed[place], latest], axis=1)


def sample_matrix(
    view: FeatureView, values: npt.NDArray[np.int64], as_of: Ints
) -> npt.NDArray[np.float32]:
    """A view's ``sample_columns`` from its stored values: counts, amounts, smoothed rates, trends,
    ages in hours.

    Args:
        values: (N, counts + recency) as :func:`window_features` returns them; zeros for a key that
            has no row.
        as_of: (N,) microseconds.

    Returns:
        (N, sample columns), float32; NaN for the age of what never happened.
    """
    measures = view.measures()
    index = {name: i for i, name in enumerate(measures)}
    blocks = {
        window: values[:, i * len(measures) : (i + 1) * len(measures)]
        for i, window in enumerate(view.windows)
    }
    columns: list[npt.NDArray[np.float32]] = []
    for block in blocks.values():
        columns += [block[:, index[action]].astype(np.float32) for action in view.actions]
        columns += [
            (block[:, index[f"{action}_total"]] / VALUE_ACTIONS[action]).astype(np.float32)
            for action in view.amounts
        ]
        columns += [
            _rate(rate, block[:, index[rate.numerator]], block[:, index[rate.denominator]])
            for rate in view.rates
        ]
    for trend in view.trends:
        place = index[trend.action]
        columns.append(_trend(trend, blocks[trend.short][:, place], blocks[trend.long][:, place]))
    latest = values[:, len(view.windows) * len(measures) :]
    ages = [
        np.where(column == 0, np.nan, (as_of - column) / HOUR_MICROS).astype(np.float32)
        for column in latest.T
    ]
    return np.stack([*columns, *ages], axis=1)


def _trend(trend: Trend, short: Ints, long: Ints) -> npt.NDArray[np.float32]:
    usual = long * (trend.short / trend.long)
    return ((short + trend.weight) / (usual + trend.weight)).astype(np.float32)


def _rate(rate: Rate, numerator: Ints, denominator: Ints) -> npt.NDArray[np.float32]:
    name = rate.numerator.removesuffix("_total")
    unit = VALUE_ACTIONS[name] if rate.numerator != name else 1
    smoothed = (numerator / unit + rate.prior * rate.weight) / (denominator + rate.weight)
    return smoothed.astype(np.float32)


def timestamps(micros: Ints, never: int | None = None) -> pa.Array:
    """Microseconds as UTC timestamps; null where they equal ``never``."""
    mask = None if never is None else micros == never
    return pa.array(micros, pa.int64(), mask=mask).cast(TIMESTAMP)
