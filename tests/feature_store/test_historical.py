"""Features of any keys at any times, against a loop over every published row."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store import hours as hr
from feature_store import services
from feature_store.historical import FrameError, get_historical_features, newest_features
from feature_store.schemas import TIMESTAMP
from feature_store.services import FeatureService, feature_service
from feature_store.tables import Store, StoreError
from feature_store.views import VIEWS, FeatureView
from feature_store.windows import sample_matrix
from tests.feature_store.published import NAMES, START, ZONE, open_store, publish, world

HOURS = 62
RANKING = feature_service("ranking")
KEYS = RANKING.key_columns()
MICRO = dt.timedelta(microseconds=1)
Rows = dict[str, list[dict[str, Any]]]

name = st.sampled_from([*NAMES, "unknown", None])
# Around the hours, because what is published at an instant counts, and a microsecond later does not
moment = st.tuples(
    st.integers(-3, HOURS), st.sampled_from([0, 1, 1_799_000_000, 3_599_999_999])
).map(lambda at: hr.start_of(START) + dt.timedelta(hours=at[0], microseconds=at[1]))
asked_row = st.tuples(*([name] * len(KEYS)), moment)
frames = st.lists(asked_row, min_size=1, max_size=12)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Rows]]:
    store, rows = world(tmp_path_factory.mktemp("published"), HOURS, seed=5)
    for table in ("users", "items", "rooms"):
        publish(store, table, [START], [])
    yield store, rows
    store.close()


def frame(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True))
    keys = {key: pa.array(columns[place], pa.string()) for place, key in enumerate(KEYS)}
    times = pa.array(columns[len(KEYS)], TIMESTAMP)
    brought = {c: pa.nulls(len(rows), pa.string()) for c in ("scene", "category", "target_type")}
    return pa.table({**brought, **keys, "event_time": times, "row": range(len(rows))})


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
        columns = found.select(service.served(view)).to_pydict()
        got = np.array(list(columns.values()), np.float32).T
        expected = [naive(view, rows, row) for row in asked.to_pylist()]
        assert np.array_equal(got, np.stack(expected), equal_nan=True), view.name


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=frames)
def test_history_equals_a_loop(published: tuple[Store, Rows], asked: list[tuple]) -> None:
    check(*published, frame(asked), RANKING)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=frames, ttl=st.sampled_from([0, 1, 5, 23, 24]))
def test_a_row_past_its_ttl_is_absent(
    published: tuple[Store, Rows], asked: list[tuple], ttl: int
) -> None:
    short = tuple(dataclasses.replace(view, ttl_hours=ttl) for view in VIEWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "VIEWS", short)
        check(*published, frame(asked), feature_service("user_profile"))
