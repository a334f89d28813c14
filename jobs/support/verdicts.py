"""Verdicts: what judged hours come to, as rows of the tables and as metrics of a version's run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from feature_store.schemas import EVALUATION_GROUPS, optional
from jobs.support.contenders import Scores
from jobs.support.judging import HourFound, Judged, folded
from jobs.support.report import Difference, ExposureLine, SegmentLine, number
from models.metrics import (
    calibration_sums_curve,
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_p_value,
)
from models.plots import calibration_figure
from models.registry import Version
from models.versions import Artefact

__all__ = [
    "HOUR", "WHOLE", "Verdict", "differences", "exposure_lines", "logged", "reliability",
    "table_rows",
]  # fmt: skip

_SHOWN: Final = (
    "ndcg_at_1", "ndcg_at_3", "ndcg_at_5", "ndcg_at_10", "map_at_10", "mrr_at_10", "recall_at_10",
    "auc", "gauc", "normalised_entropy", "expected_calibration_error", "groups",
)  # fmt: skip
"""Metrics that a version's run shows."""

_EXPOSURE: Final = ("gini", "tail_share", "tail_share_logged", "coverage", "popularity_lift")

WHOLE: Final = "all"
HOUR: Final = "hour"
"""Segments in table ``evaluations``: all that was judged, and one hour of it; others are called
``dimension=value``."""


@dataclass(frozen=True)
class Verdict:
    """Everything that was found on some hours.

    Attributes:
        hour: the first of the hours; ``words`` name all of them.
        version: the candidate, whose run keeps what was found; None where several are compared.
        judged: over all hours, the role that is judged first.
        differences: by role and label; see :func:`differences`.
        found: hour by hour.
        reliability: of the first role, where it tells a probability of a label.
    """

    hour: str
    words: str
    version: Version | None
    judged: Sequence[Judged]
    differences: Mapping[tuple[str, str], Difference]
    found: Sequence[HourFound]
    segments: Sequence[SegmentLine]
    exposure: Sequence[ExposureLine]
    told: Mapping[tuple[str, str], Scores]
    reliability: Artefact | None = None

    @property
    def rows(self) -> int:
        return sum(hour.rows for hour in self.found)


def reliability(
    judged: Sequence[Judged], told: Mapping[tuple[str, str], Scores], words: str
) -> Artefact | None:
    """How reliable the first role's probabilities are on the mature groups of the hours that
    ``words`` name; None where it tells none of a label that is mature."""
    first = judged[0]
    curves = {
        label: calibration_sums_curve(sums)
        for (role, label), sums in told.items()
        if role == first.role
    }
    if not curves:
        return None
    title = f"Held-out rows of {words}, which version {first.version} has not seen"
    return calibration_figure(curves, title)


def differences(
    judged: Sequence[Judged], resamples: int, seed: int
) -> dict[tuple[str, str], Difference]:
    """The first role's NDCG@10 minus every other role's, by role and label, paired by group.

    P-values are adjusted (Holm) for the roles that a label is compared with.
    """
    found: dict[tuple[str, str], Difference] = {}
    first = {j.label: j for j in judged if j.role == judged[0].role}
    for label, mine in first.items():
        others = [j for j in judged if j.label == label and j is not mine and len(j.ndcg)]
        apart = {j.role: mine.ndcg - j.ndcg for j in others}
        tested = [role for role, values in apart.items() if len(values) > 1]
        p_values = dict(zip(tested, holm([paired_p_value(apart[r]) for r in tested]), strict=True))
        for role, values in apart.items():
            mean, low, high = paired_bootstrap(values, seed, resamples)
            p_value, least = p_values.get(role), minimum_detectable_difference(values)
            found[role, label] = Difference(role, mean, low, high, p_value, number(least))
    return found


def table_rows(
    verdict: Verdict, evaluation: str, hour: str, cut: str
) -> tuple[list[dict[str, Any]], pa.Table]:
    """The rows of ``evaluations`` and ``evaluation_groups`` of one verdict."""
    rows: list[dict[str, Any]] = []
    groups = [optional(EVALUATION_GROUPS).empty_table()]
    for j in verdict.judged:
        base = {"evaluation": evaluation, "judged_hour": verdict.hour, "name": j.name,
                "version": j.version, "role": j.role, "label": j.label, "hour": hour}  # fmt: skip
        more = {"segment": WHOLE, "groups": int(j.metrics["groups"]), "immature": j.immature,
                "data_hour": j.data_hour, "cut": cut}  # fmt: skip
        rows += [{**base, **more, **entry} for entry in _entries(j, verdict)]
        rows += [{**base, **more, **entry} for entry in _hour_entries(j, verdict)]
        rows += [{**base, **more, **entry} for entry in _segment_entries(j, verdict)]
        rows += [{**base, **more, **entry} for entry in _exposure_entries(j, verdict)]
        if len(j.groups):
            constants = {k: pa.repeat(pa.scalar(v), len(j.ndcg)) for k, v in base.items()}
            columns = {**constants, "group_id": pa.array(j.groups.tolist(), pa.string()),
                       "ndcg_at_10": pa.array(j.ndcg, pa.float64())}  # fmt: skip
            groups.append(pa.table(columns).select(EVALUATION_GROUPS.names))
    return rows, pa.concat_tables(groups)


