"""Samples weighed by what followed: what a row weighs, what that changes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from models import ConfigError, FeatureSpec, SpecError, TrainingRefused
from models.boosting import mature_labels, weighted
from models.gbdt import GBDTConfig, GBDTRanker
from models.sample_weights import LabelWeight
from tests.models.conftest import CONFIG, SPEC, make_table

V1 = {"click": 1.5, "conversion": 10, "stay": {"log": 0.5}}
CLICK = replace(CONFIG, tasks=("click",), weights={})


def read(added: dict[str, object]) -> dict[str, LabelWeight]:
    config = GBDTConfig.from_dict({"tasks": ["click"], "sample_weights": {"click": added}})
    return dict(config.sample_weights["click"])


def config_of(added: dict[str, object]) -> GBDTConfig:
    return replace(CLICK, sample_weights={"click": read(added)})


def followed(table: pa.Table, seed: int = 3) -> pa.Table:
    """With orders after clicks of small ``x`` only, and seconds of stay; some of both immature."""
    rng = np.random.default_rng(seed)
    clicked = table["label_click"].to_numpy() == 1
    ordered = (clicked & (table["x"].to_numpy() < 0.3)).astype(np.float32)
    stay = np.where(clicked, rng.exponential(40.0, len(clicked)), 0.0).astype(np.float32)
    hidden = rng.random(len(clicked)) < 0.2
    return table.append_column("label_conversion", pa.array(ordered, mask=hidden)).append_column(
        "label_stay", pa.array(stay, mask=hidden)
    )


def test_a_row_weighs_what_followed_it() -> None:
    table = pa.table({
        "label_click": pa.array([0, 1, 1, 1, None, 1], pa.float32()),
        "label_conversion": pa.array([1, 0, 1, None, 1, 1], pa.float32()),
        "label_stay": pa.array([99, 0, 30, 30, 30, None], pa.float32()),
    })  # fmt: skip
    labels = mature_labels(table, "click", "training")
    found = weighted(labels, table, "click", read(V1), "training").weights
    stayed = 0.5 * np.log(31.0)
    # The row without a mature click is left out, and a negative one weighs 1 whatever followed.
    assert found == pytest.approx([1.0, 1.5, 11.5 + stayed, 1.5 + stayed, 11.5])
    plain = weighted(labels, table, "click", read({"conversion": 2}), "training").weights
    assert plain == pytest.approx([1.0, 1.0, 3.0, 1.0, 3.0])


def test_weights_move_the_ranking_to_what_is_worth_more() -> None:
    train, valid = followed(make_table(4000, 1)), followed(make_table(1500, 2))
    means = []
    for config in (CLICK, config_of({"conversion": 20})):
        ranker = GBDTRanker(config, SPEC)
        ranker.fit(train, valid)
        low = valid["x"].to_numpy() < 0.3
        scores = ranker.score(valid)
        means.append(scores[low].mean() - scores[~low].mean())
    assert means[1] > means[0] + 0.1


def test_weights_are_as_so_many_rows() -> None:
    """An order that weighs two more is that row three times, where bins and leaves do not count
    rows: few values, and leaves of one."""

    def coarse(table: pa.Table) -> pa.Table:
        steps = np.round(table["x"].to_numpy() * 2) / 2
        return followed(table.set_column(table.column_names.index("x"), "x", pa.array(steps)))

    def often(table: pa.Table) -> pa.Table:
        again = table["label_conversion"].fill_null(0).to_numpy() == 1
        return table.take(np.repeat(np.arange(len(again)), np.where(again, 3, 1)))

    train, valid = coarse(make_table(4000, 1)), coarse(make_table(1500, 2))
    config = replace(config_of({"conversion": 2}), min_data_in_leaf=1)
    spec = FeatureSpec(dense=("x",), labels=("label_click",))
    unweighted = replace(config, sample_weights={})
    by_weight, by_rows, plain = (GBDTRanker(c, spec) for c in (config, unweighted, unweighted))
    losses = by_weight.fit(train, valid).curves["click"]["valid"]
    assert losses == pytest.approx(by_rows.fit(often(train), often(valid)).curves["click"]["valid"])
    assert by_weight.score(valid) == pytest.approx(by_rows.score(valid), abs=1e-6)
    plain.fit(train, valid)
    assert np.abs(plain.score(valid) - by_rows.score(valid)).max() > 0.1


@pytest.mark.parametrize("added", [{"click": 1}, {"click": 1.0, "nothing": 5}])
def test_weights_of_one_change_no_bit(added: dict[str, object]) -> None:
    train, valid = make_table(2000, 1), make_table(800, 2)
    none = pa.array(np.zeros(2000, np.float32)), pa.array(np.zeros(800, np.float32))
    train = train.append_column("label_nothing", none[0])
    valid = valid.append_column("label_nothing", none[1])
    plain, ones = GBDTRanker(CLICK, SPEC), GBDTRanker(config_of(added), SPEC)
    reports = [ranker.fit(train, valid) for ranker in (plain, ones)]
    assert plain.booster_text("click") == ones.booster_text("click")
    assert reports[0].curves == reports[1].curves


def test_one_tasks_weights_do_not_reach_the_next() -> None:
    """Both tasks read all rows of the same bins."""
    train, valid = followed(make_table(2000, 1, False)), followed(make_table(800, 2, False))
    both = replace(config_of({"conversion": 9}), tasks=("click", "follow"))
    ranker = GBDTRanker(both, SPEC)
    ranker.fit(train, valid)
    alone = GBDTRanker(replace(CLICK, tasks=("follow",)), SPEC)
    alone.fit(train, valid)
    assert ranker.booster_text("follow") == alone.booster_text("follow")
    first = GBDTRanker(replace(both, tasks=("click",)), SPEC)
    first.fit(train, valid)
    assert ranker.booster_text("click") == first.booster_text("click")


def test_masked_rows_keep_their_weights_apart() -> None:
    """Task follow is masked in half of the rows; the same rows alone give the same booster."""
    train, valid = followed(make_table(2000, 1)), followed(make_table(800, 2))
    weights = {"follow": read({"conversion": 5})}
    config = replace(CONFIG, tasks=("follow",), weights={}, sample_weights=weights)
    spec = replace(SPEC, dense=())  # no bounds of bins that depend on the rows
    masked, alone = GBDTRanker(config, spec), GBDTRanker(config, spec)
    masked.fit(train, valid)
    alone.fit(*(t.filter(t["label_follow"].is_valid()) for t in (train, valid)))
    assert masked.score(valid) == pytest.approx(alone.score(valid))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("log", [False, True])
def test_a_weight_that_is_none_is_named(value: float, log: bool) -> None:
    weight = {"log": value} if log else value
    with pytest.raises(ConfigError, match=r"sample_weights\.click\.stay is .*above 0"):
        config_of({"stay": weight})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"order": {"click": 2}}, "tasks that are not trained: order"),
        ({"click": {"click": {"log": 2}}}, r"sample_weights\.click\.click is a logarithm"),
        ({"click": {"stay": {"square": 2}}}, "square"),
        ({"click": {"stay": "much"}}, "much"),
        ({"click": {"stay": True}}, "a number is wanted"),
        ({"click": 3}, "sample_weights is"),
    ],
)
def test_a_wrong_weighting_is_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GBDTConfig.from_dict({"tasks": ["click"], "sample_weights": values})


def test_values_that_give_no_weight_are_refused() -> None:
    train, valid = followed(make_table(2000, 1)), followed(make_table(800, 2))
    with pytest.raises(TrainingRefused, match=r"sample_weights\.click\.stay.*log: number"):
        GBDTRanker(config_of({"stay": 2}), SPEC).fit(train, valid)
    for wrong in (-1.0, np.nan, np.inf):
        place = train.column_names.index("label_stay")
        odd = train.set_column(place, "label_stay", pa.array(np.full(2000, wrong)))
        with pytest.raises(TrainingRefused, match=rf"{wrong}.*at least 0"):
            GBDTRanker(config_of({"stay": {"log": 2}}), SPEC).fit(odd, valid)
    with pytest.raises(SpecError, match=r"early-stopping rows have no column 'label_stay'"):
        GBDTRanker(config_of({"stay": {"log": 2}}), SPEC).fit(
            train, valid.drop_columns(["label_stay"])
        )


def test_a_weighting_survives_json_and_names_the_labels_it_reads() -> None:
    config = config_of(V1)
    plain = json.loads(json.dumps(config.to_dict()))
    assert plain["sample_weights"] == {"click": V1}
    assert GBDTConfig.from_dict(plain) == config
    assert config.reads == ("click", "conversion", "stay")
    assert CONFIG.reads == CONFIG.tasks


def test_a_setting_that_is_not_used_is_not_written() -> None:
    """Run keys are made of it: they stay those of models that are registered already."""
    assert set(GBDTConfig().to_dict()) == {
        "tasks", "weights", "num_leaves", "learning_rate", "rounds", "early_stopping_rounds",
        "min_data_in_leaf", "feature_fraction", "bagging_fraction", "lambda_l2", "max_bin",
        "cat_smooth", "seed", "threads", "min_positives", "train_curve",
    }  # fmt: skip
