"""Features of any keys at any times, against a loop over every published row."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store import hours as hr
from feature_store import services
from feature_store.historical import FrameError, get_historical_features, newest_features
from feature_store.point_in_time import base_hours
from feature_store.schemas import SAMPLES, TIMESTAMP, optional
from feature_store.services import REQUEST_COLUMNS, FeatureService, feature_service
from feature_store.tables import Store, StoreError
from feature_store.training_set import content_digest
from feature_store.views import CONTEXT, VIEWS, FeatureView, window_name
from feature_store.windows import sample_matrix
from tests.feature_store.published import NAMES, START, ZONE, open_store, publish, world

HOURS = 42
RANKING = feature_service("ranking")
KEYS = RANKING.key_columns()
MICRO = dt.timedelta(microseconds=1)
Rows = dict[str, list[dict[str, Any]]]


def item(hour: int, price: float | None, kind: str | None, minute: int = 0) -> dict[str, Any]:
    """What arrived of item ``a`` in the given hour of the store."""
    return {
        "item_id": "a",
        "valid_from": hr.start_of(START) + dt.timedelta(minutes=minute),
        "category": "c",
        "numeric": [("price", price)] if price is not None else [],
        "categorical": [("video_type", kind)] if kind is not None else [],
        "hour": hr.add(START, hour),
    }


# Of one hour the newest `valid_from` counts, whichever comes first in the file.
ITEMS = [item(0, 3.0, None), item(2, 5.0, "video", minute=9), item(2, 4.0, "photo", minute=5)]

name = st.sampled_from([*NAMES, "unknown", None])
# Around the hours, because what is published at an instant counts, and a microsecond later does not
moment = st.tuples(
    st.integers(-3, HOURS), st.sampled_from([0, 1, 1_799_000_000, 3_599_999_999])
).map(lambda at: hr.start_of(START) + dt.timedelta(hours=at[0], microseconds=at[1]))
asked_row = st.tuples(*([name] * len(KEYS)), moment)
frames = st.lists(asked_row, min_size=1, max_size=60)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Rows]]:
    store, rows = world(tmp_path_factory.mktemp("published"), HOURS, seed=5)
    for table in ("users", "rooms"):
        publish(store, table, [START], [])
    publish(store, "items", [START, hr.add(START, 2)], ITEMS)
    yield store, rows
    store.close()


def frame(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True))
    keys = {key: pa.array(columns[place], pa.string()) for place, key in enumerate(KEYS)}
    times = pa.array(columns[len(KEYS)], TIMESTAMP)
    brought = {c: pa.nulls(len(rows), pa.string()) for c in REQUEST_COLUMNS if c not in CONTEXT}
    return pa.table({**brought, **keys, "event_time": times, "row": range(len(rows))})


def of(key: str | None, moment: dt.datetime) -> tuple[Any, ...]:
    """A row that asks for ``key`` of everything."""
    return (*([key] * len(KEYS)), moment)


def same(one: pa.Table, other: pa.Table) -> bool:
    """Equal to the bit, an age that never was (NaN) included."""
    return content_digest(one) == content_digest(other)


def naive(view: FeatureView, rows: Rows, asked: dict[str, Any]) -> np.ndarray:
    """The view's columns for one asked row: a loop over everything that was ever published."""
    as_of = asked["event_time"].replace(minute=0, second=0, microsecond=0)
    best = None
    for row in rows[view.name]:
        if any(row[key] != asked[key] for key in view.keys):
            continue
        if row["as_of"] > as_of or as_of - row["as_of"] > dt.timedelta(hours=view.ttl_hours):
            continue
        if best is None or row["as_of"] > best["as_of"]:
            best = row
    micros = np.array([round(as_of.timestamp()) * 1_000_000])
    values = np.zeros((1, len(view.count_columns()) + len(view.recency)), np.int64)
    if best is not None:
        counts = [best[c] for c in view.count_columns()]
        times = [round(best[c].timestamp()) * 1_000_000 for c in view.recency_columns()]
        values[0] = [*counts, *times]
    return sample_matrix(view, values, micros)[0]


def check(store: Store, rows: Rows, asked: pa.Table, service: FeatureService) -> None:
    found = get_historical_features(store, asked, service, time_zone=ZONE)
    assert found.num_rows == asked.num_rows
    assert found.select(asked.column_names).equals(asked), "its rows, in its order"
    for view in service.feature_views():
        served = service.served(view)
        places = [view.sample_columns().index(column) for column in served]
        got = np.array(list(found.select(served).to_pydict().values()), np.float32).T
        expected = [naive(view, rows, row)[places] for row in asked.to_pylist()]
        assert np.array_equal(got, np.stack(expected), equal_nan=True), view.name


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=frames)
def test_history_equals_a_loop(published: tuple[Store, Rows], asked: list[tuple]) -> None:
    check(*published, frame(asked), RANKING)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=frames, ttl=st.sampled_from([0, 1, 5, 23, 24]))
