"""Negative down-sampling of the trees: what is left out, what is corrected, what stops a fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from models import ConfigError, FeatureSpec, SpecError, TrainingRefused, load_ranker, metrics
from models.boosting import mature_labels
from models.calibration import as_down_sampled
from models.down_sampling import drawn, loss_of_all, without_negatives
from models.gbdt import GBDTConfig, GBDTRanker
from models.gbdt_leaves import LeafEncoder
from models.gbdt_ways import Rows

SHARE = 0.2
SPEC = FeatureSpec(dense=("x", "z"), labels=("label_click", "label_order"))
CONFIG = GBDTConfig(
    tasks=("click", "order"), rounds=60, learning_rate=0.1, num_leaves=8, threads=1,
    negative_share=SHARE,
)  # fmt: skip


def market(rows: int, seed: int) -> pa.Table:
    """Rare clicks that ``x`` drives, and orders that ``z`` drives, some of them still open."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, rows))
    click = rng.random(rows) < 1 / (1 + np.exp(2.5 - x))
    # Hardly an order without a click: negatives of one task are mostly those of the other.
    order = rng.random(rows) < 1 / (1 + np.exp(3.0 - z - 2.0 * click))
    return pa.table({
        "sample_id": [f"{seed}-{row}" for row in range(rows)], "x": x, "z": z,
        "label_click": click.astype(np.float32),
        "label_order": pa.array(order.astype(np.float32), mask=rng.random(rows) < 0.1),
    })  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> tuple[pa.Table, pa.Table, pa.Table]:
    return market(30_000, 1), market(6_000, 2), market(30_000, 3)


@pytest.fixture(scope="module")
def sampled(tables: tuple[pa.Table, ...]) -> GBDTRanker:
    ranker = GBDTRanker(CONFIG, SPEC)
    ranker.fit(*tables[:2])
    return ranker


@pytest.mark.parametrize("task", CONFIG.tasks)
def test_every_task_tells_its_rate_among_all_rows(
    tables: tuple[pa.Table, ...], sampled: GBDTRanker, task: str
) -> None:
    fresh = tables[2]
    known = fresh[f"label_{task}"].is_valid().to_numpy()
    labels = fresh[f"label_{task}"].to_numpy()[known]
    told = sampled.predict(fresh)[task][known]
    whole = GBDTRanker(replace(CONFIG, negative_share=1.0), SPEC)
    whole.fit(*tables[:2])
    least_error = metrics.expected_calibration_error(labels, whole.predict(fresh)[task][known])
    assert metrics.expected_calibration_error(labels, told) < least_error + 0.004
    assert told.mean() == pytest.approx(labels.mean(), rel=0.05)
    uncorrected = as_down_sampled(told, SHARE)
    assert metrics.expected_calibration_error(labels, uncorrected) > least_error + 0.1
    least = metrics.log_loss(labels, whole.predict(fresh)[task][known])
    assert metrics.log_loss(labels, told) < least + 0.004


def test_a_task_keeps_its_positives_and_a_share_of_its_own_negatives(
    tables: tuple[pa.Table, ...],
) -> None:
    train, valid, _ = tables
    report = GBDTRanker(replace(CONFIG, rounds=2), SPEC).fit(train, valid)
    for task in CONFIG.tasks:
        labels = mature_labels(train, task, "training")
        negatives = len(labels.values) - labels.positives
        assert report.positives[task] == labels.positives
        left = report.rows[task] - labels.positives
        assert left == pytest.approx(SHARE * negatives, rel=0.05)
    assert report.immature == {"click": 0, "order": train["label_order"].null_count}


def test_the_same_impressions_are_drawn_whatever_lies_around_them(
    tables: tuple[pa.Table, ...], sampled: GBDTRanker
) -> None:
    train, valid, _ = tables
    kept = drawn(train, SHARE)
    assert np.array_equal(drawn(train, SHARE), kept)
    backwards = train.take(pa.array(np.arange(train.num_rows)[::-1]))
    assert np.array_equal(drawn(backwards, SHARE)[::-1], kept)
    assert np.array_equal(drawn(train.slice(500, 1000), SHARE), kept[500:1500])
    assert (drawn(train, 0.5) >= kept).all()  # more, and the same ones
    again = GBDTRanker(CONFIG, SPEC)
    again.fit(train, valid)
    assert again.tree_version == sampled.tree_version


def test_what_stops_a_fit_is_the_loss_of_corrected_probabilities(
    tables: tuple[pa.Table, ...],
) -> None:
    train, valid, _ = tables
    ranker = GBDTRanker(replace(CONFIG, tasks=("click",), train_curve=True), SPEC)
    report = ranker.fit(train, valid)
    best, curves = report.rounds["click"] - 1, report.curves["click"]
    assert best < 59  # early stopping saw this loss
    labels = valid["label_click"].to_numpy()
    loss = metrics.log_loss(labels, ranker.predict(valid)["click"])
    assert curves["valid"][best] == pytest.approx(loss, abs=1e-12) == min(curves["valid"])
    # That of the rows that were fitted stands for all training rows.
    every = metrics.log_loss(train["label_click"].to_numpy(), ranker.predict(train)["click"])
    assert curves["train"][best] == pytest.approx(every, rel=0.03)


