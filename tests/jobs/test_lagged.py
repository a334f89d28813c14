"""A ranker served older features: those that were published then, and nothing else changes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import hours as hr
from feature_store.historical import get_historical_features
from feature_store.schemas import TIMESTAMP
from feature_store.services import REQUEST_COLUMNS, feature_service
from feature_store.tables import Store
from feature_store.views import CONTEXT
from jobs.support.contenders import Contender
from jobs.support.lagged import lagged
from tests.feature_store.published import NAMES, START, ZONE, publish, world

HOURS = 12
RANKING = feature_service("ranking")
READS = ("item_click_24h", "user_impression_24h", "hour_of_day")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store, _ = world(tmp_path_factory.mktemp("published"), HOURS, seed=5)
    for table in ("users", "rooms", "items"):
        publish(store, table, [START], [])
    yield store
    store.close()


def samples(store: Store, late: int) -> pa.Table:
    """Rows as samples have them, asked in every hour, with the features of ``late`` hours before;
    what the clock says stays that of the row."""
    names = [NAMES[place % len(NAMES)] for place in range(2 * HOURS)]
    asked = [hr.start_of(hr.add(START, 2 + place // 3)) for place in range(len(names))]
    keys = {key: pa.array(names) for key in RANKING.key_columns()}
    brought = {c: pa.nulls(len(names), pa.string()) for c in REQUEST_COLUMNS if c not in CONTEXT}
    times = pa.array([one - dt.timedelta(hours=late) for one in asked], TIMESTAMP)
    frame = pa.table({**brought, **keys, "event_time": times})
    found = get_historical_features(store, frame, RANKING, time_zone=ZONE)
    clock = pa.array([float(one.hour) for one in asked], pa.float32())
    place = found.schema.get_field_index("hour_of_day")
    return found.set_column(place, "hour_of_day", clock).append_column(
        "as_of", pa.array(asked, TIMESTAMP)
    )


def scored(rows: pa.Table, store: Store, hours: int) -> dict[str, np.ndarray]:
    """What a ranker that tells the columns it reads says of rows with older features."""

    def told(table: pa.Table, _: object) -> dict[str, np.ndarray]:
        return {name: table[name].to_numpy().astype(np.float64) for name in READS}

    one = Contender("candidate", "gbdt_ranker", "1", None, told, READS)
    older = lagged(one, store, ZONE, hours)
    assert older.role == f"candidate lagged {hours}h"
    return dict(older.score(rows, READS))


def test_older_features_are_those_published_then(store: Store) -> None:
    rows = samples(store, 0)
    for hours in (1, 2):
        found, then = scored(rows, store, hours), samples(store, hours)
        for name in READS:
            np.testing.assert_array_equal(found[name], then[name].to_numpy())
    assert not np.array_equal(found["item_click_24h"], rows["item_click_24h"].to_numpy())
    assert pc.sum(rows["item_click_24h"]).as_py() > 0


def test_no_lag_changes_nothing(store: Store) -> None:
    rows = samples(store, 0)
    for name, values in scored(rows, store, 0).items():
        np.testing.assert_array_equal(values, rows[name].to_numpy())
