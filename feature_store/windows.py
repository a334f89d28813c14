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
from feature_store.views import MAX_WINDOW, VALUE_ACTIONS, FeatureView, Rate

__all__ = [
    "HOUR_MICROS",
    "Ints",
    "epoch_hour",
    "key_codes",
    "sample_matrix",
    "timestamps",
    "window_features",
]

HOUR_MICROS: Final = 3_600_000_000
_EPOCH: Final = "1970-01-01T00"

Ints = npt.NDArray[np.int64]


def epoch_hour(hour: str) -> int:
    """Hours since 1970-01-01T00 UTC."""
    return hr.difference(hour, _EPOCH)


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


def _row_hours(tiles: pa.Table) -> Ints:
    encoded = tiles["hour"].combine_chunks().dictionary_encode()
    known = np.array([epoch_hour(h) for h in encoded.dictionary.to_pylist()], np.int64)
    hours: Ints = known[encoded.indices.to_numpy()]
    return hours


class _Hourly(NamedTuple):
    """Measures per key and hour of arrival, sorted by key, then hour; P pairs."""

    code: Ints  # (P,)
    hour: Ints  # (P,)
    running: Ints  # (P + 1, measures): sums of all pairs before
    latest: Ints  # (P, recency): newest event_time so far of the key, microseconds, 0 = never


def _hourly(tiles: pa.Table, view: FeatureView, codes: Ints) -> _Hourly:
    hours = _row_hours(tiles)
    start, span = int(hours.min()), int(hours.max() - hours.min()) + 1
    pairs, inverse = np.unique(codes * span + (hours - start), return_inverse=True)
    action = tiles["action"].combine_chunks()
    n, total = tiles["n"].to_numpy(), tiles["total"].to_numpy()
    sums = np.zeros((len(pairs), len(view.measures())), np.int64)
    for column, measure in enumerate(view.measures()):
        name = measure.removesuffix("_total")
        chosen = pc.equal(action, name).to_numpy(zero_copy_only=False)
        amounts = total if measure != name else n
        np.add.at(sums[:, column], inverse[chosen], amounts[chosen])
    last_at = pc.cast(tiles["last_at"], pa.int64()).to_numpy()
    latest = np.zeros((len(pairs), len(view.recency)), np.int64)
    for column, name in enumerate(view.recency):
        chosen = pc.equal(action, name).to_numpy(zero_copy_only=False)
        np.maximum.at(latest[:, column], inverse[chosen], last_at[chosen])
    running = np.zeros((len(pairs) + 1, sums.shape[1]), np.int64)
    np.cumsum(sums, axis=0, out=running[1:])
    code, hour = pairs // span, pairs % span + start
    return _Hourly(code, hour, running, _latest_so_far(code, latest))


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


def window_features(
    tiles: pa.Table,
    view: FeatureView,
    first: str,
    last: str,
    base_hours: Sequence[str],
    keys: Sequence[str] | None = None,
) -> tuple[pa.Table, Ints, Ints]:
    """Windowed sums at every ``as_of`` in (first, last + 1h] at which a key's counts changed.

    A count changes when an hour enters a window, at hour + 1, and when it leaves, at hour + 1 + w.

    Args:
        tiles: counts of hours [first - MAX_WINDOW, last], all rows of every key that is in it;
            earlier ones have left every window.
        base_hours: hours of [first, last] that write every living key, changed or not.
        keys: the key columns' names in ``tiles``; the view's own by default.

    Returns:
        The keys of N rows as a table, ``as_of`` in epoch hours (N,), and the values (N, counts +
        recency): the view's ``count_columns``, then its ``recency_columns`` in microseconds, 0
        where it never happened inside the longest window.
    """
    width = len(view.count_columns()) + len(view.recency)
    names = list(view.keys if keys is None else keys)
    codes = key_codes(tiles, names)
    if not base_hours:
        due = _due(tiles, codes, view, epoch_hour(first), epoch_hour(last))
        tiles, codes = tiles.filter(pa.array(due)), np.unique(codes[due], return_inverse=True)[1]
    if tiles.num_rows == 0:
        return tiles.select(names), np.zeros(0, np.int64), np.zeros((0, width), np.int64)
    hourly = _hourly(tiles, view, codes)
    code, as_of = _change_points(hourly, view, epoch_hour(first), epoch_hour(last), base_hours)
    stride = int(hourly.hour.max() - hourly.hour.min()) + MAX_WINDOW + 2
    origin = int(hourly.hour.min())
    ranks = hourly.code * stride + (hourly.hour - origin)

    def before(hour: Ints) -> Ints:
        """How many pairs precede (code, hour): the index of its running sum."""
        return np.searchsorted(ranks, code * stride + np.clip(hour - origin, 0, stride - 1))

    end = before(as_of)
    sums = [hourly.running[end] - hourly.running[before(as_of - w)] for w in view.windows]
    latest = np.where((end > 0)[:, None], hourly.latest[end - 1], 0)
    latest = np.where(latest >= ((as_of - MAX_WINDOW) * HOUR_MICROS)[:, None], latest, 0)
    representative = np.unique(codes, return_index=True)[1]
    found = tiles.select(names).take(pa.array(representative[code]))
    return found, as_of, np.concatenate([*sums, latest], axis=1)


