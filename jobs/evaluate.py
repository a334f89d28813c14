"""Judge models by ranking metrics on an hour that none of them has seen, beside popularity."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.labels import LABELS, label_column
from feature_store.schemas import EVALUATION_GROUPS, EVALUATIONS
from feature_store.sources.base import Source
from feature_store.tables import Store
from feature_store.training_set import training_set
from feature_store.views import VIEWS, window_name
from jobs.support.arguments import job_parser, run_hours
from jobs.support.evaluation_page import POPULARITY, SHOWN, Judged, Scores, evaluation_page
from jobs.support.fencing import claim, run_token
from jobs.support.promotions import champion_before
from jobs.support.settings import Settings, load_settings
from jobs.support.summary import RefusedError, Summary, main_of, progress
from jobs.train_gbdt import DEFAULT_NAME, Plan, plan
from models.metrics import evaluate_ranking, group_codes, ndcg_at_k, paired_bootstrap
from models.registry import Registry, Version

__all__ = ["EVALUATIONS_BY_NAME", "Judged", "build_parser", "evaluate", "main", "run"]

JOB = "evaluate"
EVALUATIONS_BY_NAME: Final = ("hourly", "offline")


@dataclass(frozen=True)
class _Contender:
    role: str
    name: str
    version: str
    data_hour: str | None
    score: Callable[[pa.Table, str], Scores]


def popularity(table: pa.Table, _label: str) -> Scores:
    """The target's smoothed CTR over the longest window: what an hour's samples knew of it."""
    longest = {view.name: f"{view.name}_ctr_{window_name(max(view.windows))}" for view in VIEWS}
    rooms = pc.equal(table["target_type"], "room")
    score = pc.if_else(rooms, table[longest["room"]], table[longest["item"]])
    return score.to_numpy().astype(np.float64)


def _model_scores(model: Any) -> Callable[[pa.Table, str], Scores]:
    """Scores by label: the task's own where the model has it, else its ranking score."""
    cached: dict[int, Mapping[str, Scores]] = {}

    def score(table: pa.Table, label: str) -> Scores:
        if label not in model.tasks:
            result: Scores = model.score(table)
            return result
        if id(table) not in cached:
            cached.clear()
            cached[id(table)] = model.predict(table)
        return cached[id(table)][label]

    return score


def _contender(registry: Registry, role: str, version: Version, hour: str) -> _Contender:
    """A registered version as a contender on ``hour``.

    Raises:
        RefusedError: when the version was fitted on ``hour`` or later: nothing scores a model on an
            hour that it has seen.
    """
    data_hour = version.tags["data_hour"]
    if data_hour >= hour:
        raise RefusedError(
            f"{version.name} version {version.version} has seen {data_hour}; it cannot be judged "
            f"on {hour}. Evaluate a version fitted on earlier hours."
        )
    loaded = registry.load(version.name, version.version)
    return _Contender(role, version.name, str(version.version), data_hour,
                      _model_scores(loaded.model))  # fmt: skip


def _champions(store: Store, registry: Registry, name: str, hour: str) -> dict[str, Version]:
    """The champion of the moment before ``hour``, and that of a day earlier, by role."""
    found = {}
    for role, moment in (("champion", hour), ("champion_yesterday", hr.add(hour, -24))):
        number = champion_before(store, name, moment)
        if number is not None:
            found[role] = registry.get(name, int(number))
    return found


def judge(contender: _Contender, table: pa.Table, label: str, resamples: int, seed: int) -> Judged:
    """Metrics of one contender on the mature groups of ``table``; NDCG@10 with its interval.

    A group counts only when all of its labels are mature.
    """
    column = table[label_column(label)]
    codes = group_codes(table["group_id"])
    open_groups = np.unique(codes[pc.is_null(column).to_numpy()])
    mature = ~np.isin(codes, open_groups)
    rows = table.filter(pa.array(mature))
    labels = (rows[label_column(label)].to_numpy() > 0).astype(np.float64)
    if not len(labels):
        return Judged(contender.role, contender.name, contender.version, contender.data_hour, label,
                      {"rows": 0.0, "groups": 0.0}, {}, np.zeros(0, np.str_), np.zeros(0),
                      table.num_rows)  # fmt: skip
    scores = contender.score(table, label)[mature]
    groups = rows["group_id"]
    metrics = evaluate_ranking(labels, scores, groups)
    per_group = ndcg_at_k(labels, scores, groups, 10)
    counted = ~np.isnan(per_group.values)
    ndcg = per_group.values[counted]
    interval = paired_bootstrap(ndcg, seed, resamples)
    ids = np.asarray(per_group.groups)[counted]
    return Judged(
        contender.role, contender.name, contender.version, contender.data_hour, label, metrics,
        {"ndcg_at_10": (interval.low, interval.high)}, ids, ndcg, int((~mature).sum()),
    )  # fmt: skip


