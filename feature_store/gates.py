"""Gates: is an hour of events fit to learn from? Measured in one pass, judged by earlier hours."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import storage
from feature_store.damage import DamagedFileError
from feature_store.drift import OTHER, Counts, top
from feature_store.gate_kinds import IMPRESSION, KINDS, Judgement, Kind, Measure, Rows, Seen
from feature_store.gate_rules import UNBOUNDED, Bounds, GateError, GateRule
from feature_store.schemas import ACTIONS, EVENTS

__all__ = [
    "GateError", "GateResult", "GateRule", "Measure", "Measured", "applicable", "check_files",
    "columns_of", "judge_hour", "measure", "measure_hour", "parse_gates", "passed",
]  # fmt: skip

_TRACKED: Final = 10_000
"""Distinct values of a distribution held in memory; later ones are counted as one value."""

_COMMON: Final = ("kind", "warn", "fail", "description", "min_history")


@dataclass(frozen=True)
class GateResult:
    """One gate's verdict on one hour; ``expected`` is None without enough history.

    ``detail_json`` holds what was counted; later hours are judged by it.
    """

    gate: str
    hour: str
    value: float | None
    expected: float | None
    level: str  # pass | warn | fail | accepted
    message: str
    detail_json: str | None = None

    @property
    def measure(self) -> Measure:
        """What later hours need of this one."""
        return Measure(self.value, json.loads(self.detail_json or "{}"))


@dataclass(frozen=True)
class Measured:
    """What an hour holds: impressions, counts by gate, and what is wrong with its files."""

    shown: int
    counts: Mapping[str, Counts]
    problems: Sequence[str] = ()


# -- declarations -------------------------------------------------------------------------------


def parse_gates(*sections: Mapping[str, Any]) -> tuple[GateRule, ...]:
    """The gates that ``gates`` sections declare; a later section changes, adds and removes.

    A section has ``rules`` (gate name to its keys, or to null for a gate that is not wanted) and
    ``min_history``, which holds for every gate that does not say otherwise.

    Raises:
        GateError: for an unknown or missing key, kind, column or action, or a value of a wrong
            type.
    """
    shared: dict[str, Any] = {}
    declared: dict[str, dict[str, Any]] = {}
    for section in sections:
        unknown = sorted(set(section) - {"min_history", "rules"})
        if unknown:
            raise GateError(f"gates have unknown keys {unknown}; known: ['min_history', 'rules']")
        shared |= {key: value for key, value in section.items() if key != "rules"}
        for name, keys in _mapping(section.get("rules") or {}, "gates.rules").items():
            if keys is None or keys is False:
                declared.pop(name, None)
            else:
                given = _mapping(keys, f"gates.rules.{name}")
                declared[name] = {**declared.get(name, {}), **given}
    return tuple(_rule(str(name), {**shared, **keys}) for name, keys in declared.items())


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise GateError(f"configuration {where} must be a mapping, got {value!r}")
    return value


def _rule(name: str, keys: Mapping[str, Any]) -> GateRule:
    kind = KINDS.get(str(keys.get("kind")))
    if kind is None:
        raise GateError(
            f"gate {name!r} has the unknown kind {keys.get('kind')!r}; known: {sorted(KINDS)}"
        )
    known = {*_COMMON, *kind.needs, *kind.takes}
    if unknown := sorted(set(keys) - known):
        raise GateError(
            f"gate {name!r} of kind {keys['kind']!r} has unknown keys {unknown}; "
            f"known: {sorted(known)}"
        )
    if missing := [key for key in ("description", *kind.needs) if not keys.get(key)]:
        raise GateError(f"gate {name!r} of kind {keys['kind']!r} lacks {missing}")
    values = {key: _value(name, key, value, kind) for key, value in keys.items()}
    rule = GateRule(**{"name": name, "expected": kind.expected, **values})
    return _checked(rule)


def _value(name: str, key: str, value: Any, kind: Kind) -> Any:
    where = f"gates.rules.{name}.{key}"
    if key in ("warn", "fail"):
        return _bounds(where, value, kind.ratio)
    if key in ("kind", "description", "column", "action"):
        if not isinstance(value, str):
            raise GateError(f"configuration {where} must be text, got {value!r}")
        return value
    whole = key in ("min_rows", "min_history", "max_values")
    if not _is_number(value) or (whole and value != int(value)):
        wanted = "a whole number" if whole else "a number"
        raise GateError(f"configuration {where} must be {wanted}, got {value!r}")
    return int(value) if whole else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bounds(where: str, value: Any, ratio: bool) -> Bounds:
    if value is None:
        return UNBOUNDED
    if ratio:
        if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)):
            low, high = value
            if low < high:
                return float(low), float(high)
        raise GateError(f"configuration {where} must be [low, high], got {value!r}")
    if not _is_number(value):
        raise GateError(f"configuration {where} must be a number, got {value!r}")
    return -math.inf, float(value)


def _checked(rule: GateRule) -> GateRule:
    if rule.action is not None and rule.action not in ACTIONS:
        raise GateError(
            f"gate {rule.name!r} names the unknown action {rule.action!r}; known: {list(ACTIONS)}"
        )
    if rule.column and rule.column not in EVENTS.names:
        raise GateError(
            f"gate {rule.name!r} names the unknown column {rule.column!r}; known: {EVENTS.names}"
        )
    if rule.kind == "range":
        found = EVENTS.field(rule.column).type
        if not (pa.types.is_integer(found) or pa.types.is_floating(found)):
            raise GateError(f"gate {rule.name!r}: column {rule.column!r} is {found}, no number")
    return rule


def applicable(rules: Sequence[GateRule], declared: Iterable[str]) -> tuple[GateRule, ...]:
    """The gates of a source: those of actions that it does not declare are left out."""
    known = {None, IMPRESSION, *declared}
    return tuple(rule for rule in rules if rule.action in known)


# -- measuring ----------------------------------------------------------------------------------


def columns_of(rules: Sequence[GateRule]) -> list[str]:
    """The columns of `events` that gates look at."""
    return sorted({"action", *(rule.column for rule in rules if rule.column)})


def measure(batches: Iterable[pa.RecordBatch]) -> Counts:
    """Events per action of one hour, streaming."""
    counted: Counts = {}
    for batch in batches:
        for entry in pc.value_counts(batch.column("action")).to_pylist():
            counted[entry["values"]] = counted.get(entry["values"], 0) + entry["counts"]
    return counted


def measure_hour(batches: Iterable[pa.RecordBatch], rules: Sequence[GateRule]) -> Measured:
    """What an hour's events hold; one pass, memory bounded by a batch.

    Args:
        batches: columns as by :func:`columns_of`.
    """
    totals: dict[str, Counts] = {rule.name: {} for rule in rules}
    shown = 0
    for batch in batches:
        rows = Rows(batch)
        shown += rows.actions.get(IMPRESSION, 0)
        for rule in rules:
            _add(totals[rule.name], KINDS[rule.kind].count(rule, rows))
    return Measured(shown, {rule.name: top(totals[rule.name], rule.max_values) for rule in rules})


def _add(total: Counts, counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        key = name if name in total or len(total) < _TRACKED else OTHER
        total[key] = total.get(key, 0) + count


def check_files(paths: Sequence[str], rows: int) -> list[str]:
    """What is wrong with an hour's files of `events`, from their footers alone.

    An ingested hour holds the declared columns with the declared types, and as many rows as were
    committed, unless somebody or something changed its files since.
    """
    problems: list[str] = []
    found = 0
    for path in paths:
        try:
            footer = storage.read_metadata(path)
        except DamagedFileError as error:
            problems.append(str(error))
            continue
        found += footer.num_rows
        problems += _wrong_columns(Path(path).name, footer.schema.to_arrow_schema())
    if not problems and found != rows:
        problems.append(f"the files hold {found:,} rows, {rows:,} were committed")
    return problems


def _wrong_columns(file: str, schema: pa.Schema) -> Iterator[str]:
    for column in EVENTS:
        place = schema.get_field_index(column.name)
        found = None if place < 0 else schema.field(place).type
        if found is None:
            yield f"{file} lacks column {column.name!r}"
        elif found != column.type:
            yield f"column {column.name!r} of {file} is {found}, not {column.type}"


# -- judging ------------------------------------------------------------------------------------


def judge_hour(
    hour: str,
    measured: Measured,
    history: Mapping[str, Mapping[str, Measure]],
    rules: Sequence[GateRule],
) -> list[GateResult]:
    """Every gate's verdict on ``hour``.

    An hour without impressions is complete and empty; it passes with a warning, and training goes
    on with what it has. Of an hour whose files are not as declared nothing else is said.

    Args:
        history: earlier hours' measures by gate, then by hour; hours that failed are left out.
    """
    empty = not measured.shown and not measured.problems
    if measured.problems:
        rules = [rule for rule in rules if rule.kind == "schema"]
    elif empty:
        rules = [rule for rule in rules if rule.kind == "volume"]
    results = []
    for rule in rules:
        counts = measured.counts.get(rule.name, {})
        seen = Seen(hour, counts, measured.problems, history.get(rule.name, {}))
        found = _empty(seen) if empty else KINDS[rule.kind].judge(rule, seen)
        detail = json.dumps(counts, sort_keys=True) if counts else None
        results.append(GateResult(rule.name, hour, found.value, found.expected, found.level,
                                  found.message, detail))  # fmt: skip
    return results


def _empty(seen: Seen) -> Judgement:
    usual = [measure.value for measure in seen.same_hour() if measure.value is not None]
    expected = statistics.median(usual) if usual else None
    message = f"hour {seen.hour} has no impressions; recorded as complete and empty"
    return Judgement(0.0, expected, "warn" if expected else "pass", message)


def passed(results: Sequence[GateResult]) -> bool:
    """Whether no gate failed."""
    return all(result.level != "fail" for result in results)
