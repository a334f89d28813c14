"""Count an hour's events per feature view, extract the windowed features that changed (Spark)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from feature_store import hours as hr
from feature_store.point_in_time import base_hours
from feature_store.schemas import OUTCOME_ACTIONS
from feature_store.spark_io import TARGET, Target, read_files, read_hours, stage
from feature_store.tables import Staged, Store, Writer
from feature_store.transforms import (
    TILES,
    count_tiles,
    extract_windows,
    stacked_tiles,
    unpack_features,
    unpack_tiles,
)
from feature_store.views import MAX_WINDOW, VIEWS
from jobs.support.arguments import job_parser, run_hours
from jobs.support.entities import categorised
from jobs.support.fencing import claim, run_token
from jobs.support.session import spark_session
from jobs.support.settings import load_settings
from jobs.support.stages import first_hour, largest_hour, require_hours
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build_parser", "extract", "main", "run"]

JOB = "extract_features"


def _events(spark: SparkSession, store: Store, hours: Sequence[str], start: str) -> DataFrame:
    """Events of ``hours`` with their category, only the columns that are counted by."""
    columns = ("user_id", "item_id", "room_id", "action", "value", "event_time", "ingested_at",
               "hour")  # fmt: skip
    events = read_hours(spark, store, "events", hours, columns)
    return categorised(spark, store, events, hr.hour_range(start, hours[-1]))


def _count(spark: SparkSession, store: Store, hours: Sequence[str], start: str) -> list[Staged]:
    """Stage the counts of ``hours`` for every view."""
    tiles = count_tiles(_events(spark, store, hours, start))
    targets = [
        Target(view.counts_table, ("k1", "k2", "tile", "action"), partial(unpack_tiles, view=view))
        for view in VIEWS
    ]
    rows = tiles.withColumn(TARGET, F.col("view")).withColumn("_bucket_key", F.col("k1"))
    return stage(rows, store, targets, hours, largest_hour(store, hours))


def _extract(
    spark: SparkSession, store: Store, hours: Sequence[str], start: str, counted: list[Staged],
    time_zone: str,
) -> list[Staged]:  # fmt: skip
    """Stage the features of every view from the staged counts and the committed ones before."""
    before = hr.hour_range(max(start, hr.add(hours[0], -MAX_WINDOW)), hr.add(hours[0], -1))
    files = [
        (number, path)
        for number, (view, new) in enumerate(zip(VIEWS, counted, strict=True))
        for path in (
            *store.files(view.counts_table, before),
            *(path for paths in new.files.values() for path in paths),
        )
    ]
    tiles = read_files(spark, files, TILES, stacked_tiles)
    rows = extract_windows(tiles, hours[0], hours[-1], base_hours(hours, time_zone))
    rows = rows.withColumn(TARGET, F.col("view")).withColumn("_bucket_key", F.col("k1"))
    targets = [
        Target(view.features_table, ("k1", "k2"), partial(unpack_features, view=view))
        for view in VIEWS
    ]
    largest = largest_hour(store, hr.hour_range(before[0] if before else hours[0], hours[-1]))
    return stage(rows, store, targets, hours, largest)


def require(store: Store, hours: Sequence[str]) -> str:
    """The store's first hour, once everything that ``hours`` need is there.

    Raises:
        RefusedError: when the hours' events, or earlier hours' counts, are not there.
    """
    start = first_hour(store)
    require_hours(store, "events", hours, "validate_events")
    earlier = hr.hour_range(max(start, hr.add(hours[0], -MAX_WINDOW)), hr.add(hours[0], -1))
    for view in VIEWS:
        require_hours(store, view.counts_table, earlier, JOB)
    return start


def extract(
    spark: SparkSession, store: Store, hours: Sequence[str], writer: Writer, time_zone: str,
    dry: bool,
) -> Summary:  # fmt: skip
    """Counts of ``hours`` and features as of the end of each; all computed before any commit."""
    start = require(store, hours)
    progress(JOB, f"counting {len(hours)} hours for {len(VIEWS)} views")
    counted = _count(spark, store, hours, start)
    progress(JOB, f"features as of {hr.add(hours[0], 1)} to {hr.add(hours[-1], 1)}")
    extracted = _extract(spark, store, hours, start, counted, time_zone)
    everything = [*counted, *extracted]
    summary = Summary(
        JOB,
        hours,
        "dry-run" if dry else "done",
        rows_in=sum(c.rows for c in store.ledger.readable("events", hours[0], hours[-1]).values()),
        rows_out=sum(sum(staged.rows.values()) for staged in extracted),
        details={staged.table: sum(staged.rows.values()) for staged in everything},
    )
    if not dry:
        summary.snapshots = {staged.table: store.commit(staged, writer) for staged in everything}
    progress(JOB, f"{summary.rows_out} feature rows")
    return summary


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    source = settings.open_source()
    hours = run_hours(arguments, source.time_zone)
    store = settings.open_store()
    writer = claim(store, JOB, hours, run_token(arguments.run_id))
    require(store, hours)  # before the seconds that a session takes
    with spark_session(JOB, settings.spark) as spark:
        return extract(spark, store, hours, writer, source.time_zone, arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    return job_parser(
        JOB,
        f"Count the {len(OUTCOME_ACTIONS) + 1} actions per key and half-hour, and write the "
        "features of every key whose counts changed or left a window, as of the end of the hour.",
        "  spark-submit jobs/extract_features.py --hour 2026-11-11T05\n"
        "  spark-submit jobs/extract_features.py --from-hour 2026-11-11T00 \\\n"
        "      --to-hour 2026-11-11T05\n",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
