"""Judging: rows scored by every contender, and metrics on mature groups.

Hours are judged one by one and pooled, so that only an hour's rows are held; a group lies in one
hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.labels import LABELS, label_column
from jobs.support.contenders import Contender, Scores
from jobs.support.segments import segment_columns, segment_sums
from models.metrics import (
    ExposureSums,
    calibration_sums,
    calibration_sums_curve,
    evaluate_graded,
    evaluate_ranking,
    exponential_gains,
    group_codes,
    grouped,
    ndcg_at_k,
    paired_bootstrap,
    pooled_report,
)

__all__ = [
    "BESIDE",
    "GRADED",
    "HourFound",
    "Judged",
    "Scored",
    "folded",
    "judge",
    "judge_hour",
    "judgeable",
    "pooled",
    "pooled_sums",
    "scored",
]


@dataclass(frozen=True)
class Judged:
    """One model on some hours and a label."""

    role: str
    name: str
    version: str
    data_hour: str | None
    label: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    groups: npt.NDArray[np.str_]
    ndcg: Scores
    immature: int


@dataclass(frozen=True)
class Scored:
    """Rows of held-out hours: groups, labels (NaN is immature) and scores by role and label.

    ``beside`` are the columns that were to be kept.
    """

    groups: pa.ChunkedArray
    labels: Mapping[str, Scores]
    scores: Mapping[tuple[str, str], Scores]
    beside: pa.Table | None = None

    @property
    def rows(self) -> int:
        return len(self.groups)

    @cached_property
    def codes(self) -> npt.NDArray[np.int64]:
        """A number per group."""
        return group_codes(self.groups)

    def mature(self, label: str) -> npt.NDArray[np.bool_]:
        """Which rows are in groups all of whose labels are mature, (rows,)."""
        return ~np.isin(self.codes, np.unique(self.codes[np.isnan(self.labels[label])]))


def judgeable(wanted: Sequence[str], windows: Mapping[str, int]) -> list[str]:
    """Those of the labels ``wanted`` that are 0 or 1, and whose action the source declares."""
    known = [name for name in wanted if name in LABELS and LABELS[name].declared(windows)]
    return [name for name in known if not LABELS[name].summed]


def scored(
    batches: Iterable[pa.RecordBatch], contenders: Sequence[Contender], labels: Sequence[str],
    beside: Sequence[str] | None = None, grades: Mapping[str, int] | None = None,
) -> Scored:  # fmt: skip
    """What every contender says of every row; of the rows themselves only one batch is held, and
    the columns ``beside``.

    Args:
        grades: by label, what ``GRADED`` is made of where it is among ``labels``.
    """
    groups: list[pa.Array] = []
    kept: list[pa.RecordBatch] = []
    known: dict[str, list[Scores]] = {label: [] for label in labels}
    found: dict[tuple[str, str], list[Scores]] = {
        (c.role, label): [] for c in contenders for label in labels
    }
    for batch in batches:
        table = pa.Table.from_batches([batch])
        groups.append(batch["group_id"])
        if beside is not None:
            kept.append(batch.select(list(beside)))
        for label in labels:
            found_labels = _grades(batch, grades or {}) if label == GRADED else _label(batch, label)
            known[label].append(found_labels)
        for one in contenders:
            for label, scores in one.score(table, labels).items():
                found[one.role, label].append(scores)
    empty = [np.zeros(0)]
    return Scored(
        pa.chunked_array(groups, pa.string()),
        {label: np.concatenate(parts or empty) for label, parts in known.items()},
        {key: np.concatenate(parts or empty) for key, parts in found.items()},
        pa.Table.from_batches(kept) if kept else None,
    )


def _label(batch: pa.RecordBatch, name: str) -> Scores:
    """A label's values, NaN where it is not known yet."""
    values = batch[label_column(name)].to_numpy(zero_copy_only=False)
    return values.astype(np.float64)


def _grades(batch: pa.RecordBatch, grades: Mapping[str, int]) -> Scores:
    """The highest grade of the labels that a row has; NaN while any of them is not known."""
    lifted = [
        np.where(np.isnan(values), np.nan, grade * (values > 0))
        for name, grade in grades.items()
        for values in [_label(batch, name)]
    ]
    return np.maximum.reduce(lifted)


def judge(contender: Contender, rows: Scored, label: str, resamples: int, seed: int) -> Judged:
    """Metrics of one contender on the mature groups of ``rows``; NDCG@10 with its interval.

    A group counts only when all of its labels are mature.
    """
    mature, graded = rows.mature(label), label == GRADED
    labels = rows.labels[label][mature]
    if not graded:
        labels = (labels > 0).astype(np.float64)
    if not len(labels):
        return Judged(contender.role, contender.name, contender.version, contender.data_hour, label,
                      {"rows": 0.0, "groups": 0.0}, {}, np.zeros(0, np.str_), np.zeros(0),
                      rows.rows)  # fmt: skip
    scores = rows.scores[contender.role, label][mature]
    groups = rows.groups.filter(pa.array(mature))
    if graded:
        metrics = evaluate_graded(labels, scores, groups)
    else:
        metrics = evaluate_ranking(labels, scores, groups, probabilities=contender.tells(label))
    gains = exponential_gains(int(labels.max())) if graded else None
    per_group = ndcg_at_k(labels, scores, groups, 10, gains)
    counted = ~np.isnan(per_group.values)
    ndcg = per_group.values[counted]
    interval = paired_bootstrap(ndcg, seed, resamples)
    ids = np.asarray(per_group.groups)[counted]
    return Judged(
        contender.role, contender.name, contender.version, contender.data_hour, label, metrics,
        {"ndcg_at_10": (interval.low, interval.high)}, ids, ndcg, int((~mature).sum()),
    )  # fmt: skip


