"""Business days: which day the hours of a run complete, and which hours belong to it.

As in ``dags/business_day.py``, a day's hours are named by their start in UTC.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

__all__ = ["Day", "day_of", "hours_between", "last_full_day", "unannounced"]

HOUR_FORMAT = "%Y-%m-%dT%H"
HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Day:
    """A business day and its hours: 24, and 23 or 25 where the clocks change."""

    date: str
    hours: tuple[str, ...]


def instant(hour: str) -> dt.datetime:
    """The first instant of an hour."""
    return dt.datetime.strptime(hour, HOUR_FORMAT).replace(tzinfo=dt.UTC)


def hours_between(first: str, last: str) -> list[str]:
    """Every hour from ``first`` to ``last``, both included."""
    count = (instant(last) - instant(first)) // HOUR + 1
    return [(instant(first) + i * HOUR).strftime(HOUR_FORMAT) for i in range(count)]


def the_day(date: dt.date, zone: ZoneInfo) -> Day:
    """A day of the calendar."""
    first, following = (
        dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)
        for day in (date, date + dt.timedelta(days=1))
    )
    hours = hours_between(*(at.strftime(HOUR_FORMAT) for at in (first, following)))
    return Day(date.isoformat(), tuple(hours[:-1]))


def day_of(hour: str, time_zone: str) -> Day:
    """The day in which ``hour`` ends."""
    zone = ZoneInfo(time_zone)
    last = instant(hour) + HOUR - dt.timedelta.resolution
    return the_day(last.astimezone(zone).date(), zone)


def last_full_day(first: str, last: str, time_zone: str) -> Day | None:
    """The latest day whose hours all lie from ``first`` to ``last``; None without one."""
    day = day_of(last, time_zone)
    if day.hours[-1] > last:
        yesterday = dt.date.fromisoformat(day.date) - dt.timedelta(days=1)
        day = the_day(yesterday, ZoneInfo(time_zone))
    return day if day.hours[0] >= first else None


def unannounced(first: str, before: str, last: str, time_zone: str) -> list[str]:
    """The hours of a bootstrap from ``first`` to ``before`` that a daily DAG still waits for.

    Those of the last full day, when Airflow itself runs the hours after ``before`` up to ``last``,
    and of a day that has begun after it.
    """
    day = last_full_day(first, last, time_zone) or day_of(last, time_zone)
    return hours_between(max(first, day.hours[0]), before)
