"""Simulate a marketplace and write its event log as canonical Parquet, hour of arrival by hour."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from feature_store import hours as hr
from feature_store.sources.base import SourceError
from feature_store.sources.simulator import MarketConfig, write_simulation
from jobs.support.settings import SettingsError
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build_parser", "config_of", "main", "run"]

JOB = "simulate_events"

_DESCRIPTION = """\
Simulate a marketplace and write what its users saw and did.

Users with tastes ask for slates of products or live rooms, look at the top more than at the bottom,
click, stay, fill carts, order hours later and follow hosts; the evening has the most of it. What a
request leads to arrives when it happens, some of it late, and a little of it is dirt. The same
arguments give the same files, more hours extend what is there, and a run that was killed is simply
repeated.
"""

_EXAMPLES = """\
examples:
  simulate_events.py --out data/market
      three days of a small shop: about 350,000 events in a few seconds
  simulate_events.py --out data/market --hours 96
      one day more; the first three stay as they are
  simulate_events.py --out data/large --requests-per-hour 20000 --users 200000 --items 50000
      some 300,000 events an hour
  simulate_events.py --out data/dirty --duplicate-share 0.02 --too-late-share 0.01
      a log that gives the ingest something to do

Read it with  source: {name: simulator, options: {path: data/market}}  in the configuration.
"""

# argument, field of MarketConfig, what it says in --help
_MARKET = (
    ("--seed", "seed", "seed of everything random"),
    ("--start", "start", "first hour, UTC"),
    ("--requests-per-hour", "requests_per_hour", "mean over the day"),
    ("--users", "users", "users"),
    ("--items", "items", "products at the start"),
    ("--rooms", "rooms", "live rooms at the start"),
    ("--categories", "categories", "categories of products and rooms"),
)
_DIRT = (
    ("--late-share", "late_share", "arrive up to 110 minutes late, which is allowed"),
    ("--duplicate-share", "duplicate_share", "arrive twice"),
    ("--too-late-share", "too_late_share", "arrive more than three hours late"),
    ("--future-share", "future_share", "say that they happen hours after they arrive"),
    ("--malformed-share", "malformed_share", "lack a key or have an unknown action; below 0.01"),
)


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
    parser.add_argument("--dry-run", action="store_true", help="check the arguments, write nothing")
    defaults = MarketConfig()
    for title, arguments in (("the marketplace", _MARKET), ("shares of the events that", _DIRT)):
        group = parser.add_argument_group(title)
        for flag, name, text in arguments:
            default = getattr(defaults, name)
            group.add_argument(
                flag,
                dest=name,
                type=type(default),
                default=default,
                metavar={int: "N", float: "SHARE", str: "H"}[type(default)],
                help=f"{text} [{default}]",
            )
    return parser


def config_of(arguments: argparse.Namespace) -> MarketConfig:
    """The marketplace that the arguments describe; SettingsError when they make no sense."""
    names = [name for _, name, _ in (*_MARKET, *_DIRT)]
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


def run(arguments: argparse.Namespace) -> Summary:
    config = config_of(arguments)
    if arguments.hours < 1:
        raise SettingsError(f"--hours is {arguments.hours}; simulate at least one hour")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise SettingsError(f"--out {arguments.out} is a file; name a folder")
    asked = (config.start, hr.add(config.start, arguments.hours - 1))
    details = {"out": str(arguments.out), "config_sha": config.sha}
    if arguments.dry_run:
        return Summary(JOB, asked, "dry-run", message="nothing written", details=details)
    progress(JOB, f"{arguments.hours} hours, {asked[0]} to {asked[1]}, to {arguments.out}")
    try:
        written = write_simulation(config, arguments.out, arguments.hours, _Days(arguments.hours))
    except SourceError as error:
        raise SettingsError(f"--out: {error}") from error
    if written.unchanged:
        message = f"{arguments.out} already holds this simulation"
        return Summary(JOB, asked, "unchanged", message=message, details=details)
    message = f"{written.rows} events arrive from {written.first} to {written.last}"
    return Summary(JOB, asked, rows_out=written.rows, message=message, details=details)


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