def _due(
    tiles: pa.Table, codes: Ints, view: FeatureView, first: int, last: int
) -> npt.NDArray[np.bool_]:
    """Which rows belong to a key that changes in (first, last + 1]; few do in a single hour."""
    hours = _row_hours(tiles)
    changes = np.zeros(len(codes), bool)
    for after in (0, *view.windows):
        at = hours + 1 + after
        changes |= (at > first) & (at <= last + 1)
    keys = np.zeros(int(codes.max(initial=-1)) + 1, bool)
    keys[codes[changes]] = True
    due: npt.NDArray[np.bool_] = keys[codes]
    return due


def _change_points(
    hourly: _Hourly, view: FeatureView, first: int, last: int, base_hours: Sequence[str]
) -> tuple[Ints, Ints]:
    """(key code, as_of) at which a row is due: sorted by both, distinct."""
    codes, instants = [], []

    def add(chosen: npt.NDArray[np.bool_], at: Ints) -> None:
        codes.append(hourly.code[chosen])
        instants.append(at[chosen])

    for after in (0, *view.windows):
        at = hourly.hour + 1 + after
        add((at > first) & (at <= last + 1), at)
    for base in base_hours:
        at = np.full_like(hourly.hour, epoch_hour(base) + 1)
        add((hourly.hour < at) & (at <= hourly.hour + 1 + MAX_WINDOW), at)
    code, as_of = np.concatenate(codes), np.concatenate(instants)
    span = last - first + 2
    points = np.unique(code * span + (as_of - first))
    return points // span, points % span + first


def sample_matrix(
    view: FeatureView, values: npt.NDArray[np.int64], as_of: Ints
) -> npt.NDArray[np.float32]:
    """A view's ``sample_columns`` from its stored values: counts, smoothed rates, ages in hours.

    Args:
        values: (N, counts + recency) as :func:`window_features` returns them; zeros for a key that
            has no row.
        as_of: (N,) microseconds.

    Returns:
        (N, sample columns), float32; NaN for the age of what never happened.
    """
    measures = view.measures()
    index = {name: i for i, name in enumerate(measures)}
    counts: list[npt.NDArray[np.float32]] = []
    rates: list[npt.NDArray[np.float32]] = []
    for i in range(len(view.windows)):
        block = values[:, i * len(measures) : (i + 1) * len(measures)]
        counts += [block[:, index[action]].astype(np.float32) for action in view.actions]
        rates += [
            _rate(rate, block[:, index[rate.numerator]], block[:, index[rate.denominator]])
            for rate in view.rates
        ]
    latest = values[:, len(view.windows) * len(measures) :]
    ages = [
        np.where(column == 0, np.nan, (as_of - column) / HOUR_MICROS).astype(np.float32)
        for column in latest.T
    ]
    return np.stack([*counts, *rates, *ages], axis=1)


def _rate(rate: Rate, numerator: Ints, denominator: Ints) -> npt.NDArray[np.float32]:
    name = rate.numerator.removesuffix("_total")
    unit = VALUE_ACTIONS[name] if rate.numerator != name else 1
    smoothed = (numerator / unit + rate.prior * rate.weight) / (denominator + rate.weight)
    return smoothed.astype(np.float32)


def timestamps(micros: Ints, never: int | None = None) -> pa.Array:
    """Microseconds as UTC timestamps; null where they equal ``never``."""
    mask = None if never is None else micros == never
    return pa.array(micros, pa.int64(), mask=mask).cast(TIMESTAMP)