def _entry(metric: str, value: float | None, low: float | None = None,
           high: float | None = None) -> dict[str, Any]:  # fmt: skip
    return {"metric": metric, "value": value, "low": low, "high": high}


def _entries(j: Judged, verdict: Verdict) -> Iterator[dict[str, Any]]:
    """Metrics over all hours; and the first role's differences."""
    for metric, value in j.metrics.items():
        yield _entry(metric, value, *j.intervals.get(metric, (None, None)))
    for (role, label), apart in verdict.differences.items():
        if j.role == verdict.judged[0].role and label == j.label:
            yield _entry(f"ndcg_at_10_minus_{role}", apart.value, apart.low, apart.high)


def _hour_entries(j: Judged, verdict: Verdict) -> Iterator[dict[str, Any]]:
    """NDCG@10 and AUC of every hour, where there are several."""
    if len(verdict.found) == 1:
        return
    for hour in verdict.found:
        [one] = [o for o in hour.judged if (o.role, o.label) == (j.role, j.label)]
        more = {"judged_hour": hour.hour, "segment": HOUR, "immature": one.immature,
                "groups": int(one.metrics["groups"]), "version": one.version,
                "data_hour": one.data_hour}  # fmt: skip
        for metric in ("ndcg_at_10", "auc"):
            if number(one.metrics.get(metric)) is not None:
                low, high = one.intervals.get(metric, (None, None))
                yield {**more, **_entry(metric, one.metrics[metric], low, high)}


def _segment_entries(j: Judged, verdict: Verdict) -> Iterator[dict[str, Any]]:
    for line in verdict.segments:
        if (line.role, line.label) != (j.role, j.label):
            continue
        of = {"segment": f"{line.dimension}={line.value}", "groups": line.groups}
        yield {**of, **_entry("ndcg_at_10", line.ndcg, line.low, line.high)}
        yield {**of, **_entry("observed_rate", line.observed)}
        if line.predicted is not None:
            yield {**of, **_entry("predicted_rate", line.predicted)}
        if line.difference is not None:
            apart = line.difference
            metric = f"ndcg_at_10_minus_{apart.other}"
            yield {**of, **_entry(metric, apart.value, apart.low, apart.high)}


def _exposure_entries(j: Judged, verdict: Verdict) -> Iterator[dict[str, Any]]:
    """Whom the role shows, once: with the label whose scores it was told by."""
    if j.label != verdict.judged[0].label:
        return
    for line in verdict.exposure:
        if line.role == j.role:
            for name in ("gini", "tail_share", "coverage", "popularity_lift"):
                value = getattr(line, name)
                if value is not None:
                    yield _entry(f"{line.kind}_{name}", value)


def exposure_lines(found: Sequence[HourFound]) -> list[ExposureLine]:
    """Whom every role shows over all hours."""
    total = folded(found)[-1].exposure if found else {}
    return [
        ExposureLine(role, kind, *(number(summary[name]) for name in _EXPOSURE))
        for (role, kind), sums in total.items()
        for summary in [sums.summary()]
    ]


def logged(verdict: Verdict, prefix: str) -> dict[str, float]:
    """Metrics of the candidate's run, named so that the registry page reads by itself."""
    metrics: dict[str, float] = {}
    for j in verdict.judged:
        name = prefix if j.role == "candidate" else j.role
        if prefix != "heldout" and j.role != "candidate":
            name = f"{prefix}_{j.role}"
        metrics |= {f"{name}_{m}_{j.label}": j.metrics[m] for m in _SHOWN if m in j.metrics}
        for metric, (low, high) in j.intervals.items():
            metrics[f"{name}_{metric}_{j.label}_low"] = low
            metrics[f"{name}_{metric}_{j.label}_high"] = high
    for (role, label), apart in verdict.differences.items():
        name = "" if prefix == "heldout" else f"{prefix}_"
        key = f"{name}ndcg_at_10_minus_{role}_{label}"
        known = {key: apart.value, f"{key}_low": apart.low, f"{key}_high": apart.high}
        metrics |= {k: v for k, v in known.items() if v is not None}
    return {name.replace("@", ":"): value for name, value in metrics.items()}  # MLflow takes no @
