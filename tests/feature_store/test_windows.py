"""Windowed features equal a naive loop, however the hours are split into runs."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import hours as hr
from feature_store.views import VIEWS, FeatureView, Trend
from feature_store.windows import (
    HOUR_MICROS,
    WindowSums,
    due_keys,
    epoch_hour,
    sample_matrix,
    window_features,
)

START = "2026-11-01T00"
VIEW = FeatureView(
    "pair", ("user_id", "category"), "test", windows=(30, 60, 24 * 60, 3 * 24 * 60, 7 * 24 * 60)
)
SPAN = VIEW.span_hours
ACTIONS = VIEW.actions

tile = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["x", "y|a"]),
    st.integers(0, 400).map(lambda half: half / 2),  # hour of arrival, to the half-hour
    st.sampled_from(ACTIONS),
    st.integers(1, 5),  # n
    st.integers(0, 9000),  # total
    st.integers(0, 119),  # minutes before the end of the hour
)


def key_hash(user: str, category: str) -> int:
    return hash(("ab".index(user), len(category))) % 2**62


def start_of(half: float) -> dt.datetime:
    return hr.start_of(START) + dt.timedelta(hours=half)


def as_tiles(rows: list[tuple]) -> pa.Table:
    """Tiles as extract_features has them, in any order."""
    columns = defaultdict(list)
    for user, category, half, action, n, total, minutes in rows:
        columns["user_id"].append(user)
        columns["category"].append(category)
        columns["key_hash"].append(key_hash(user, category))
        columns["tile"].append(start_of(half))
        columns["action"].append(action)
        columns["n"].append(n)
        columns["total"].append(total)
        columns["last_at"].append(last_at(half, minutes))
    instant, number = pa.timestamp("us", tz="UTC"), pa.int64()
    kinds = {"key_hash": number, "n": number, "total": number, "tile": instant, "last_at": instant}
    names = ("user_id", "category", "key_hash", "tile", "action", "n", "total", "last_at")
    return pa.table({c: pa.array(columns[c], kinds.get(c, pa.string())) for c in names})


def last_at(half: float, minutes: int) -> dt.datetime:
    return start_of(half) + dt.timedelta(minutes=30 - minutes, seconds=-1)


def naive(rows: list[tuple], key: tuple[str, str], as_of: int) -> list[int]:
    """The stored values of one key at ``as_of`` (hours after START), row by row."""
    values = []
    mine = [r for r in rows if (r[0], r[1]) == key]
    for window in VIEW.windows:
        inside = [r for r in mine if as_of - window / 60 <= r[2] < as_of]
        for measure in VIEW.measures():
            action = measure.removesuffix("_total")
            values.append(
                sum(r[5] if measure != action else r[4] for r in inside if r[3] == action)
            )
    for action in VIEW.recency:
        times = [last_at(r[2], r[6]) for r in mine if r[3] == action and r[2] < as_of]
        recent = [at for at in times if at >= start_of(as_of - SPAN)]
        newest = max(times) if recent else None
        values.append(round(newest.timestamp() * 1e6) if newest else 0)
    return values


def changes(rows: list[tuple], first: int, last: int, bases: list[int]) -> set:
    """(key, as_of) at which a row is due: the full hour after a tile's begin, or its leaving."""
    due = set()
    for user, category, half, *_ in rows:
        for after in (0, *(window / 60 for window in VIEW.windows)):
            due.add(((user, category), math.floor(half + after) + 1))
        due |= {((user, category), b + 1) for b in bases if int(half) <= b <= int(half) + SPAN}
    return {(key, as_of) for key, as_of in due if first < as_of <= last + 1}


def extracted(rows: list[tuple], first: int, last: int, bases: list[int]) -> dict:
    loaded = [r for r in rows if first - SPAN <= int(r[2]) <= last]
    tiles = as_tiles(loaded)
    place, as_of, values = window_features(
        tiles, VIEW, hr.add(START, first), hr.add(START, last), [hr.add(START, b) for b in bases]
    )
    origin = epoch_hour(START)
    found = tiles.take(pa.array(place))
    names = zip(found["user_id"].to_pylist(), found["category"].to_pylist(), strict=True)
    return {
        (key, int(at) - origin): row.tolist()
        for key, at, row in zip(names, as_of, values, strict=True)
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(tile, min_size=1, max_size=40), st.integers(0, 150), st.integers(0, 60))
def test_equals_a_naive_loop(rows: list[tuple], first: int, length: int) -> None:
    last = first + length
    bases = [b for b in range(first, last + 1) if b % 24 == 15]
    found = extracted(rows, first, last, bases)
    seen = [r for r in rows if int(r[2]) <= last]
    expected = changes(seen, first, last, bases)
    assert set(found) == expected
    for key, as_of in expected:
        assert found[key, as_of] == naive(rows, key, as_of)