@dataclass(frozen=True)
class HourFound:
    """What an hour tells of every contender; small beside its rows.

    Attributes:
        judged: one of each contender and label.
        segments: sums of :func:`jobs.support.segments.segment_sums`.
        told: by role and label, sums of :func:`models.metrics.calibration_sums`.
        exposure: by role and kind of target, of all rows in the order of the first label's scores.
    """

    hour: str
    rows: int
    judged: tuple[Judged, ...]
    segments: tuple[pa.Table, ...]
    told: Mapping[tuple[str, str], Scores]
    exposure: Mapping[tuple[str, str], ExposureSums] = field(default_factory=dict)


GRADED: Final = "graded"
"""The label that is the highest of several labels' grades; it has NDCG with exponential gains."""
BESIDE: Final = tuple(dict.fromkeys((*segment_columns(), "target_id", "room_id", "position")))
"""Columns of samples that are kept beside the scores of an hour."""
_FIRST: Final = 1
"""Ranks that count as the first ones where coverage is asked."""


def judge_hour(
    hour: str, rows: Scored, contenders: Sequence[Contender], labels: Sequence[str],
    reference: str, resamples: int, seed: int,
) -> HourFound:  # fmt: skip
    """Everything that ``rows``, which are those of ``hour``, tell.

    Args:
        rows: with ``BESIDE`` beside them; without, nothing is said of segments and exposure.
        reference: role that segments are compared with.
    """
    judged = tuple(judge(c, rows, label, resamples, seed) for label in labels for c in contenders)
    segments, told = [], {}
    for label in labels:
        mature = rows.mature(label)
        if label == GRADED or not mature.any():
            continue
        known = (rows.labels[label][mature] > 0).astype(np.float64)
        scores = {c.role: rows.scores[c.role, label][mature] for c in contenders}
        if rows.beside is not None:
            beside = rows.beside.select(segment_columns()).filter(pa.array(mature))
            codes = rows.codes[mature]
            segments.append(
                segment_sums(beside, codes, label, known, contenders, scores, reference)
            )
        for one in contenders:
            found = scores[one.role]
            if one.tells(label) and found.min() >= 0 and found.max() <= 1:
                told[one.role, label] = calibration_sums(known, found)
    exposure = _exposure(rows, [c.role for c in contenders], labels[0]) if labels else {}
    return HourFound(hour, rows.rows, judged, tuple(segments), told, exposure)


def _exposure(
    rows: Scored, roles: Sequence[str], label: str
) -> dict[tuple[str, str], ExposureSums]:
    """By role and kind of target, whom an order by the scores of ``label`` shows. What has no host
    is its own; where nothing has one there are no hosts."""
    if rows.beside is None or not rows.rows:
        return {}
    kinds = {"target": rows.beside["target_id"]}
    if rows.beside["room_id"].null_count < rows.rows:
        kinds["host"] = pc.coalesce(rows.beside["room_id"], rows.beside["target_id"])
    places = pc.cast(rows.beside["position"], pa.float64()).to_numpy()
    groups = grouped(rows.codes)
    return {
        (role, kind): ExposureSums.of(targets, rows.scores[role, label], groups, _FIRST,
                                      positions=places)
        for role in roles
        for kind, targets in kinds.items()
    }  # fmt: skip


def pooled(hours: Sequence[HourFound], resamples: int, seed: int) -> list[Judged]:
    """Every contender and label over all ``hours``, at least one, that judged the same ones."""
    parts = zip(*(hour.judged for hour in hours), strict=True)
    told = pooled_sums(hours)
    return [_together(list(part), told, resamples, seed) for part in parts]


def _together(
    parts: Sequence[Judged], told: Mapping[tuple[str, str], Scores], resamples: int, seed: int
) -> Judged:
    one, known = parts[-1], [part.metrics for part in parts if part.metrics["rows"]]
    if not known:
        return replace(one, immature=sum(part.immature for part in parts))
    metrics = pooled_report(known)
    if (one.role, one.label) in told:
        curve = calibration_sums_curve(told[one.role, one.label])
        metrics["expected_calibration_error"] = curve.error
    ndcg = np.concatenate([part.ndcg for part in parts])
    interval = paired_bootstrap(ndcg, seed, resamples)
    versions = list(dict.fromkeys(part.version for part in parts))
    return Judged(
        one.role, one.name, versions[0] if len(versions) == 1 else f"{versions[0]}-{versions[-1]}",
        one.data_hour, one.label, metrics, {"ndcg_at_10": (interval.low, interval.high)},
        np.concatenate([part.groups for part in parts]), ndcg, sum(p.immature for p in parts),
    )  # fmt: skip


def folded(hours: Iterable[HourFound]) -> list[HourFound]:
    """``hours`` with all exposures added up in the last one, whose targets are those of any."""
    found: list[HourFound] = []
    total: dict[tuple[str, str], ExposureSums] = {}
    for hour in hours:
        for key, sums in hour.exposure.items():
            total[key] = total[key].add(sums) if key in total else sums
        found.append(replace(hour, exposure={}))
    return [*found[:-1], replace(found[-1], exposure=total)] if found else []


def pooled_sums(hours: Sequence[HourFound]) -> dict[tuple[str, str], Scores]:
    """By role and label the calibration sums of all ``hours``."""
    found: dict[tuple[str, str], Scores] = {}
    for hour in hours:
        for key, sums in hour.told.items():
            found[key] = found[key] + sums if key in found else sums
    return found
