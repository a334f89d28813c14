"""The kinds of gates: how each counts the rows of an hour, and how it judges what it counted.

Counting is additive over batches, so an hour is measured in one streaming pass. What was counted is
kept with the verdict, and is all that later hours know of this one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.drift import Counts, chance_psi, largest_shift, pooled, psi, top
from feature_store.gate_rules import GateRule

__all__ = ["IMPRESSION", "KINDS", "Judgement", "Kind", "Measure", "Rows", "Seen", "as_text"]

IMPRESSION: Final = "impression"
_NULL: Final = "(null)"
_DAY: Final = 24
_DAYS: Final = 7


@lru_cache(maxsize=8)
def _before(hour: str, step: int, count: int) -> tuple[str, ...]:
    """``count`` hours back from ``hour``, ``step`` hours apart; every gate of an hour asks."""
    return tuple(hr.add(hour, -step * i) for i in range(1, count + 1))


class Rows:
    """One batch of an hour's events, by action."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._by: dict[str | None, pa.RecordBatch] = {None: batch}
        counted = pc.value_counts(batch.column("action"))
        self.actions: Counts = _counts(counted)

    def of(self, action: str | None) -> pa.RecordBatch:
        """The rows with ``action``; all of them for None."""
        if action not in self._by:
            everything = self._by[None]
            self._by[action] = everything.filter(pc.equal(everything.column("action"), action))
        return self._by[action]


@dataclass(frozen=True)
class Measure:
    """What an earlier hour said to a gate: the value, None when it was not judged, and counts."""

    value: float | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Seen:
    """What a gate may look at: the hour, its counts, what is wrong with its files, and the past.

    ``earlier`` holds this gate's measures by hour, hours that were refused left out.
    """

    hour: str
    counts: Mapping[str, int]
    problems: Sequence[str] = ()
    earlier: Mapping[str, Measure] = field(default_factory=dict)

    def last_day(self) -> list[Measure]:
        """Measures of the 24 hours before."""
        back = _before(self.hour, 1, _DAY)
        return [self.earlier[hour] for hour in back if hour in self.earlier]

    def same_hour(self) -> list[Measure]:
        """Measures of the same hour of the seven days before."""
        back = _before(self.hour, _DAY, _DAYS)
        return [self.earlier[hour] for hour in back if hour in self.earlier]


@dataclass(frozen=True)
class Judgement:
    """``value`` is None for an hour that was not judged, ``expected`` without enough history."""

    value: float | None
    expected: float | None
    level: str
    message: str


@dataclass(frozen=True)
class Kind:
    """How gates of a kind count a batch, and judge an hour's counts.

    Attributes:
        needs, takes: keys of a declaration that must and may be given, besides kind, warn, fail,
            description and min_history.
        ratio: whether warn and fail bound value / expected from both sides, or value - expected
            from above.
        acceptable: whether a person may let the hour pass all the same.
        expected: what is usual unless a declaration says otherwise.
    """

    count: Callable[[GateRule, Rows], Counts]
    judge: Callable[[GateRule, Seen], Judgement]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    ratio: bool = False
    acceptable: bool = True
    expected: float | None = None


# -- counting -----------------------------------------------------------------------------------


def _counts(counted: pa.StructArray) -> Counts:
    names = pc.fill_null(pc.cast(counted.field(0), pa.string()), _NULL)
    return dict(zip(names.to_pylist(), counted.field(1).to_pylist(), strict=True))


def count_nothing(_rule: GateRule, _rows: Rows) -> Counts:
    """What is judged by files alone."""
    return {}


def count_action(rule: GateRule, rows: Rows) -> Counts:
    """Rows with the rule's action, and impressions."""
    wanted = {IMPRESSION, rule.action or IMPRESSION}
    return {action: rows.actions.get(action, 0) for action in wanted}


def count_nulls(rule: GateRule, rows: Rows) -> Counts:
    """Rows, and those in which the column is null."""
    column = rows.of(rule.action).column(rule.column)
    return {"rows": len(column), "hits": column.null_count}


def count_outside(rule: GateRule, rows: Rows) -> Counts:
    """Values, nulls left out, and those that are not finite or lie outside of the range."""
    values = rows.of(rule.action).column(rule.column).drop_null()
    inside = pc.and_(pc.is_finite(values), pc.greater(values, rule.above))
    inside = pc.and_(inside, pc.greater_equal(values, rule.minimum))
    inside = pc.and_(inside, pc.less_equal(values, rule.maximum))
    return {"rows": len(values), "hits": len(values) - (pc.sum(inside).as_py() or 0)}


def count_values(rule: GateRule, rows: Rows) -> Counts:
    """Rows by the column's value, as text."""
    return _counts(pc.value_counts(rows.of(rule.action).column(rule.column)))


# -- judging ------------------------------------------------------------------------------------


def judge_files(rule: GateRule, seen: Seen) -> Judgement:
    """How many columns or files are not as declared."""
    found = len(seen.problems)
    if not found:
        return Judgement(0.0, 0.0, "pass", "every file holds the declared columns and types")
    message = f"{rule.name} of {seen.hour}: {'; '.join(seen.problems)}"
    return Judgement(float(found), 0.0, rule.level(found), message)


