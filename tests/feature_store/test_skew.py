"""Differences between logged and recomputed features, on rows whose difference is known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.skew import PAIRINGS, Skew, paired

KEYS = PAIRINGS[1]
text = st.sampled_from(["a", "a|", "b", "|b", None])
rows = st.lists(st.tuples(text, text, text), max_size=12)


def as_table(keys: list[tuple]) -> pa.Table:
    columns = list(zip(*keys, strict=True)) or [(), (), ()]
    return pa.table({k: pa.array(c, pa.string()) for k, c in zip(KEYS, columns, strict=True)})


@settings(max_examples=300, deadline=None)
@given(rows, rows)
def test_pairs_are_those_of_a_loop(logged: list[tuple], recomputed: list[tuple]) -> None:
    mine, theirs = paired(as_table(logged), as_table(recomputed), KEYS)
    expected = [
        (place, recomputed.index(key))
        for place, key in enumerate(logged)
        if None not in key and recomputed.count(key) == 1
    ]
    assert list(zip(mine.tolist(), theirs.tolist(), strict=True)) == expected


def compared(logged: pa.Array, recomputed: pa.Array, tolerance: float = 0.01):
    skew = Skew(("x",), tolerance)
    half = len(logged) // 2
    for part in (slice(0, half), slice(half, None)):  # gathered over two hours
        skew.add(pa.table({"x": logged[part]}), pa.table({"x": recomputed[part]}))
    [found] = skew.features()
    return found


def test_numbers_differ_beyond_the_tolerance() -> None:
    logged = pa.array([1.0, 1.005, 1.02, 1000.0, None, np.nan, None, 5.0, np.nan])
    recomputed = pa.array([1, 1, 1, 1009, 2, 2, None, None, None], pa.float32())
    found = compared(logged, recomputed)
    assert (found.rows, found.differing) == (9, 4)  # 1.02; two missing in the log, one in samples
    assert (found.only_logged, found.only_recomputed) == (1, 2)
    assert found.largest == 9.0
    assert found.mean == pytest.approx((0.005 + 0.02 + 9) / 4)
    assert found.share == pytest.approx(4 / 9)


def test_texts_differ_or_do_not() -> None:
    found = compared(
        pa.array(["a", "a", None, "a", None]).dictionary_encode(),
        pa.array(["a", "b", None, None, "a"]),
    )
    assert (found.differing, found.only_logged, found.only_recomputed) == (3, 1, 1)
    assert (found.mean, found.largest) == (0.0, 0.0)


def test_a_text_is_no_number() -> None:
    with pytest.raises(TypeError, match="'x' is string in the log and float in the samples"):
        compared(pa.array(["1", "2"]), pa.array([1, 2], pa.float32()))


def test_the_worst_comes_first() -> None:
    skew = Skew(("b", "a", "same", "worst"), 0.0)
    there = pa.table(dict.fromkeys(("a", "b", "same", "worst"), pa.array([1.0, 2.0])))
    here = pa.table({"a": [1.0, 3.0], "b": [1.0, 2.5], "same": [1.0, 2.0], "worst": [0.9, 2.1]})
    skew.add(here, there)
    assert [f.feature for f in skew.features()] == ["worst", "a", "b", "same"]


def test_nothing_to_compare_is_no_difference() -> None:
    found = compared(pa.array([], pa.float64()), pa.array([], pa.float32()))
    assert (found.rows, found.share, found.mean) == (0, 0.0, 0.0)
