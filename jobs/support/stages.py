"""What a stage needs of the stages before it, and what to run when it is not there."""

from __future__ import annotations

from collections.abc import Sequence

from feature_store.derived import EntityFiles, derived_columns
from feature_store.tables import Store
from jobs.support.summary import RefusedError

__all__ = ["entity_files", "first_hour", "hour_sizes", "require_date", "require_hours"]


def first_hour(store: Store) -> str:
    """The store's first ingested hour.

    Raises:
        RefusedError: when nothing was ingested yet.
    """
    hour = store.ledger.first_hour("events")
    if hour is None:
        raise RefusedError("nothing is ingested yet; run ingest_events.py, or `make run`")
    return hour


def hour_sizes(store: Store, hours: Sequence[str]) -> dict[str, int]:
    """Events of each of ``hours``; what tasks and files are sized by."""
    readable = store.ledger.readable("events", hours[0], hours[-1])
    return {hour: readable[hour].rows if hour in readable else 0 for hour in hours}


def entity_files(store: Store, hours: Sequence[str]) -> EntityFiles:
    """The files that arrived in ``hours`` of every entity that keys are derived from."""
    return {table: store.files(table, hours) for table in derived_columns()}


def require_hours(store: Store, table: str, hours: Sequence[str], job: str) -> None:
    """Refuse unless every one of ``hours`` is completed and validated in ``table``.

    Raises:
        RefusedError: naming the first hour that is not, with the command that makes it.
    """
    if not hours:
        return
    there = set(store.readable_hours(table, hours[0], hours[-1]))
    missing = [hour for hour in hours if hour not in there]
    if missing:
        raise RefusedError(
            f"{table} of {missing[0]} is not there or not validated ({len(missing)} of "
            f"{len(hours)} hours that are needed). Run: spark-submit jobs/{job}.py "
            f"--from-hour {missing[0]} --to-hour {missing[-1]}"
        )


def require_date(store: Store, table: str, date: str, hours: Sequence[str], job: str) -> str:
    """The hour under which ``table`` holds business day ``date``: the last of its ``hours``.

    Raises:
        RefusedError: when it does not hold the day, with the command that makes it.
    """
    last = hours[-1]
    if last not in store.readable_hours(table, last, last):
        raise RefusedError(
            f"{table} of {date} are not there. Run: spark-submit jobs/{job}.py --date {date}"
        )
    return last
