"""How reliable a candidate's probabilities are on held-out rows: which rows and labels count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from jobs.support.contenders import Contender
from jobs.support.judging import Scored, judge_hour, pooled, pooled_sums
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
