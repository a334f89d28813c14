"""Judge models by ranking metrics on hours that none of them has seen, beside popularity."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.labels import LABELS
from feature_store.schemas import EVALUATIONS
from feature_store.services import SERVICES
from feature_store.sources.base import Source
from feature_store.tables import Store
from feature_store.training_set import Recipe, lineage, training_batches
from jobs.support.arguments import job_parser, run_hours
from jobs.support.contenders import Contender, champions, contender, popularity
from jobs.support.deep_features import reading
from jobs.support.evaluation_page import POPULARITY, Judged, evaluation_page
from jobs.support.fencing import claim, one_at_a_time, run_token
from jobs.support.judging import (
    Scored,
    Verdict,
    differences,
    judge,
    judgeable,
    logged,
    reliability,
    scored,
    table_rows,
)
from jobs.support.plans import DEFAULT_NAME, Plan, find_candidate, is_daily, plan_of
from jobs.support.settings import Settings, load_settings
from jobs.support.stages import require_hours
from jobs.support.stopwatch import STEPS, Stopwatch
from jobs.support.summary import RefusedError, Summary, main_of, progress, skipped
from models.registry import Registry, Version
from models.versions import Artefact

__all__ = ["EVALUATIONS_BY_NAME", "Judged", "build_parser", "evaluate", "main", "run"]

JOB = "evaluate"
EVALUATIONS_BY_NAME: Final = ("hourly", "offline", "daily")
_ROWS: Final = 65_536
"""Rows that are scored at once where no sequences are read."""


@dataclass(frozen=True)
class _Span:
    """The hours that are judged, and the cut of their labels; ``lag`` is how far back they lie."""

    first: str
    last: str
    cut: str
    lag: int = 0

    @property
    def words(self) -> str:
        return self.first if self.first == self.last else f"{self.first} to {self.last}"


def evaluate(
    store: Store, settings: Settings, name: str, hour: str, evaluation: str, token: str, dry: bool,
    last: str | None = None,
) -> Summary:  # fmt: skip
    """Judge models at ``hour`` and keep the result.

    ``hourly`` judges the candidate of ``hour`` beside the champion of that moment on ``hour``
    itself, cut one hour later. ``daily`` judges it on all hours up to ``last`` (by default 24 of
    them), cut after the last. ``offline`` judges, at the hourly cut, the newest version that has
    not seen them on the hours ``lag_hours`` back, whose slower actions are mature by now.
    """
    watch = Stopwatch()
    writer = claim(store, f"{JOB}:{evaluation}:{name}", [hour], token)
    chosen = plan_of(store, settings, name, hour)
    summary = Summary(JOB, [hour])
    if not chosen.complete:
        return skipped(summary, chosen.shortage())
    registry = Registry(settings.tracking())
    spans = _spans(settings, hour, evaluation, last)
    watch.lap("plan")
    found = [_judged(store, registry, settings, chosen, span, evaluation, watch) for span in spans]
    verdicts = {s: v for s, v in zip(spans, found, strict=True) if v is not None}
    if not verdicts:
        lags = tuple(span.lag for span in spans)
        return skipped(summary, f"no version of {name} is older than the hours {lags} h back")
    cut = spans[0].cut
    kept = [table_rows(verdict, evaluation, hour, cut) for verdict in verdicts.values()]
    rows = pa.Table.from_pylist([r for found, _ in kept for r in found], schema=EVALUATIONS)
    groups = pa.concat_tables([g for _, g in kept])
    first = next(iter(verdicts.values()))
    summary.rows_in = sum(v.rows for v in verdicts.values())
    summary.rows_out = rows.num_rows
    summary.model = {"name": name, "version": first.version.version}
    summary.mlflow_run_url = registry.run_url(first.version.run_id)
    ndcg = {f"{j.role}_{j.label}": j.metrics.get("ndcg_at_10") for j in first.judged}
    summary.details = {**ndcg, STEPS: watch.seconds}
    summary.message = f"judged {', '.join(v.words for v in verdicts.values())}, cut {cut}"
    if dry:
        summary.status = "dry-run"
        return summary
    with (
        store.ledger.holding(writer.stage, [hour], writer.token),
        one_at_a_time(store, f"{JOB}:{evaluation}", [hour], token),
    ):
        summary.snapshots = {
            "evaluation_groups": _kept(store, groups, "evaluation_groups", name, hour, evaluation),
            "evaluations": _kept(store, rows, "evaluations", name, hour, evaluation),
        }
        watch.lap("keep")
        for span, verdict in verdicts.items():
            prefix = f"offline_{span.lag}h" if evaluation == "offline" else "heldout"
            stem = f"{prefix}-{verdict.hour}"
            page = evaluation_page(verdict.words, verdict.judged, evaluation, cut)
            files: dict[str, Artefact] = {f"{stem}.html": page}
            if verdict.reliability is not None:
                files[f"{stem}-reliability"] = verdict.reliability
            registry.log_evaluation(verdict.version, logged(verdict, prefix), artefacts=files)
    watch.lap("log")
    return summary


def _spans(settings: Settings, hour: str, evaluation: str, last: str | None) -> list[_Span]:
    cut = hr.add(hour, 1)
    if evaluation == "offline":
        back = {lag: hr.add(hour, -lag) for lag in settings.evaluation.lag_hours}
        return [_Span(past, past, cut, lag) for lag, past in back.items()]
    if evaluation == "hourly":
        return [_Span(hour, hour, cut)]
    last = last or hr.add(hour, 23)
    return [_Span(hour, last, hr.add(last, 1))]


def _kept(
    store: Store, rows: pa.Table, table: str, name: str, hour: str, evaluation: str
) -> int | None:
    """Commit the partition: ``rows``, and what other names' evaluations left there."""
    where = {"hour": hour, "evaluation": evaluation}
    there = store.read(table, [hour], where={"evaluation": evaluation})
    mine = pc.is_in(there["name"], value_set=pa.array([name, POPULARITY]))
    others = there.filter(pc.invert(mine)).select(rows.column_names)
    return store.commit_slice(pa.concat_tables([others.cast(rows.schema), rows]), table, where)