def judge_volume(rule: GateRule, seen: Seen) -> Judgement:
    """Rows against the median of the same hour of the seven days before."""
    value = float(seen.counts[rule.action or IMPRESSION])
    return _by_ratio(rule, seen, value, _usual(rule, seen, seen.same_hour()))


def judge_rate(rule: GateRule, seen: Seen) -> Judgement:
    """Rows with an action per impression, against the median of the last day's hours."""
    shown = seen.counts[IMPRESSION]
    if shown < rule.min_rows:
        return _not_judged(rule, f"{shown:,} impressions, fewer than {rule.min_rows:,}")
    value = seen.counts[rule.action or IMPRESSION] / shown
    expected = _usual(rule, seen, seen.last_day())
    if expected is not None and expected * shown < rule.min_expected:
        message = (
            f"{rule.name} {as_text(value)}, not judged: {expected * shown:.1f} expected, "
            f"fewer than {rule.min_expected:g}"
        )
        return Judgement(value, expected, "pass", message)
    return _by_ratio(rule, seen, value, expected)


def judge_share(rule: GateRule, seen: Seen) -> Judgement:
    """The share of rows that were hit, above the median of the last day's hours."""
    rows = seen.counts["rows"]
    if rows < rule.min_rows:
        return _not_judged(rule, f"{rows:,} rows, fewer than {rule.min_rows:,}")
    value = seen.counts["hits"] / rows
    expected = _usual(rule, seen, seen.last_day())
    if expected is None:
        return _no_history(rule, value)
    level = rule.level(value - expected)
    what = f"{rule.name} {value:.2%} of {rows:,} rows, usually {expected:.2%}"
    if level != "pass":
        what = (
            f"{rule.name} of {seen.hour} is {value:.2%} of {rows:,} rows, usually {expected:.2%}; "
            f"allowed without {level}: {rule.bounds(level)[1]:.2%} more"
        )
    return Judgement(value, expected, level, what)


def judge_drift(rule: GateRule, seen: Seen) -> Judgement:
    """The stability index against the 24 hours before, above what chance explains."""
    rows = sum(seen.counts.values())
    if rows < rule.min_rows:
        return _not_judged(rule, f"{rows:,} rows, fewer than {rule.min_rows:,}")
    before = top(pooled(measure.counts for measure in seen.last_day()), rule.max_values)
    known = sum(1 for measure in seen.earlier.values() if measure.counts)
    if known < rule.min_history or not before:
        return _no_history(rule, None)
    value, expected = psi(seen.counts, before), chance_psi(seen.counts, before)
    level = rule.level(value - expected)
    if level == "pass":
        return Judgement(value, expected, level, f"{rule.name}: PSI {value:.3f} of the day before")
    name, share_before, share = largest_shift(seen.counts, before)
    message = (
        f"{rule.name} of {seen.hour}: PSI {value:.3f} against the 24 hours before, {expected:.3f} "
        f"by chance, most of it {name!r} ({share_before:.1%} before, {share:.1%} now); "
        f"allowed without {level}: {rule.bounds(level)[1]:g} above chance"
    )
    return Judgement(value, expected, level, message)


def _usual(rule: GateRule, seen: Seen, measures: Sequence[Measure]) -> float | None:
    """What is declared as usual, else the median of ``measures``, None without enough history."""
    if rule.expected is not None:
        return rule.expected
    known = sum(1 for measure in seen.earlier.values() if measure.value is not None)
    values = [measure.value for measure in measures if measure.value is not None]
    return statistics.median(values) if values and known >= rule.min_history else None


def _not_judged(rule: GateRule, why: str) -> Judgement:
    return Judgement(None, None, "pass", f"{rule.name} not judged: {why}")


def _no_history(rule: GateRule, value: float | None) -> Judgement:
    found = "" if value is None else f" {as_text(value)}"
    return Judgement(value, None, "pass", f"{rule.name}{found}; no history to judge by")


def _by_ratio(rule: GateRule, seen: Seen, value: float, expected: float | None) -> Judgement:
    if not expected:
        return _no_history(rule, value)
    ratio = value / expected
    level = rule.level(ratio)
    if level == "pass":
        return Judgement(
            value, expected, level, f"{rule.name} {as_text(value)}, {ratio:.2f} of usual"
        )
    low, high = rule.bounds(level)
    message = (
        f"{rule.name} of {seen.hour} is {as_text(value)}, {ratio:.2f} times the expected "
        f"{as_text(expected)}; allowed without {level}: {low:g} to {high:g} times"
    )
    return Judgement(value, expected, level, message)


def as_text(value: float) -> str:
    """A count whole, anything else to four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


_SHARE: Final = ("action", "min_rows", "expected")

# A kind is a function that counts (and often one of the judgements there are), and a line here.
KINDS: Final[dict[str, Kind]] = {
    "schema": Kind(count_nothing, judge_files, acceptable=False),
    "nulls": Kind(count_nulls, judge_share, ("column",), _SHARE),
    "range": Kind(
        count_outside, judge_share, ("column",), (*_SHARE, "minimum", "above", "maximum"),
        expected=0.0,
    ),
    "volume": Kind(count_action, judge_volume, (), ("action", "expected"), ratio=True),
    "rate": Kind(
        count_action, judge_rate, ("action",), ("min_rows", "min_expected", "expected"), ratio=True
    ),
    "drift": Kind(
        count_values, judge_drift, ("column",), ("action", "min_rows", "max_values")
    ),
}  # fmt: skip
