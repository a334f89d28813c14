"""A daily DAG fires once, with the last hour of a business day: as the scheduler decides it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.partition_mappers.base import RollupMapper
from airflow.serialization.decoders import decode_partition_mapper
from airflow.serialization.encoders import encode_partition_mapper

from dags.business_day import BusinessDay, HoursOfDay, zone_from_environment
from feature_store import hours as hr
from tests.dags.conftest import REPOSITORY
from tests.dags.scheduling import emit, fired, forget, listen

DAY = "2026-11-11"
ZONES = ("UTC", "Asia/Shanghai")


def mapper_of(zone: str) -> RollupMapper:
    """As the scheduler has it: written to the database and read again."""
    mapper = RollupMapper(upstream_mapper=BusinessDay(zone), window=HoursOfDay())
    read = decode_partition_mapper(encode_partition_mapper(mapper))
    assert isinstance(read, RollupMapper)
    return read


@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        ("UTC", DAY, 24),
        ("Asia/Shanghai", DAY, 24),
        ("Asia/Kolkata", DAY, 24),  # half an hour off
        ("America/New_York", "2026-03-08", 23),  # the clocks go forward
        ("America/New_York", "2026-11-01", 25),  # and back
    ],
)
def test_a_day_waits_for_the_hours_that_a_job_reads_for_its_date(
    zone: str, date: str, hours: int
) -> None:
    mapper, wanted = mapper_of(zone), hr.date_hours(date, zone)
    assert mapper.to_upstream(date) == set(wanted)
    assert len(wanted) == hours
    assert {mapper.to_downstream(hour) for hour in wanted} == {date}
    around = [hr.add(wanted[0], -1), hr.add(wanted[-1], 1)]
    day = dt.date.fromisoformat(date)
    neighbours = [(day + dt.timedelta(days=by)).isoformat() for by in (-1, 1)]
    assert [mapper.to_downstream(hour) for hour in around] == neighbours


def test_a_day_begins_at_midnight_of_its_zone() -> None:
    date = mapper_of("Asia/Shanghai").to_partition_date(DAY)
    assert date == dt.datetime(2026, 11, 10, 16, tzinfo=dt.UTC)


def test_a_zone_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKMILL_TIME_ZONE", raising=False)
    assert zone_from_environment() == "UTC"
    for wrong in ("Shanghai", "/etc/passwd", "../UTC"):
        monkeypatch.setenv("RANKMILL_TIME_ZONE", wrong)
        with pytest.raises(ValueError, match=f"RANKMILL_TIME_ZONE='{wrong}' is no time zone"):
            zone_from_environment()


@pytest.fixture(params=ZONES)
def zone(
    request: pytest.FixtureRequest,
    database: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The daily DAG in Airflow's database, with business days of this zone."""
    monkeypatch.setenv("RANKMILL_TIME_ZONE", request.param)
    listen()
    yield request.param
    forget()


def test_a_day_fires_once_with_its_last_hour(zone: str) -> None:
    hours = hr.date_hours(DAY, zone)
    assert hours[0] == {"UTC": "2026-11-11T00", "Asia/Shanghai": "2026-11-10T16"}[zone]
    before, after = hr.add(hours[0], -1), hr.add(hours[-1], 1)
    emit([before, *hours[:-1]])
    assert fired() == [], "23 of 24"
    emit([after, hours[3]])
    assert fired() == [], "neither the next day's first hour nor one twice makes 24"
    emit(hours[-1:])
    assert fired() == [DAY]
    assert fired() == [DAY]


def test_days_fire_in_any_order_and_each_once(zone: str) -> None:
    first, second = (hr.date_hours(day, zone) for day in ("2026-11-10", DAY))
    emit([*second, *first[:-1]])
    assert fired() == [DAY]
    emit(first[-1:])
    assert fired() == [DAY, "2026-11-10"]


def test_containers_take_the_zone_of_the_configuration_that_they_take() -> None:
    compose = (REPOSITORY / "docker" / "compose.yaml").read_text()
    example = (REPOSITORY / "docker" / ".env.example").read_text()
    [named] = re.findall(r"\$\{CONFIG:-(.+)\}", compose)
    [zone] = re.findall(r"^ +time_zone: (\S+)$", (REPOSITORY / named).read_text(), re.M)
    assert re.findall(r"RANKMILL_TIME_ZONE: \$\{TIME_ZONE:-(.+)\}", compose) == [zone]
    assert re.findall(r"^TIME_ZONE=(.+)$", example, re.M) == [zone]