def test_a_row_past_its_ttl_is_absent(
    published: tuple[Store, Rows], asked: list[tuple], ttl: int
) -> None:
    short = tuple(dataclasses.replace(view, ttl_hours=ttl) for view in VIEWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "VIEWS", short)
        check(*published, frame(asked), feature_service("user_profile"))


def test_without_bases_the_newest_of_the_first_hours_is_found(
    published: tuple[Store, Rows],
) -> None:
    """Every instant of the store's first and last day, for every key: nothing is overlooked."""
    store, rows = published
    moments = [hr.start_of(hr.add(START, hour)) for hour in range(0, HOURS + 1, 3)]
    asked = frame([of(n, m) for m in moments for n in NAMES])
    check(store, rows, asked, feature_service("item_statistics"))


def test_the_last_hour_before_a_base_reads_back_to_the_one_before(
    published: tuple[Store, Rows],
) -> None:
    """A day's last answer to a key that has not changed since lies a whole day back."""
    store, rows = published
    before = hr.start_of(base_hours(hr.hour_range(START, hr.add(START, HOURS)), ZONE)[1])
    firsts = {view.keys[0] for view in VIEWS if len(view.keys) > 1}
    asked = frame([
        (*(one if key in firsts else other for key in KEYS), before)
        for one in NAMES for other in NAMES
    ])  # fmt: skip
    check(store, rows, asked, RANKING)


def test_attributes_are_those_that_had_arrived(published: tuple[Store, Rows]) -> None:
    at = [hr.start_of(START) + dt.timedelta(minutes=minutes) for minutes in (59, 60, 179, 180)]
    asked = frame([of("a", moment) for moment in at])
    found = get_historical_features(
        published[0], asked, feature_service("item_statistics"), time_zone=ZONE
    )
    assert found["item_price"].to_pylist() == [None, 3.0, 3.0, 5.0]
    assert found["item_video_type"].to_pylist() == [None, None, None, "video"]
    assert found["item_duration_s"].to_pylist() == [None] * 4


def test_a_key_that_events_do_not_carry_is_looked_up(published: tuple[Store, Rows]) -> None:
    """As known in the row's hour, as with impressions; what the frame brings comes first."""
    service = FeatureService("taste", "", "test", views=("user_category",), request=("category",))
    minutes = (-1, 0, 59, 24 * 60)
    at = [hr.start_of(START) + dt.timedelta(minutes=m) for m in minutes]
    asked = pa.table({
        "user_id": ["a"] * 4, "item_id": ["a"] * 3 + [None],
        "room_id": pa.nulls(4, pa.string()), "event_time": pa.array(at, TIMESTAMP),
    })  # fmt: skip
    found = get_historical_features(published[0], asked, service, time_zone=ZONE)
    assert found["category"].to_pylist() == [None, "c", "c", None]
    brought = asked.append_column("category", pa.array(["b"] * 4))
    check(*published, brought, FeatureService("b", "", "test", views=("user_category",)))
    with pytest.raises(FrameError, match=r"needs the columns \['room_id'\]"):
        get_historical_features(
            published[0], asked.drop_columns(["room_id"]), service, time_zone=ZONE
        )


def test_a_service_is_its_columns_in_order(published: tuple[Store, Rows]) -> None:
    asked = frame([of("b", hr.start_of(hr.add(START, 30)))])
    found = get_historical_features(published[0], asked, RANKING, time_zone=ZONE)
    added = found.column_names[len(asked.column_names) :]
    assert added == [c for c in RANKING.columns() if c not in asked.column_names]
    declared = optional(SAMPLES)
    assert [found.schema.field(c).type for c in added] == [declared.field(c).type for c in added]


def test_the_clock_is_the_business_days(published: tuple[Store, Rows]) -> None:
    sunday_evening = dt.datetime(2026, 11, 8, 17, 59, tzinfo=dt.UTC)  # Monday 01:59 in Shanghai
    asked = frame([of(None, sunday_evening)])
    found = get_historical_features(published[0], asked, RANKING, time_zone=ZONE)
    assert found.select(["hour_of_day", "day_of_week"]).to_pylist() == [
        {"hour_of_day": 1.0, "day_of_week": 0.0}
    ]


def test_windows_can_be_chosen(published: tuple[Store, Rows]) -> None:
    view = VIEWS[0]
    chosen = window_name(view.windows[1])
    narrow = FeatureService("narrow", "", "test", views=(view.name,), windows=(chosen,))
    by_window = (
        *view.actions,
        *(f"{a}_amount" for a in view.amounts),
        *(r.name for r in view.rates),
    )
    ages = (f"hours_since_{action}" for action in view.recency)
    names = (*(f"{name}_{chosen}" for name in by_window), *ages)
    assert narrow.columns() == tuple(f"{view.name}_{name}" for name in names)
    asked = frame([of("a", hr.start_of(hr.add(START, 40)))])
    check(*published, asked, narrow)


