"""Hours are names of instants in UTC; days belong to a time zone."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store import hours as hr

instants = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1))  # noqa: DTZ001


@given(instants)
def test_an_hour_covers_its_instants(instant: dt.datetime) -> None:
    aware = instant.replace(tzinfo=dt.UTC)
    hour = hr.hour_of(aware)
    assert hr.start_of(hour) <= aware < hr.start_of(hr.add(hour, 1))
    assert hr.parse(hour) == hour
    east = aware.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    assert hr.hour_of(east) == hour


@given(instants, st.integers(-5000, 5000))
def test_arithmetic(instant: dt.datetime, count: int) -> None:
    hour = hr.hour_of(instant.replace(tzinfo=dt.UTC))
    other = hr.add(hour, count)
    assert hr.difference(other, hour) == count
    assert (other > hour) == (count > 0), "names sort as times do"


@pytest.mark.parametrize(
    "text",
    ["2026-11-11", "2026-11-11T5", "2026-11-11 05", "2026-11-11T05:00", "2026-13-01T00",
     "2026-11-11T24", "2026-02-29T00", " 2026-11-11T05", "2026-11-11T05\n", ""],
)  # fmt: skip
def test_what_names_no_hour_is_refused(text: str) -> None:
    with pytest.raises(hr.HourError) as raised:
        hr.parse(text)
    assert repr(text) in str(raised.value)


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(hr.HourError, match="no time zone"):
        hr.hour_of(dt.datetime(2026, 11, 11, 5))  # noqa: DTZ001


def test_ranges() -> None:
    assert hr.hour_range("2026-11-10T23", "2026-11-11T01") == [
        "2026-11-10T23", "2026-11-11T00", "2026-11-11T01",
    ]  # fmt: skip
    assert hr.hour_range("2026-11-11T05", "2026-11-11T05") == ["2026-11-11T05"]
    assert hr.hour_range("2026-11-11T05", "2026-11-11T04") == []


def test_days_of_a_time_zone() -> None:
    hours = hr.date_hours("2026-11-11", "Asia/Shanghai")
    assert hours == hr.hour_range("2026-11-10T16", "2026-11-11T15")
    assert {hr.day_of(hour, "Asia/Shanghai") for hour in hours} == {dt.date(2026, 11, 11)}
    assert hr.day_of("2026-11-11T16", "Asia/Shanghai") == dt.date(2026, 11, 12)


@pytest.mark.parametrize(("date", "count"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_days_on_which_clocks_change(date: str, count: int) -> None:
    hours = hr.date_hours(date, "Europe/Berlin")
    assert len(hours) == count
    assert {str(hr.day_of(hour, "Europe/Berlin")) for hour in hours} == {date}


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(hr.HourError, match="'yesterday' is not a date"):
        hr.date_hours("yesterday", "UTC")
