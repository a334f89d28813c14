"""Outcomes that wait for their samples, against a filter of all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import rowhash, waiting_outcomes
from feature_store.waiting_outcomes import WaitingOutcomes


def outcomes(names: npt.NDArray[np.int64]) -> pa.Table:
    ids = [f"s{name}" for name in names]
    half = len(ids) // 2
    chunks = pa.chunked_array([ids[:half], ids[half:]], pa.string())
    return pa.table({"sample_id": chunks, "event": np.arange(len(names))})


@pytest.mark.parametrize("bits", [64, 3], ids=["hashes as they are", "hashes that collide"])
def test_each_is_given_once_to_the_first_that_asks_in_the_order_of_all(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folded(columns: list[pa.ChunkedArray]) -> npt.NDArray[np.int64]:
        return rowhash.key_hashes(columns) >> np.int64(64 - bits)

    monkeypatch.setattr(waiting_outcomes, "key_hashes", folded)
    rng = np.random.default_rng(1)
    rows = outcomes(rng.integers(0, 300, 1_000))
    waiting, left = WaitingOutcomes(rows), rows
    for _ in range(40):
        asked = pa.array([f"s{name}" for name in rng.integers(0, 400, 30)])
        mine = pc.is_in(left["sample_id"], value_set=asked)
        assert waiting.take(pa.chunked_array([asked[:7], asked[7:]])).equals(left.filter(mine))
        left = left.filter(pc.invert(mine))
    assert 0 < left.num_rows < rows.num_rows


def test_nobody_asks_and_nothing_waits() -> None:
    none = pa.chunked_array([], pa.string())
    rows = outcomes(np.arange(5))
    assert WaitingOutcomes(rows).take(none).num_rows == 0
    assert WaitingOutcomes(rows.slice(0, 0)).take(rows["sample_id"]).num_rows == 0
