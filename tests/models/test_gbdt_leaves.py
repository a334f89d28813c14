"""Leaf ids: which leaf they name, for which trees they hold, and the signal that they carry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from models import FeatureSpec, ModelError, SpecError, gbdt_leaves, load_ranker, metrics
from models.gbdt import GBDTRanker
from models.gbdt_leaves import LeafEncoder
from models.handoff import pack
from models.leaf_layout import LEAVES_FILE, LeafLayout, StaleTreesError, TaskLeaves
from models.leaf_regression import LeafRegression
from tests.models.conftest import CONFIG, SPEC, make_table

TASKS = ("click", "follow")


@pytest.fixture(scope="module")
def encoder(fitted: GBDTRanker) -> LeafEncoder:
    return LeafEncoder(fitted)


@pytest.mark.parametrize("task", TASKS)
def test_ids_name_the_leaves_that_make_the_prediction(
    encoder: LeafEncoder, fitted: GBDTRanker, valid: pa.Table, task: str
) -> None:
    rows = encoder.encode(valid)
    values = encoder.values(task)
    assert values.shape == (rows.leaves[task],)
    odds = values[rows.ids[task]].sum(axis=1)
    assert 1 / (1 + np.exp(-odds)) == pytest.approx(fitted.predict(valid)[task], abs=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_ids_are_unique_within_a_task(
    encoder: LeafEncoder, fitted: GBDTRanker, valid: pa.Table, task: str
) -> None:
    dumped = lgb.Booster(model_str=fitted.booster_text(task)).dump_model()["tree_info"]
    counts = [tree["num_leaves"] for tree in dumped]
    layout, rows = encoder.layout.tasks[task], encoder.encode(valid)
    assert (layout.trees, layout.leaves) == (len(counts), sum(counts))
    assert list(layout.offsets) == np.cumsum([0, *counts[:-1]]).tolist()
    ids = rows.ids[task]
    assert (ids.dtype, ids.shape) == (np.int32, (valid.num_rows, len(counts)))
    assert (ids >= layout.offsets).all()
    assert (ids < np.add(layout.offsets, counts)).all()
    assert len(np.unique(ids)) > 0.9 * layout.leaves


def test_trees_of_different_sizes_and_without_a_split_are_counted() -> None:
    table = make_table(2000, 4)
    ranker = GBDTRanker(replace(CONFIG, min_data_in_leaf=400, num_leaves=4), SPEC)
    ranker.fit(table, table)
    assert len(set(np.diff(LeafEncoder(ranker).layout.tasks["click"].offsets))) > 1
    flat = GBDTRanker(replace(CONFIG, min_data_in_leaf=1999), SPEC)
    flat.fit(table, table)
    encoder = LeafEncoder(flat)
    assert encoder.layout.tasks["click"] == TaskLeaves(1, 1, (0,))
    assert not encoder.encode(table).ids["click"].any()


def test_chunks_batches_and_slices_give_the_same_ids(
    encoder: LeafEncoder, valid: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encoder.encode(valid).ids
    monkeypatch.setattr(gbdt_leaves, "_AT_ONCE", 1000)
    for task in TASKS:
        assert np.array_equal(encoder.encode(valid).ids[task], whole[task])
        assert np.array_equal(encoder.encode(valid.slice(70, 9)).ids[task], whole[task][70:79])
        parts = [batch.ids[task] for batch in encoder.batches(valid, rows=400)]
        assert [len(part) for part in parts] == [400, 400, 400, 300]
        assert np.array_equal(np.concatenate(parts), whole[task])
    none = encoder.encode(valid.slice(0, 0)).ids["click"]
    assert none.shape == (0, whole["click"].shape[1])
    assert list(encoder.batches(valid.slice(0, 0))) == []
    with pytest.raises(ModelError, match="0 rows"):
        next(encoder.batches(valid, rows=0))


def test_the_predictor_is_asked_for_a_bounded_chunk(
    fitted: GBDTRanker, valid: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = lgb.Booster.predict

    def counted(self: lgb.Booster, data: pa.Table, **how: int) -> object:
        asked.append(data.num_rows * self.num_trees())
        return real(self, data, **how)

    monkeypatch.setattr(lgb.Booster, "predict", counted)
    monkeypatch.setattr(gbdt_leaves, "_AT_ONCE", 2000)
    LeafEncoder(fitted).encode(valid)
    assert len(asked) > 2 * len(TASKS)
    assert max(asked) <= 2000


def test_a_stale_tree_version_is_refused_by_both_names(
    fitted: GBDTRanker, train: pa.Table, valid: pa.Table
) -> None:
    other = GBDTRanker(replace(CONFIG, learning_rate=0.1), SPEC)
    other.fit(train, valid)
    old, new = fitted.tree_version, other.tree_version
    LeafEncoder(fitted, tree_version=old)
    with pytest.raises(StaleTreesError, match=rf"{old[:12]}.*{new[:12]}.*anew.*load") as error:
        LeafEncoder(other, tree_version=old)
    assert isinstance(error.value, ModelError)
    with pytest.raises(StaleTreesError, match="'none'"):
        LeafEncoder(other, tree_version="")
    labels = valid.column("label_click").to_numpy()
    linear = LeafRegression.fit(LeafEncoder(fitted).encode(valid), "click", labels)
    with pytest.raises(StaleTreesError, match=rf"'click'.*{old[:12]}.*{new[:12]}.*anew"):
        linear.predict(LeafEncoder(other).encode(valid))


def test_the_layout_is_registered_with_the_booster(
    fitted: GBDTRanker, encoder: LeafEncoder, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    assert LeafLayout.read(tmp_path / "model") == encoder.layout
    assert LeafEncoder(load_ranker(tmp_path / "model")).layout == encoder.layout
    need = {"data_hour": "2026-11-11T05", "trained_hours": [], "iceberg_snapshots": {}}
    body = pack(
        tmp_path / "model", tmp_path / "packed", "gbdt_ranker", "k", SPEC, {}, need,
        make_table(3, 1), "models:/m",
    )  # fmt: skip
    assert body["leaf_layout"] == LEAVES_FILE
    assert LEAVES_FILE in body["files"]
    assert body["tree_version"] == LeafLayout.read(tmp_path / "packed").tree_version
    # A version that was registered without the file hands off the rest of what it is.
    (tmp_path / "model" / LEAVES_FILE).unlink()
    body = pack(
        tmp_path / "model", tmp_path / "older", "gbdt_ranker", "k", SPEC, {}, need,
        make_table(3, 1), "models:/m",
    )  # fmt: skip
    assert body["leaf_layout"] == ""
    assert LeafEncoder(load_ranker(tmp_path / "model")).layout == encoder.layout


def test_a_layout_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"leaves\.json is missing"):
        LeafLayout.read(tmp_path)
    for body in ({}, {"tree_version": "a", "tasks": []}, {"tree_version": "a", "tasks": {"b": 1}}):
        (tmp_path / LEAVES_FILE).write_text(json.dumps(body))
        with pytest.raises(ModelError, match="holds no leaf layout"):
            LeafLayout.read(tmp_path)
    for text in ("", "Tree=0\nTree=1\nnum_leaves=3\n"):
        with pytest.raises(ModelError, match="trees and the leaves of"):
            TaskLeaves.of(text)


def test_what_cannot_be_encoded_is_refused(encoder: LeafEncoder, valid: pa.Table) -> None:
    with pytest.raises(SpecError, match="missing: noise"):
        encoder.encode(valid.drop_columns(["noise"]))
    with pytest.raises(ModelError, match="call fit or load"):
        LeafEncoder(GBDTRanker(CONFIG, FeatureSpec(dense=("x",))))


def _later(rows: int, seed: int) -> pa.Table:
    """The rows of later: what was liked before is liked half as much, and clicks are rarer."""
    table = make_table(rows, seed)
    odds = 0.5 * np.log(table["truth"].to_numpy() / (1 - table["truth"].to_numpy())) - 1.0
    clicked = np.random.default_rng(seed).random(rows) < 1 / (1 + np.exp(-odds))
    place = table.column_names.index("label_click")
    return table.set_column(place, "label_click", pa.array(clicked.astype(np.uint8)))


def test_leaves_carry_the_signal_and_fresh_weights_follow_the_world(
    encoder: LeafEncoder, fitted: GBDTRanker
) -> None:
    newer, newest = _later(6000, seed=11), _later(6000, seed=12)
    told = newest["label_click"].to_numpy()
    trees = metrics.normalised_entropy(told, fitted.predict(newest)["click"])
    linear = LeafRegression.fit(
        encoder.encode(newer), "click", newer["label_click"].to_numpy(), l2=30.0
    )
    fresh = linear.predict(encoder.encode(newest))
    assert metrics.normalised_entropy(told, fresh) < 0.95 < 1.05 < trees
    assert metrics.expected_calibration_error(told, fresh) < 0.025
    assert metrics.auc(told, fresh) > 0.64
