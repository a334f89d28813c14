"""A verdict as a report: the leaderboard, hours, segments, calibration, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.tables import Store
from jobs.support.contenders import BASELINES
from jobs.support.evaluating import Span
from jobs.support.judged_hours import HoursPlan
from jobs.support.judging import Judged
from jobs.support.report import Board, CalibrationLine, CheckLine, HourLine, Report, number
from jobs.support.segments import worst
from jobs.support.verdicts import HOUR, WHOLE, Verdict
from models.metrics import calibration_sums_curve

__all__ = ["HISTORY", "history_lines", "report_of"]

HISTORY: Final = 48
"""Hours before the judged ones that a report shows as well."""
_DAY: Final = 24
_COLUMNS: Final = 12
"""Names of feature columns that the lineage spells out."""


def report_of(
    verdict: Verdict, plan: HoursPlan, span: Span, evaluation: str,
    history: Sequence[HourLine], checks: Sequence[CheckLine], notes: Sequence[str],
) -> Report:  # fmt: skip
    """What a page shows of ``verdict``."""
    roles = tuple(dict.fromkeys(j.role for j in verdict.judged))
    labels = tuple(dict.fromkeys(j.label for j in verdict.judged))
    return Report(
        f"{evaluation} evaluation of {span.words}", evaluation,
        tuple(hour.hour for hour in verdict.found), span.cut, plan.recipe.time_zone, roles, labels,
        plan.reference, verdict.rows,
        [_board(j, verdict) for j in verdict.judged],
        [_hour_line(j, hour.hour) for hour in verdict.found for j in hour.judged],
        list(history), list(verdict.segments), worst(verdict.segments, roles[0], labels[0]),
        list(_calibration(verdict)), list(verdict.exposure), list(checks),
        list(_lineage(plan, verdict)), [*notes, *_notes(verdict, span)],
    )  # fmt: skip


def _board(j: Judged, verdict: Verdict) -> Board:
    low, high = j.intervals.get("ndcg_at_10", (None, None))
    served = (one.version for hour in verdict.found for one in hour.judged if one.role == j.role)
    versions = () if j.role in BASELINES else served
    return Board(
        j.role, j.name, tuple(dict.fromkeys(versions)), j.label,
        {name: value for name, value in j.metrics.items() if number(value) is not None},
        number(low), number(high), verdict.differences.get((j.role, j.label)), j.immature,
    )  # fmt: skip


def _hour_line(j: Judged, hour: str) -> HourLine:
    low, high = j.intervals.get("ndcg_at_10", (None, None))
    return HourLine(
        j.role, j.label, hour, j.version, number(j.metrics.get("ndcg_at_10")), number(low),
        number(high), number(j.metrics.get("auc")), int(j.metrics["groups"]),
    )  # fmt: skip


def _calibration(verdict: Verdict) -> Iterator[CalibrationLine]:
    for (role, label), sums in verdict.told.items():
        if role in BASELINES:
            continue
        for predicted, observed, rows in zip(*calibration_sums_curve(sums), strict=True):
            yield CalibrationLine(role, label, int(rows), float(predicted), float(observed))


def _lineage(plan: HoursPlan, verdict: Verdict) -> Iterator[tuple[str, str]]:
    recipe, origin = plan.recipe, plan.recipe.lineage
    for j in verdict.judged:
        if j.label == plan.labels[0] and j.role not in BASELINES:
            yield j.role, f"{j.name} version {j.version}, fitted on hours up to {j.data_hour}"
    yield "hours judged", f"{verdict.words}, {len(verdict.found)} of them with samples"
    yield "labels known before", recipe.cut
    for table, snapshot in origin.snapshots.items():
        yield f"snapshot of {table}", str(snapshot)
    yield "content of the rows", origin.content_sha
    shown = ", ".join(recipe.columns[:_COLUMNS])
    more = f" and {len(recipe.columns) - _COLUMNS} more" if len(recipe.columns) > _COLUMNS else ""
    yield f"{len(recipe.columns)} feature columns read", shown + more
    if recipe.sequences:
        yield "sequences read", ", ".join(recipe.sequences)
    if recipe.vectors or recipe.similarities:
        yield "node embeddings read", ", ".join((*recipe.vectors, *recipe.similarities))
    evaluation = plan.settings.evaluation
    yield "bootstrap", f"{evaluation.resamples} resamples by group, seed {evaluation.seed}"


def _notes(verdict: Verdict, span: Span) -> Iterator[str]:
    for j in verdict.judged:
        if j.role != verdict.judged[0].role:
            continue
        if not len(j.ndcg):
            yield f"{j.label}: no group is mature and has both labels at {span.cut}"
        elif j.immature > j.metrics["rows"]:
            share = j.immature / (j.immature + j.metrics["rows"])
            yield (
                f"{j.label}: {share:.0%} of the rows are still open at {span.cut}; what is judged "
                "is the earlier part of these hours"
            )


def history_lines(store: Store, verdict: Verdict, span: Span, evaluation: str) -> list[HourLine]:
    """NDCG@10 of the hours before ``span`` by the same kind of evaluation, role by role. Of those
    that look back, only the ones that looked as far back as ``span`` lies."""
    names = {j.role: j.name for j in verdict.judged}
    first = hr.add(span.first, -HISTORY)
    # A day stands under its first hour, and what looks back under the hour that looked.
    runs = hr.hour_range(hr.add(first, -_DAY), hr.add(span.first, span.lag))
    rows = store.read("evaluations", runs, where={"evaluation": evaluation})
    fits = pc.and_(
        pc.and_(pc.greater_equal(rows["judged_hour"], first),
                pc.less(rows["judged_hour"], span.first)),
        pc.and_(pc.is_in(rows["segment"], value_set=pa.array([WHOLE, HOUR])),
                pc.is_in(rows["metric"], value_set=pa.array(["ndcg_at_10", "auc"]))),
    )  # fmt: skip
    by: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    found = rows.filter(fits).sort_by("segment")  # of a day's first hour, the hour itself
    for row in found.to_pylist():
        looked_back = hr.difference(row["hour"], row["judged_hour"])
        if names.get(row["role"]) == row["name"] and (not span.lag or looked_back == span.lag):
            by.setdefault((row["judged_hour"], row["role"], row["label"]), {})[row["metric"]] = row
    return [
        HourLine(role, label, hour, ndcg["version"], ndcg["value"], ndcg["low"], ndcg["high"],
                 number(metrics.get("auc", {}).get("value")), ndcg["groups"])
        for (hour, role, label), metrics in sorted(by.items())
        if (ndcg := metrics.get("ndcg_at_10")) is not None and number(ndcg["value"]) is not None
    ]  # fmt: skip
