"""Judge models by ranking metrics on hours that none of them has seen, beside baselines."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from feature_store import hours as hr
from feature_store.labels import LABELS
from feature_store.schemas import EVALUATIONS
from feature_store.tables import Store
from jobs.support.arguments import job_parser, run_hours
from jobs.support.contenders import BASELINES, POPULARITY, champions
from jobs.support.evaluating import Span, judged, readable_sizes
from jobs.support.evaluation_output import headline, keep, page_of, tell, write_page
from jobs.support.fencing import claim, one_at_a_time, run_token
from jobs.support.judged_hours import Loaded, Served, Serving
from jobs.support.judging import GRADED, judgeable
from jobs.support.logged_page import LoggedPage, log_page
from jobs.support.metrics_file import CHAMPION, champion_of
from jobs.support.plans import DEFAULT_NAME, Plan, find_candidate, is_daily, plan_of
from jobs.support.serving import Asked, asked, serving_of
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.stopwatch import STEPS, Stopwatch
from jobs.support.summary import RefusedError, Summary, main_of, progress, skipped
from jobs.support.unseen import newest_before
from jobs.support.verdicts import Verdict, logged, table_rows
from models.registry import Registry, Version
from models.versions import EVALUATION_FOLDER, Artefact, artefact_url

__all__ = ["EVALUATIONS_BY_NAME", "build_parser", "compare", "evaluate", "main", "run"]

JOB = "evaluate"
EVALUATIONS_BY_NAME: Final = ("hourly", "offline", "daily")
RANGE: Final = "range"
"""The evaluation of any models over any hours."""
_REPORT: Final = "report.html"


def _say(message: str) -> None:
    progress(JOB, message)


@dataclass(frozen=True)
class _Found:
    """What was found on one span of hours, and its page."""

    span: Span
    verdict: Verdict
    version: Version
    champion: Version | None
    page: str
    stem: str

    @property
    def files(self) -> dict[str, Artefact]:
        """What the version's run keeps."""
        drawn = self.verdict.reliability
        plot = {} if drawn is None else {f"{self.stem}-reliability": drawn}
        return {f"{self.stem}.html": self.page, **plot}


def evaluate(
    store: Store, settings: Settings, name: str, hour: str, evaluation: str, token: str, dry: bool,
    last: str | None = None, page: Path | None = None,
) -> Summary:  # fmt: skip
    """Judge the models of ``name`` at ``hour`` and keep the result.

    ``hourly`` judges the candidate of ``hour`` beside the champion of that moment on ``hour``
    itself, cut one hour later. ``daily`` judges it on all hours up to ``last`` (by default 24 of
    them), cut after the last. ``offline`` judges, at the hourly cut, the newest version that has
    not seen them on the hours ``lag_hours`` back, whose slower actions are mature by now.

    Args:
        page: write the report of the first hours here as well.
    """
    watch, labels = Stopwatch(), _labels(settings, every=evaluation == "offline")
    writer = claim(store, f"{JOB}:{evaluation}:{name}", [hour], token)
    chosen = plan_of(store, settings, name, hour)
    summary = Summary(JOB, [hour])
    if not chosen.complete:
        return skipped(summary, chosen.shortage())
    registry = Registry(settings.tracking())
    spans = _spans(settings, hour, evaluation, last)
    watch.lap("plan")
    found = _found(store, settings, registry, chosen, spans, labels, evaluation, watch)
    if not found:
        lags = tuple(span.lag for span in spans)
        return skipped(summary, f"no version of {name} is older than the hours {lags} h back")
    kept = [table_rows(one.verdict, evaluation, hour, one.span.cut) for one in found]
    rows = pa.Table.from_pylist([r for made, _ in kept for r in made], schema=EVALUATIONS)
    first = found[0]
    summary.rows_in = sum(one.verdict.rows for one in found)
    summary.rows_out = rows.num_rows
    summary.model = {"name": name, "version": first.version.version}
    summary.mlflow_run_url = registry.run_url(first.version.run_id)
    summary.report_url = artefact_url(
        summary.mlflow_run_url, f"{EVALUATION_FOLDER}/{first.stem}.html"
    )
    champion = first.champion
    known = None if champion is None else champion_of(champion.version, champion.tags)
    summary.details = {**headline(first.verdict), CHAMPION: known, STEPS: watch.seconds}
    words = ", ".join(one.span.words for one in found)
    summary.message = f"judged {words}, cut {first.span.cut}"
    write_page(page, first.page, _say)
    if dry:
        summary.status = "dry-run"
        return summary
    groups = pa.concat_tables([g for _, g in kept])
    with (
        store.ledger.holding(writer.stage, [hour], writer.token),
        one_at_a_time(store, f"{JOB}:{evaluation}", [hour], token),
    ):
        names = [name, *BASELINES]
        summary.snapshots = {
            "evaluation_groups": keep(store, groups, "evaluation_groups", names, hour, evaluation),
            "evaluations": keep(store, rows, "evaluations", names, hour, evaluation),
        }
        watch.lap("keep")
        for one in found:
            metrics = logged(one.verdict, _prefix(one.span, evaluation))
            registry.log_evaluation(one.version, metrics, artefacts=one.files)
    watch.lap("log")
    return summary


