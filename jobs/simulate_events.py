"""Simulate a marketplace and write its event log as canonical Parquet, hour of arrival by hour."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from feature_store import hours as hr
from feature_store.sources.base import SourceError
from feature_store.sources.simulator import MarketConfig, write_simulation
from feature_store.sources.simulator.config import TIME_ZONE
from feature_store.sources.simulator.day import market_day
from feature_store.sources.simulator.policies import LoggingPolicy, TruthPolicy, random_policy
from feature_store.sources.simulator.writer import PolicyMaker
from jobs.support.market_page import market_page
from jobs.support.settings import SettingsError
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build_parser", "config_of", "main", "run"]

JOB = "simulate_events"

_DESCRIPTION = """\
Simulate a marketplace and write what its users saw and did.

Users with drifting tastes come in sessions, with something in mind, and are shown slates of
products or live rooms. They look at the top more than at the bottom, click, stay, fill carts, order
hours later and sometimes cancel, follow, like and comment. What draws clicks is not what sells. The
evening has the most of it, and a festival day turns the taste within hours. What a request leads to
arrives when it happens, some of it late, and a little of it is dirt or comes from bots.

A set share of the requests is served in uniformly random order, and every impression carries its
propensity. Beside the log lies the truth about it (OUT/truth), which nothing that trains may read.

The same arguments give the same files, for any number of processes; more hours extend what is
there, and a run that was killed is simply repeated.
"""

_EXAMPLES = """\
examples:
  simulate_events.py --out data/market
      three days of a small shop: about 370,000 events in a few seconds
  simulate_events.py --out data/market --hours 96 --page 2026-11-09
      one day more, the first three stay as they are; and a page with plots of a day
  simulate_events.py --out data/d11 --festival 2026-11-11 --hours 96
      Double 11: a rush at midnight, three times the volume, and tastes that follow the deals
  simulate_events.py --out data/large --requests-per-hour 20000 --users 200000 --items 50000 \\
      --processes 2
      some 300,000 events an hour, made by two processes
  simulate_events.py --out data/random --policy random
      the same users and candidates, with nobody in charge
  simulate_events.py --out data/dirty --duplicate-share 0.02 --too-late-share 0.01
      a log that gives the ingest something to do

Read it with  source: {name: simulator, options: {path: data/market}}  in the configuration.
"""

# argument, field of MarketConfig, what it says in --help
_MARKET = (
    ("--seed", "seed", "seed of everything random"),
    ("--start", "start", "first hour, UTC"),
    ("--requests-per-hour", "requests_per_hour", "mean over an ordinary day"),
    ("--users", "users", "users"),
    ("--items", "items", "products at the start"),
    ("--rooms", "rooms", "live rooms at the start"),
    ("--categories", "categories", "categories of products and rooms"),
)
_BEHAVIOUR = (
    ("--taste-drift", "taste_drift", "how far tastes swing, in logits"),
    ("--position-decay", "position_decay", "a position is looked at with 1 / position ** decay"),
    ("--trust-bias", "trust_bias", "chance that the first position is clicked unwanted"),
    ("--festival", "festival", "local date of a shopping festival, e.g. 2026-11-11"),
    ("--festival-volume", "festival_volume", "times as many requests on that day"),
)
_SERVING = (
    ("--rooms-share", "rooms_share", "ask for live rooms"),
    ("--search-share", "search_share", "of those for products come with a query"),
    ("--uniform-share", "uniform_share", "are served in uniformly random order"),
    ("--bot-share", "bot_share", "come from bots"),
)
_DIRT = (
    ("--late-share", "late_share", "arrive up to 110 minutes late, which is allowed"),
    ("--duplicate-share", "duplicate_share", "arrive twice"),
    ("--too-late-share", "too_late_share", "arrive more than three hours late"),
    ("--future-share", "future_share", "say that they happen hours after they arrive"),
    ("--malformed-share", "malformed_share", "lack a key or have an unknown action; below 0.01"),
)
_GROUPS = (
    ("the marketplace", _MARKET),
    ("how people behave", _BEHAVIOUR),
    ("shares of the requests that", _SERVING),
    ("shares of the events that", _DIRT),
)
_POLICIES: Mapping[str, PolicyMaker] = {
    "logging": LoggingPolicy,
    "random": random_policy,
    "truth": TruthPolicy,
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{JOB}.py",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="a folder of its own"
    )
    parser.add_argument("--hours", type=int, default=72, metavar="N", help="how many hours [72]")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="how many make the hours [1]"
    )
    parser.add_argument(
        "--policy",
        choices=sorted(_POLICIES),
        default="logging",
        help="the ranker in charge [logging]",
    )
    parser.add_argument("--no-truth", action="store_true", help="write the log alone")
    parser.add_argument(
        "--page", metavar="DATE", help="plots of a local day: OUT/DATE.html, and in MLflow"
    )
    parser.add_argument(
        "--tracking-uri", metavar="URL", help="where the page is logged [MLFLOW_TRACKING_URI]"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the arguments, write nothing")
    defaults = MarketConfig()
    for title, arguments in _GROUPS:
        group = parser.add_argument_group(title)
        for flag, name, text in arguments:
            default = getattr(defaults, name)
            group.add_argument(
                flag,
                dest=name,
                type=type(default),
                default=default,
                metavar={int: "N", float: "X", str: "TEXT"}[type(default)],
                help=f"{text} [{default or 'none'}]",
            )
    return parser


def config_of(arguments: argparse.Namespace) -> MarketConfig:
    """The marketplace that the arguments describe; SettingsError when they make no sense."""
    names = [name for _, group in _GROUPS for _, name, _ in group]
    try:
        return replace(MarketConfig(), **{name: getattr(arguments, name) for name in names})
    except SourceError as error:
        raise SettingsError(str(error)) from error


class _Days:
    """Prints one line for about every day that is written."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._hours = 0
        self._rows = 0
        self._started = time.monotonic()

    def __call__(self, hour: str, rows: int) -> None:
        self._hours += 1
        self._rows += rows
        if self._hours % 24 == 0 or self._hours == self._count:
            seconds = max(time.monotonic() - self._started, 1e-6)
            progress(
                JOB,
                f"to {hour}: {self._rows:,} events in {self._hours} hours, "
                f"{self._rows / seconds:,.0f} events/s",
            )