@settings(max_examples=25, deadline=None)
@given(st.lists(tile, min_size=1, max_size=30), st.integers(100, 120))
def test_hour_by_hour_equals_one_range(rows: list[tuple], first: int) -> None:
    hours = range(first, first + 12)
    bases = [b for b in hours if b % 24 == 15]
    together = extracted(rows, first, hours[-1], bases)
    apart: dict = {}
    for hour in hours:
        known = [r for r in rows if int(r[2]) <= hour]
        apart |= extracted(known, hour, hour, [b for b in bases if b == hour])
    assert together == apart


def summed(rows: list[tuple], hour: int, pieces: int) -> dict:
    """The features of one hour, from tiles that come in pieces."""
    as_of = epoch_hour(START) + hour + 1
    tiles = as_tiles([r for r in rows if int(r[2]) <= hour])
    hashes, first = due_keys(tiles, VIEW, as_of)
    sums = WindowSums(VIEW, hashes, as_of)
    for start in range(pieces):
        piece = tiles.take(pa.array(range(start, tiles.num_rows, pieces), pa.int64()))
        found, place = sums.find(piece["key_hash"].to_numpy())
        sums.add(piece.select(sums.columns).take(pa.array(found)), place)
    keys = tiles.take(pa.array(first))
    names = zip(keys["user_id"].to_pylist(), keys["category"].to_pylist(), strict=True)
    values = sums.values().tolist()
    return {(key, hour + 1): row for key, row in zip(names, values, strict=True)}


@settings(max_examples=100, deadline=None)
@given(st.lists(tile, max_size=40), st.integers(0, 210), st.integers(1, 4))
def test_the_sums_of_one_hour_equal_the_range_s(rows: list[tuple], hour: int, pieces: int) -> None:
    assert summed(rows, hour, pieces) == extracted(rows, hour, hour, [])


def test_no_tiles_give_no_rows() -> None:
    place, as_of, values = window_features(as_tiles([]), VIEW, START, START, [])
    assert len(place) == len(as_of) == len(values) == 0


def test_sample_columns_match_their_names() -> None:
    view = VIEWS[0]
    stored = np.zeros((2, len(view.count_columns()) + len(view.recency)), np.int64)
    columns = dict(zip(view.count_columns(), range(stored.shape[1]), strict=False))
    stored[1, columns["click_24h"]], stored[1, columns["impression_24h"]] = 3, 20
    stored[1, columns["stay_total_24h"]] = 50_000
    as_of = np.full(2, 100 * HOUR_MICROS)
    stored[1, len(columns)] = 98 * HOUR_MICROS  # last impression
    matrix = sample_matrix(view, stored, as_of)
    named = dict(zip(view.sample_columns(), matrix.T, strict=True))
    assert named["user_click_24h"].tolist() == [0, 3]
    assert np.allclose(named["user_ctr_24h"], [0.1, (3 + 0.1 * 10) / (20 + 10)])
    assert np.allclose(named["user_mean_stay_24h"], [3.0, (50 + 3 * 5) / (20 + 5)])
    assert np.isnan(named["user_hours_since_impression"][0])
    assert named["user_hours_since_impression"][1] == 2


def test_amounts_and_trends() -> None:
    view = FeatureView(
        "shop", ("shop_id",), "test", actions=("click", "order"), rates=(), amounts=("order",),
        trends=(Trend("click", 60, 24 * 60, weight=2.0),), recency=(), windows=(60, 24 * 60),
    )  # fmt: skip
    columns = dict(zip(view.count_columns(), range(6), strict=True))
    stored = np.zeros((2, 6), np.int64)
    stored[1, columns["order_total_24h"]] = 1250
    stored[1, columns["click_1h"]], stored[1, columns["click_24h"]] = 10, 48
    named = dict(
        zip(view.sample_columns(), sample_matrix(view, stored, np.zeros(2)).T, strict=True)
    )
    assert named["shop_order_amount_24h"].tolist() == [0, 12.5]
    assert named["shop_click_trend_1h_24h"].tolist() == [1, (10 + 2) / (2 + 2)]