def _found(
    store: Store, settings: Settings, registry: Registry, chosen: Plan, spans: Sequence[Span],
    labels: Sequence[str], evaluation: str, watch: Stopwatch,
) -> list[_Found]:  # fmt: skip
    """Candidate, champions and baselines on each of ``spans`` that has a candidate."""
    found, loaded, offline = [], Loaded(registry), evaluation == "offline"
    for span in spans:
        candidate = _candidate(registry, chosen, span.first, offline)
        if candidate is None:
            continue
        sizes = readable_sizes(store, span, _say)
        roles = {"candidate": candidate, **champions(store, registry, chosen.name, span.first)}
        serving, reference = _constant(roles, sizes)
        verdict, plan = judged(
            store, settings, span, sizes, serving, loaded, labels, reference, watch, _say,
            candidate,
        )  # fmt: skip
        tell(verdict, _say)
        page = page_of(store, span, verdict, plan, loaded, evaluation, _say)
        stem = f"{_prefix(span, evaluation)}-{span.first}"
        found.append(_Found(span, verdict, candidate, roles.get("champion"), page, stem))
        watch.lap("report")
    return found


def compare(
    store: Store, settings: Settings, models: Sequence[Asked], span: Span, token: str, dry: bool,
    page: Path | None = None, lag: int = 0,
) -> Summary:  # fmt: skip
    """Judge any models over any hours: the first of ``models`` beside the others and the baselines.

    Every hour is served by versions that were fitted before it. The result is kept in
    ``evaluations`` under the first hour, evaluation ``range``, and its report in MLflow.

    Args:
        page: write the report here as well.
        lag: hours; where above 0, the first model is judged on features so much older as well.

    Raises:
        RefusedError: when no hour is served by all models, or none has samples.
    """
    watch, labels = Stopwatch(), _labels(settings, every=True)
    key = _key(models, span)
    writer = claim(store, f"{JOB}:{RANGE}:{key}", [span.first], token)
    registry = Registry(settings.tracking())
    sizes = readable_sizes(store, span, _say)
    serving, absent = serving_of(store, registry, models, list(sizes))
    for sentence in absent:
        _say(f"{sentence}; those are left out for all")
    served = {hour: rows for hour, rows in sizes.items() if hour in serving}
    reference = models[1].text if len(models) > 1 else POPULARITY
    watch.lap("plan")
    loaded = Loaded(registry)
    verdict, plan = judged(
        store, settings, span, served, serving, loaded, labels, reference, watch, _say, lag=lag
    )
    tell(verdict, _say)
    rows, _ = table_rows(verdict, RANGE, span.first, span.cut)
    table = pa.Table.from_pylist(rows, schema=EVALUATIONS)
    summary = Summary(JOB, span.hours, rows_in=verdict.rows, rows_out=table.num_rows)
    summary.details = {**headline(verdict), STEPS: watch.seconds}
    summary.message = f"judged {len(served)} hours of {span.words}, cut {span.cut}"
    text = page_of(store, span, verdict, plan, loaded, RANGE, _say, absent)
    watch.lap("report")
    write_page(page, text, _say)
    if dry:
        summary.status = "dry-run"
        return summary
    with (
        store.ledger.holding(writer.stage, [span.first], writer.token),
        one_at_a_time(store, f"{JOB}:{RANGE}", [span.first], token),
    ):
        names = [*(one.name for one in models), *BASELINES]
        summary.snapshots = {
            "evaluations": keep(store, table, "evaluations", names, span.first, RANGE)
        }
    made = LoggedPage(
        "evaluations", key, f"{models[0].text}, {span.words}",
        {"models": ",".join(one.text for one in models), "hours": len(served), "cut": span.cut},
        logged(verdict, "heldout"), {_REPORT: text},
    )  # fmt: skip
    summary.mlflow_run_url = log_page(JOB, store, settings, made, [span.first], token, writer.stage)
    summary.report_url = artefact_url(summary.mlflow_run_url, _REPORT)
    watch.lap("keep_and_log")
    return summary


def _prefix(span: Span, evaluation: str) -> str:
    """How metrics of an evaluation begin on a version's run."""
    return f"offline_{span.lag}h" if evaluation == "offline" else "heldout"


def _key(models: Sequence[Asked], span: Span) -> str:
    text = ",".join(one.text for one in models)
    return f"{span.first}:{span.last}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _spans(settings: Settings, hour: str, evaluation: str, last: str | None) -> list[Span]:
    cut = hr.add(hour, 1)
    if evaluation == "offline":
        back = {lag: hr.add(hour, -lag) for lag in settings.evaluation.lag_hours}
        return [Span(past, past, cut, lag) for lag, past in back.items()]
    if evaluation == "hourly":
        return [Span(hour, hour, cut)]
    last = last or hr.add(hour, 23)
    return [Span(hour, last, hr.add(last, 1))]