def _check(arguments: argparse.Namespace, config: MarketConfig) -> None:
    """Raise SettingsError for what could only fail later."""
    for name in ("hours", "processes"):
        if getattr(arguments, name) < 1:
            raise SettingsError(f"--{name} is {getattr(arguments, name)}; the least is 1")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise SettingsError(f"--out {arguments.out} is a file; name a folder")
    if arguments.page is not None:
        try:
            first, *_, last = hr.date_hours(arguments.page, TIME_ZONE)
        except hr.HourError as error:
            raise SettingsError(f"--page: {error}") from error
        end = hr.add(config.start, arguments.hours - 1)
        if not (config.start <= first and last <= end):
            raise SettingsError(
                f"--page {arguments.page} needs the hours {first} to {last}, and {config.start} to "
                f"{end} are simulated; choose another day, or more --hours"
            )


def _page(arguments: argparse.Namespace, config: MarketConfig, summary: Summary) -> None:
    """Write the day's page, and log it where MLflow is."""
    day = market_day(arguments.out, arguments.page)
    path = arguments.out / f"{arguments.page}.html"
    path.write_text(market_page(day), encoding="utf-8")
    summary.details = {**summary.details, "page": str(path)}
    progress(JOB, f"plots of {arguments.page}: {path}")
    address = arguments.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if address:
        from models.registry import Registry  # MLflow takes seconds to import

        summary.mlflow_run_url = Registry(address).log_page(
            "simulated_marketplace",
            f"simulated_marketplace:{arguments.page}:{config.sha[:12]}",
            f"Simulated marketplace, {arguments.page}",
            {
                "data_hour": hr.date_hours(arguments.page, TIME_ZONE)[-1],
                "code_version": importlib.metadata.version("rankmill"),
            },
            config.to_dict(),
            {f"events_{action}": float(count) for action, count in day.funnel.items()},
            {"day.html": path},
        )


def run(arguments: argparse.Namespace) -> Summary:
    config = config_of(arguments)
    _check(arguments, config)
    asked = (config.start, hr.add(config.start, arguments.hours - 1))
    details = {"out": str(arguments.out), "config_sha": config.sha, "policy": arguments.policy}
    if arguments.dry_run:
        return Summary(JOB, asked, "dry-run", message="nothing written", details=details)
    progress(JOB, f"{arguments.hours} hours, {asked[0]} to {asked[1]}, to {arguments.out}")
    try:
        written = write_simulation(
            config,
            arguments.out,
            arguments.hours,
            _Days(arguments.hours),
            processes=arguments.processes,
            policy=_POLICIES[arguments.policy],
            with_truth=not arguments.no_truth,
        )
    except SourceError as error:
        raise SettingsError(f"--out: {error}") from error
    summary = Summary(JOB, asked, rows_out=written.rows, details=details)
    if written.unchanged:
        summary.status = "unchanged"
        summary.message = f"{arguments.out} already holds this simulation"
    else:
        summary.message = f"{written.rows} events arrive from {written.first} to {written.last}"
    if arguments.page is not None:
        _page(arguments, config, summary)
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
