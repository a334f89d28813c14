"""Judging: rows scored by every contender, metrics on mature groups, rows of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.labels import LABELS, label_column
from feature_store.schemas import EVALUATION_GROUPS
from jobs.support.contenders import Contender
from jobs.support.evaluation_page import SHOWN, Judged, Scores
from models.metrics import evaluate_ranking, group_codes, ndcg_at_k, paired_bootstrap
from models.plots import reliability_figure
from models.registry import Version
from models.versions import Artefact

__all__ = [
    "Scored",
    "Verdict",
    "differences",
    "judge",
    "judgeable",
    "logged",
    "reliability",
    "scored",
    "table_rows",
]


@dataclass(frozen=True)
class Scored:
    """Rows of held-out hours: groups, labels (NaN is immature) and scores by role and label."""

    groups: pa.ChunkedArray
    labels: Mapping[str, Scores]
    scores: Mapping[tuple[str, str], Scores]

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


@dataclass(frozen=True)
class Verdict:
    """Everything that was found on some hours; ``version`` is the candidate, whose run keeps it.

    Attributes:
        hour: the first of the hours; ``words`` name all of them.
        reliability: of the candidate, where it tells a probability of a label.
    """

    hour: str
    words: str
    version: Version
    judged: Sequence[Judged]
    differences: Mapping[str, tuple[Any, ...]]
    rows: int
    reliability: Artefact | None = None


def judgeable(wanted: Sequence[str], windows: Mapping[str, int]) -> list[str]:
    """Those of the labels ``wanted`` that are 0 or 1, and whose action the source declares."""
    known = [name for name in wanted if name in LABELS and LABELS[name].declared(windows)]
    return [name for name in known if not LABELS[name].summed]


def scored(
    batches: Iterable[pa.RecordBatch], contenders: Sequence[Contender], labels: Sequence[str]
) -> Scored:
    """What every contender says of every row; of the rows themselves only one batch is held."""
    groups: list[pa.Array] = []
    known: dict[str, list[Scores]] = {label: [] for label in labels}
    found: dict[tuple[str, str], list[Scores]] = {
        (c.role, label): [] for c in contenders for label in labels
    }
    for batch in batches:
        table = pa.Table.from_batches([batch])
        groups.append(batch["group_id"])
        for label in labels:
            column = batch[label_column(label)]
            known[label].append(column.to_numpy(zero_copy_only=False).astype(np.float64))
        for one in contenders:
            for label, scores in one.score(table, labels).items():
                found[one.role, label].append(scores)
    empty = [np.zeros(0)]
    return Scored(
        pa.chunked_array(groups, pa.string()),
        {label: np.concatenate(parts or empty) for label, parts in known.items()},
        {key: np.concatenate(parts or empty) for key, parts in found.items()},
    )


def judge(contender: Contender, rows: Scored, label: str, resamples: int, seed: int) -> Judged:
    """Metrics of one contender on the mature groups of ``rows``; NDCG@10 with its interval.

    A group counts only when all of its labels are mature.
    """
    mature = rows.mature(label)
    labels = (rows.labels[label][mature] > 0).astype(np.float64)
    if not len(labels):
        return Judged(contender.role, contender.name, contender.version, contender.data_hour, label,
                      {"rows": 0.0, "groups": 0.0}, {}, np.zeros(0, np.str_), np.zeros(0),
                      rows.rows)  # fmt: skip
    scores = rows.scores[contender.role, label][mature]
    groups = rows.groups.filter(pa.array(mature))
    probable = contender.tells(label)
    metrics = evaluate_ranking(labels, scores, groups, probabilities=probable)
    per_group = ndcg_at_k(labels, scores, groups, 10)
    counted = ~np.isnan(per_group.values)
    ndcg = per_group.values[counted]
    interval = paired_bootstrap(ndcg, seed, resamples)
    ids = np.asarray(per_group.groups)[counted]
    return Judged(
        contender.role, contender.name, contender.version, contender.data_hour, label, metrics,
        {"ndcg_at_10": (interval.low, interval.high)}, ids, ndcg, int((~mature).sum()),
    )  # fmt: skip


def reliability(candidate: Contender, rows: Scored, words: str) -> Artefact | None:
    """How reliable the candidate's probabilities are on the mature groups of ``rows``, which are
    those of the hours that ``words`` name; None where it tells none of a label that is mature."""
    labels, told = {}, {}
    for label, values in rows.labels.items():
        mature = rows.mature(label)
        if candidate.tells(label) and mature.any():
            labels[label] = (values[mature] > 0).astype(np.float64)
            told[label] = rows.scores[candidate.role, label][mature]
    if not labels:
        return None
    title = f"Held-out rows of {words}, which version {candidate.version} has not seen"
    return reliability_figure(labels, told, title)


def differences(judged: Sequence[Judged], resamples: int, seed: int) -> dict[str, tuple[Any, ...]]:
    """Candidate minus every other role on NDCG@10, per label, paired by group."""
    found: dict[str, tuple[Any, ...]] = {}
    by = {(j.role, j.label): j for j in judged}
    for (role, label), other in by.items():
        candidate = by.get(("candidate", label))
        if role == "candidate" or candidate is None:
            continue
        common, mine, theirs = np.intersect1d(
            candidate.groups, other.groups, assume_unique=True, return_indices=True
        )
        if len(common):
            interval = paired_bootstrap(candidate.ndcg[mine] - other.ndcg[theirs], seed, resamples)
            found[f"ndcg_at_10_minus_{role}|{label}"] = (*interval, len(common))
    return found


def table_rows(
    verdict: Verdict, evaluation: str, hour: str, cut: str
) -> tuple[list[dict[str, Any]], pa.Table]:
    """The rows of ``evaluations`` and ``evaluation_groups`` of one verdict."""
    summary: list[dict[str, Any]] = []
    groups: list[pa.Table] = []
    for j in verdict.judged:
        base = {"evaluation": evaluation, "judged_hour": verdict.hour, "name": j.name,
                "version": j.version, "role": j.role, "label": j.label, "hour": hour}  # fmt: skip
        more = {"segment": "all", "groups": int(j.metrics["groups"]), "immature": j.immature,
                "data_hour": j.data_hour, "cut": cut}  # fmt: skip
        for metric, value in j.metrics.items():
            low, high = j.intervals.get(metric, (None, None))
            entry = {"metric": metric, "value": value, "low": low, "high": high}
            summary.append({**base, **more, **entry})
        if j.role == "candidate":
            for key, (value, low, high, count) in verdict.differences.items():
                metric, label = key.split("|")
                if label == j.label:
                    entry = {"metric": metric, "value": value, "low": low, "high": high}
                    summary.append({**base, **more, **entry, "groups": count})
        constants = {k: pa.array([v] * len(j.ndcg), pa.string()) for k, v in base.items()}
        columns = {**constants, "group_id": pa.array(j.groups.tolist(), pa.string()),
                   "ndcg_at_10": pa.array(j.ndcg, pa.float64())}  # fmt: skip
        groups.append(pa.table(columns).select(EVALUATION_GROUPS.names))
    return summary, pa.concat_tables(groups)


def logged(verdict: Verdict, prefix: str) -> dict[str, float]:
    """Metrics of the candidate's run, named so that the registry page reads by itself."""
    metrics: dict[str, float] = {}
    for j in verdict.judged:
        name = prefix if j.role == "candidate" else j.role
        if prefix != "heldout" and j.role != "candidate":
            name = f"{prefix}_{j.role}"
        metrics |= {f"{name}_{m}_{j.label}": j.metrics[m] for m in SHOWN if m in j.metrics}
        for metric, (low, high) in j.intervals.items():
            metrics[f"{name}_{metric}_{j.label}_low"] = low
            metrics[f"{name}_{metric}_{j.label}_high"] = high
    for key, (value, low, high, _) in verdict.differences.items():
        name, label = key.split("|")
        name = name if prefix == "heldout" else f"{prefix}_{name}"
        metrics |= {f"{name}_{label}": value, f"{name}_{label}_low": low,
                    f"{name}_{label}_high": high}  # fmt: skip
    return metrics