@pytest.mark.parametrize("way", ["continue", "refit"])
def test_other_ways_go_on_among_the_same_rows(
    tables: tuple[pa.Table, ...], sampled: GBDTRanker, way: str
) -> None:
    train, valid, fresh = tables
    ranker = GBDTRanker(replace(CONFIG, way=way, continue_rounds=3), SPEC)
    report = ranker.fit(train, valid, champion=sampled)
    labels = fresh["label_click"].to_numpy()
    told = ranker.predict(fresh)["click"]
    assert metrics.expected_calibration_error(labels, told) < 0.015
    loss = metrics.log_loss(valid["label_click"].to_numpy(), ranker.predict(valid)["click"])
    assert report.metrics()["fit_valid_loss_click"] == pytest.approx(loss, abs=1e-12)
    other = GBDTRanker(replace(CONFIG, way=way, negative_share=0.5), SPEC)
    assert other.warm_refusal(sampled) == "its negative_share is 0.2, not 0.5"


def test_it_is_corrected_after_loading_and_in_its_leaves(
    tables: tuple[pa.Table, ...], sampled: GBDTRanker, tmp_path: Path
) -> None:
    fresh = tables[2].slice(0, 500)
    told = sampled.predict(fresh)
    sampled.save(tmp_path)
    assert np.array_equal(load_ranker(tmp_path).predict(fresh)["click"], told["click"])
    encoder = LeafEncoder(sampled)
    odds = encoder.values("click")[encoder.encode(fresh).ids["click"]].sum(axis=1)
    assert 1 / (1 + np.exp(-odds)) == pytest.approx(told["click"], abs=1e-12)


def test_a_configuration_without_it_is_what_it_was() -> None:
    assert "negative_share" not in GBDTConfig().to_dict()
    assert GBDTConfig().params()["metric"] == "binary_logloss"
    assert GBDTConfig.from_dict(CONFIG.to_dict()) == CONFIG


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"negative_share is {share}; it must lie in \(0, 1\]"):
        GBDTConfig(negative_share=share)


def test_whole_groups_are_not_thinned_out() -> None:
    with pytest.raises(ConfigError, match=r"negative_share is 0\.5, but objective lambdarank"):
        GBDTConfig(objective="lambdarank", negative_share=0.5)


def test_rows_that_cannot_be_drawn_are_refused(tables: tuple[pa.Table, ...]) -> None:
    with pytest.raises(SpecError, match=r"no column 'sample_id'.*leave negative_share at 1"):
        drawn(tables[0].drop_columns("sample_id"), 0.5)
    labels = mature_labels(tables[0], "click", "training")
    with pytest.raises(TrainingRefused, match=r"kept none of its [\d,]+ negative training rows"):
        without_negatives(labels, np.zeros(tables[0].num_rows, dtype=bool), "click")


def test_negatives_stand_for_those_left_out_where_rows_are_sampled() -> None:
    labels, told = np.array([1, 0, 0]), np.array([0.6, 0.2, 0.4])
    as_all = [0.6 / (0.6 + 0.4 / 0.5), 0.2 / (0.2 + 0.8 / 0.5), 0.4 / (0.4 + 0.6 / 0.5)]
    losses = -np.log([as_all[0], 1 - as_all[1], 1 - as_all[2]])
    assert loss_of_all(labels, told, 0.5, None, False) == pytest.approx(losses.mean())
    weighed = (losses * [1, 2, 2]).sum() / 5
    assert loss_of_all(labels, told, 0.5, None, True) == pytest.approx(weighed)
    weighed = (losses * [3, 2, 2]).sum() / 7
    assert loss_of_all(labels, told, 0.5, [3, 1, 1], True) == pytest.approx(weighed)
    assert np.isnan(loss_of_all(labels, [0.5, np.nan, 0.5], 0.5, None, False))


def test_a_masked_task_draws_by_the_row_of_the_table() -> None:
    table = pa.table({"label_order": pa.array([None, 0.0, 0.0, 1.0, 0.0])})
    kept = np.array([True, False, True, False, True])
    labels = without_negatives(mature_labels(table, "order", "training"), kept, "order")
    assert labels.rows is not None
    assert labels.rows.tolist() == [2, 3, 4]
    assert labels.values.tolist() == [0, 1, 0]
    assert labels.immature == 1
    matrix = pa.table({"x": [0, 1, 2, 3, 4]})
    assert Rows.of(matrix, labels).matrix["x"].to_pylist() == [2, 3, 4]