def _judged(
    store: Store, registry: Registry, settings: Settings, chosen: Plan, span: _Span,
    evaluation: str, watch: Stopwatch,
) -> Verdict | None:  # fmt: skip
    """Every contender on the hours of ``span``; None without a candidate."""
    offline = evaluation == "offline"
    candidate = _candidate(registry, chosen, span.first, offline)
    if candidate is None:
        return None
    roles = {"candidate": candidate, **champions(store, registry, chosen.name, span.first)}
    contenders = [contender(registry, role, found, span.first) for role, found in roles.items()]
    contenders.append(popularity())
    source = settings.open_source()
    labels = judgeable(tuple(LABELS) if offline else settings.evaluation.labels, source.windows)
    watch.lap("load_models")
    rows = _scored(store, source, span, contenders, labels)
    watch.lap("read_and_score")
    resamples, seed = settings.evaluation.resamples, settings.evaluation.seed
    judged = [judge(c, rows, label, resamples, seed) for label in labels for c in contenders]
    _report(judged, labels)
    apart = differences(judged, resamples, seed)
    drawn = reliability(contenders[0], rows, span.words)
    watch.lap("judge")
    return Verdict(span.first, span.words, candidate, judged, apart, rows.rows, drawn)


def _scored(
    store: Store, source: Source, span: _Span, contenders: Sequence[Contender],
    labels: Sequence[str],
) -> Scored:  # fmt: skip
    """The readable hours of ``span`` with the labels known at its cut, scored by everyone."""
    specs = [one.spec for one in contenders if one.spec is not None]
    service, zone = reading(SERVICES["deep_graph_ranking"], specs), source.time_zone
    origin = lineage(store, span.first, span.last, span.cut, service, zone)
    if not origin.hours:
        raise RefusedError(
            f"samples of {span.words} are not there. Run: spark-submit jobs/build_samples.py "
            f"--from-hour {span.first} --to-hour {span.last}"
        )
    missing = hr.difference(span.last, span.first) + 1 - len(origin.hours)
    if missing:
        progress(JOB, f"{missing} hours of {span.words} are not readable, and left out")
    views = service.sequence_views()
    for view in views:
        require_hours(store, view.table, origin.hours, "build_samples")
    read = {name for one in contenders for name in one.reads}
    columns = tuple(name for name in service.columns() if name in read)
    recipe = Recipe(
        span.cut, service.name, columns, dict(source.windows), origin, tuple(labels),
        tuple(view.name for view in views), service.vectors, service.similarities, zone,
    )  # fmt: skip
    batches = training_batches(store, recipe) if views else training_batches(store, recipe, _ROWS)
    return scored(batches, contenders, labels)


def _candidate(registry: Registry, chosen: Plan, hour: str, offline: bool) -> Version | None:
    """The version of this run, or, looking back, the newest that has not seen ``hour``."""
    if offline:
        unseen = [v for v in registry.versions(chosen.name) if v.tags["data_hour"] < hour]
        return max(unseen, key=lambda v: (v.tags["data_hour"], v.version), default=None)
    candidate = find_candidate(registry, chosen)
    if candidate is None:
        raise RefusedError(f"{chosen.name} has no version of hour {hour}. Run: {chosen.command}")
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
    name, token, dry = arguments.name, run_token(arguments.run_id), arguments.dry_run
    evaluation = arguments.evaluation or ("daily" if is_daily(name) else "hourly")
    if evaluation == "daily":
        last = hours[-1] if len(hours) > 1 else None
        summary = evaluate(store, settings, name, hours[0], evaluation, token, dry, last)
        summary.hours = hours
        return summary
    summaries = [evaluate(store, settings, name, hour, evaluation, token, dry) for hour in hours]
    last_summary = summaries[-1]
    last_summary.hours = hours
    last_summary.rows_in = sum(s.rows_in for s in summaries)
    last_summary.rows_out = sum(s.rows_out for s in summaries)
    return last_summary


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "NDCG@1/3/5/10, AUC and GAUC of the candidate of an hour or day, of the champion of that "
        "moment and of popularity, on mature groups, with paired bootstrap intervals.",
        "  evaluate.py --hour 2026-11-11T05\n"
        "  evaluate.py --hour 2026-11-11T05 --evaluation offline\n"
        "  evaluate.py --date 2026-11-11 --evaluation daily --name mmoe_ranker\n",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="registered name [%(default)s]")
    parser.add_argument(
        "--evaluation",
        choices=EVALUATIONS_BY_NAME,
        help="hourly: this hour's candidate on this hour; daily: the candidate of a day, fitted on "
        "the days before, on the hours of the day; offline: who serves, on an hour whose slower "
        "actions are mature by now [daily for what is pre-trained by day, else hourly]",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
