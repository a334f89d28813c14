"""FeatureSpec and the codes of sparse columns."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from models.base import (
    FeatureSpec,
    PretrainedColumn,
    SequenceColumn,
    SparseColumn,
    SpecError,
    encode_sparse,
)

SPEC = FeatureSpec(
    dense=("x",),
    sparse=(SparseColumn("kind", 8),),
    sequences=(SequenceColumn("seen", 100, 50),),
    pretrained=(PretrainedColumn("node", 4),),
    labels=("label_click",),
)


def test_json_round_trip_keeps_the_hash() -> None:
    again = FeatureSpec.from_json(SPEC.to_json())
    assert again == SPEC
    assert again.sha == SPEC.sha
    assert SPEC.columns == ("x", "kind", "seen", "node")


def test_hash_tells_order_and_buckets_apart() -> None:
    first = FeatureSpec(dense=("a", "b"), sparse=(SparseColumn("k", 8),))
    assert first.sha != FeatureSpec(dense=("b", "a"), sparse=(SparseColumn("k", 8),)).sha
    assert first.sha != FeatureSpec(dense=("a", "b"), sparse=(SparseColumn("k", 9),)).sha


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"schema_version": 2}, "version 2"),
        ({"hash": "md5"}, "md5"),
        ({"sparse": [{"name": "k", "buckets": 3, "salt": 1}]}, "salt"),
    ],
)
def test_what_is_unknown_in_json_is_refused(change: dict[str, object], named: str) -> None:
    body = {**json.loads(SPEC.to_json()), **change}
    with pytest.raises(SpecError, match=named):
        FeatureSpec.from_json(json.dumps(body))


def test_a_column_named_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="x"):
        FeatureSpec(dense=("x",), labels=("x",))


def test_check_names_missing_and_different_columns() -> None:
    spec = FeatureSpec(dense=("x", "y", "z"), sparse=(SparseColumn("kind", 8),))
    table = pa.table({"x": ["text"], "y": [1.0], "kind": [5]})
    with pytest.raises(SpecError) as error:
        spec.check(table)
    text = str(error.value)
    assert "missing: z" in text
    assert "x is string" in text
    assert "kind is int64" in text
    assert "y is" not in text


def test_check_ignores_other_columns() -> None:
    FeatureSpec(dense=("x",)).check(pa.table({"x": [True, None], "other": ["a", "b"]}))


def test_codes_lie_in_their_range_and_null_is_zero() -> None:
    texts = [None, "", *(f"user-{i}" for i in range(2000))]
    codes = encode_sparse(pa.array(texts), 64)
    assert codes.dtype == np.int32
    assert codes[0] == 0
    assert codes[1:].min() == 1
    assert codes[1:].max() == 63
    counts = np.bincount(codes[2:], minlength=64)[1:]
    assert counts.max() < 2.5 * counts.mean()


def test_codes_do_not_depend_on_chunks_or_encoding() -> None:
    texts = ["b", "a", None, "c", "a", "b", "d"]
    plain = encode_sparse(pa.array(texts), 1000)
    chunked = pa.chunked_array(
        [pa.array(texts[:3]), pa.array([], pa.string()), pa.array(texts[3:])]
    )
    assert np.array_equal(encode_sparse(chunked, 1000), plain)
    assert np.array_equal(encode_sparse(chunked.dictionary_encode(), 1000), plain)
    assert np.array_equal(encode_sparse(pa.array(texts).slice(2), 1000), plain[2:])
    assert np.array_equal(encode_sparse(pa.array(texts, pa.large_string()), 1000), plain)
    assert len(encode_sparse(pa.array([], pa.string()), 10)) == 0


def test_codes_of_a_dictionary_that_holds_null() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None]))
    assert encode_sparse(column, 10).tolist() == [*encode_sparse(pa.array(["a"]), 10), 0, 0]


def test_codes_are_the_same_in_another_process() -> None:
    code = (
        "import pyarrow as pa; from models.features import encode_sparse;"
        "print(encode_sparse(pa.array(['a', 'ü', None, 'room-7']), 10_000).tolist())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    here = encode_sparse(pa.array(["a", "ü", None, "room-7"]), 10_000)
    assert json.loads(out.stdout) == here.tolist()


def test_numbers_are_not_hashed_silently() -> None:
    with pytest.raises(SpecError, match="int64"):
        encode_sparse(pa.array([1, 2]), 10)
