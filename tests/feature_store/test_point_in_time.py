"""The as-of join against a loop over every row, and the bytes that carry it through Spark."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store import hours as hr
from feature_store.asof import latest_known
from feature_store.counting import merged
from feature_store.packing import as_bytes, from_bytes
from feature_store.point_in_time import base_hours, feature_hours
from feature_store.schemas import TABLES, TIMESTAMP, optional
from feature_store.transforms import (
    PACKED,
    stacked_features,
)
from feature_store.views import VIEWS

KEYS = ("view", "k1", "k2")

# Few values each, so that keys, instants and ties meet often; the texts look alike when glued.
known_row = st.tuples(
    st.sampled_from([0, 1]),
    st.sampled_from(["a", "a|", "a|b", ""]),
    st.sampled_from(["", "b", "|b"]),
    st.integers(0, 4),  # as_of
    st.integers(0, 3),  # recorded; ignored for requests
    st.booleans(),  # asked
)
worlds = st.lists(known_row, min_size=1, max_size=30)


def as_lookups(rows: list[tuple]) -> pa.Table:
    view, k1, k2, as_of, recorded, asked = zip(*rows, strict=True)
    return pa.table(
        {
            "view": pa.array(view, pa.int32()),
            "k1": pa.array(k1, pa.string()),
            "k2": pa.array(k2, pa.string()),
            "as_of": pa.array(as_of, pa.int64()),
            # Requests come out of Spark's union without `recorded`.
            "recorded": pa.array(
                [None if a else r for r, a in zip(recorded, asked, strict=True)], pa.int64()
            ),
            "asked": pa.array(asked),
        }
    )


def naive(rows: list[tuple], place: int) -> tuple | None:
    """(as_of, recorded) of what request ``place`` may know: the newest of its key, `<=`."""
    mine = rows[place]
    found = [
        (row[3], row[4]) for row in rows if not row[5] and row[:3] == mine[:3] and row[3] <= mine[3]
    ]
    return max(found, default=None)


@settings(max_examples=1000, deadline=None)
@given(worlds)
def test_the_join_equals_a_loop(rows: list[tuple]) -> None:
    found = latest_known(as_lookups(rows), KEYS)
    for place, row in enumerate(rows):
        if not row[5]:
            continue
        expected = naive(rows, place)
        if expected is None:
            assert found[place] == -1
            continue
        answer = rows[found[place]]
        assert not answer[5], "the answer is a known row"
        assert answer[:3] == row[:3], "of the same key"
        assert (answer[3], answer[4]) == expected


def test_what_is_known_at_the_instant_itself_counts() -> None:
    known, request = (0, "u", "", 10, 0, False), (0, "u", "", 10, 0, True)
    assert latest_known(as_lookups([request, known]), KEYS).tolist() == [1, 1]
    later = (0, "u", "", 11, 0, False)
    assert latest_known(as_lookups([request, later]), KEYS)[0] == -1


def test_rows_of_one_instant_are_ordered_by_recorded() -> None:
    rows = [(0, "u", "", 10, r, False) for r in (5, 9, 2)] + [(0, "u", "", 12, 0, True)]
    assert latest_known(as_lookups(rows), KEYS)[3] == 1


def test_keys_that_look_alike_when_glued_stay_apart() -> None:
    rows = [(0, "a|b", "c", 1, 0, False), (0, "a", "b|c", 2, 0, True)]
    assert latest_known(as_lookups(rows), KEYS)[1] == -1


# -- which feature hours samples read ------------------------------------------------------------


@pytest.mark.parametrize(("zone", "end"), [("UTC", 23), ("Asia/Shanghai", 15)])
def test_base_hours_end_business_days(zone: str, end: int) -> None:
    hours = hr.hour_range("2026-11-10T00", "2026-11-12T23")
    assert base_hours(hours, zone) == [f"2026-11-{day}T{end:02d}" for day in (10, 11, 12)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 90), st.integers(0, 30), st.integers(0, 3))
def test_feature_hours_reach_back_to_a_full_base(since: int, length: int, lateness: int) -> None:
    """Every row that the earliest group may need is in there: a base at or before it, or all."""
    start, zone = "2026-11-08T07", "Asia/Shanghai"
    first = hr.add(start, since)
    found = feature_hours(first, hr.add(first, length), start, lateness, zone)
    earliest = hr.add(first, -lateness - 1)  # the newest partition that a late group may use
    expected_last = hr.add(first, length - 1)
    if not found:
        assert expected_last < start
        return
    assert found == hr.hour_range(found[0], expected_last), "without a gap"
    assert found[0] >= start
    if found[0] != start:
        assert base_hours([found[0]], zone) == [found[0]]
        assert found[0] <= earliest
        assert hr.difference(earliest, found[0]) < 24, "no further back than the last base"


# -- rows as bytes --------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5), st.integers(1, 4), st.integers(0, 5), st.randoms())
def test_bytes_hold_the_matrix(rows: int, width: int, start: int, random: object) -> None:
    generator = np.random.default_rng(getattr(random, "randint")(0, 9))  # noqa: B009
    matrix = generator.integers(-(2**62), 2**62, (rows, width))
    packed = as_bytes(matrix)
    assert len(packed) == rows
    assert np.array_equal(from_bytes(packed, np.int64, width), matrix)
    # Batches arrive sliced: the buffers are then those of the whole.
    assert np.array_equal(from_bytes(packed.slice(start), np.int64, width), matrix[start:])
    floats = matrix.astype(np.float32)
    assert np.array_equal(from_bytes(as_bytes(floats), np.float32, width), floats)


def test_bytes_of_a_transposed_matrix_are_its_own_rows() -> None:
    matrix = np.arange(6, dtype=np.int64).reshape(2, 3).T
    assert np.array_equal(from_bytes(as_bytes(matrix), np.int64, 2), matrix)


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_features_are_packed_in_their_order(number: int) -> None:
    view = VIEWS[number]
    when = dt.datetime(2026, 11, 11, 5, tzinfo=dt.UTC)
    counts = [2**40 + i for i in range(len(view.count_columns()))]
    rows = pa.table(
        {
            **{key: pa.array([f"{key}|1", f"{key}2"]) for key in view.keys},
            "as_of": pa.array([when, when + dt.timedelta(hours=1)], TIMESTAMP),
            **{c: pa.array([i, n]) for i, (c, n) in enumerate(
                zip(view.count_columns(), counts, strict=True))},
            **{c: pa.array([None, when], TIMESTAMP) for c in view.recency_columns()},
            "hour": pa.array(["2026-11-11T04", "2026-11-11T05"]),
        },
        schema=optional(TABLES[view.features_table].schema),
    )  # fmt: skip
    stacked = stacked_features(rows, number)
    assert stacked["view"].to_pylist() == [number] * 2
    assert stacked["k1"].to_pylist() == [f"{view.keys[0]}|1", f"{view.keys[0]}2"]
    assert stacked["as_of"].to_pylist()[0] == int(when.timestamp() * 1e6)
    packed = stacked[PACKED].combine_chunks()
    values = from_bytes(packed, np.int64, len(counts) + len(view.recency))
    never = [0] * len(view.recency)
    assert values[0].tolist() == [*range(len(counts)), *never]
    assert values[1].tolist() == [*counts, *[int(when.timestamp() * 1e6)] * len(view.recency)]


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_counts_get_their_own_keys(number: int) -> None:
    view = VIEWS[number]
    when = dt.datetime(2026, 11, 11, 5, 30, tzinfo=dt.UTC)
    own = {f"k{i + 1}": pa.array([f"{key}|1"]) for i, key in enumerate(view.keys)}
    shared = {
        "key_hash": pa.array([-(2**60)]),
        "tile": pa.array([when], TIMESTAMP),
        "action": pa.array(["stay"]),
        "n": pa.array([3]),
        "total": pa.array([123456]),
        "last_at": pa.array([when], TIMESTAMP),
        "hour": pa.array(["2026-11-11T05"]),
    }
    rows = merged(pa.table({"k2": pa.array([""]), **own, **shared}), view)
    assert rows.select(TABLES[view.counts_table].schema.names).num_columns == len(rows.schema)
    assert [rows[key].to_pylist() for key in view.keys] == [[f"{key}|1"] for key in view.keys]
    assert rows.select(list(shared)).equals(pa.table(shared))
