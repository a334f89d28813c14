"""Business days: which one a run completes, and which hours of a bootstrap it waits for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from feature_store import hours as hr
from local.airflow_api import DagRun
from local.days import day_of, hours_between, last_full_day, unannounced
from local.follow import FEATURES
from local.record import watched_hours
from local.session import _DEMO_START, Session, Span

SHANGHAI = "Asia/Shanghai"
DEMO_HOURS = 72


@pytest.mark.parametrize(
    ("zone", "dates"),
    [
        ("UTC", ("2026-11-11",)),
        (SHANGHAI, ("2026-11-11", "2026-12-31")),
        ("America/New_York", ("2026-03-08", "2026-11-01")),  # the clocks change
        ("Asia/Kolkata", ("2026-11-11",)),
    ],
)
def test_a_day_has_the_hours_that_jobs_read_for_its_date(zone: str, dates: tuple[str, ...]) -> None:
    for date in dates:
        wanted = hr.date_hours(date, zone)
        for hour in wanted:
            day = day_of(hour, zone)
            assert (day.date, list(day.hours)) == (date, wanted)


@pytest.mark.parametrize(
    ("first", "last", "date"),
    [
        ("2026-11-09T16", "2026-11-11T15", "2026-11-11"),  # ends with the day
        ("2026-11-09T16", "2026-11-11T14", "2026-11-10"),
        ("2026-11-09T16", "2026-11-11T16", "2026-11-11"),
        ("2026-11-10T16", "2026-11-11T15", "2026-11-11"),
        ("2026-11-10T17", "2026-11-11T15", None),
        ("2026-11-10T10", "2026-11-11T14", None),
    ],
)
def test_the_last_full_day_lies_within_the_hours(first: str, last: str, date: str | None) -> None:
    day = last_full_day(first, last, SHANGHAI)
    assert (day and day.date) == date


def span_of(first: str, last: str) -> Span:
    before, hours = watched_hours(first, last)
    return Span(first, before, tuple(hours), SHANGHAI)


def test_the_simulated_hours_end_with_a_day_that_airflow_completes() -> None:
    span = span_of(_DEMO_START, hr.add(_DEMO_START, DEMO_HOURS - 1))
    assert span.day is not None and span.day.date == "2026-11-11"
    assert [*span.unannounced, *span.hours] == hr.date_hours("2026-11-11", SHANGHAI)
    assert len(span.unannounced) == 21
    assert span.first == hr.date_hours("2026-11-09", SHANGHAI)[0], "whole days before it"


def test_a_log_that_ends_within_a_day_fires_the_day_before() -> None:
    span = span_of("2026-11-08T16", "2026-11-11T04")
    assert span.day is not None and span.day.date == "2026-11-10"
    day = hr.date_hours("2026-11-10", SHANGHAI)
    assert span.unannounced == [*day, *hr.hour_range("2026-11-10T16", "2026-11-11T01")]


def test_without_a_full_day_only_the_day_that_has_begun_is_announced() -> None:
    span = span_of("2026-11-10T17", "2026-11-11T18")
    assert span.day is None
    assert span.unannounced == []
    assert unannounced("2026-11-10T17", "2026-11-11T18", "2026-11-11T21", SHANGHAI) == [
        "2026-11-11T16",
        "2026-11-11T17",
        "2026-11-11T18",
    ]


def test_hours_done_before_are_announced_again() -> None:
    span = span_of(_DEMO_START, hr.add(_DEMO_START, DEMO_HOURS - 1))
    states = dict(zip(span.hours, ("success", "failed", "running"), strict=True))
    runs = [DagRun(FEATURES, hour, hour, state) for hour, state in states.items()]
    runs.append(DagRun(FEATURES, "earlier", "2026-11-01T00", "success"))
    api = SimpleNamespace(runs=lambda dag: [run for run in runs if run.dag == dag])
    session = cast("Any", SimpleNamespace(services=SimpleNamespace(airflow=api)))
    assert Session.unannounced(session, span) == [*span.unannounced, span.hours[0]]


def test_hours_between_are_none_when_the_last_lies_before_the_first() -> None:
    assert hours_between("2026-11-11T05", "2026-11-11T05") == ["2026-11-11T05"]
    assert hours_between("2026-11-11T05", "2026-11-11T03") == []
