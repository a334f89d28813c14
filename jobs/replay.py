"""Serve past hours again with models of several cadences, and compare hourly with daily."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from feature_store import hours as hr
from feature_store.tables import Store
from feature_store.training_set import MovingSet, lineage
from jobs.support.arguments import job_parser, run_hours
from jobs.support.cadences import BASELINE, CADENCES, Cadence, cadences
from jobs.support.fencing import claim, run_token
from jobs.support.judging import judgeable
from jobs.support.logged_page import LoggedPage, log_page
from jobs.support.plans import DEFAULT_NAME, MIN_HOURS, gbdt_plan
from jobs.support.replay_page import (
    CadenceLine,
    hours_csv,
    lines_of,
    replay_figures,
    replay_lines,
    replay_page,
)
from jobs.support.replaying import Replay, Track
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.summary import RefusedError, Summary, main_of, progress, skipped
from models.base import ConfigError
from models.gbdt import GBDTConfig

__all__ = ["Replayed", "build_parser", "main", "replay", "run"]

JOB = "replay"
_DEFAULT: Final = "daily,hourly,hourly_continue,hourly_refit"


@dataclass(frozen=True)
class Replayed:
    """A replay that came to its end: tracks, a line each and label, figures of the first label."""

    tracks: Sequence[Track]
    lines: Sequence[CadenceLine]
    figures: dict[str, Any]
    rows: int


def _configs(settings: Settings, chosen: Sequence[Cadence]) -> dict[str, GBDTConfig]:
    """The trees' configuration by way.

    Raises:
        SettingsError: for a way in which they cannot come about.
    """
    found = {}
    for way in ("retrain", *(one.way for one in chosen)):
        try:
            found[way] = GBDTConfig.from_dict({**settings.train.gbdt, "way": way})
        except ConfigError as error:
            raise SettingsError(
                f"configuration train.gbdt, as a cadence has it: {error}"
            ) from error
    return found


def _first_fits(chosen: Sequence[Cadence], hour: str, zone: str) -> dict[str, Cadence]:
    """By moment a cadence that is fitted then, so that ``hour`` is served first."""
    found: dict[str, Cadence] = {}
    for one in chosen:
        for moment in one.moments(hour, zone):
            found.setdefault(moment, one)
    return found


def _shortage(rows: Replay, first: dict[str, Cadence]) -> str | None:
    """Why the first hour cannot be served; None when it can."""
    for moment, cadence in sorted(first.items()):
        complete = rows.complete(moment)
        if complete < MIN_HOURS:
            return (
                f"{complete} complete hours before {moment}, when {cadence.name} fits its first "
                f"model; {MIN_HOURS} are needed to train, evaluate and promote"
            )
    return None


def replay(
    store: Store, settings: Settings, hours: Sequence[str], chosen: Sequence[Cadence]
) -> Replayed | str:
    """Serve ``hours`` with every cadence; or why there is nothing to serve them with.

    Nothing is registered and no table is written.

    Raises:
        TrainingRefused: by the first fit of a cadence.
        RefusedError: when none of ``hours`` has samples.
    """
    labels, zone = _labels(settings), settings.open_source().time_zone
    rows, served = _prepared(store, settings, hours, chosen, labels)
    there = rows.hours(hours[0], hours[-1])
    shortage = _shortage(served, _first_fits(chosen, (there or hours)[0], zone))
    if shortage is not None:
        return shortage
    _check_readable(there, hours)
    tracks = [Track(one) for one in chosen]
    for hour in there:
        served.serve(tracks, hour)
        progress(JOB, _hour_words(tracks, labels[0], hour))
    resamples, seed = settings.evaluation.resamples, settings.evaluation.seed
    lines = lines_of(tracks, labels, resamples, seed)
    drawn = replay_figures(tracks, labels[0], zone, resamples, seed)
    return Replayed(tracks, lines, drawn, served.rows)


def _labels(settings: Settings) -> list[str]:
    """Those that are judged, the main one first.

    Raises:
        SettingsError: when there is none.
    """
    source, wanted = settings.open_source(), settings.evaluation.labels
    labels = judgeable(wanted, source.windows)
    if not labels:
        raise SettingsError(
            f"configuration evaluation.labels {list(wanted)} has none that source {source.name} "
            "declares and that is 0 or 1; name click, for instance"
        )
    return labels


def _prepared(
    store: Store, settings: Settings, hours: Sequence[str], chosen: Sequence[Cadence],
    labels: Sequence[str],
) -> tuple[MovingSet, Replay]:  # fmt: skip
    """The rows that ``hours`` and the fits before them read, at the snapshots of this moment."""
    source, span = settings.open_source(), settings.train.span_hours
    plan = gbdt_plan(store, settings, DEFAULT_NAME, hours[0])
    begin = hr.add(min(_first_fits(chosen, hours[0], source.time_zone)), -span)
    cut = hr.add(hours[-1], 1)
    origin = lineage(store, begin, hours[-1], cut, plan.service, source.time_zone)
    rows = MovingSet(store, replace(plan.recipe(source), cut=cut, lineage=origin))
    served = Replay(
        rows, plan.spec, _configs(settings, chosen), span, source.time_zone, labels,
        settings.evaluation, lambda message: progress(JOB, message),
    )  # fmt: skip
    return rows, served


def _check_readable(there: Sequence[str], hours: Sequence[str]) -> None:
    if not there:
        raise RefusedError(
            f"samples of {hours[0]} to {hours[-1]} are not there. Run: spark-submit "
            f"jobs/build_samples.py --from-hour {hours[0]} --to-hour {hours[-1]}"
        )
    if len(there) < len(hours):
        missing = len(hours) - len(there)
        progress(JOB, f"{missing} of {len(hours)} hours are not readable, and left out")


def _hour_words(tracks: Sequence[Track], label: str, hour: str) -> str:
    judged = {track.cadence.name: track.judged[label][-1] for track in tracks}
    groups = len(judged[BASELINE].ndcg)
    if not groups:
        return f"{hour}: no mature group that has both labels"
    means = (f"{name} {one.ndcg.mean():.4f}" for name, one in judged.items())
    fits = sum(track.fits for track in tracks)
    return f"{hour}: {label} NDCG@10 {', '.join(means)}; {groups} groups; {fits} fits so far"


def _key(settings: Settings, hours: Sequence[str], chosen: Sequence[Cadence]) -> str:
    """A name for what is replayed: a later run of the same name replaces its page."""
    train = settings.train
    asked = [[one.name for one in chosen], train.span_hours, train.feature_service, train.gbdt]
    text = json.dumps(asked, default=dict, sort_keys=True)
    return f"{hours[0]}:{hours[-1]}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _page(settings: Settings, hours: Sequence[str], key: str, found: Replayed) -> LoggedPage:
    train = settings.train
    title = f"Hourly against daily, {hours[0]} to {hours[-1]}"
    words = (
        f"{found.rows:,} impressions. Every hour is served by the newest model of each cadence, "
        f"and judged by the labels known an hour later. Differences to {BASELINE} are paired by "
        "group in NDCG@10, by hour in AUC and log loss; intervals are 95 %. A model that two "
        "cadences share is counted for both."
    )
    metrics = {
        f"{name}_{line.label}_{line.cadence}": float(value)
        for line in found.lines
        for name, value in line.figures().items()
        if isinstance(value, int | float)
    }
    return LoggedPage(
        JOB, key, title,
        {"source": settings.source_name, "hours": len(hours), "span_hours": train.span_hours,
         "feature_service": train.feature_service,
         "cadences": ",".join(track.cadence.name for track in found.tracks),
         "gbdt": json.dumps(train.gbdt, default=dict)},
        metrics,
        {"replay.html": replay_page(title, words, found.lines, found.figures),
         "hours.csv": hours_csv(found.tracks)},
    )  # fmt: skip


def _details(lines: Sequence[CadenceLine]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines:
        found.setdefault(line.label, {})[line.cadence] = line.figures()
    return found


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    store, token = settings.open_store(), run_token(arguments.run_id)
    key = _key(settings, hours, arguments.cadences)
    writer = claim(store, f"{JOB}:{key}", hours, token)
    summary = Summary(JOB, hours)
    found = replay(store, settings, hours, arguments.cadences)
    if isinstance(found, str):
        return skipped(summary, found)
    for text in replay_lines(found.lines):
        progress(JOB, text)
    summary.rows_in = summary.rows_out = found.rows
    summary.details = _details(found.lines)
    shown = found.lines[: len(found.tracks)]
    apart = ", ".join(line.words() for line in shown if line.cadence != BASELINE)
    summary.message = f"{shown[0].label} NDCG@10 minus {BASELINE}'s: {apart}"
    page = _page(settings, hours, key, found)
    if arguments.page is not None:
        arguments.page.write_text(page.files["replay.html"], encoding="utf-8")
        progress(JOB, f"page: {arguments.page}")
    if arguments.dry_run:
        summary.status = "dry-run"
        return summary
    summary.mlflow_run_url = log_page(JOB, store, settings, page, hours, token, writer.stage)
    return summary


def build_parser() -> argparse.ArgumentParser:
    meant = "\n".join(f"  {one.name:16} {one.about}" for one in CADENCES.values())
    parser = job_parser(
        JOB,
        "Is a model an hour worth it? Serve past hours again with the newest LightGBM ranker of "
        "each cadence, every\nmodel fitted on [M - span, M) with the labels known at M and judged "
        "on later hours alone, and compare NDCG@10,\nAUC and log loss, paired by group. A page "
        "with plots is logged to MLflow, experiment 'replay'; no model is\nregistered and no "
        f"table written. With fewer than {MIN_HOURS} complete hours before a first model it says "
        f"`skipped` and\nexits 0.\n\ncadences:\n{meant}",
        "  replay.py --date 2026-11-11\n"
        "  replay.py --from-hour 2026-11-09T16 --to-hour 2026-11-11T15 --cadences hourly,every_6h\n"
        "  replay.py --date 2026-11-11 --config conf/kuairand.yaml --dry-run --page replay.html\n",
    )
    parser.add_argument(
        "--cadences", type=cadences, default=cadences(_DEFAULT), metavar="NAMES",
        help=f"compared with {BASELINE}, which is always among them [{_DEFAULT}]",
    )  # fmt: skip
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page here as well")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
