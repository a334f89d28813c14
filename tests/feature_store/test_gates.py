"""Gates judge an hour against earlier hours, and nothing without them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store.gates import GateResult, GateRules, judge_hour, measure, passed

HOUR = "2026-11-11T05"
RULES = GateRules()


def week(impressions: float, rate: float = 0.2) -> dict[str, dict[str, float]]:
    hours = hr.hour_range(hr.add(HOUR, -168), hr.add(HOUR, -1))
    return {"volume": dict.fromkeys(hours, impressions), "click_rate": dict.fromkeys(hours, rate)}


def judged(
    shown: int, clicks: int, history: dict[str, dict[str, float]], rules: GateRules = RULES
) -> dict[str, GateResult]:
    results = judge_hour(HOUR, {"impression": shown, "click": clicks}, history, rules)
    return {result.gate: result for result in results}


@pytest.mark.parametrize(
    ("shown", "level"),
    [(99, "fail"), (100, "warn"), (399, "warn"), (400, "pass"), (1000, "pass"), (2500, "pass"),
     (2501, "warn"), (10_000, "warn"), (10_001, "fail")],
)  # fmt: skip
def test_volume_is_judged_by_its_ratio(shown: int, level: str) -> None:
    result = judged(shown, shown // 5, week(1000))["volume"]
    assert (result.level, result.value, result.expected) == (level, shown, 1000)
    if level == "fail":
        assert f"volume of {HOUR} is {shown}" in result.message
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
        history["volume"][hr.add(HOUR, -24 * day)] = 20.0
    assert judged(20, 4, history)["volume"].level == "pass"
    assert judged(1000, 200, history)["volume"].level == "fail"


def test_one_odd_day_does_not_move_the_expectation() -> None:
    history = week(1000)
    history["volume"][hr.add(HOUR, -24)] = 100_000.0
    assert judged(1000, 200, history)["volume"].expected == 1000


def test_without_enough_history_nothing_is_judged() -> None:
    history = {gate: dict(list(v.items())[-23:]) for gate, v in week(1000).items()}
    for result in judged(1, 1, history).values():
        assert (result.level, result.expected) == ("pass", None)
    full = {gate: dict(list(v.items())[-24:]) for gate, v in week(1000).items()}
    assert judged(1, 1, full)["volume"].level == "fail"


def test_small_hours_have_no_click_rate() -> None:
    assert "click_rate" not in judged(99, 99, week(100))
    assert "click_rate" in judged(100, 20, week(100))


@pytest.mark.parametrize(("history", "level"), [({}, "pass"), (week(1000), "warn")])
def test_an_empty_hour_passes(history: dict[str, dict[str, float]], level: str) -> None:
    [result] = judge_hour(HOUR, {}, history, RULES)
    assert (result.gate, result.value, result.level) == ("volume", 0.0, level)
    assert "complete and empty" in result.message
    assert passed([result])


def test_only_a_failed_gate_refuses() -> None:
    levels = [GateResult("volume", HOUR, 1.0, 1.0, lv, "") for lv in ("pass", "warn", "accepted")]
    assert passed(levels)
    assert not passed([*levels, GateResult("volume", HOUR, 1.0, 1.0, "fail", "")])


def test_events_are_counted_over_batches() -> None:
    batches = [
        pa.RecordBatch.from_pydict({"action": actions})
        for actions in (["impression", "click"], ["impression"], pa.array([], pa.string()))
    ]
    assert measure(batches) == {"impression": 2, "click": 1}
