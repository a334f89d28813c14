"""Which hours make a business day: what a daily DAG waits for.

Airflow's own day mapper reads a key in its own time zone, so it cannot roll hours named in UTC up
to the days of another zone, and it counts 24 of them on days when the clocks change. Every process
of Airflow must know these classes: ``dags/plugins`` tells them.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from airflow.partition_mappers.base import PartitionMapper
from airflow.partition_mappers.window import Window

__all__ = ["TIME_ZONE", "BusinessDay", "HoursOfDay", "zone_from_environment"]

HOUR_FORMAT = "%Y-%m-%dT%H"
HOUR = dt.timedelta(hours=1)
TIME_ZONE = "RANKMILL_TIME_ZONE"


def zone_from_environment() -> str:
    """The time zone of business days: that of variable RANKMILL_TIME_ZONE, else UTC.

    Raises:
        ValueError: when the variable names none.
    """
    name = os.environ.get(TIME_ZONE) or "UTC"
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{TIME_ZONE}={name!r} is no time zone; write it as Asia/Shanghai"
        ) from error


class BusinessDay(PartitionMapper):
    """From the key of an hour, ``2026-11-10T16`` in UTC, to that of its day, ``2026-11-11``.

    In a zone off by half an hour the hour in which a day begins is that day's.
    """

    expected_decoded_type: ClassVar[type] = dt.datetime

    def __init__(self, time_zone: str) -> None:
        super().__init__()
        self.zone = ZoneInfo(time_zone)

    def to_downstream(self, key: str) -> str:
        """The day in which the hour ends."""
        start = dt.datetime.strptime(key, HOUR_FORMAT).replace(tzinfo=dt.UTC)
        return (start + HOUR - dt.timedelta.resolution).astimezone(self.zone).date().isoformat()

    def decode_downstream(self, downstream_key: str) -> dt.datetime:
        """The first instant of the day, in its zone."""
        return dt.datetime.combine(dt.date.fromisoformat(downstream_key), dt.time(), self.zone)

    def encode_upstream(self, decoded: dt.datetime) -> str:
        """The hour that covers an instant."""
        return decoded.astimezone(dt.UTC).strftime(HOUR_FORMAT)

    def to_partition_date(self, downstream_key: str) -> dt.datetime:
        """The run's ``partition_date``."""
        return self.decode_downstream(downstream_key)

    def serialize(self) -> dict[str, Any]:
        """For the scheduler, which reads DAGs from the database."""
        return {"time_zone": self.zone.key}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> BusinessDay:
        """What `serialize` wrote."""
        return cls(data["time_zone"])


class HoursOfDay(Window):
    """The hours of a day: 24, and 23 or 25 where the clocks change."""

    expected_decoded_type: ClassVar[type] = dt.datetime

    def to_upstream(self, decoded_downstream: dt.datetime) -> Iterator[dt.datetime]:
        """One instant in each hour of the day that begins at ``decoded_downstream``."""
        end = decoded_downstream + dt.timedelta(days=1)  # by the wall clock of its zone
        hour, last = decoded_downstream.astimezone(dt.UTC), end.astimezone(dt.UTC)
        while hour < last:
            yield hour
            hour += HOUR
