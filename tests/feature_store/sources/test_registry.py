"""The dict of sources and the helpers that the adapters share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from feature_store.rowhash import row_hashes
from feature_store.sources import SOURCES, SourceError, open_source
from feature_store.sources.arrow import attribute_map, hour_of_micros, micros_of


def test_every_source_is_known_by_its_name():
    assert list(SOURCES) == ["kuairand", "open_bandit", "parquet", "simulator", "taobao"]
    assert all(kind.name == name for name, kind in SOURCES.items())


def test_opening_reads_nothing(tmp_path):
    for name in SOURCES:
        source = open_source(name, {"path": str(tmp_path / "not there")})
        assert source.windows
        assert isinstance(source.has_requests, bool)
        with pytest.raises(SourceError, match="not there"):
            source.check()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("kafka", {}, ["'kafka'", "kuairand", "parquet", "simulator"]),
        ("kuairand", {"path": ".", "folder": "x"}, ["'folder'", "path"]),
        ("parquet", {}, ["'path'", "source.options"]),
        ("parquet", {"path": None}, ["'path'"]),
        ("parquet", {"path": 3}, ["'parquet'", "3"]),
        ("parquet", {"path": ".", "has_requests": "no"}, ["has_requests", "'no'"]),
        ("parquet", {"path": ".", "windows": {"buy": 60}}, ["'buy'", "order"]),
        ("parquet", {"path": ".", "windows": {"order": "1d"}}, ["'order'", "'1d'", "seconds"]),
        ("parquet", {"path": ".", "windows": {"order": -1}}, ["'order'", "-1"]),
        ("parquet", {"path": ".", "windows": ["order"]}, ["windows", "order"]),
        ("parquet", {"path": ".", "time_zone": "Beijing"}, ["'Beijing'", "Asia/Shanghai"]),
        ("simulator", {"path": ".", "seed": 1}, ["'seed'", "path"]),
        ("taobao", {"path": ".", "negatives": -1}, ["negatives", "-1", "whole number"]),
        ("taobao", {"path": ".", "seed": "x"}, ["seed", "'x'", "whole number"]),
        ("open_bandit", {"path": ".", "policy": "greedy"}, ["policy", "'greedy'", "random, bts"]),
        ("open_bandit", {"path": ".", "campaign": "x"}, ["campaign", "'x'", "all, men, women"]),
    ],
)
def test_wrong_names_and_options_are_refused(name, options, words):
    with pytest.raises(SourceError) as refusal:
        open_source(name, options)
    for word in words:
        assert word in str(refusal.value)


def test_hours_and_micros_are_inverse():
    for hour in ("1970-01-01T00", "2026-11-11T05", "1969-12-31T23"):
        assert hour_of_micros(micros_of(hour)) == hour
        assert hour_of_micros(micros_of(hour) + 3_599_999_999) == hour


def test_attribute_map_leaves_out_nulls_and_nan():
    maps = attribute_map(
        {"a": pa.array([1, None, 3]), "b": pa.array([np.nan, None, 0.5])}, pa.float64()
    )
    assert maps.to_pylist() == [[("a", 1.0)], [], [("a", 3.0), ("b", 0.5)]]
    assert attribute_map({"a": pa.array([], pa.string())}, pa.string()).to_pylist() == []


def test_row_hashes_are_equal_exactly_for_equal_rows():
    rows = pa.record_batch(
        {
            "n": pa.array([1, 1, 1, 2, None, 0, 1]),
            "x": pa.array([0.0, -0.0, 0.0, 0.0, 0.0, 0.0, None]),
            "s": pa.array(["a", "a", "b", "a", "a", "a", "a"]),
        }
    )
    names = row_hashes(rows).to_pylist()
    assert names[0] == names[1]
    assert len(set(names)) == 6
    assert all(len(name) == 32 for name in names)
    # also in another batch, beside other texts
    assert row_hashes(rows.slice(2, 2)).to_pylist() == names[2:4]


def test_row_hashes_tell_columns_apart():
    rows = pa.record_batch({"a": [1, 2], "b": [2, 1]})
    assert len(set(row_hashes(rows).to_pylist())) == 2


def test_row_hashes_do_not_collide_on_dense_numbers():
    side = np.arange(300)
    a, b = (grid.ravel() for grid in np.meshgrid(side, side))
    assert len(row_hashes(pa.record_batch({"a": a, "b": b})).unique()) == 90_000


def test_row_hashes_refuse_other_types():
    with pytest.raises(TypeError, match="bool"):
        row_hashes(pa.record_batch({"a": [True]}))
