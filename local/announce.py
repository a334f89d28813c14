"""Tells Airflow of hours that a bootstrap stored, so that the daily DAGs find their day complete.

An hour that Airflow runs announces itself on asset ``hour_stored``; one of a bootstrap does not.
A daily DAG fires once, when all hours of its day are announced. So after a bootstrap that ended
within a business day, announce the hours of that day, up to the bootstrap's last one:

    python -m local.announce --from-hour 2026-11-10T16 --to-hour 2026-11-11T04 \\
        --time-zone Asia/Shanghai

Calling it again does no harm: an hour counts once, and none is announced of a day that has fired.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import requests

from local.airflow_api import AirflowApi
from local.days import day_of, hours_between
from local.stack import LocalError

__all__ = ["STORED", "announce", "build_parser", "main"]

STORED = "hour_stored"


def announce(
    api: AirflowApi, hours: Sequence[str], time_zone: str, asset: str = STORED
) -> list[str]:
    """Announce those of ``hours`` whose day no DAG has run; which those were.

    Airflow counts an hour of a day once, until the day fires, and from then on anew.

    Raises:
        LocalError: when a DAG that waits for them is not there yet or paused: Airflow keeps no
            event for such a DAG.
    """
    found = api.asset(asset)
    if found is None or not found.consumers:
        raise LocalError(f"No DAG at {api.address} waits for the asset {asset}.")
    paused = api.dags()
    deaf = sorted(dag for dag in found.consumers if paused.get(dag, True))
    if deaf:
        raise LocalError(
            f"These DAGs are paused and would not hear of the hours: {', '.join(deaf)}. Unpause "
            "them, then announce the hours."
        )
    days = {hour: day_of(hour, time_zone).date for hour in hours}
    fired = {d for d in set(days.values()) if any(api.has_run(c, d) for c in found.consumers)}
    fresh = [hour for hour in hours if days[hour] not in fired]
    for hour in fresh:
        api.announce(found, hour)
    return fresh


def build_parser() -> argparse.ArgumentParser:
    """The arguments of ``python -m local.announce``."""
    parser = argparse.ArgumentParser(
        prog="python -m local.announce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    zone = os.environ.get("RANKMILL_TIME_ZONE")
    parser.add_argument("--from-hour", required=True, metavar="A", help="first hour, UTC")
    parser.add_argument("--to-hour", required=True, metavar="B", help="last hour, included")
    parser.add_argument(
        "--time-zone",
        type=ZoneInfo,
        default=zone,
        required=not zone,
        metavar="Z",
        help="of business days, as the DAGs have it [RANKMILL_TIME_ZONE]",
    )
    parser.add_argument("--airflow", default="http://127.0.0.1:8080", help="address [%(default)s]")
    parser.add_argument("--user", help="who signs in, with the password in AIRFLOW_PASSWORD")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, 1 when Airflow could not be told, or 2 for bad arguments."""
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
        hours = hours_between(arguments.from_hour, arguments.to_hour)
    except KeyError as error:
        parser.error(f"{error.args[0]}; write a time zone as Asia/Shanghai")
    except ValueError as error:
        parser.error(f"{error}; write an hour as 2026-11-11T05")
    if not hours:
        parser.error(f"--to-hour {arguments.to_hour} lies before --from-hour {arguments.from_hour}")
    login = (arguments.user, os.environ.get("AIRFLOW_PASSWORD", "")) if arguments.user else None
    try:
        fresh = announce(AirflowApi(arguments.airflow, login), hours, arguments.time_zone.key)
    except (LocalError, requests.RequestException) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    rest = "" if len(fresh) == len(hours) else "; the others are of a day that has run"
    print(f"announced {len(fresh)} of {len(hours)} hours{rest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