def _labels(settings: Settings, every: bool) -> list[str]:
    """Those that are judged, the main one first.

    Raises:
        SettingsError: for grades of a label that the source does not declare.
    """
    wanted, windows = settings.evaluation.labels, settings.open_source().windows
    names = dict.fromkeys((*wanted, *LABELS)) if every else wanted
    grades = tuple(settings.evaluation.grades)
    absent = sorted(set(grades) - set(judgeable(grades, windows)))
    if absent:
        raise SettingsError(
            f"configuration evaluation.grades names {absent}, which are no labels of 0 and 1 that "
            f"source {settings.source_name} declares; leave them out"
        )
    return [*judgeable(tuple(names), windows), *([GRADED] if grades else [])]


def _constant(roles: dict[str, Version], hours: Sequence[str]) -> tuple[Serving, str]:
    """The same versions for all ``hours``, and the role to compare segments with."""
    served = tuple(Served(role, one.name, one.version) for role, one in roles.items())
    reference = "champion" if "champion" in roles else POPULARITY
    return dict.fromkeys(hours, served), reference


def _candidate(registry: Registry, chosen: Plan, hour: str, offline: bool) -> Version | None:
    """The version of this run, or, looking back, the newest that has not seen ``hour``."""
    if offline:
        return newest_before(registry, chosen.name, hour)
    candidate = find_candidate(registry, chosen)
    if candidate is None:
        raise RefusedError(f"{chosen.name} has no version of hour {hour}. Run: {chosen.command}")
    return candidate


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    name, token, dry = arguments.name, run_token(arguments.run_id), arguments.dry_run
    if arguments.models:
        cut = _cut(arguments.cut, hours)
        span = Span(hours[0], hours[-1], cut)
        return compare(
            store, settings, arguments.models, span, token, dry, arguments.page,
            arguments.feature_lag,
        )  # fmt: skip
    if arguments.cut or arguments.feature_lag:
        raise SettingsError("--cut and --feature-lag go with --models")
    evaluation = arguments.evaluation or ("daily" if is_daily(name) else "hourly")
    if evaluation == "daily":
        last = hours[-1] if len(hours) > 1 else None
        summary = evaluate(
            store, settings, name, hours[0], evaluation, token, dry, last, arguments.page
        )
        summary.hours = hours
        return summary
    summaries = [
        evaluate(store, settings, name, hour, evaluation, token, dry, page=arguments.page)
        for hour in hours
    ]
    last_summary = summaries[-1]
    last_summary.hours = hours
    last_summary.rows_in = sum(s.rows_in for s in summaries)
    last_summary.rows_out = sum(s.rows_out for s in summaries)
    return last_summary


def _cut(text: str | None, hours: Sequence[str]) -> str:
    """The hour at which labels are cut: after the last by default.

    Raises:
        SettingsError: for a text that is no hour, or one before the last hour's end.
    """
    least = hr.add(hours[-1], 1)
    try:
        cut = hr.parse(text) if text else least
    except hr.HourError as error:
        raise SettingsError(f"--cut: {error}") from error
    if cut < least:
        raise SettingsError(
            f"--cut {cut} lies before the end of {hours[-1]}; name {least} or later"
        )
    return cut


def _hours(text: str) -> int:
    """Hours back; below 0 a model would be served what was published later."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours; give 0 or more")
    return int(text)


def _models(text: str) -> tuple[Asked, ...]:
    try:
        return asked(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "NDCG, MAP, MRR, recall, AUC, GAUC, log loss and calibration of the candidate of an hour\n"
        "or day, of the champion of that moment and of baselines, on mature groups, with paired\n"
        "bootstrap intervals, segments and a report. With --models, of any models over any range\n"
        "of hours, each hour served by versions that had not seen it.",
        "  evaluate.py --hour 2026-11-11T05\n"
        "  evaluate.py --hour 2026-11-11T05 --evaluation offline\n"
        "  evaluate.py --date 2026-11-11 --evaluation daily --name mmoe_ranker\n"
        "  evaluate.py --from-hour 2026-11-10T00 --to-hour 2026-11-11T23 \\\n"
        "      --models gbdt_ranker,gbdt_ranker@champion,mmoe_ranker/3 --page report.html\n"
        "      (millions of rows are judged by Spark's tasks: start it by spark-submit)\n",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="registered name [%(default)s]")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--evaluation",
        choices=EVALUATIONS_BY_NAME,
        help="hourly: this hour's candidate on this hour; daily: the candidate of a day, fitted on "
        "the days before, on the hours of the day; offline: who serves, on an hour whose slower "
        "actions are mature by now [daily for what is pre-trained by day, else hourly]",
    )
    which.add_argument(
        "--models", type=_models, metavar="M,M,...",
        help="compare these over all the hours, the first one with the others: NAME is the newest "
        "version before each hour, NAME@champion who served then, NAME/3 version 3",
    )  # fmt: skip
    parser.add_argument(
        "--cut", metavar="H", help="with --models: labels known before H [after the last hour]"
    )
    parser.add_argument(
        "--feature-lag", type=_hours, default=0, metavar="HOURS",
        help="with --models: judge the first one on features so much older as well [none]",
    )  # fmt: skip
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the report here as well")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
