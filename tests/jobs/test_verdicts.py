"""Verdicts: differences adjusted for how many there are, and rows of the tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store.schemas import EVALUATIONS
from jobs.support.evaluating import Span
from jobs.support.judging import HourFound, Judged
from jobs.support.report import SegmentLine
from jobs.support.reporting import history_lines
from jobs.support.verdicts import Verdict, differences, logged, table_rows
from models.metrics import holm, minimum_detectable_difference, paired_p_value
from tests.jobs.conftest import Project

HOUR, NEXT = "2026-11-11T05", "2026-11-11T06"
GROUPS = np.array([f"g{place}" for place in range(300)])


def judged(role: str, shift: float, label: str = "click", hour: int = 0, **more: Any) -> Judged:
    rng = np.random.default_rng([hour, len(role), len(label)])
    ndcg = np.clip(0.6 + shift + rng.normal(0, 0.1, len(GROUPS)), 0, 1)
    metrics = {"ndcg_at_10": float(ndcg.mean()), "auc": 0.7, "groups": 300.0, "rows": 900.0}
    values = {
        "name": "gbdt_ranker", "version": "3", "data_hour": HOUR, "metrics": metrics,
        "intervals": {"ndcg_at_10": (0.5, 0.7)}, "groups": GROUPS, "ndcg": ndcg, "immature": 2,
        **more,
    }  # fmt: skip
    return Judged(role=role, label=label, **values)


FIRST = [judged("candidate", 0.02), judged("champion", 0.015), judged("random", -0.1),
         judged("popularity_1h", 0.01)]  # fmt: skip


def verdict(found: list[HourFound], **more: Any) -> Verdict:
    apart = differences(found[0].judged, 100, 1)
    return Verdict(HOUR, HOUR, None, found[0].judged, apart, found, **{
        "segments": [], "exposure": [], "told": {}, **more
    })  # fmt: skip


def hour(name: str, of: list[Judged]) -> HourFound:
    return HourFound(name, 900, tuple(of), (), {})


def test_p_values_are_adjusted_for_the_models_of_a_label() -> None:
    others = [*FIRST[1:], judged("candidate", 0.0, "order"), judged("champion", 0.0, "order")]
    found = differences([FIRST[0], *others], 200, 1)
    assert set(found) == {
        ("champion", "click"), ("random", "click"), ("popularity_1h", "click"),
        ("champion", "order"),
    }  # fmt: skip
    apart = [FIRST[0].ndcg - other.ndcg for other in FIRST[1:]]
    expected = holm([paired_p_value(values) for values in apart])
    told = [found[other.role, "click"] for other in FIRST[1:]]
    assert [one.p_value for one in told] == pytest.approx(expected)
    for one, values in zip(told, apart, strict=True):
        assert one.value == pytest.approx(values.mean())
        assert one.low is not None and one.high is not None
        assert one.low < one.value < one.high
        assert one.detectable == pytest.approx(minimum_detectable_difference(values))


def test_a_label_without_groups_has_no_difference() -> None:
    nothing = {"ndcg": np.zeros(0), "groups": GROUPS[:0]}
    rows = [judged("candidate", 0.0, **nothing), judged("champion", 0.0, **nothing)]
    assert differences(rows, 10, 1) == {}


def test_the_first_role_is_who_is_compared_whatever_it_is_called() -> None:
    rows = [judged("gbdt_ranker@champion", 0.02), judged("mmoe_ranker", 0.0)]
    found = verdict([hour(HOUR, rows)])
    assert set(found.differences) == {("mmoe_ranker", "click")}
    table, groups = table_rows(found, "range", HOUR, NEXT)
    of = {row["role"] for row in table if row["metric"] == "ndcg_at_10_minus_mmoe_ranker"}
    assert of == {"gbdt_ranker@champion"}
    assert groups.num_rows == 2 * len(GROUPS)
    assert "gbdt_ranker:champion_auc_click" in logged(found, "heldout"), "MLflow takes no @"


def test_history_is_of_evaluations_that_looked_as_far_back(project: Project) -> None:
    judged_hour, store = hr.add(HOUR, -30), project.store()
    for lag, value in ((1, 0.6), (24, 0.7)):
        run = hr.add(judged_hour, lag)
        row = {
            "evaluation": "offline", "judged_hour": judged_hour, "name": "gbdt_ranker",
            "version": "1", "role": "candidate", "label": "click", "metric": "ndcg_at_10",
            "segment": "all", "value": value, "low": 0.5, "high": 0.8, "groups": 9, "immature": 0,
            "cut": hr.add(run, 1), "hour": run,
        }  # fmt: skip
        where = {"hour": run, "evaluation": "offline"}
        store.commit_slice(pa.Table.from_pylist([row], EVALUATIONS), "evaluations", where)
    one = verdict([hour(HOUR, FIRST)])
    for lag, value in ((1, 0.6), (24, 0.7)):
        span = Span(HOUR, HOUR, hr.add(HOUR, lag + 1), lag)
        [line] = history_lines(store, one, span, "offline")
        assert (line.hour, line.ndcg) == (judged_hour, value)
    assert history_lines(store, one, Span(HOUR, HOUR, NEXT), "hourly") == []
    store.close()


def test_hours_and_segments_have_rows_of_their_own() -> None:
    line = SegmentLine("scene", "live", "candidate", "click", 40, 9, 0.5, 0.4, 0.6, 0.1, 0.2, None)
    hours = [hour(HOUR, FIRST), hour(NEXT, [judged("candidate", 0.1, hour=1), *FIRST[1:]])]
    table, _ = table_rows(verdict(hours, segments=[line]), "daily", HOUR, NEXT)
    by_hour = {(row["judged_hour"], row["role"]) for row in table if row["segment"] == "hour"}
    assert by_hour == {(h, j.role) for h in (HOUR, NEXT) for j in FIRST}
    live = {row["metric"]: row["value"] for row in table if row["segment"] == "scene=live"}
    assert live == {"ndcg_at_10": 0.5, "observed_rate": 0.1, "predicted_rate": 0.2}
    alone, _ = table_rows(verdict(hours[:1]), "hourly", HOUR, NEXT)
    assert {row["segment"] for row in alone} == {"all"}
