"""Build an hour's samples (impressions with features in time), outcomes and sequences (Spark)."""

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
from feature_store.sequence_frames import (
    behaviour,
    known_behaviour,
    known_offers,
    offers,
    requests,
    sequence_rows,
    targets,
)
from feature_store.sequence_views import BEHAVIOUR_ACTIONS, MAX_LOOKBACK_HOURS
from feature_store.spark_io import TARGET, Target, read_files, read_hours, stage
from feature_store.tables import Staged, Store, Writer
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
_FILTERED_ROWS = 2_000_000
"""Up to so many samples the tasks read only the behaviour of their users and rooms."""


def _events(spark: SparkSession, store: Store, hours: Sequence[str]) -> DataFrame:
    """What samples and behaviour are made of, with its derived keys; read and looked up once."""
    events = read_hours(spark, store, "events", hours, EVENTS.names)
    events = events.where(F.col("action").isin("impression", *BEHAVIOUR_ACTIONS))
    known = hr.hour_range(first_hour(store), hours[-1])
    return with_keys(spark, store, events, known).persist()


def _samples(
    spark: SparkSession, store: Store, events: DataFrame, hours: Sequence[str],
    needed: Sequence[str], time_zone: str,
) -> DataFrame:  # fmt: skip
    known = hr.hour_range(first_hour(store), hours[-1])
    shown = impressions(events).persist()
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
    lookback = lookback_hours(windows, lateness)
    first, last = hr.add(hours[0], -lookback), hr.add(hours[0], -1)
    earlier = store.readable_hours("events", first, last)
    columns = ("event_id", "event_time", "ingested_at", "request_id", "impression_id", "user_id",
               "target_type", "target_id", "action", "value", "hour")  # fmt: skip
    events = read_hours(spark, store, "events", [*earlier, *hours], columns).persist()
    outcomes = events.where(F.col("action").isin(sorted(windows)) & (F.col("hour") >= hours[0]))
    return attribute(outcomes, events.where("action = 'impression'"), windows, lookback)


def _staged_files(staged: Staged) -> list[str]:
    return [path for paths in staged.files.values() for path in paths]


def _behaviour(spark: SparkSession, events: DataFrame, outcomes: Staged) -> DataFrame:
    """What users did in ``events``, with what it was attributed to."""
    acted = events.where(F.col("action").isin(list(BEHAVIOUR_ACTIONS)))
    columns = ("hour", "event_id", "sample_id")
    attributed = read_files(
        spark,
        [(0, path) for path in _staged_files(outcomes)],
        "hour string, event_id string, sample_id string",
        lambda rows, _tag: rows.select(columns),
        columns,
    )
    return behaviour(acted, attributed)


def _sequences(
    spark: SparkSession, store: Store, hours: Sequence[str], lateness: int, samples: Staged,
    acted: Staged,
) -> DataFrame:  # fmt: skip
    """Sequences of every view for the staged ``samples``, from behaviour and offers before them."""
    start = first_hour(store)
    shown = _staged_files(samples)
    # A range asks for most keys that there are: then every row is read, and no task holds all keys.
    only = shown if sum(samples.rows.values()) <= _FILTERED_ROWS else None
    before = store.files("behaviour", behaviour_hours(hours, start, lateness)) if shown else []
    within = [path for hour in hours[:-1] for path in acted.files[hour]]
    known = [known_behaviour(spark, [*before, *within], only)]
    heard = hr.hour_range(start, hours[-1])
    offered = store.files("room_items", heard) if shown else []
    if offered:
        rows = with_keys(spark, store, offers(spark, offered, only), heard)
        known.append(known_offers(rows))
    entities = ("user_id", "room_id") if offered else ("user_id",)
    return sequence_rows(known, requests(spark, shown, entities))


