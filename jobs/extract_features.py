"""Count an hour's events per feature view, extract the windowed features that changed (Spark)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812

from feature_store import hours as hr
from feature_store.counting import (
    CountTask,
    merge_target,
)
from feature_store.counting import count as count_hours
from feature_store.derived import EntityFiles
from feature_store.extraction import Unit, work
from feature_store.ledger import Completion
from feature_store.parts import Part, staged_parts
from feature_store.point_in_time import base_hours
from feature_store.schemas import OUTCOME_ACTIONS
from feature_store.spark_io import TARGET, run_tasks, stage
from feature_store.tables import Staged, Store, Writer
from feature_store.tiles import day_content, ended_days, key_ranges, plan_history
from feature_store.transforms import spread_counts
from feature_store.views import VIEWS, FeatureView
from jobs.support.arguments import job_parser, run_hours
from jobs.support.blocks import TOGETHER, blocks, fit_tasks
from jobs.support.fencing import claim, run_token
from jobs.support.session import spark_session
from jobs.support.settings import load_settings
from jobs.support.stages import entity_files, first_hour, hour_sizes, require_hours
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build_parser", "count", "extract", "main", "run", "sum_days"]

JOB = "extract_features"
_LONGEST_DAY: Final = 25  # when clocks are set back
_UNIT_ROWS: Final = 4_000_000
_EVERY_KEY: Final = 8
"""How much smaller a task must be that makes features of a range, of every key in it."""
_HOUR_UNIT_ROWS: Final = 64_000_000
"""An hour's tasks keep sums only, and each reads row groups that others read as well."""


def count(spark: SparkSession, store: Store, hours: Sequence[str], start: str) -> list[Staged]:
    """Stage the counts of ``hours`` for every view."""
    entities = entity_files(store, hr.hour_range(start, hours[-1]))
    sizes = hour_sizes(store, hours)
    if fit_tasks(sizes):
        return _count_blocks(spark, store, sizes, entities)
    return _count_spread(spark, store, sizes, entities)


def _count_blocks(
    spark: SparkSession, store: Store, sizes: Mapping[str, int], entities: EntityFiles
) -> list[Staged]:
    """Hours that fit tasks: from their files to files of counts."""
    folders = [store.staging(view.counts_table) for view in VIEWS]
    files = store.files_by_hour("events", list(sizes))
    tasks = [
        CountTask([path for hour in block for path in files.get(hour, ())], entities, folders)
        for block in blocks(sizes, 2 * spark.sparkContext.defaultParallelism)
    ]
    parts = run_tasks(spark, tasks, count_hours)
    return staged_parts(parts, [view.counts_table for view in VIEWS], list(sizes))


def _count_spread(
    spark: SparkSession, store: Store, sizes: Mapping[str, int], entities: EntityFiles
) -> list[Staged]:
    """Large hours: the events of a user meet, then the partial counts of a key."""
    partitions = -(-sum(sizes.values()) // TOGETHER)
    rows = spread_counts(spark, store, list(sizes), entities, partitions)
    rows = rows.withColumn(TARGET, F.col("view")).withColumn("_bucket_key", F.col("k1"))
    return stage(rows, store, [merge_target(view) for view in VIEWS], sizes)


@dataclass(frozen=True)
class _Tiles:
    """Where one view's hourly tiles are, of committed hours and of the staged ones."""

    view: FeatureView
    store: Store
    staged: Staged
    known: Mapping[str, Completion]
    paths: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, store: Store, view: FeatureView, staged: Staged, start: str) -> _Tiles:
        first = staged.hours[0]
        back = max(start, hr.add(first, -view.span_hours - _LONGEST_DAY))
        known = store.ledger.readable(view.counts_table, back, hr.add(first, -1))
        paths = store.files_by_hour(view.counts_table, list(known))
        return cls(view, store, staged, known, {**paths, **staged.files})

    def files(self, hours: Sequence[str]) -> list[str]:
        return [path for hour in hours for path in sorted(self.paths[hour])]

    def rows(self, hours: Sequence[str]) -> int:
        staged = sum(self.staged.rows.get(hour, 0) for hour in hours)
        return staged + sum(self.known[hour].rows for hour in hours if hour in self.known)

    def content(self, hours: Sequence[str]) -> str:
        """What a day tile of ``hours`` is made of now."""
        contents = {hour: c.content_hash for hour, c in self.known.items() if hour in set(hours)}
        contents |= {h: c for h, c in self.staged.content.items() if h in set(hours)}
        return day_content(contents)

    def valid_days(self, time_zone: str) -> dict[str, list[str]]:
        """Days before the staged hours whose day tile was made of the hours that are there now."""
        days = ended_days(list(self.known), time_zone)
        made = self.store.ledger.readable(self.view.day_counts_table, *_ends(self.known))
        return {
            last: within
            for last, within in days.items()
            if last in made and made[last].content_hash == self.content(within)
        }


def _ends(hours: Iterable[str]) -> tuple[str, str]:
    known = sorted(hours)
    return (known[0], known[-1]) if known else ("", "")


