"""Gates: is an hour of events fit to learn from? Measured per hour, judged by earlier hours."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr

__all__ = ["GATES", "GateResult", "GateRules", "judge_hour", "measure", "passed"]

GATES: Final = ("volume", "click_rate")


@dataclass(frozen=True)
class GateRules:
    """Bounds on value / expected, as [low, high]; outside of them the gate warns or fails.

    Attributes:
        volume_warn, volume_fail: impressions against the median of the same hour of earlier days.
        click_rate_warn, click_rate_fail: clicks per impression against the median of the last day.
        min_history: hours that must have been measured before a gate judges.
        min_impressions: hours with fewer have no stable click rate and are not judged by it.
    """

    volume_warn: tuple[float, ...] = (0.4, 2.5)
    volume_fail: tuple[float, ...] = (0.1, 10.0)
    click_rate_warn: tuple[float, ...] = (0.6, 1.6)
    click_rate_fail: tuple[float, ...] = (0.25, 4.0)
    min_history: int = 24
    min_impressions: int = 100


@dataclass(frozen=True)
class GateResult:
    """One gate's verdict on one hour; ``expected`` is None without enough history."""

    gate: str
    hour: str
    value: float | None
    expected: float | None
    level: str  # pass | warn | fail | accepted
    message: str


def measure(batches: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """Events per action of one hour, streaming."""
    counted: dict[str, int] = {}
    for batch in batches:
        for entry in pc.value_counts(batch.column("action")).to_pylist():
            counted[entry["values"]] = counted.get(entry["values"], 0) + entry["counts"]
    return counted


def judge_hour(
    hour: str,
    counted: Mapping[str, int],
    history: Mapping[str, Mapping[str, float]],
    rules: GateRules,
) -> list[GateResult]:
    """Every gate's verdict on ``hour``.

    An hour without events is complete and empty; it passes with a warning, and training goes on
    with what it has.

    Args:
        counted: events per action.
        history: earlier hours' values by gate, then by hour; hours that failed are left out.
    """
    shown, clicks = counted.get("impression", 0), counted.get("click", 0)
    volumes = history.get("volume", {})
    same_hour = [volumes[h] for h in (hr.add(hour, -24 * d) for d in range(1, 8)) if h in volumes]
    if shown == 0:
        expected = statistics.median(same_hour) if same_hour else None
        message = f"hour {hour} has no impressions; recorded as complete and empty"
        return [GateResult("volume", hour, 0.0, expected, "warn" if expected else "pass", message)]
    recent = history.get("click_rate", {})
    rates = [recent[h] for h in (hr.add(hour, -i) for i in range(1, 25)) if h in recent]
    enough = len(volumes) >= rules.min_history
    results = [
        _judge("volume", hour, float(shown), same_hour if enough else [], rules.volume_warn,
               rules.volume_fail),
    ]  # fmt: skip
    if shown >= rules.min_impressions:
        enough = len(rates) >= min(rules.min_history, 24)
        results.append(
            _judge("click_rate", hour, clicks / shown, rates if enough else [],
                   rules.click_rate_warn, rules.click_rate_fail)
        )  # fmt: skip
    return results


def _judge(
    gate: str,
    hour: str,
    value: float,
    earlier: Sequence[float],
    warn: Sequence[float],
    fail: Sequence[float],
) -> GateResult:
    expected = statistics.median(earlier) if earlier else None
    if not expected:
        return GateResult(
            gate, hour, value, None, "pass", f"{gate} {value:g}; no history to judge by"
        )
    ratio = value / expected
    for level, (low, high) in (("fail", tuple(fail)), ("warn", tuple(warn))):
        if not low <= ratio <= high:
            message = (
                f"{gate} of {hour} is {value:g}, {ratio:.2f} times the expected {expected:g}; "
                f"allowed without {level}: {low:g} to {high:g} times"
            )
            return GateResult(gate, hour, value, expected, level, message)
    return GateResult(
        gate, hour, value, expected, "pass", f"{gate} {value:g}, {ratio:.2f} of usual"
    )


def passed(results: Sequence[GateResult]) -> bool:
    """Whether no gate failed."""
    return all(result.level != "fail" for result in results)
