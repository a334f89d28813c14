"""Build an hour's samples (impressions with features in time), outcomes and sequences (Spark)."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from feature_store import hours as hr
from feature_store.attribution import lookback_hours
from feature_store.derived import EntityFiles
from feature_store.gates import measure
from feature_store.parts import Part, Target, staged_parts
from feature_store.point_in_time import feature_hours
from feature_store.samples import (
    ACTED,
    OUTCOME,
    SAMPLE,
    ActionTask,
    SampleTask,
    actions,
    samples,
)
from feature_store.sequence_frames import (
    SequenceTask,
    sequence_parts,
    spread_sequences,
    targets,
)
from feature_store.sequence_views import MAX_LOOKBACK_HOURS
from feature_store.sources.base import Source
from feature_store.spark_io import TARGET, run_tasks, stage
from feature_store.tables import Staged, Store, Writer
from feature_store.transforms import (
    spread_behaviour,
    spread_impressions,
    spread_outcomes,
    spread_samples,
    unpack_samples,
)
from feature_store.views import ATTRIBUTES, VIEWS
from jobs.support.arguments import job_parser, run_hours
from jobs.support.blocks import TOGETHER, WIDE, blocks, fit_tasks
from jobs.support.fencing import claim, run_token
from jobs.support.session import spark_session
from jobs.support.settings import Settings, load_settings
from jobs.support.stages import entity_files, first_hour, hour_sizes, require_hours
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build", "build_parser", "main", "run"]

JOB = "build_samples"


@dataclass(frozen=True)
class _Plan:
    """What the samples of ``hours`` are made from."""

    store: Store
    source: Source
    sizes: Mapping[str, int]  # the hours, and their events
    start: str  # first hour of the store
    lateness: int
    features: Mapping[str, Mapping[str, Sequence[str]]]  # files by table and hour
    entities: EntityFiles
    attributes: Sequence[Sequence[str]]  # files by attribute view

    @classmethod
    def of(
        cls, store: Store, source: Source, hours: Sequence[str], needed: Sequence[str],
        lateness: int,
    ) -> _Plan:  # fmt: skip
        start = first_hour(store)
        known = hr.hour_range(start, hours[-1])
        tables = [view.features_table for view in VIEWS]
        return cls(
            store, source, hour_sizes(store, hours), start, lateness,
            {table: store.files_by_hour(table, list(needed)) for table in tables},
            entity_files(store, known),
            [store.files(view.table, known) for view in ATTRIBUTES],
        )  # fmt: skip

    @property
    def hours(self) -> list[str]:
        return list(self.sizes)

    @property
    def lookback(self) -> int:
        return lookback_hours(self.source.windows, self.lateness)

    def feature_files(self, hours: Sequence[str]) -> list[list[str]]:
        """By view the files of its features that samples of ``hours`` read."""
        zone = self.source.time_zone
        needed = feature_hours(hours[0], hours[-1], self.start, self.lateness, zone)
        return [
            [path for hour in needed for path in sorted(by_hour.get(hour, ()))]
            for by_hour in self.features.values()
        ]

    def earlier(self, hours: Sequence[str]) -> list[str]:
        """The readable hours before ``hours`` whose impressions count."""
        first, last = hr.add(hours[0], -self.lookback), hr.add(hours[0], -1)
        return self.store.readable_hours("events", first, last)


def _blocks(spark: SparkSession, plan: _Plan) -> list[Staged]:
    """Samples, outcomes, behaviour and sequences of hours that fit tasks: from files to files."""
    store, hours = plan.store, plan.hours
    shares = list(blocks(plan.sizes, 2 * spark.sparkContext.defaultParallelism))
    events = store.files_by_hour("events", [*plan.earlier(hours), *hours])
    tables = [target.table for target in (SAMPLE, OUTCOME, ACTED)]
    folders = [store.staging(table) for table in tables]

    def files(of: Sequence[str]) -> list[str]:
        return [path for hour in of for path in events.get(hour, ())]

    sampled = [
        SampleTask(
            files(block), plan.entities, plan.feature_files(block), plan.attributes,
            plan.source.time_zone, folders[0],
        )
        for block in shares
    ]  # fmt: skip
    acted = [
        ActionTask(
            files(block),
            files(hr.hour_range(hr.add(block[0], -plan.lookback), hr.add(block[0], -1))),
            plan.entities, plan.source.windows, plan.lookback, *folders[1:],
        )
        for block in shares
    ]  # fmt: skip
    parts = run_tasks(spark, [*sampled, *acted], _first_step)
    staged = staged_parts(parts, tables, hours)
    return [*staged, *_block_sequences(spark, plan, shares, staged)]


def _first_step(task: SampleTask | ActionTask) -> Iterator[Part]:
    yield from samples(task) if isinstance(task, SampleTask) else actions(task)


def _block_sequences(
    spark: SparkSession, plan: _Plan, shares: Sequence[Sequence[str]], staged: Sequence[Staged]
) -> list[Staged]:
    """Sequences for the staged samples, from behaviour before them, staged or committed."""
    store, hours = plan.store, plan.hours
    samples_, _, acted = staged
    done = store.files_by_hour("behaviour", behaviour_hours(hours, plan.start, plan.lateness))
    behaved = {**done, **acted.files}
    offers = store.files("room_items", hr.hour_range(plan.start, hours[-1]))
    folders = [store.staging(target.table) for target in targets()]
    tasks = [
        SequenceTask(
            _files(samples_, block),
            [path for hour in (*behaviour_hours(block, plan.start, plan.lateness), *block[:-1])
             for path in behaved.get(hour, ())],
            offers, plan.entities, folders,
        )
        for block in shares
    ]  # fmt: skip
    parts = run_tasks(spark, [task for task in tasks if task.samples], sequence_parts)
    return staged_parts(parts, [target.table for target in targets()], hours)


def _files(staged: Staged, hours: Sequence[str]) -> list[str]:
    return [path for hour in hours for path in staged.files[hour]]


def _spread(spark: SparkSession, plan: _Plan) -> list[Staged]:
    """The same of hours that no task can hold: Spark moves the rows to where they meet."""
    store, hours, sizes = plan.store, plan.hours, plan.sizes
    partitions = -(-sum(sizes.values()) // TOGETHER)
    wide = -(-sum(sizes.values()) // WIDE)

    def put(rows: DataFrame, target: Target, key: str, most: int = TOGETHER) -> Staged:
        placed = rows.withColumns({TARGET: F.lit(0), "_bucket_key": F.col(key)})
        [staged] = stage(placed, store, [target], sizes, most)
        return staged

    zone = plan.source.time_zone
    shown = spread_impressions(spark, store, hours, plan.entities, zone, partitions).persist()
    rows = spread_samples(spark, shown, plan.feature_files(hours), plan.attributes, wide)
    sampled = put(rows, Target("samples", ("event_id", "view"), unpack_samples), "event_id", WIDE)
    windows, earlier = plan.source.windows, plan.earlier(hours)
    rows = spread_outcomes(spark, store, earlier, hours, windows, plan.lookback, partitions)
    outcomes = put(rows, OUTCOME, "event_id")
    attributed = _files(outcomes, hours)
    rows = spread_behaviour(spark, store, hours, attributed, plan.entities)
    acted = put(rows, ACTED, "user_id")
    before = store.files("behaviour", behaviour_hours(hours, plan.start, plan.lateness))
    offers = store.files("room_items", hr.hour_range(plan.start, hours[-1]))
    behaved = [*before, *_files(acted, hours[:-1])]
    asking = _files(sampled, hours)
    rows = spread_sequences(spark, asking, behaved, offers, plan.entities, partitions)
    return [sampled, outcomes, acted, *stage(rows, store, targets(), sizes)]


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
    plan = _Plan.of(store, source, hours, needed, lateness)
    made = _blocks(spark, plan) if fit_tasks(plan.sizes) else _spread(spark, plan)
    samples, outcomes, acted, *sequences = made
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
