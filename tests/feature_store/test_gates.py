"""Gates judge an hour against earlier hours, and nothing without them; what declares them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from feature_store import gates as gates_module
from feature_store import hours as hr
from feature_store.drift import OTHER, Counts
from feature_store.gates import (
    GateError,
    GateResult,
    Measure,
    Measured,
    applicable,
    columns_of,
    judge_hour,
    measure,
    measure_hour,
    parse_gates,
    passed,
)
from feature_store.schemas import EVENTS, optional

HOUR = "2026-11-11T05"
WEEK = hr.hour_range(hr.add(HOUR, -168), hr.add(HOUR, -1))
DEFAULTS = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/gates.yaml").read_text())
RULES = parse_gates(DEFAULTS["gates"])

History = dict[str, dict[str, Measure]]


def counted(shown: int, clicks: int) -> dict[str, Counts]:
    return {"volume": {"impression": shown}, "click_rate": {"impression": shown, "click": clicks}}


def week(impressions: float, rate: float = 0.2) -> History:
    return {
        "volume": {hour: Measure(impressions, {}) for hour in WEEK},
        "click_rate": {hour: Measure(rate, {}) for hour in WEEK},
    }


def judged(shown: int, clicks: int, history: History) -> dict[str, GateResult]:
    rules = [rule for rule in RULES if rule.name in ("volume", "click_rate")]
    results = judge_hour(HOUR, Measured(shown, counted(shown, clicks)), history, rules)
    return {result.gate: result for result in results}


# -- judging ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "level"),
    [(99, "fail"), (100, "warn"), (399, "warn"), (400, "pass"), (1000, "pass"), (2500, "pass"),
     (2501, "warn"), (10_000, "warn"), (10_001, "fail")],
)  # fmt: skip
def test_volume_is_judged_by_its_ratio(shown: int, level: str) -> None:
    result = judged(shown, shown // 5, week(1000))["volume"]
    assert (result.level, result.value, result.expected) == (level, shown, 1000)
    if level == "fail":
        assert f"volume of {HOUR} is {shown:,}" in result.message
        assert "0.1 to 10 times" in result.message


@pytest.mark.parametrize(
    ("clicks", "level"),
    [(49, "fail"), (50, "warn"), (120, "pass"), (320, "pass"), (321, "warn"), (801, "fail")],
)
def test_click_rate_is_judged_by_its_ratio(clicks: int, level: str) -> None:
    assert judged(1000, clicks, week(1000))["click_rate"].level == level


def test_volume_is_compared_with_the_same_hour_of_earlier_days() -> None:
    """A night is no outage: only the hours 24, 48, ... before count."""
    history = week(1000)
    for day in range(1, 8):
        history["volume"][hr.add(HOUR, -24 * day)] = Measure(20.0, {})
    assert judged(20, 4, history)["volume"].level == "pass"
    assert judged(1000, 200, history)["volume"].level == "fail"


def test_one_odd_day_does_not_move_the_expectation() -> None:
    history = week(1000)
    history["volume"][hr.add(HOUR, -24)] = Measure(100_000.0, {})
    assert judged(1000, 200, history)["volume"].expected == 1000


def test_without_enough_history_nothing_is_judged() -> None:
    history = {gate: dict(list(v.items())[-23:]) for gate, v in week(1000).items()}
    for result in judged(100, 1, history).values():
        assert (result.level, result.expected) == ("pass", None)
    full = {gate: dict(list(v.items())[-24:]) for gate, v in week(1000).items()}
    assert {result.level for result in judged(99, 1, full).values()} == {"fail", "pass"}


def test_small_hours_have_no_click_rate() -> None:
    small, enough = (judged(shown, shown, week(100))["click_rate"] for shown in (99, 100))
    assert (small.level, small.value) == ("pass", None)
    assert "99 impressions, fewer than 100" in small.message
    assert enough.level == "fail"


@pytest.mark.parametrize(("history", "level"), [({}, "pass"), (week(1000), "warn")])
def test_an_empty_hour_passes(history: History, level: str) -> None:
    [result] = judge_hour(HOUR, measure_hour([], RULES), history, RULES)
    assert (result.gate, result.value, result.level) == ("volume", 0.0, level)
    assert "complete and empty" in result.message
    assert passed([result])


def test_only_a_failed_gate_refuses() -> None:
    levels = [GateResult("volume", HOUR, 1.0, 1.0, lv, "") for lv in ("pass", "warn", "accepted")]
    assert passed(levels)
    assert not passed([*levels, GateResult("volume", HOUR, 1.0, 1.0, "fail", "")])


# -- measuring ----------------------------------------------------------------------------------


def events(count: int, seed: int) -> pa.RecordBatch:
    """Rows whose columns hold many values, nulls and nonsense."""
    random = np.random.default_rng(seed)
    scenes = [None if n % 17 == 0 else f"s{n}" for n in random.geometric(0.02, count)]
    columns: dict[str, Any] = {
        "action": random.choice(["impression", "click", "stay", "order"], count),
        "scene": scenes,
        "target_type": random.choice(["item", "room"], count),
        "position": random.integers(-3, 2000, count).astype(np.int32),
        "request_id": [None if n % 7 == 0 else "r" for n in range(count)],
        "value": np.where(random.random(count) < 0.1, np.inf, random.random(count) * 2e6),
        "propensity": random.random(count) * 1.5 - 0.2,
    }
    return pa.RecordBatch.from_pydict(
        {name: pa.array(columns[name], EVENTS.field(name).type) for name in columns_of(RULES)}
    )


@pytest.mark.parametrize("tracked", [10_000, 20])
def test_a_stream_counts_what_the_whole_counts(
    monkeypatch: pytest.MonkeyPatch, tracked: int
) -> None:
    """Also where a distribution has more values than are held."""
    monkeypatch.setattr(gates_module, "_TRACKED", tracked)
    whole = events(5000, seed=3)
    cuts = [0, 1, 700, 700, 2500, 4999, 5000]
    pieces = [whole.slice(a, b - a) for a, b in pairwise(cuts)]
    assert measure_hour(pieces, RULES) == measure_hour([whole], RULES)
    counts = measure_hour([whole], RULES).counts
    shown = pa.compute.sum(pa.compute.equal(whole["action"], "impression")).as_py()
    scenes = counts["scene_drift"]
    assert sum(scenes.values()) == shown == measure_hour([whole], RULES).shown
    assert OTHER in scenes
    assert len(scenes) <= min(tracked, 50) + 1


def test_counts_are_those_of_a_plain_loop() -> None:
    batch = events(2000, seed=5)
    rows = batch.to_pylist()
    shown = [row for row in rows if row["action"] == "impression"]
    counts = measure_hour([batch], RULES).counts
    assert counts["click_rate"] == {
        "impression": len(shown), "click": sum(row["action"] == "click" for row in rows)
    }  # fmt: skip
    assert counts["request_nulls"] == {
        "rows": len(shown), "hits": sum(row["request_id"] is None for row in shown)
    }  # fmt: skip
    assert counts["position_range"] == {
        "rows": len(shown), "hits": sum(not 1 <= row["position"] <= 1000 for row in shown)
    }  # fmt: skip
    assert counts["propensity_range"]["hits"] == sum(not 0 < r["propensity"] <= 1 for r in shown)
    stays = [row["value"] for row in rows if row["action"] == "stay"]
    assert counts["stay_range"] == {
        "rows": len(stays), "hits": sum(not 0 <= value <= 86400 for value in stays)
    }  # fmt: skip
    scenes = [row["scene"] for row in shown]
    assert counts["scene_drift"]["(null)"] == scenes.count(None)


@pytest.mark.parametrize(
    ("bounds", "outside"),
    [({"minimum": 0}, 3), ({"above": 0}, 4), ({"maximum": 1}, 3), ({"above": 0, "maximum": 1}, 5),
     ({}, 2)],
)  # fmt: skip
def test_bounds_of_a_range(bounds: dict[str, float], outside: int) -> None:
    """`above` leaves its own value out; what is not finite is outside of any range."""
    keys = {"kind": "range", "column": "value", "description": "values", **bounds}
    rules = parse_gates({"rules": {"values": keys}})
    values = [-1.0, 0.0, 0.5, 1.0, 2.0, float("inf"), float("nan"), None]
    batch = pa.RecordBatch.from_pydict({"action": ["order"] * 8, "value": values})
    assert measure_hour([batch], rules).counts["values"] == {"rows": 7, "hits": outside}


def test_an_empty_batch_holds_nothing() -> None:
    nothing = pa.RecordBatch.from_pylist([], optional(EVENTS)).select(columns_of(RULES))
    assert measure_hour([nothing], RULES).shown == 0


def test_events_are_counted_over_batches() -> None:
    batches = [
        pa.RecordBatch.from_pydict({"action": actions})
        for actions in (["impression", "click"], ["impression"], pa.array([], pa.string()))
    ]
    assert measure(batches) == {"impression": 2, "click": 1}


# -- declarations -------------------------------------------------------------------------------

NULLS = {"kind": "nulls", "column": "query", "description": "searches", "warn": 0.1, "fail": 0.5}


def test_a_later_section_changes_adds_and_removes() -> None:
    first = {"min_history": 24, "rules": {"volume": {**NULLS}, "queries": {**NULLS}}}
    second = {"min_history": 3, "rules": {"queries": {"fail": 0.7}, "volume": None, "new": NULLS}}
    rules = {rule.name: rule for rule in parse_gates(first, second)}
    assert list(rules) == ["queries", "new"]
    assert (rules["queries"].warn[1], rules["queries"].fail[1]) == (0.1, 0.7)
    assert {rule.min_history for rule in rules.values()} == {3}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"min_hist": 3}, "unknown keys ['min_hist']"),
        ({"rules": [NULLS]}, "gates.rules must be a mapping"),
        ({"rules": {"q": "nulls"}}, "gates.rules.q must be a mapping, got 'nulls'"),
        ({"rules": {"q": {**NULLS, "kind": "null"}}}, "unknown kind 'null'"),
        ({"rules": {"q": {**NULLS, "max_values": 3}}}, "unknown keys ['max_values']"),
        ({"rules": {"q": {**NULLS, "column": "qeury"}}}, "unknown column 'qeury'"),
        ({"rules": {"q": {**NULLS, "action": "clik"}}}, "unknown action 'clik'"),
        ({"rules": {"q": {"kind": "nulls", "description": "x"}}}, "lacks ['column']"),
        ({"rules": {"q": {"kind": "nulls", "column": "query"}}}, "lacks ['description']"),
        ({"rules": {"q": {**NULLS, "warn": "much"}}}, "gates.rules.q.warn must be a number"),
        ({"rules": {"q": {**NULLS, "warn": [0, 1]}}}, "gates.rules.q.warn must be a number"),
        ({"rules": {"q": {**NULLS, "min_rows": 1.5}}}, "must be a whole number, got 1.5"),
        ({"rules": {"q": {**NULLS, "column": 7}}}, "must be text, got 7"),
        ({"rules": {"v": {"kind": "volume", "description": "x", "fail": [2, 1]}}},
         "must be [low, high], got [2, 1]"),
        ({"rules": {"v": {"kind": "volume", "description": "x", "fail": 3}}},
         "must be [low, high], got 3"),
        ({"rules": {"r": {**NULLS, "kind": "range"}}}, "column 'query' is string, no number"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_says_what_is_known(section: dict[str, Any], said: str) -> None:
    with pytest.raises(GateError) as error:
        parse_gates(section)
    assert said in str(error.value)


def test_gates_of_undeclared_actions_are_left_out() -> None:
    names = {rule.name for rule in applicable(RULES, ["click"])}
    assert {"click_rate", "volume", "scene_drift", "position_nulls", "schema"} <= names
    assert names.isdisjoint({"order_rate", "stay_rate", "stay_range", "amount_range"})


def test_every_default_gate_is_described() -> None:
    assert all(rule.description for rule in RULES)
    assert {rule.kind for rule in RULES} == {
        "schema", "nulls", "range", "volume", "rate", "drift"
    }  # fmt: skip
