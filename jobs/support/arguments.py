"""The arguments that mean the same in every job."""

from __future__ import annotations

import argparse

from feature_store import hours as hr
from jobs.support.settings import SettingsError

__all__ = ["date_parser", "job_parser", "run_date", "run_hours"]


def job_parser(
    job: str, description: str, examples: str, *, of_hours: bool = True
) -> argparse.ArgumentParser:
    """A parser with the arguments of section "Jobs" of the README; a job adds its own.

    Args:
        examples: command lines, shown at the end of ``--help``.
        of_hours: whether the job is told its hours; one on a registered version is not.
    """
    parser = argparse.ArgumentParser(
        prog=f"{job}.py",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if of_hours:
        _add_hours(parser)
    where = parser.add_argument_group("where (defaults come from the environment)")
    where.add_argument("--config", metavar="YAML", help="configuration [RANKMILL_CONFIG]")
    where.add_argument("--data", metavar="PATH", help="the source's files [RANKMILL_DATA]")
    where.add_argument(
        "--warehouse", metavar="PLACE", help="folder or s3://bucket/folder [RANKMILL_WAREHOUSE]"
    )
    where.add_argument(
        "--catalog-uri", metavar="URL", help="catalog database [RANKMILL_CATALOG_URI]"
    )
    where.add_argument("--tracking-uri", metavar="URL", help="MLflow [MLFLOW_TRACKING_URI]")
    parser.add_argument(
        "--run-id", help="who runs this, for fencing [RANKMILL_RUN_ID]; made up when absent"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="compute everything, commit and register nothing"
    )
    return parser


def _add_hours(parser: argparse.ArgumentParser) -> None:
    when = parser.add_argument_group("hours (UTC, named by their start, 2026-11-11T05)")
    when.add_argument("--hour", metavar="H", help="the one hour to run")
    when.add_argument("--from-hour", metavar="A", help="first of a range of hours")
    when.add_argument("--to-hour", metavar="B", help="last of a range of hours, included")
    when.add_argument(
        "--date", metavar="D", help="all hours of a business day in the source's time zone"
    )


def date_parser(job: str, description: str, examples: str) -> argparse.ArgumentParser:
    """:func:`job_parser` of a job on business days, which takes no hours."""
    parser = job_parser(job, description, examples, of_hours=False)
    parser.add_argument(
        "--date", metavar="D", required=True,
        help="the business day, 2026-11-11, in the source's time zone",
    )  # fmt: skip
    return parser


def run_date(arguments: argparse.Namespace, time_zone: str) -> list[str]:
    """The hours of the ``--date`` that the arguments name, in order.

    Raises:
        SettingsError: for a text that is not a date.
    """
    try:
        return hr.date_hours(arguments.date, time_zone)
    except hr.HourError as error:
        raise SettingsError(f"--date: {error}") from error


def run_hours(arguments: argparse.Namespace, time_zone: str) -> list[str]:
    """The hours that the arguments name, in order.

    Raises:
        SettingsError: when none, or more than one way of naming them was given.
    """
    ranged = (arguments.from_hour, arguments.to_hour)
    given = [arguments.hour is not None, any(ranged), arguments.date is not None]
    if sum(given) != 1:
        raise SettingsError("name the hours by one of --hour, --from-hour with --to-hour, --date")
    try:
        if arguments.hour is not None:
            return [hr.parse(arguments.hour)]
        if arguments.date is not None:
            return hr.date_hours(arguments.date, time_zone)
        if not all(ranged):
            raise SettingsError("--from-hour and --to-hour go together")
        hours = hr.hour_range(hr.parse(ranged[0]), hr.parse(ranged[1]))
    except hr.HourError as error:
        raise SettingsError(str(error)) from error
    if not hours:
        raise SettingsError(f"--to-hour {ranged[1]} lies before --from-hour {ranged[0]}")
    return hours
