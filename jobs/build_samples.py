"""Build an hour's samples (impressions with features in time) and attributed outcomes (Spark)."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from feature_store import hours as hr
from feature_store.attribution import attribute, lookback_hours
from feature_store.gates import measure
from feature_store.point_in_time import (
    KNOWN_ATTRIBUTES,
    build_samples,
    feature_hours,
    impressions,
    stacked_attributes,
    unpack_samples,
)
from feature_store.schemas import EVENTS
from feature_store.spark_io import TARGET, Target, read_files, read_hours, stage
from feature_store.tables import Store, Writer
from feature_store.transforms import FEATURE_ROWS, stacked_features
from feature_store.views import ATTRIBUTES, VIEWS
from jobs.support.arguments import job_parser, run_hours
from jobs.support.entities import with_keys
from jobs.support.fencing import claim, run_token
from jobs.support.session import spark_session
from jobs.support.settings import Settings, load_settings
from jobs.support.stages import first_hour, largest_hour, require_hours
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build", "build_parser", "main", "run"]

JOB = "build_samples"


def _samples(
    spark: SparkSession, store: Store, hours: Sequence[str], needed: Sequence[str], time_zone: str
) -> DataFrame:
    known = hr.hour_range(first_hour(store), hours[-1])
    events = read_hours(spark, store, "events", hours, EVENTS.names)
    shown = with_keys(spark, store, impressions(events), known).persist()
    features = [
        (number, path)
        for number, view in enumerate(VIEWS)
        for path in store.files(view.features_table, needed)
    ]
    attributes = [
        (number, path)
        for number, view in enumerate(ATTRIBUTES)
        for path in store.files(view.table, known)
    ]
    return build_samples(
        shown,
        read_files(spark, features, FEATURE_ROWS, stacked_features),
        read_files(spark, attributes, KNOWN_ATTRIBUTES, stacked_attributes),
        time_zone,
    )


def _outcomes(
    spark: SparkSession, store: Store, hours: Sequence[str], windows: Mapping[str, int],
    lateness: int,
) -> DataFrame:  # fmt: skip
    """Attributed outcomes of ``hours``."""
    back = hr.add(hours[0], -lookback_hours(windows, lateness))
    earlier = store.readable_hours("events", back, hr.add(hours[0], -1))
    columns = ("event_id", "event_time", "ingested_at", "request_id", "impression_id", "user_id",
               "target_type", "target_id", "action", "value", "hour")  # fmt: skip
    events = read_hours(spark, store, "events", [*earlier, *hours], columns).persist()
    outcomes = events.where(F.col("action").isin(sorted(windows)) & (F.col("hour") >= hours[0]))
    return attribute(outcomes, events.where("action = 'impression'"), windows)


def _count_outcomes(store: Store, hours: Sequence[str], windows: Mapping[str, int]) -> int:
    """How many events of ``hours`` are outcomes of declared actions."""
    counted = measure(store.batches("events", hours, ["action"]))
    return sum(counted.get(action, 0) for action in windows)


def require(store: Store, settings: Settings, hours: Sequence[str]) -> list[str]:
    """The hours of features that samples of ``hours`` read, once everything is there.

    Raises:
        RefusedError: when the hours' events, or features before them, are not there.
    """
    lateness = math.ceil(settings.ingest.allowed_lateness_hours)
    start = first_hour(store)
    require_hours(store, "events", hours, "validate_events")
    zone = settings.open_source().time_zone
    needed = feature_hours(hours[0], hours[-1], start, lateness, zone)
    for view in VIEWS:
        require_hours(store, view.features_table, needed, "extract_features")
    return needed


def build(
    spark: SparkSession, store: Store, settings: Settings, hours: Sequence[str], writer: Writer,
    dry: bool,
) -> Summary:  # fmt: skip
    """Samples and outcomes of ``hours``, both computed before any commit."""
    source = settings.open_source()
    lateness = math.ceil(settings.ingest.allowed_lateness_hours)
    needed = require(store, settings, hours)
    progress(JOB, f"samples of {len(hours)} hours with features of {len(needed)} hours")
    largest = largest_hour(store, hours)
    rows = _samples(spark, store, hours, needed, source.time_zone)
    rows = rows.withColumns({TARGET: F.lit(0), "_bucket_key": F.col("event_id")})
    target = Target("samples", ("event_id", "view"), unpack_samples)
    [samples] = stage(rows, store, [target], hours, largest)
    rows = _outcomes(spark, store, hours, source.windows, lateness)
    rows = rows.withColumns({TARGET: F.lit(0), "_bucket_key": F.col("event_id")})
    target = Target("outcomes", ("event_id", "sample_id"))
    [outcomes] = stage(rows, store, [target], hours, largest)
    found = sum(outcomes.rows.values())
    summary = Summary(
        JOB,
        hours,
        "dry-run" if dry else "done",
        rows_in=sum(c.rows for c in store.ledger.readable("events", hours[0], hours[-1]).values()),
        rows_out=sum(samples.rows.values()),
        rejected={"unattributed_outcome": _count_outcomes(store, hours, source.windows) - found},
        details={"outcomes": found},
    )
    if not dry:
        # Outcomes first: where an hour's samples are complete its outcomes are as well.
        summary.snapshots = {s.table: store.commit(s, writer) for s in (outcomes, samples)}
    progress(JOB, f"{summary.rows_out} samples, {found} outcomes")
    return summary


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    writer = claim(store, JOB, hours, run_token(arguments.run_id))
    require(store, settings, hours)  # before the seconds that a session takes
    with spark_session(JOB, settings.spark) as spark:
        return build(spark, store, settings, hours, writer, arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    return job_parser(
        JOB,
        "Join every impression of an hour with the features of its ranking group's as_of, "
        "attribute the hour's clicks, stays, orders and follows to impressions, and commit both.",
        "  spark-submit jobs/build_samples.py --hour 2026-11-11T05\n"
        "  spark-submit jobs/build_samples.py --from-hour 2026-11-11T00 --to-hour 2026-11-11T05\n",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
