"""Ingest the events that arrived in an hour from the configured source into table `events`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from feature_store.ingestion import stage_hours
from feature_store.tables import Store
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.settings import Settings, load_settings
from jobs.support.summary import Summary, main_of, progress

__all__ = ["build_parser", "ingest", "main", "run"]

JOB = "ingest_events"


def ingest(
    store: Store, settings: Settings, hours: Sequence[str], token: str, dry: bool
) -> Summary:
    """Ingest ``hours`` (contiguous): stage all of them, then commit table by table, events last."""
    writer = claim(store, JOB, hours, token)
    source = settings.open_source()
    progress(JOB, f"reading {hours[0]} to {hours[-1]} from source {source.name}")
    result = stage_hours(source, store, hours[0], hours[-1], settings.ingest)
    summary = Summary(
        JOB, hours, "dry-run" if dry else "done", result.rows_in, result.rows_out,
        dict(result.rejected),
    )  # fmt: skip
    if not dry:
        summary.snapshots = {
            name: store.commit(staged, writer, validated=None if name == "events" else True)
            for name, staged in result.staged.items()
        }
    summary.message = f"{result.rows_out} of {result.rows_in} rows kept"
    progress(JOB, f"{summary.message}; rejected: {dict(result.rejected) or 'none'}")
    return summary


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    source = settings.open_source()
    if arguments.span:
        source.check()
        first, last = source.span()
        said = f"source {source.name}: {first} to {last}"
        return Summary(JOB, (first, last), message=said, details={"time_zone": source.time_zone})
    hours = run_hours(arguments, source.time_zone)
    store = settings.open_store()
    return ingest(store, settings, hours, run_token(arguments.run_id), arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Read what arrived in an hour, keep every event once, quarantine what is late, from the "
        "future or malformed, and commit the hour to the tables events, quarantine, users, items, "
        "rooms and room_items.",
        "  ingest_events.py --hour 2026-11-11T05\n"
        "  ingest_events.py --config conf/kuairand.yaml --data ../kuairand --date 2022-04-30\n"
        "  ingest_events.py --config conf/kuairand.yaml --data ../kuairand --span\n",
    )
    parser.add_argument(
        "--span",
        action="store_true",
        help="only say which hours, and what time zone, the source has",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
