"""Views are the one declaration that tables, samples and feature specs are derived from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from feature_store.point_in_time import KNOWN_ATTRIBUTES
from feature_store.schemas import EVENTS, OUTCOME_ACTIONS, SAMPLE_KEYS, SAMPLES, TABLES
from feature_store.training_set import FEATURE_COLUMNS
from feature_store.views import (
    ATTRIBUTES,
    CONTEXT,
    DERIVED_KEYS,
    TILE_MINUTES,
    VALUE_ACTIONS,
    VIEWS,
    FeatureView,
    dense_columns,
    sparse_columns,
    window_name,
)
from feature_store.windows import sample_matrix


def test_every_table_has_distinct_columns_and_its_partition() -> None:
    for name, spec in TABLES.items():
        repeated = [c for c, n in Counter(spec.schema.names).items() if n > 1]
        assert repeated == [], name
        assert spec.partition[:1] == (() if name == "promotions" else ("hour",))
        assert set(spec.partition) <= set(spec.schema.names)
        assert not spec.schema.field("hour").nullable


def test_samples_hold_exactly_the_declared_features() -> None:
    keys = [field.name for field in SAMPLE_KEYS]
    sparse = [name for name, _ in sparse_columns()]
    assert SAMPLES.names == [*keys, *sparse, *dense_columns(), "hour"]
    assert all(SAMPLES.field(c).type == pa.float32() for c in dense_columns())
    assert all(SAMPLES.field(c).type == pa.string() for c in sparse)
    assert set(FEATURE_COLUMNS) == {*sparse, *dense_columns()}


def test_no_feature_tells_the_outcome_or_the_place() -> None:
    """What is known only after the impression, or is chosen by the ranker, is no feature."""
    forbidden = {"position", "propensity", "event_time", "ingested_at", "sample_id", "group_id"}
    assert forbidden.isdisjoint(FEATURE_COLUMNS)
    assert not [c for c in FEATURE_COLUMNS if c.startswith("label_")]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_is_consistent(view: FeatureView) -> None:
    assert set(view.actions) <= {"impression", *OUTCOME_ACTIONS}
    assert set(view.recency) <= set(view.actions)
    for rate in view.rates:
        assert {rate.numerator, rate.denominator} <= set(view.measures())
        assert rate.weight > 0
    assert all(window % TILE_MINUTES == 0 for window in view.windows)
    assert set(view.amounts) <= set(VALUE_ACTIONS) & set(view.actions)
    for trend in view.trends:
        assert trend.action in view.actions
        assert {trend.short, trend.long} <= set(view.windows)
        assert trend.short < trend.long
    assert len(view.keys) in (1, 2)
    assert set(view.keys) <= {*EVENTS.names, *(key.name for key in DERIVED_KEYS)}
    assert view.ttl_hours > 24, "a full base comes once a day"
    assert list(view.windows) == sorted(set(view.windows))
    assert set(view.keys) <= set(TABLES[view.features_table].schema.names)
    assert set(view.count_columns()) <= set(TABLES[view.features_table].schema.names)
    width = len(view.count_columns()) + len(view.recency)
    matrix = sample_matrix(view, np.zeros((3, width), np.int64), np.zeros(3, np.int64))
    assert matrix.shape == (3, len(view.sample_columns())), "one column per declared name"


def test_views_have_distinct_names_and_tables() -> None:
    assert len({view.name for view in VIEWS}) == len(VIEWS)
    tables = [(v.counts_table, v.day_counts_table, v.features_table) for v in VIEWS]
    assert len({name for names in tables for name in names}) == 3 * len(VIEWS)


def test_attributes_belong_to_their_entity_table() -> None:
    for view in ATTRIBUTES:
        assert view.key in TABLES[view.table].schema.names
        assert set(view.dense()) <= set(dense_columns())
        assert set(view.sparse()) <= {name for name, _ in sparse_columns()}
        for place in range(len(view.categorical)):
            assert f"text{place} string" in KNOWN_ATTRIBUTES
    assert set(CONTEXT) <= set(dense_columns())


@pytest.mark.parametrize(
    ("minutes", "name"),
    [(30, "30m"), (60, "1h"), (90, "90m"), (1440, "24h"), (2160, "36h"), (4320, "3d")],
)
def test_windows_have_readable_names(minutes: int, name: str) -> None:
    assert window_name(minutes) == name


def test_adding_a_view_is_one_entry() -> None:
    view = FeatureView("scene", ("scene",), "test", actions=("impression", "stay"), rates=(),
                       recency=("stay",), windows=(60, 72 * 60))  # fmt: skip
    assert view.measures() == ("impression", "stay", "stay_total")
    assert view.count_columns() == (
        "impression_1h", "stay_1h", "stay_total_1h", "impression_3d", "stay_3d", "stay_total_3d",
    )  # fmt: skip
    assert view.recency_columns() == ("last_stay_at",)
    assert view.sample_columns() == (
        "scene_impression_1h", "scene_stay_1h", "scene_impression_3d", "scene_stay_3d",
        "scene_hours_since_stay",
    )  # fmt: skip
    assert set(VALUE_ACTIONS) <= set(OUTCOME_ACTIONS)