def _day_units(tiles: _Tiles, number: int, start: str, time_zone: str) -> list[Unit]:
    """Sum the days that end in the staged hours, where the store knows the whole day."""
    hours = tiles.staged.hours
    first = max(start, hr.add(hours[0], -_LONGEST_DAY))
    days = ended_days(hr.hour_range(first, hours[-1]), time_zone)
    folder = tiles.store.staging(tiles.view.day_counts_table)
    return [
        Unit(
            number,
            within[0],
            last,
            folder,
            tiles.files(within),
            within=keys,
            day=True,
            rows=tiles.rows(within),
        )
        for last, within in days.items()
        if last in tiles.staged.rows
        for keys in key_ranges(-(-tiles.rows(within) // _UNIT_ROWS) or 1)
    ]


def _feature_units(tiles: _Tiles, number: int, start: str, time_zone: str) -> list[Unit]:
    """Features as of the end of each staged hour."""
    view, hours = tiles.view, tiles.staged.hours
    valid = tiles.valid_days(time_zone)
    past = plan_history(view, hours[0], hours[-1], start, valid)
    bases = base_hours(hours, time_zone)
    changed = tiles.files([*past.changing, *hours])
    older = [
        *tiles.store.files(view.day_counts_table, past.days), *tiles.files(past.hours)
    ]  # fmt: skip
    if bases or len(hours) > 1:  # every living key is due, or most are
        changed, older = [*older, *changed], []
    inside = [hour for day in past.days for hour in valid[day]]
    rows = tiles.rows([*past.changing, *inside, *past.hours, *hours])
    limit = _HOUR_UNIT_ROWS if older else _UNIT_ROWS // _EVERY_KEY
    folder = tiles.store.staging(view.features_table)
    return [
        Unit(number, hours[0], hours[-1], folder, changed, older, bases, keys, rows=rows)
        for keys in key_ranges(-(-rows // limit) or 1)
    ]


def sum_days(
    spark: SparkSession, store: Store, counted: Sequence[Staged], start: str, time_zone: str
) -> list[Staged]:
    """Stage the day tiles of the days that end in the staged hours ``counted``."""
    days, units = _plan_days(_tiles(store, counted, start), start, time_zone)
    return _staged_days(run_tasks(spark, units, work), days)


def _tiles(store: Store, counted: Sequence[Staged], start: str) -> list[_Tiles]:
    return [_Tiles.of(store, view, new, start) for view, new in zip(VIEWS, counted, strict=True)]


def _plan_days(
    tiles: Sequence[_Tiles], start: str, time_zone: str
) -> tuple[dict[str, dict[str, str]], list[Unit]]:
    """By table of day tiles what each ended day is made of, and the work."""
    contents, units = {}, []
    for number, of in enumerate(tiles):
        of_days = _day_units(of, number, start, time_zone)
        contents[of.view.day_counts_table] = {
            unit.last: of.content(hr.hour_range(unit.first, unit.last)) for unit in of_days
        }
        units += of_days
    return contents, units


def _staged_days(parts: Iterable[Part], contents: Mapping[str, Mapping[str, str]]) -> list[Staged]:
    """Day tiles of the days in ``contents``; tables without any day are left out."""
    made = sorted(parts, key=lambda part: part.table)
    staged = []
    for table, of_days in contents.items():
        if of_days:
            mine = [part for part in made if part.table == table]
            [of] = staged_parts(mine, [table], sorted(of_days))
            of.content.update(of_days)
            staged.append(of)
    return staged


def _extract(
    spark: SparkSession, store: Store, start: str, counted: Sequence[Staged], time_zone: str
) -> list[Staged]:
    """Stage day tiles and features of every view from staged and committed counts."""
    tiles = _tiles(store, counted, start)
    days, units = _plan_days(tiles, start, time_zone)
    for number, of in enumerate(tiles):
        units += _feature_units(of, number, start, time_zone)
    done = run_tasks(spark, sorted(units, key=lambda unit: -unit.rows), work)
    tables = [view.features_table for view in VIEWS]
    features = staged_parts(
        [part for part in done if part.table in tables], tables, counted[0].hours
    )
    return [*_staged_days([part for part in done if part.table not in tables], days), *features]


def require(store: Store, hours: Sequence[str]) -> str:
    """The store's first hour, once everything that ``hours`` need is there.

    Raises:
        RefusedError: when the hours' events, or earlier hours' counts, are not there.
    """
    start = first_hour(store)
    require_hours(store, "events", hours, "validate_events")
    for view in VIEWS:
        earlier = hr.hour_range(
            max(start, hr.add(hours[0], -view.span_hours)), hr.add(hours[0], -1)
        )
        require_hours(store, view.counts_table, earlier, JOB)
    return start


def extract(
    spark: SparkSession, store: Store, hours: Sequence[str], writer: Writer, time_zone: str,
    dry: bool,
) -> Summary:  # fmt: skip
    """Counts of ``hours`` and features as of the end of each; all computed before any commit."""
    start = require(store, hours)
    progress(JOB, f"counting {len(hours)} hours for {len(VIEWS)} views")
    counted = count(spark, store, hours, start)
    progress(JOB, f"features as of {hr.add(hours[0], 1)} to {hr.add(hours[-1], 1)}")
    extracted = _extract(spark, store, start, counted, time_zone)
    everything = [*counted, *extracted]
    summary = Summary(
        JOB,
        hours,
        "dry-run" if dry else "done",
        rows_in=sum(c.rows for c in store.ledger.readable("events", hours[0], hours[-1]).values()),
        rows_out=sum(
            sum(staged.rows.values())
            for staged in extracted
            if staged.table in {view.features_table for view in VIEWS}
        ),
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