def behaviour_hours(hours: Sequence[str], start: str, lateness: int) -> list[str]:
    """The hours of behaviour before ``hours`` that sequences of their samples read."""
    earliest = hr.add(hours[0], -lateness - MAX_LOOKBACK_HOURS)
    return hr.hour_range(max(start, earliest), hr.add(hours[0], -1))


def _count_outcomes(store: Store, hours: Sequence[str], windows: Mapping[str, int]) -> int:
    """How many events of ``hours`` are outcomes of declared actions."""
    counted = measure(store.batches("events", hours, ["action"]))
    return sum(counted.get(action, 0) for action in windows)


def require(store: Store, settings: Settings, hours: Sequence[str]) -> list[str]:
    """The hours of features that samples of ``hours`` read, once everything is there.

    Raises:
        RefusedError: when the hours' events, or features or behaviour before them, are not there.
    """
    lateness = math.ceil(settings.ingest.allowed_lateness_hours)
    start = first_hour(store)
    require_hours(store, "events", hours, "validate_events")
    zone = settings.open_source().time_zone
    needed = feature_hours(hours[0], hours[-1], start, lateness, zone)
    for view in VIEWS:
        require_hours(store, view.features_table, needed, "extract_features")
    require_hours(store, "behaviour", behaviour_hours(hours, start, lateness), JOB)
    return needed


def build(
    spark: SparkSession, store: Store, settings: Settings, hours: Sequence[str], writer: Writer,
    dry: bool,
) -> Summary:  # fmt: skip
    """Samples, outcomes and sequences of ``hours``, all computed before any commit."""
    source = settings.open_source()
    lateness = math.ceil(settings.ingest.allowed_lateness_hours)
    needed = require(store, settings, hours)
    progress(JOB, f"samples of {len(hours)} hours with features of {len(needed)} hours")
    largest = largest_hour(store, hours)
    events = _events(spark, store, hours)
    rows = _samples(spark, store, events, hours, needed, source.time_zone)
    rows = rows.withColumns({TARGET: F.lit(0), "_bucket_key": F.col("event_id")})
    target = Target("samples", ("event_id", "view"), unpack_samples)
    [samples] = stage(rows, store, [target], hours, largest)
    rows = _outcomes(spark, store, hours, source.windows, lateness)
    rows = rows.withColumns({TARGET: F.lit(0), "_bucket_key": F.col("event_id")})
    target = Target("outcomes", ("event_id", "sample_id"))
    [outcomes] = stage(rows, store, [target], hours, largest)
    rows = _behaviour(spark, events, outcomes)
    rows = rows.withColumns({TARGET: F.lit(0), "_bucket_key": F.col("user_id")})
    target = Target("behaviour", ("user_id", "event_time", "event_id"))
    [acted] = stage(rows, store, [target], hours, largest)
    rows = _sequences(spark, store, hours, lateness, samples, acted)
    sequences = stage(rows, store, targets(), hours, largest)
    found = sum(outcomes.rows.values())
    summary = Summary(
        JOB,
        hours,
        "dry-run" if dry else "done",
        rows_in=sum(c.rows for c in store.ledger.readable("events", hours[0], hours[-1]).values()),
        rows_out=sum(samples.rows.values()),
        rejected={"unattributed_outcome": _count_outcomes(store, hours, source.windows) - found},
        details={s.table: sum(s.rows.values()) for s in (outcomes, acted, *sequences)},
    )
    if not dry:
        # Samples last: where an hour's samples are complete everything beside them is as well.
        everything = (outcomes, acted, *sequences, samples)
        summary.snapshots = {s.table: store.commit(s, writer) for s in everything}
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
        "attribute the hour's clicks, stays, orders and follows to impressions, take the sequences "
        "of its users and rooms from what arrived before, and commit all of it.",
        "  spark-submit jobs/build_samples.py --hour 2026-11-11T05\n"
        "  spark-submit jobs/build_samples.py --from-hour 2026-11-11T00 --to-hour 2026-11-11T05\n",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
