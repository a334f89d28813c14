"""Build a business day's graph of users, items, rooms, hosts, categories and queries (Spark)."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from feature_store import hours as hr
from feature_store.graph_frames import EDGE_TARGET, acted_edges, capped, stated_edges, statistics
from feature_store.spark_io import TARGET, stage
from feature_store.tables import Staged, Store, Writer
from jobs.support.arguments import date_parser, run_date
from jobs.support.blocks import TOGETHER, fit_tasks
from jobs.support.fencing import claim, run_token
from jobs.support.graph_page import GraphDay, graph_page
from jobs.support.logged_page import LoggedPage, log_page
from jobs.support.session import spark_session
from jobs.support.settings import Settings, load_settings
from jobs.support.stages import first_hour, hour_sizes, require_hours
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build", "build_parser", "main", "require", "run"]

JOB = "build_graph"
EXPERIMENT = "graph"


@dataclass(frozen=True)
class _Window:
    """What a day's graph may read.

    Attributes:
        day: the day's hours.
        first: the first hour of its days that the store can have.
        hours: those from there on that are there.
        missing: how many are not.
        known: every hour of the store up to the day's last.
    """

    day: Sequence[str]
    first: str
    hours: Sequence[str]
    missing: int
    known: Sequence[str]

    @classmethod
    def of(cls, store: Store, settings: Settings, date: str) -> Self:
        """The window of ``date``."""
        zone = settings.open_source().time_zone
        day, start = hr.date_hours(date, zone), first_hour(store)
        back = dt.timedelta(days=settings.graph.window_days - 1)
        earliest = hr.date_hours((dt.date.fromisoformat(date) - back).isoformat(), zone)[0]
        wanted = hr.hour_range(max(start, earliest), day[-1])
        hours = store.readable_hours("events", wanted[0], wanted[-1])
        known = hr.hour_range(start, day[-1])
        return cls(day, wanted[0], hours, len(wanted) - len(hours), known)

    @property
    def last(self) -> str:
        return self.day[-1]


def _edges(spark: SparkSession, store: Store, settings: Settings, window: _Window) -> DataFrame:
    """Every edge of the window: rows of ``graph_edges.WEIGHTED``."""
    sizes = hour_sizes(store, window.hours)
    partitions = -(-sum(sizes.values()) // TOGETHER)
    acted = acted_edges(
        spark, store, window.hours, window.last, settings.graph, partitions, fit_tasks(sizes)
    )
    return acted.unionByName(stated_edges(spark, store, window.known, window.first))


def _staged(store: Store, edges: DataFrame, hour: str, count: int) -> Staged:
    """The kept ones of ``edges``, written and not visible yet."""
    kept = edges.where("kept").drop("kept")
    placed = kept.withColumns(
        {"hour": F.lit(hour), TARGET: F.lit(0), "_bucket_key": F.col("source_id")}
    )
    [staged] = stage(placed, store, [EDGE_TARGET], {hour: count})
    return staged


def require(store: Store, day: Sequence[str]) -> None:
    """Check that every hour of the day is there.

    Raises:
        RefusedError: naming the first hour that is not, with the command that makes it.
    """
    first_hour(store)
    require_hours(store, "events", day, "validate_events")


def build(
    spark: SparkSession, store: Store, settings: Settings, date: str, writer: Writer, dry: bool
) -> Summary:
    """The graph of ``date``, all of it computed before the commit, and a page of it."""
    require(store, hr.date_hours(date, settings.open_source().time_zone))
    window = _Window.of(store, settings, date)
    progress(
        JOB,
        f"edges of {len(window.hours)} hours, {window.first} to {window.last}"
        + (f"; {window.missing} hours are not there" if window.missing else ""),
    )
    # Each is read several times, and would be made anew each time.
    every = _edges(spark, store, settings, window).persist()
    edges = capped(every, settings.graph.degree_cap).persist()
    found = statistics(edges)
    staged = _staged(store, edges, window.last, found.kept)
    for frame in (edges, every):
        frame.unpersist()
    summary = Summary(
        JOB,
        window.day,
        "dry-run" if dry else "done",
        rows_in=sum(hour_sizes(store, window.hours).values()),
        rows_out=found.kept,
        rejected={"over_degree_cap": found.dropped},
        details={"hours": len(window.hours), "missing_hours": window.missing, **found.counts()},
    )
    if not dry:
        summary.snapshots = {staged.table: store.commit(staged, writer)}
        graph = GraphDay(
            date, window.first, window.last, len(window.hours), window.missing, settings.graph,
            found,
        )  # fmt: skip
        page = _page(graph, settings.source_name)
        summary.mlflow_run_url = log_page(JOB, store, settings, page, [window.last], writer.token)
    progress(JOB, f"{found.kept} edges, {found.dropped} left out by the degree cap")
    return summary


def _page(day: GraphDay, source: str) -> LoggedPage:
    """The page of a day, with its rules and counts beside it."""
    rules = day.rules
    return LoggedPage(
        EXPERIMENT, day.date, day.title,
        {
            "source": source,
            "hours": day.hours,
            "window_days": rules.window_days,
            "half_life_days": rules.half_life_days,
            "degree_cap": rules.degree_cap,
            **{f"weight_{action}": weight for action, weight in rules.weights().items()},
        },
        {
            f"{what}_{name}".replace("-", "_"): float(count)
            for what, by_type in day.statistics.counts().items()
            for name, count in by_type.items()
        },
        {"graph.html": graph_page(day)},
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    day = run_date(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    writer = claim(store, JOB, day[-1:], run_token(arguments.run_id))
    require(store, day)  # before the seconds that a session takes
    with spark_session(JOB, settings.spark) as spark:
        return build(spark, store, settings, arguments.date, writer, arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    return date_parser(
        JOB,
        "Make the graph of a business day from what arrived in the days of its window: weighted "
        "edges between users, items, rooms, hosts, categories and queries, events decayed by their "
        "age and hubs capped. Commit it to the table edges, under the day's last hour. A page with "
        "its degrees is logged to MLflow, experiment 'graph'.",
        "  spark-submit jobs/build_graph.py --date 2026-11-10\n"
        "  spark-submit jobs/build_graph.py --date 2026-11-10 --dry-run\n",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
