"""How reliable a candidate's probabilities are on held-out rows: which rows and labels count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.support.contenders import Contender
from jobs.support.judging import (
    GRADED,
    Scored,
    judge,
    judge_hour,
    pooled,
    pooled_sums,
    scored,
)
from jobs.support.verdicts import reliability
from models.metrics import expected_calibration_error

TOLD = np.array([0.9, 0.2, 0.4, 0.6, 0.1, 0.3])


def candidate(probabilities: tuple[str, ...] | None) -> Contender:
    return Contender(
        "candidate", "gbdt_ranker", "7", "2026-11-11T04", lambda *_: {}, (),
        probabilities=probabilities,
    )  # fmt: skip


def rows(**labels: list[float]) -> Scored:
    groups = pa.chunked_array([list("aabbcc")])
    known = {name: np.array(values) for name, values in labels.items()}
    return Scored(groups, known, {("candidate", label): TOLD for label in labels})


def titles(figure: Any) -> list[str]:
    return [panel.get_title() for panel in figure.axes]


def drawn(scored: Scored, probabilities: tuple[str, ...] | None) -> Any:
    one, labels = candidate(probabilities), tuple(scored.labels)
    found = judge_hour("2026-11-11T05", scored, [one], labels, "candidate", 10, 1)
    told = pooled_sums([found])
    return reliability(pooled([found], 10, 1), told, "2026-11-11T05")


def test_only_mature_groups_and_labels_that_it_tells_are_drawn() -> None:
    scored = rows(click=[1, 0, np.nan, 1, 0, 1], long_view=[1, 0, 0, 1, 0, 1], order=[np.nan] * 6)
    figure = drawn(scored, ("click", "order"))
    used = [0, 1, 4, 5]  # group b has a row that is still open
    error = expected_calibration_error([1, 0, 0, 1], TOLD[used])
    assert titles(figure) == [f"click: reliability (4 rows, error {error:.4f})"]
    assert figure.get_suptitle() == ("Held-out rows of 2026-11-11T05, which version 7 has not seen")


def test_scores_have_no_reliability() -> None:
    assert drawn(rows(click=[1, 0, 0, 1, 0, 1]), ()) is None
    assert drawn(rows(click=[np.nan] * 6), ("click",)) is None


def batch(**labels: list[float | None]) -> pa.RecordBatch:
    columns = {f"label_{name}": pa.array(v, pa.float32()) for name, v in labels.items()}
    return pa.RecordBatch.from_pydict({"group_id": pa.array(list("aabbcc")), **columns})


def test_a_row_has_the_highest_grade_of_its_labels() -> None:
    one = Contender("candidate", "gbdt_ranker", "7", None,
                    lambda _, labels: dict.fromkeys(labels, TOLD), ())  # fmt: skip
    rows = batch(click=[1, 1, 0, 1, 0, 0], long_view=[0, 1, None, 0, 0, 0])
    found = scored([rows], [one], ["click", GRADED], grades={"click": 1, "long_view": 2})
    np.testing.assert_array_equal(found.labels[GRADED], [1, 2, np.nan, 1, 0, 0])
    judged = judge(one, found, GRADED, 10, 1)
    assert judged.immature == 2  # group b, whose other label is still open
    assert judged.metrics["groups"] == 1  # nothing tells the rows of c apart
    as_told = (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))
    assert judged.metrics["ndcg_at_10"] == pytest.approx(as_told)
    assert "auc" not in judged.metrics
    hour = judge_hour("2026-11-11T05", found, [one], ["click", GRADED], "candidate", 10, 1)
    assert set(hour.told) == {("candidate", "click")}
