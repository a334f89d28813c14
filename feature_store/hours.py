"""Hours: the unit of every run, partition and argument.

An hour is named by its start in UTC, ``2026-11-11T05``, and covers [05:00, 06:00). Names sort as
their times do. Days are business days in a configured time zone.
"""

from __future__ import annotations

import datetime as dt
import re
from zoneinfo import ZoneInfo

__all__ = [
    "HourError",
    "add",
    "date_hours",
    "day_of",
    "days_of",
    "difference",
    "hour_of",
    "hour_range",
    "parse",
    "start_of",
]

_FORMAT = "%Y-%m-%dT%H"
_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}")


class HourError(ValueError):
    """A text that does not name an hour or a date."""


def parse(hour: str) -> str:
    """Return ``hour`` unchanged when it names an hour, e.g. ``2026-11-11T05``.

    Raises:
        HourError: for anything else, with the form that is wanted.
    """
    start_of(hour)
    return hour


def start_of(hour: str) -> dt.datetime:
    """The first instant of ``hour``, time-zone aware in UTC."""
    if not _PATTERN.fullmatch(hour):
        raise HourError(f"{hour!r} is not an hour; write its start in UTC as 2026-11-11T05")
    try:
        return dt.datetime.fromisoformat(f"{hour}:00+00:00")
    except ValueError as error:
        raise HourError(f"{hour!r} is not an hour of the calendar: {error}") from error


def hour_of(instant: dt.datetime) -> str:
    """The hour that covers a time-zone aware ``instant``."""
    if instant.tzinfo is None:
        raise HourError(f"{instant!r} has no time zone; pass an aware datetime")
    return instant.astimezone(dt.UTC).strftime(_FORMAT)


def add(hour: str, count: int) -> str:
    """The hour that lies ``count`` hours after ``hour`` (before it, when negative)."""
    return hour_of(start_of(hour) + dt.timedelta(hours=count))


def difference(later: str, earlier: str) -> int:
    """How many hours ``later`` lies after ``earlier``."""
    return round((start_of(later) - start_of(earlier)).total_seconds() / 3600)


def hour_range(first: str, last: str) -> list[str]:
    """Every hour from ``first`` to ``last``, both included; empty when ``last`` is earlier."""
    start = start_of(first)
    return [hour_of(start + dt.timedelta(hours=i)) for i in range(difference(last, first) + 1)]


def day_of(hour: str, time_zone: str) -> dt.date:
    """The business day in ``time_zone`` that ``hour`` belongs to."""
    return start_of(hour).astimezone(ZoneInfo(time_zone)).date()


def days_of(first: str, last: str) -> list[str]:
    """The UTC days that the hours from ``first`` to ``last`` lie on, both included, in order."""
    return sorted({hour[:10] for hour in hour_range(first, last)})


def date_hours(date: str, time_zone: str) -> list[str]:
    """The hours of business day ``date`` (``2026-11-11``) in ``time_zone``, in order."""
    try:
        day = dt.date.fromisoformat(date)
    except ValueError as error:
        raise HourError(f"{date!r} is not a date; write it as 2026-11-11") from error
    zone = ZoneInfo(time_zone)
    first = dt.datetime.combine(day, dt.time(), zone)
    last = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), zone)
    return hour_range(hour_of(first), add(hour_of(last), -1))
