"""Bring a store from nothing to a range of hours in one Spark session, with a first champion."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from collections.abc import Callable, Sequence

from feature_store import hours as hr
from jobs import build_graph, embed_graph
from jobs.build_samples import build
from jobs.evaluate import evaluate
from jobs.extract_features import extract
from jobs.ingest_events import ingest
from jobs.promote import promote
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.session import spark_session
from jobs.support.settings import load_settings
from jobs.support.summary import Summary, main_of, progress
from jobs.train_gbdt import DEFAULT_NAME, train
from jobs.validate_events import validate

__all__ = ["build_parser", "main", "run"]

JOB = "bootstrap"


def _timed(step: str, run_step: Callable[[], Summary], seconds: dict[str, float]) -> Summary:
    progress(JOB, f"{step} ...")
    started = time.monotonic()
    summary = run_step()
    seconds[step] = round(time.monotonic() - started, 1)
    progress(JOB, f"{step}: {summary.status} in {seconds[step]} s {summary.message}")
    return summary


def _complete_day(hours: Sequence[str], time_zone: str) -> str | None:
    """The last business day that lies in ``hours`` as a whole, if that is the last that ended."""
    after = hr.day_of(hr.add(hours[-1], 1), time_zone)
    day = (after - dt.timedelta(days=1)).isoformat()
    return day if hr.date_hours(day, time_zone)[0] >= hours[0] else None


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    source = settings.open_source()
    hours = run_hours(arguments, source.time_zone)
    store, token, dry = settings.open_store(), run_token(arguments.run_id), arguments.dry_run
    name, last = DEFAULT_NAME, hours[-1]
    day = _complete_day(hours, source.time_zone)
    seconds: dict[str, float] = {}
    ingested = _timed("ingest_events", lambda: ingest(store, settings, hours, token, dry), seconds)
    if dry:  # every later stage reads what the one before committed
        ingested.job, ingested.message = JOB, f"dry run: only ingested; {ingested.message}"
        return ingested
    _timed(
        "validate_events",
        lambda: validate(store, settings, hours, token, arguments.accept, dry),
        seconds,
    )
    with spark_session(JOB, settings.spark) as spark:
        features = claim(store, "extract_features", hours, token)
        _timed(
            "extract_features",
            lambda: extract(spark, store, hours, features, source.time_zone, dry),
            seconds,
        )
        samples = claim(store, "build_samples", hours, token)
        built = _timed(
            "build_samples", lambda: build(spark, store, settings, hours, samples, dry), seconds
        )
        if day is not None:
            ends = hr.date_hours(day, source.time_zone)
            graph = claim(store, build_graph.JOB, ends[-1:], token)
            _timed(
                "build_graph",
                lambda: build_graph.build(spark, store, settings, day, graph, dry),
                seconds,
            )
    if day is not None:
        _timed(
            "embed_graph",
            lambda: embed_graph.embed(store, settings, day, ends, token, dry),
            seconds,
        )
        _timed(
            "promote metapath2vec",
            lambda: promote(
                store, settings, embed_graph.NAME, hr.add(ends[-1], 1), token, dry, "daily"
            ),
            seconds,
        )
    trained = _timed("train_gbdt", lambda: train(store, settings, name, last, token, dry), seconds)
    _timed("evaluate", lambda: evaluate(store, settings, name, last, "hourly", token, dry), seconds)
    _timed("promote", lambda: promote(store, settings, name, last, token, dry), seconds)
    return Summary(
        JOB,
        hours,
        rows_in=ingested.rows_in,
        rows_out=built.rows_out,
        rejected=ingested.rejected,
        snapshots=built.snapshots,
        model=trained.model,
        mlflow_run_url=trained.mlflow_run_url,
        message=f"{len(hours)} hours; {trained.message}",
        details=seconds,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Ingest, validate, extract features and build samples for a range of hours set-wise in one "
        "Spark session, embed the graph of the last complete business day among them, then train, "
        "evaluate and promote one gbdt_ranker of the last hour. The tables are the same as after "
        "one run per hour.",
        "  spark-submit jobs/bootstrap.py --from-hour 2026-11-08T00 --to-hour 2026-11-10T20\n"
        "  spark-submit jobs/bootstrap.py --config conf/kuairand.yaml --data ../kuairand \\\n"
        "      --from-hour 2022-04-24T15 --to-hour 2022-05-01T12\n",
    )
    parser.add_argument("--accept", metavar="REASON", help="accept hours that a gate refuses")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