def _differences(judged: Sequence[Judged], resamples: int, seed: int) -> dict[str, tuple[Any, ...]]:
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


@dataclass(frozen=True)
class _Verdict:
    """Everything that was found on one hour; ``version`` is the candidate, whose run keeps it."""

    hour: str
    version: Version
    judged: Sequence[Judged]
    differences: Mapping[str, tuple[Any, ...]]
    rows: int


def _rows(
    verdict: _Verdict, evaluation: str, hour: str, cut: str
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


def _logged(verdict: _Verdict, prefix: str) -> dict[str, float]:
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


def _heldout(store: Store, source: Source, hour: str, cut: str) -> pa.Table:
    """The labelled samples of ``hour`` at ``cut``."""
    if not store.readable_hours("samples", hour, hour):
        raise RefusedError(
            f"samples of {hour} are not there. "
            f"Run: spark-submit jobs/build_samples.py --hour {hour}"
        )
    return training_set(store, hour, hour, cut, source.windows)


def evaluate(
    store: Store, settings: Settings, name: str, hour: str, evaluation: str, token: str, dry: bool
) -> Summary:
    """Judge models at ``hour`` and keep the result.

    ``hourly`` judges the candidate of ``hour`` beside the champion of that moment on ``hour``
    itself, cut one hour later. ``offline`` judges, at the same cut, the newest version that has not
    seen them on the hours ``lag_hours`` back, whose slower actions are mature by now.
    """
    writer = claim(store, f"{JOB}:{evaluation}:{name}", [hour], token)
    chosen = plan(store, settings.train, name, hour)
    summary = Summary(JOB, [hour])
    if not chosen.complete:
        return _skipped(summary, chosen.shortage())
    registry = Registry(settings.tracking())
    cut = hr.add(hour, 1)
    hourly = evaluation == "hourly"
    lags = (0,) if hourly else settings.evaluation.lag_hours
    verdicts = {
        lag: verdict
        for lag in lags
        if (verdict := _judge_hour(store, registry, settings, chosen, hr.add(hour, -lag), cut,
                                   hourly)) is not None
    }  # fmt: skip
    if not verdicts:
        return _skipped(summary, f"no version of {name} is older than the hours {lags} h back")
    kept = [_rows(verdict, evaluation, hour, cut) for verdict in verdicts.values()]
    rows = pa.Table.from_pylist([r for found, _ in kept for r in found], schema=EVALUATIONS)
    groups = pa.concat_tables([g for _, g in kept])
    first = next(iter(verdicts.values()))
    summary.rows_in = sum(v.rows for v in verdicts.values())
    summary.rows_out = rows.num_rows
    summary.model = {"name": name, "version": first.version.version}
    summary.mlflow_run_url = registry.run_url(first.version.run_id)
    summary.details = {f"{j.role}_{j.label}": j.metrics.get("ndcg_at_10") for j in first.judged}
    summary.message = f"judged {', '.join(v.hour for v in verdicts.values())}, cut {cut}"
    if dry:
        summary.status = "dry-run"
        return summary
    where = {"hour": hour, "evaluation": evaluation}
    with store.ledger.holding(writer.stage, [hour], writer.token):
        summary.snapshots = {
            "evaluation_groups": store.commit_slice(groups, "evaluation_groups", where),
            "evaluations": store.commit_slice(rows, "evaluations", where),
        }
        for lag, verdict in verdicts.items():
            prefix = "heldout" if hourly else f"offline_{lag}h"
            page = evaluation_page(verdict.hour, verdict.judged, evaluation, cut)
            registry.log_evaluation(verdict.version, _logged(verdict, prefix),
                                    artefacts={f"{prefix}-{verdict.hour}.html": page})  # fmt: skip
    return summary


def _skipped(summary: Summary, message: str) -> Summary:
    summary.status, summary.message = "skipped", message
    progress(JOB, f"skipped: {message}")
    return summary


def _judge_hour(
    store: Store, registry: Registry, settings: Settings, chosen: Plan, hour: str, cut: str,
    hourly: bool,
) -> _Verdict | None:  # fmt: skip
    """Every contender on ``hour`` with the labels known at ``cut``; None without a candidate."""
    candidate = _candidate(registry, chosen, hour, hourly)
    if candidate is None:
        return None
    roles = {"candidate": candidate, **_champions(store, registry, chosen.name, hour)}
    contenders = [_contender(registry, role, version, hour) for role, version in roles.items()]
    contenders.append(_Contender(POPULARITY, POPULARITY, "-", None, popularity))
    table = _heldout(store, settings.open_source(), hour, cut)
    wanted = settings.evaluation.labels if hourly else tuple(LABELS)
    declared = [label for label in wanted if label_column(label) in table.column_names]
    labels = [label for label in declared if not LABELS[label].summed]
    resamples, seed = settings.evaluation.resamples, settings.evaluation.seed
    judged = [judge(c, table, label, resamples, seed) for label in labels for c in contenders]
    _report(judged, labels)
    return _Verdict(hour, candidate, judged, _differences(judged, resamples, seed), table.num_rows)


def _candidate(registry: Registry, chosen: Plan, hour: str, hourly: bool) -> Version | None:
    """The version of this run, or, looking back, the newest that has not seen ``hour``."""
    if not hourly:
        unseen = [v for v in registry.versions(chosen.name) if v.tags["data_hour"] < hour]
        return max(unseen, key=lambda v: (v.tags["data_hour"], v.version), default=None)
    candidate = registry.find(chosen.name, chosen.run_key)
    if candidate is None:
        raise RefusedError(
            f"{chosen.name} has no version of hour {hour}. "
            f"Run: train_gbdt.py --name {chosen.name} --hour {hour}"
        )
    return candidate


def _report(judged: Sequence[Judged], labels: Sequence[str]) -> None:
    for label in labels:
        for j in judged:
            if j.label == label and len(j.ndcg) == 0:
                progress(JOB, f"{label:10} {j.role:18} no mature group that has both labels yet")
            elif j.label == label:
                low, high = j.intervals["ndcg_at_10"]
                progress(
                    JOB,
                    f"{label:10} {j.role:18} v{j.version:4} NDCG@10 {j.metrics['ndcg_at_10']:.4f} "
                    f"[{low:.4f}, {high:.4f}] AUC {j.metrics['auc']:.4f} "
                    f"GAUC {j.metrics['gauc']:.4f} ({j.metrics['groups']:.0f} groups)",
                )


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    token = run_token(arguments.run_id)
    summaries = [
        evaluate(store, settings, arguments.name, hour, arguments.evaluation, token,
                 arguments.dry_run)
        for hour in hours
    ]  # fmt: skip
    last = summaries[-1]
    last.hours = hours
    last.rows_in = sum(s.rows_in for s in summaries)
    last.rows_out = sum(s.rows_out for s in summaries)
    return last


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "NDCG@1/3/5/10, AUC and GAUC of the hour's candidate, of the champion of that moment and "
        "of popularity, on mature groups, with paired bootstrap intervals.",
        "  evaluate.py --hour 2026-11-11T05\n"
        "  evaluate.py --hour 2026-11-11T05 --evaluation offline\n",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="registered name [%(default)s]")
    parser.add_argument(
        "--evaluation",
        choices=EVALUATIONS_BY_NAME,
        default=EVALUATIONS_BY_NAME[0],
        help="hourly: this hour's candidate on this hour; offline: who serves, on an hour whose "
        "slower actions are mature by now [%(default)s]",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
