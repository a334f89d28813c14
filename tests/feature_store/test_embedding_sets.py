"""Vectors beside samples: those of the day before, against a plain loop."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store import hours as hr
from feature_store.embedding_sets import (
    Beside,
    Space,
    embedding_hour,
    embedding_hours,
    newest_space,
    with_embeddings,
)
from feature_store.embedding_views import EMBEDDING_VIEWS, SIMILARITIES, SPACE
from feature_store.historical import FrameError, get_historical_features, newest_features
from feature_store.schemas import NODE_EMBEDDINGS, TIMESTAMP, optional
from feature_store.services import FeatureService, ServiceError
from feature_store.tables import HourWriter, Staged, Store, StoreError, Writer

ZONE = "Asia/Shanghai"
VIEWS = [view.name for view in EMBEDDING_VIEWS]
COSINES = [one.name for one in SIMILARITIES]
TYPES = ("user", "item", "room")
# By day its space, and the width of its vectors; 11 November was not embedded.
DAYS = {"2026-11-09": ("old", 2), "2026-11-10": ("new", 3), "2026-11-12": ("new", 3)}


def vector(day: str, kind: str, number: int) -> list[float] | None:
    """The vector of a node on a day; number 3 has none, and 2 has zeros."""
    if number == 3:
        return None
    width = DAYS[day][1]
    if number == 2:
        return [0.0] * width
    return [float(int(day[-2:]) + TYPES.index(kind) * (n + 1) + number) for n in range(width)]


def last_hour(day: str) -> str:
    return hr.date_hours(day, ZONE)[-1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("vectors")
    store = Store(f"{folder}/warehouse", f"sqlite:///{folder}/catalog.db")
    for day, (space, _) in DAYS.items():
        hour = last_hour(day)
        rows = [
            {"node_type": kind, "node_id": f"{kind[0]}{n}", SPACE: space, "last_seen": day,
             "visits": 1, "vector": found, "hour": hour}
            for kind in TYPES for n in range(4) if (found := vector(day, kind, n)) is not None
        ]  # fmt: skip
        put(store, hour, pa.Table.from_pylist(rows, optional(NODE_EMBEDDINGS)))
    return store


def put(store: Store, hour: str, rows: pa.Table) -> None:
    store.ledger.take_fence("embed_graph", [hour], "test")
    staged, part = Staged("node_embeddings"), HourWriter(store, "node_embeddings", hour)
    part.write(rows)
    part.close(staged)
    store.commit(staged, Writer("embed_graph", "test"))


def samples(rows: list[tuple[dt.datetime, int, int | None, int | None]]) -> pa.Table:
    def ids(prefix: str, numbers: list[int | None]) -> pa.Array:
        return pa.array([None if n is None else f"{prefix}{n}" for n in numbers], pa.string())

    return pa.table({
        "as_of": pa.array([row[0] for row in rows], TIMESTAMP),
        "user_id": ids("u", [row[1] for row in rows]),
        "item_id": ids("i", [row[2] for row in rows]),
        "room_id": ids("r", [row[3] for row in rows]),
    })  # fmt: skip


def plain(moment: dt.datetime, kind: str, number: int | None) -> list[float] | None:
    """The vector that a sample may know: of the business day before its own."""
    day = (moment.astimezone(ZoneInfo(ZONE)).date() - dt.timedelta(days=1)).isoformat()
    return vector(day, kind, number) if day in DAYS and number is not None else None


def cosine(left: list[float] | None, right: list[float] | None) -> float | None:
    if left is None or right is None:
        return None
    lengths = math.hypot(*left) * math.hypot(*right)
    return sum(a * b for a, b in zip(left, right, strict=True)) / lengths if lengths else 0.0


instants = st.integers(0, 24 * 6).map(
    lambda n: dt.datetime(2026, 11, 9, tzinfo=dt.UTC) + dt.timedelta(hours=n)
)
numbers = st.one_of(st.none(), st.integers(0, 4))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(instants, st.integers(0, 4), numbers, numbers), max_size=12))
def test_a_row_has_the_vectors_of_the_day_before_and_no_others(
    store: Store, rows: list[tuple[dt.datetime, int, int | None, int | None]]
) -> None:
    hours = [last_hour(day) for day in DAYS]
    table = samples(rows)
    found = with_embeddings(store, table, VIEWS, COSINES, hours=hours, time_zone=ZONE)
    assert found.select(table.column_names).equals(table)
    assert found.column_names[len(table.column_names) :] == [*VIEWS, SPACE, *COSINES]
    for row, (moment, *numbers) in zip(found.to_pylist(), rows, strict=True):
        wanted: dict[str, Any] = {
            kind: plain(moment, kind, n if n != 4 else None)
            for kind, n in zip(TYPES, numbers, strict=True)
        }
        for kind in TYPES:
            assert row[f"{kind}_vector"] == wanted[kind]
        for kind in ("item", "room"):
            expected = cosine(wanted["user"], wanted[kind])
            if expected is not None:
                expected = pytest.approx(expected, abs=1e-6)
            assert row[f"user_{kind}_similarity"] == expected
        if any(wanted.values()):
            day = (moment.astimezone(ZoneInfo(ZONE)).date() - dt.timedelta(days=1)).isoformat()
            assert row[SPACE] == DAYS[day][0]


def test_slices_say_what_the_whole_says(store: Store) -> None:
    start = dt.datetime(2026, 11, 10, 12, tzinfo=dt.UTC)
    rows = [(start + dt.timedelta(hours=n), n % 4, (n + 1) % 4, n % 3) for n in range(24)]
    hours = [last_hour(day) for day in DAYS]
    beside = Beside(store, samples(rows), VIEWS, COSINES, hours=hours, time_zone=ZONE)
    whole = pa.table(beside.columns())
    parts = [pa.table(beside.columns(n, n + 5)) for n in range(0, 24, 5)]
    assert pa.concat_tables(parts).combine_chunks().equals(whole)


def test_what_arrived_in_the_samples_own_day_is_not_read(store: Store) -> None:
    """The last instant of a day knows the day before, the next instant the day itself."""
    assert embedding_hour("2026-11-10T15", ZONE) == last_hour("2026-11-09")
    assert embedding_hour("2026-11-10T16", ZONE) == last_hour("2026-11-10") == "2026-11-10T15"
    # 25 October 2026 has 25 hours in Berlin.
    assert embedding_hour("2026-10-25T22", "Europe/Berlin") == "2026-10-24T21"
    assert embedding_hour("2026-10-25T23", "Europe/Berlin") == "2026-10-25T22"
    # Samples of the first hours may have been shown the day before.
    first = hr.add(last_hour("2026-11-10"), 1)
    assert embedding_hours(store, first, first, ZONE) == [
        last_hour("2026-11-09"),
        last_hour("2026-11-10"),
    ]


def test_the_newest_space_is_that_of_the_newest_day(store: Store) -> None:
    hours = [last_hour(day) for day in DAYS]
    assert newest_space(store, hours, None) == Space("new", 3)
    assert newest_space(store, hours[:1], None) == Space("old", 2)
    assert newest_space(store, [], None) is None


def test_a_partition_that_is_not_named_is_not_read(store: Store) -> None:
    moment = hr.start_of(hr.add(last_hour("2026-11-10"), 1))
    table = samples([(moment, 0, 1, 1)])
    found = with_embeddings(store, table, VIEWS, COSINES, hours=[], time_zone=ZONE)
    assert [found[name].null_count for name in (*VIEWS, SPACE, *COSINES)] == [1] * 6
    named = [last_hour("2026-11-10")]
    found = with_embeddings(store, table, VIEWS, COSINES, hours=named, time_zone=ZONE)
    assert np.isclose(found[COSINES[0]][0].as_py(), 1.0, atol=0.05)


def test_what_is_not_declared_is_refused_by_name(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no embedding views \['dream'\]"):
        with_embeddings(store, samples([]), ["dream"], [], hours=[], time_zone=ZONE)
    with pytest.raises(StoreError, match=r"no similarities \['dream'\]"):
        with_embeddings(store, samples([]), [], ["dream"], hours=[], time_zone=ZONE)
    with pytest.raises(ServiceError, match="similarities"):
        FeatureService("mine", "", "me", similarities=("dream",))


def test_history_and_the_newest_features_say_the_same(store: Store) -> None:
    service = FeatureService("near", "", "me", vectors=tuple(VIEWS), similarities=tuple(COSINES))
    hour = hr.add(last_hour("2026-11-10"), 1)
    moment = hr.start_of(hour)
    rows = samples([(moment, 0, 1, None), (moment, 1, 3, 2)])
    wanted = with_embeddings(
        store, rows, VIEWS, COSINES, hours=[last_hour("2026-11-10")], time_zone=ZONE
    ).select([*VIEWS, SPACE, *COSINES])
    keys = rows.drop_columns(["as_of"])
    later = pa.array([moment + dt.timedelta(minutes=59)] * 2, TIMESTAMP)
    asked = keys.append_column("event_time", later)
    history = get_historical_features(store, asked, service, time_zone=ZONE)
    assert history.select(wanted.column_names).equals(wanted)
    newest = newest_features(store, keys, service, hour, time_zone=ZONE)
    assert newest.select(wanted.column_names).equals(wanted)
    with pytest.raises(FrameError, match="pass time_zone"):
        newest_features(store, keys, service, hour)
    empty = get_historical_features(store, asked.slice(0, 0), service, time_zone=ZONE)
    assert empty.schema.equals(history.schema)
    with pytest.raises(FrameError, match=r"needs the columns \['room_id'\]"):
        get_historical_features(store, asked.drop_columns(["room_id"]), service, time_zone=ZONE)