def test_a_frame_of_pandas(published: tuple[Store, Rows]) -> None:
    service = feature_service("user_profile")
    asked = frame([of(n, hr.start_of(hr.add(START, 40))) for n in ("b", "a", None)])
    expected = get_historical_features(published[0], asked, service, time_zone=ZONE)
    frames = asked.to_pandas()
    frames.index = [7, 7, 3]  # an index says nothing
    found = get_historical_features(published[0], frames, service, time_zone=ZONE)
    assert same(found.select(service.columns()), expected.select(service.columns()))


FAULTS = {
    "needs the columns ['user_id', 'event_time']": lambda t: t.drop_columns(
        ["user_id", "event_time"]
    ),
    "key column 'user_id' is int64; keys are texts": lambda t: t.set_column(
        t.schema.get_field_index("user_id"), "user_id", pa.array([7])
    ),
    "'event_time' is timestamp[us]; make it a timestamp with a time zone": lambda t: t.set_column(
        t.schema.get_field_index("event_time"), "event_time",
        pc.cast(t["event_time"], pa.timestamp("us")),
    ),
    "'event_time' is null in 1 rows": lambda t: t.set_column(
        t.schema.get_field_index("event_time"), "event_time", pa.nulls(1, TIMESTAMP)
    ),
    "columns named as features, ['user_activity']": lambda t: t.append_column(
        "user_activity", pa.nulls(1, pa.string())
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", FAULTS)
def test_a_frame_that_cannot_be_answered(published: tuple[Store, Rows], said: str) -> None:
    asked = FAULTS[said](frame([of("a", hr.start_of(START))]))
    with pytest.raises(FrameError) as refusal:
        get_historical_features(
            published[0], asked, feature_service("user_profile"), time_zone=ZONE
        )
    assert said in str(refusal.value)


def test_features_that_are_not_published_are_not_guessed(published: tuple[Store, Rows]) -> None:
    late = hr.add(START, HOURS + 2)
    asked = frame([of("a", hr.start_of(late))])
    with pytest.raises(StoreError, match=f"features_user of {hr.add(START, HOURS)} is not publish"):
        get_historical_features(
            published[0], asked, feature_service("user_profile"), time_zone=ZONE
        )


def test_an_empty_frame(published: tuple[Store, Rows]) -> None:
    asked = frame([of("a", hr.start_of(START))]).slice(0, 0)
    found = get_historical_features(published[0], asked, RANKING, time_zone=ZONE)
    assert (found.num_rows, found.column_names[-1]) == (0, RANKING.columns()[-1])


# -- the newest -----------------------------------------------------------------------------------


def test_the_newest_are_those_of_the_last_published_hour(published: tuple[Store, Rows]) -> None:
    service = feature_service("item_statistics")
    keys = pa.table({"item_id": ["b", "unknown", None, "a", "b"], "shelf": [1, 2, 3, 4, 5]})
    found = newest_features(published[0], keys, service)
    assert found.column_names == ["item_id", "shelf", "as_of", *service.columns()]
    end = hr.start_of(hr.add(START, HOURS))
    assert found["as_of"].to_pylist() == [end] * 5
    times = pa.array([end] * 5, TIMESTAMP)
    asked = keys.append_column("event_time", times)
    history = get_historical_features(published[0], asked, service, time_zone=ZONE)
    assert same(found.select(service.columns()), history.select(service.columns()))
    assert found["item_price"].to_pylist() == [None, None, None, 5.0, None]


def test_an_hour_that_not_every_view_has_is_not_the_newest(tmp_path: Path) -> None:
    """Nor is one that its gate refused; and the hour asked for is the one that is read."""
    store, _ = world(tmp_path, 3, seed=1)
    service = FeatureService("two", "", "test", views=(VIEWS[0].name, VIEWS[1].name))
    keys = pa.table({key: ["a"] for key in service.key_columns()})
    publish(store, VIEWS[0].features_table, [hr.add(START, 3)], [])
    newest = newest_features(store, keys, service)["as_of"].to_pylist()
    assert newest == [hr.start_of(hr.add(START, 3))]
    store.ledger.validate(VIEWS[1].features_table, {hr.add(START, 2): False})
    newest = newest_features(store, keys, service)["as_of"].to_pylist()
    assert newest == [hr.start_of(hr.add(START, 2))]
    chosen = newest_features(store, keys, service, as_of=hr.add(START, 1))["as_of"].to_pylist()
    assert chosen == [hr.start_of(hr.add(START, 1))]
    with pytest.raises(StoreError, match="is not published"):
        newest_features(store, keys, service, as_of=hr.add(START, 9))
    store.close()
    (tmp_path / "empty").mkdir()
    empty = open_store(tmp_path / "empty")
    with pytest.raises(StoreError, match="has no published features"):
        newest_features(empty, keys, service)
    empty.close()
