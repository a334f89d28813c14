"""A page of gates: verdicts, the last days' volumes and rates, distributions now and before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from feature_store import hours as hr
from feature_store.drift import pooled, shares
from feature_store.gate_kinds import as_text
from feature_store.gates import GateResult, GateRule, Measure
from jobs.support.page import figures, page, section, table
from models.plots import compared_figure, figure_svg, history_figure

__all__ = ["HISTORY_HOURS", "JudgedHours", "gates_page"]

HISTORY_HOURS: Final = 7 * 24
"""How far back gates look."""

_DAY: Final = 24
_BARS: Final = 15
_LISTED: Final = 200
_ORDER: Final = ("fail", "accepted", "warn", "pass")


@dataclass(frozen=True)
class JudgedHours:
    """One run of the job: verdicts by hour, in order, and what earlier hours measured.

    ``history`` holds measures by gate and hour; the hours of the run are among them.
    """

    rules: tuple[GateRule, ...]
    verdicts: Mapping[str, Sequence[GateResult]]
    history: Mapping[str, Mapping[str, Measure]]

    @property
    def title(self) -> str:
        """Gates of an hour, or of a range of hours."""
        first, *_, last = [*self.verdicts, *self.verdicts]
        return f"Gates of {last}" if first == last else f"Gates of {first} to {last}"

    def levels(self) -> dict[str, int]:
        """How many verdicts there are of each level."""
        found = Counter(r.level for results in self.verdicts.values() for r in results)
        return dict(sorted(found.items()))


def gates_page(judged: JudgedHours) -> str:
    """One self-contained HTML page; tables and plots are of the run's last hour."""
    last = list(judged.verdicts)[-1]
    results = sorted(judged.verdicts[last], key=lambda r: _ORDER.index(r.level))
    levels = ", ".join(f"{count:,} {level}" for level, count in judged.levels().items())
    refused = any(result.level == "fail" for result in results)
    state = "is refused; nobody reads it" if refused else "passed"
    words = f"Verdicts: {levels or 'none'}. Hour {last} {state}."
    parts = [_verdicts(judged, last, results), _noticed(judged, last)]
    if drawn := list(_histories(judged, last)):
        parts.append(section("Volumes and rates of the last days", figures(drawn)))
    if drawn := list(_distributions(judged, last)):
        parts.append(section("Distributions now and in the 24 hours before", figures(drawn)))
    return page(judged.title, words, *parts)


def _verdicts(judged: JudgedHours, last: str, results: Sequence[GateResult]) -> str:
    described = {rule.name: rule.description for rule in judged.rules}
    head = ("level", "gate", "value", "expected", "verdict", "what it is")
    rows = [
        (r.level, r.gate, _number(r.value), _number(r.expected), r.message, described[r.gate])
        for r in results
    ]
    levels = [result.level for result in results]
    return section(f"Hour {last}", table(head, rows, ("value", "expected"), levels))


def _noticed(judged: JudgedHours, last: str) -> str:
    """What the earlier hours of the run did not pass."""
    found = [
        result
        for hour, results in judged.verdicts.items()
        for result in results
        if hour != last and result.level != "pass"
    ]
    if not found:
        return ""
    rows = [(r.level, r.hour, r.gate, r.message) for r in found[-_LISTED:]]
    body = table(("level", "hour", "gate", "verdict"), rows, levels=[row[0] for row in rows])
    return section(f"Earlier hours of this run: {len(found):,} verdicts but pass", body)


def _number(value: float | None) -> str:
    return "-" if value is None else as_text(value)


def _histories(judged: JudgedHours, last: str) -> Iterator[str]:
    """Volumes and rates, where the last hour has one."""
    rules = {rule.name: rule for rule in judged.rules if rule.kind in ("volume", "rate")}
    first = min(next(iter(judged.verdicts)), hr.add(last, -HISTORY_HOURS))
    hours = hr.hour_range(first, last)
    times = np.array(hours, dtype="datetime64[h]")
    for result in judged.verdicts[last]:
        if result.gate not in rules or result.value is None:
            continue
        known = judged.history.get(result.gate, {})
        values = [known[hour].value if hour in known else None for hour in hours[:-1]]
        line = np.array([*values, result.value], dtype=np.float64)
        allowed = _allowed(rules[result.gate], result.expected)
        figure = history_figure(result.gate, times, line, allowed)
        yield figure_svg(figure)


def _allowed(rule: GateRule, expected: float | None) -> tuple[float, float] | None:
    """From where to where a gate would not warn."""
    if not expected or not np.isfinite(rule.warn).all():
        return None
    return rule.warn[0] * expected, rule.warn[1] * expected


def _distributions(judged: JudgedHours, last: str) -> Iterator[str]:
    """The most frequent values' shares, in the hour and in the day before, by drift gate."""
    drifts = {rule.name for rule in judged.rules if rule.kind == "drift"}
    day = [hr.add(last, -back) for back in range(1, _DAY + 1)]
    for result in judged.verdicts[last]:
        known = judged.history.get(result.gate, {})
        before = shares(pooled(known[hour].counts for hour in day if hour in known))
        now = shares(result.measure.counts)
        if result.gate not in drifts or not now or not before:
            continue
        names = sorted({*now, *before}, key=lambda n: (-max(now.get(n, 0), before.get(n, 0)), n))
        psi = "" if result.value is None else f", PSI {result.value:.3f}"
        figure = compared_figure(
            f"{result.gate}{psi}", "share",
            {name: before.get(name, 0.0) for name in names[:_BARS]},
            {name: now.get(name, 0.0) for name in names[:_BARS]},
        )  # fmt: skip
        yield figure_svg(figure)
