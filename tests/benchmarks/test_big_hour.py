"""An hour multiplied: every row so many times, under identifiers of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import big_hour


def rows() -> pa.Table:
    return pa.table({"user_id": ["u1", "u2", "u1"], "request_id": ["r1", None, "r3"],
                     "value": [1.0, 2.0, 3.0]})  # fmt: skip


def test_rows_stand_beside_their_copies_under_their_own_identifiers() -> None:
    made = big_hour.multiplied(rows(), 3, ["user_id", "request_id"])
    assert made.schema == rows().schema
    assert made["value"].to_pylist() == [1.0] * 3 + [2.0] * 3 + [3.0] * 3
    assert made["user_id"].to_pylist()[:6] == ["u1", "u1~1", "u1~2", "u2", "u2~1", "u2~2"]
    assert made["request_id"].to_pylist()[:6] == ["r1", "r1~1", "r1~2", None, None, None]
    assert big_hour.multiplied(rows(), 1, ["user_id"]).equals(rows())


def test_a_file_is_multiplied_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "part-0.parquet"
    pq.write_table(rows(), path)
    assert big_hour.multiply_file(path, 4, ["user_id"]) == 12
    assert pq.read_table(path).equals(big_hour.multiplied(rows(), 4, ["user_id"]))
    assert [found.name for found in tmp_path.iterdir()] == ["part-0.parquet"]


def test_every_job_of_the_hour_is_a_step_and_the_last_fit_reads_it() -> None:
    steps = big_hour.steps()
    reported = [job for job, _, _, told in steps if told]
    assert reported == ["ingest_events", "validate_events", "build_samples", "extract_features",
                        "evaluate", "train_gbdt"]  # fmt: skip
    assert steps[-1][1] == ["--hour", big_hour.NEXT]
