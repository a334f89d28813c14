"""Which versions may go: the rule beside a naive reading of it, and its edges."""

from __future__ import annotations

import datetime as dt
import functools
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store import hours as hr
from feature_store.maintenance import MaintenanceRules
from jobs.support.retention import Registered, prunable

HOUR = "2026-11-11T05"
ZONE = "Asia/Shanghai"
RULES = MaintenanceRules()

AGED = st.builds(
    lambda name, back, alias: (name, back, (alias,) if alias else ()),
    st.sampled_from(["gbdt_ranker", "mmoe_ranker"]),
    # Around both bounds, and any time between; a backfill makes old hours late, in any order.
    st.one_of(st.integers(-3, 80), st.integers(90 * 24 - 30, 90 * 24 + 30), st.integers(0, 2400)),
    st.sampled_from(["", "", "", "", "champion"]),
)


def registered(aged: list[tuple[str, int, tuple[str, ...]]]) -> list[Registered]:
    """Versions as they were registered, numbered by name; ages in hours before HOUR."""
    counts: dict[str, int] = {}
    found = []
    for name, back, aliases in aged:
        counts[name] = counts.get(name, 0) + 1
        found.append(Registered(name, counts[name], hr.add(HOUR, -back), aliases))
    return found


@functools.cache
def day(hour: str) -> str:
    start = dt.datetime.fromisoformat(f"{hour}:00+00:00")
    return start.astimezone(ZoneInfo(ZONE)).strftime("%Y-%m-%d")


def naive(
    version: Registered, others: list[Registered], rules: MaintenanceRules,
    of_record: set[tuple[str, int]],
) -> bool:  # fmt: skip
    """Whether ``version`` may go, said as a person would say it."""
    rivals = [other for other in others if other.name == version.name and other != version]
    age = hr.difference(HOUR, version.data_hour)
    kept = age <= rules.hourly_version_days * 24
    kept |= bool(version.aliases) or (version.name, version.number) in of_record
    key = (version.data_hour, version.number)
    kept |= not any((other.data_hour, other.number) > key for other in rivals)
    kept |= not any(other.number > version.number for other in rivals)
    today = day(version.data_hour)
    later = [o for o in rivals if day(o.data_hour) == today and (o.data_hour, o.number) > key]
    kept |= not later and age <= rules.daily_version_days * 24
    return not kept


@settings(deadline=None)
@given(
    st.lists(AGED, max_size=60),
    st.sets(st.tuples(st.sampled_from(["gbdt_ranker", "mmoe_ranker"]), st.integers(1, 60))),
    st.sampled_from([RULES, MaintenanceRules(hourly_version_days=1, daily_version_days=3)]),
)
@example([("gbdt_ranker", back, ()) for back in range(24 * 97, -1, -5)], set(), RULES)
@example([("gbdt_ranker", 24 * days, ()) for days in (91, 90, 3, 2, 0)], set(), RULES)
def test_as_a_naive_reading_says(
    aged: list[tuple[str, int, tuple[str, ...]]], of_record: set[tuple[str, int]],
    rules: MaintenanceRules,
) -> None:  # fmt: skip
    versions = registered(aged)
    expected = {v for v in versions if naive(v, versions, rules, of_record)}
    assert set(prunable(versions, HOUR, rules, ZONE, of_record)) == expected
    shuffled = sorted(versions, key=lambda version: hash((version.data_hour, version.number)))
    assert set(prunable(shuffled, HOUR, rules, ZONE, of_record)) == expected


def kept(versions: list[Registered]) -> list[str]:
    gone = prunable(versions, HOUR, RULES, ZONE)
    return [version.data_hour for version in versions if version not in gone]


def test_a_hundred_days_of_hours_leave_two_days_and_ninety_evenings() -> None:
    hours = hr.hour_range(hr.add(HOUR, -2400), HOUR)
    left = kept([Registered("gbdt_ranker", number, hour) for number, hour in enumerate(hours)])
    recent = hr.hour_range("2026-11-09T05", HOUR)
    # A business day of Shanghai ends with 15:00 UTC; the quarter begins in the middle of one.
    evenings = [hr.add("2026-08-13T15", 24 * n) for n in range(88)]
    assert left == evenings + recent
    assert evenings[-1] == "2026-11-08T15"


def test_a_version_a_day_stays_a_quarter() -> None:
    hours = [hr.add("2026-11-10T15", -24 * back) for back in range(100, -1, -1)]
    left = kept([Registered("mmoe_ranker", number, hour) for number, hour in enumerate(hours)])
    assert left == [hour for hour in hours if hour >= "2026-08-13T05"]


def test_of_one_hour_the_version_registered_last_stands_for_the_day() -> None:
    versions = [Registered("m", number, "2026-11-01T15") for number in (4, 6, 5)]
    newest = Registered("m", 7, HOUR)
    gone = prunable([*versions, newest], HOUR, RULES, ZONE)
    assert [version.number for version in gone] == [4, 5]
    assert set(gone.values()) == {"saw nothing since 2026-11-09T05, and is not the last of its day"}


def test_a_quiet_registry_keeps_its_newest_and_what_was_registered_last() -> None:
    """Of years ago: the newest by data, and an old hour that was trained again just now."""
    old = [Registered("m", n, hour) for n, hour in enumerate(["2020-01-01T00", "2020-01-03T00"])]
    again = Registered("m", 2, "2020-01-02T00")
    assert set(prunable([*old, again], HOUR, RULES, ZONE)) == {old[0]}
    assert prunable(old[1:], HOUR, RULES, ZONE) == {}
    assert prunable([], HOUR, RULES, ZONE) == {}


def test_seen_from_an_hour_of_the_past_nothing_after_it_goes() -> None:
    hours = hr.hour_range("2026-10-01T00", "2026-11-11T05")
    versions = [Registered("m", number, hour) for number, hour in enumerate(hours)]
    gone = prunable(versions, "2026-10-05T00", RULES, ZONE)
    assert {version.data_hour for version in gone} <= set(hr.hour_range(hours[0], "2026-10-02T23"))
    assert gone


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"hourly_version_days": 0.5}, "hourly_version_days must be at least 1"),
        ({"daily_version_days": 1e9}, "daily_version_days must be at least 1 and at most 36,500"),
        ({"hourly_version_days": 7.0, "daily_version_days": 3.0}, r"\(3\) must not be less than"),
    ],
)
def test_rules_that_lose_what_is_needed_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MaintenanceRules(**wrong)  # type: ignore[arg-type]
