"""The GBDT ranker: what it learns, refuses, keeps and gives back."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from models import (
    MODELS,
    ConfigError,
    FeatureSpec,
    ModelError,
    SparseColumn,
    SpecError,
    TooFewPositives,
    TrainingRefused,
    load_ranker,
    metrics,
)
from models.base import SequenceColumn, silent
from models.boosting import Watch
from models.gbdt import GBDTConfig, GBDTRanker
from tests.models.conftest import CONFIG, SPEC, make_table


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def test_it_learns_dense_and_sparse_columns(fitted: GBDTRanker, valid: pa.Table) -> None:
    found = fitted.predict(valid)
    labels = valid.column("label_click").to_numpy()
    truth = valid.column("truth").to_numpy()
    assert metrics.auc(labels, found["click"]) > metrics.auc(labels, truth) - 0.02
    assert metrics.log_loss(labels, found["click"]) < metrics.log_loss(labels, truth) + 0.03
    kinds = np.array(valid.column("kind").to_pylist())
    assert found["click"][kinds == "kind-3"].mean() > 1.5 * found["click"].mean()


def test_score_is_the_weighted_sum_of_probabilities(fitted: GBDTRanker, valid: pa.Table) -> None:
    found = fitted.predict(valid)
    assert fitted.score(valid) == pytest.approx(found["click"] + 0.5 * found["follow"], abs=1e-15)
    assert all(values.dtype == np.float64 for values in found.values())


def test_report_counts_masked_rows_and_stops_early(train: pa.Table, valid: pa.Table) -> None:
    config = replace(CONFIG, rounds=300, learning_rate=0.3, train_curve=True)
    lines: list[str] = []
    ranker = GBDTRanker(config, SPEC)
    report = ranker.fit(train, valid, lines.append)
    immature = train.column("label_follow").null_count
    assert report.immature == {"click": 0, "follow": immature}
    assert report.rows == {"click": 4000, "follow": 4000 - immature}
    for task in ("click", "follow"):
        losses = report.curves[task]["valid"]
        assert len(losses) == report.rounds[task] + config.early_stopping_rounds < 300
        assert losses[report.rounds[task] - 1] == min(losses)
        assert len(report.curves[task]["train"]) == len(losses)
        assert set(report.importances[task]) == set(SPEC.columns)
    assert report.importances["click"]["x"] > 3 * report.importances["click"]["noise"]
    assert report.metrics()["fit_valid_loss_click"] == min(report.curves["click"]["valid"])
    assert any("click" in line and "log loss" in line for line in lines)


def test_the_rows_go_before_the_trees_grow(train: pa.Table, valid: pa.Table) -> None:
    """What is prepared holds bins: in the end there is the model of :meth:`fit`."""
    mine = pa.concat_tables([train, train.slice(0, 10)]).combine_chunks()  # columns of its own
    ranker = GBDTRanker(CONFIG, SPEC)
    before = pa.total_allocated_bytes()
    grow = ranker.prepared(mine, valid)
    size = mine.nbytes
    del mine
    assert pa.total_allocated_bytes() < before - size / 2
    assert grow().rows["click"] == 4010
    whole = GBDTRanker(CONFIG, SPEC)
    whole.fit(pa.concat_tables([train, train.slice(0, 10)]), valid)
    assert ranker.booster_text("click") == whole.booster_text("click")


def test_masked_rows_do_not_touch_the_model(train: pa.Table, valid: pa.Table) -> None:
    # The same mature rows, alone: boosters of the shared bins must equal these.
    config = replace(CONFIG, tasks=("follow",), weights={})
    spec = FeatureSpec(sparse=SPEC.sparse, labels=("label_follow",))
    masked = GBDTRanker(config, spec)
    masked.fit(train, valid)
    alone = GBDTRanker(config, spec)
    alone.fit(
        train.filter(train.column("label_follow").is_valid()),
        valid.filter(valid.column("label_follow").is_valid()),
    )
    assert masked.predict(valid)["follow"] == pytest.approx(alone.predict(valid)["follow"])


def test_each_task_is_what_it_is_alone(
    fitted: GBDTRanker, train: pa.Table, valid: pa.Table
) -> None:
    for task in ("click", "follow"):
        alone = GBDTRanker(replace(CONFIG, tasks=(task,), weights={}), SPEC)
        alone.fit(train, valid)
        assert alone.booster_text(task) == fitted.booster_text(task)


def test_it_is_the_same_again_under_its_seed(train: pa.Table, valid: pa.Table) -> None:
    config = replace(CONFIG, bagging_fraction=0.6, feature_fraction=0.7, seed=5)
    versions = []
    for seed in (5, 5, 6):
        ranker = GBDTRanker(replace(config, seed=seed), SPEC)
        ranker.fit(train, valid)
        versions.append(ranker.tree_version)
    assert versions[0] == versions[1] != versions[2]


def test_column_order_and_chunks_of_the_table_do_not_matter(
    fitted: GBDTRanker, valid: pa.Table
) -> None:
    expected = fitted.score(valid)
    turned = valid.select(valid.column_names[::-1])
    assert np.array_equal(fitted.score(turned), expected)
    parts = pa.concat_tables([valid.slice(0, 700), valid.slice(700)])
    assert np.array_equal(fitted.score(parts), expected)
    assert np.array_equal(fitted.score(valid.slice(100, 50)), expected[100:150])
    assert fitted.score(valid.slice(0, 0)).shape == (0,)


def test_a_saved_model_predicts_the_same_bits_in_a_fresh_process(
    fitted: GBDTRanker, valid: pa.Table, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    with (
        pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, valid.schema) as writer,
    ):
        writer.write_table(valid)
    code = (
        "import sys, pathlib, numpy, pyarrow as pa\n"
        "from models import load_ranker\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "table = pa.ipc.open_file(pa.OSFile(str(root / 'rows.arrow'))).read_all()\n"
        "numpy.save(root / 'scores.npy', load_ranker(root / 'model').score(table))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True,
        env={"PYTHONHASHSEED": "3", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert np.array_equal(np.load(tmp_path / "scores.npy"), fitted.score(valid))
    again = load_ranker(tmp_path / "model")
    assert isinstance(again, GBDTRanker)
    assert (again.config, again.spec) == (fitted.config, fitted.spec)
    assert again.tree_version == fitted.tree_version


def test_saved_files_are_plain_text(fitted: GBDTRanker, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == [
        "boosters/click.txt", "boosters/follow.txt", "config.json", "feature_spec.json",
        "leaves.json",
    ]  # fmt: skip
    assert all((tmp_path / name).read_text(encoding="utf-8") for name in names)


def test_changed_boosters_and_unknown_families_are_not_loaded(
    fitted: GBDTRanker, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    booster = tmp_path / "boosters" / "click.txt"
    booster.write_text(booster.read_text().replace("shrinkage=0.2", "shrinkage=0.3", 1))
    with pytest.raises(ModelError, match="tree version"):
        load_ranker(tmp_path)
    booster.unlink()
    with pytest.raises(ModelError, match=r"click\.txt is missing"):
        load_ranker(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"family": "oracle"}))
    with pytest.raises(ModelError, match=r"oracle.*gbdt"):
        load_ranker(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match="missing"):
        load_ranker(tmp_path)


def test_another_table_is_refused_by_its_columns(fitted: GBDTRanker, valid: pa.Table) -> None:
    with pytest.raises(SpecError, match="missing: noise"):
        fitted.predict(valid.drop_columns(["noise"]))
    with pytest.raises(SpecError, match="kind is int64"):
        fitted.score(_with(valid, "kind", pa.array([1] * valid.num_rows)))


def test_too_few_positives_are_named(train: pa.Table, valid: pa.Table) -> None:
    positives = int(train.column("label_click").to_numpy().sum())
    ranker = GBDTRanker(replace(CONFIG, min_positives=positives + 1), SPEC)
    with pytest.raises(TooFewPositives, match=rf"'click'.*{positives:,} of 4,000"):
        ranker.fit(train, valid)
    GBDTRanker(replace(CONFIG, min_positives=positives, tasks=("click",), weights={}), SPEC).fit(
        train, valid
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0, "'click' has too few positives: 0 of 4,000"), (1, "one class only")]
)
def test_one_class_is_refused(value: int, text: str, train: pa.Table, valid: pa.Table) -> None:
    flat = _with(train, "label_click", pa.array([value] * train.num_rows))
    with pytest.raises(TrainingRefused, match=text):
        GBDTRanker(CONFIG, SPEC).fit(flat, valid)
    with pytest.raises(TrainingRefused, match=r"'click'.*early-stopping"):
        GBDTRanker(CONFIG, SPEC).fit(
            train, _with(valid, "label_click", pa.array([value] * valid.num_rows))
        )


def test_no_rows_and_no_mature_rows_are_refused(train: pa.Table, valid: pa.Table) -> None:
    with pytest.raises(TooFewPositives, match="0 of 0"):
        GBDTRanker(CONFIG, SPEC).fit(train.slice(0, 0), valid)
    blank = _with(train, "label_follow", pa.nulls(train.num_rows, pa.float32()))
    with pytest.raises(TooFewPositives, match=r"'follow'.*4,000 immature"):
        GBDTRanker(CONFIG, SPEC).fit(blank, valid)
    with pytest.raises(TrainingRefused, match="early-stopping"):
        GBDTRanker(CONFIG, SPEC).fit(train, valid.slice(0, 0))


def test_labels_other_than_yes_and_no_are_refused(train: pa.Table, valid: pa.Table) -> None:
    seconds = pa.array(np.linspace(0, 30, train.num_rows))
    with pytest.raises(TrainingRefused, match="neither 0 nor 1"):
        GBDTRanker(CONFIG, SPEC).fit(_with(train, "label_click", seconds), valid)
    odd = train.column("label_click").to_numpy().astype(np.float32)
    odd[7] = np.nan
    with pytest.raises(TrainingRefused, match=r"1 of 4,000.*nan"):
        GBDTRanker(CONFIG, SPEC).fit(_with(train, "label_click", pa.array(odd)), valid)
    with pytest.raises(SpecError, match="label_click"):
        GBDTRanker(CONFIG, SPEC).fit(train.drop_columns(["label_click"]), valid)


def test_boolean_labels_are_labels(train: pa.Table, valid: pa.Table, fitted: GBDTRanker) -> None:
    ranker = GBDTRanker(CONFIG, SPEC)
    ranker.fit(_with(train, "label_click", train.column("label_click").cast(pa.bool_())), valid)
    assert ranker.tree_version == fitted.tree_version


def test_a_loss_that_is_not_finite_is_refused() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(200, 2)), rng.integers(0, 2, 200)
    data = lgb.Dataset(rows, label=labels, params={"verbosity": -1})

    def broken(scores: np.ndarray, _: lgb.Dataset) -> tuple[str, float, bool]:
        return "binary_logloss", float("nan") if scores.std() > 0 else 0.0, False

    with pytest.raises(TrainingRefused, match=r"'click': the valid loss is nan at round 1"):
        lgb.train(
            {"objective": "binary", "metric": "none", "verbosity": -1, "num_threads": 1},
            data,
            num_boost_round=5,
            valid_sets=[data],
            valid_names=["valid"],
            feval=broken,
            callbacks=[Watch("click", 5, silent)],
        )


def test_an_unfitted_model_says_so(valid: pa.Table, tmp_path: Path) -> None:
    ranker = GBDTRanker(CONFIG, SPEC)
    with pytest.raises(ModelError, match="call fit or load"):
        ranker.predict(valid)
    with pytest.raises(ModelError, match="call fit or load"):
        ranker.save(tmp_path)


def test_all_null_columns_and_a_single_kind_are_fine() -> None:
    table = _with(make_table(2000, 4), "noise", pa.nulls(2000, pa.float64()))
    table = _with(table, "kind", pa.nulls(2000, pa.string()))
    ranker = GBDTRanker(replace(CONFIG, tasks=("click",), weights={}), SPEC)
    report = ranker.fit(table, table)
    assert report.importances["click"]["noise"] == 0
    assert report.importances["click"]["kind"] == 0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"num_leafs": 3}, "num_leafs"),
        ({"tasks": []}, "tasks"),
        ({"tasks": "click"}, "a list is wanted"),
        ({"tasks": ["click", "click"]}, "each once"),
        ({"weights": {"order": 1.0}}, "order"),
        ({"weights": {"click": 0.0}}, "not all 0"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 1.5}, "whole number"),
        ({"rounds": "many"}, "rounds is 'many'"),
        ({"feature_fraction": 1.5}, "feature_fraction"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"train_curve": 1}, "true or false"),
    ],
)
def test_a_wrong_configuration_is_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GBDTConfig.from_dict(values)


def test_configuration_survives_yaml_and_json() -> None:
    config = GBDTConfig.from_dict(
        {"tasks": ["click", "order"], "weights": {"order": 2}, "learning_rate": "1e-1"}
    )
    assert (config.learning_rate, config.weight("click"), config.weight("order")) == (0.1, 0, 2)
    ranker = GBDTRanker(config, SPEC)
    assert GBDTConfig.from_dict(json.loads(json.dumps(ranker.config_dict()))) == config


def test_columns_that_trees_cannot_read_are_refused() -> None:
    spec = FeatureSpec(dense=("x",), sequences=(SequenceColumn("seen", 10, 5),))
    with pytest.raises(SpecError, match="seen"):
        GBDTRanker(CONFIG, spec)
    with pytest.raises(SpecError, match="no column"):
        GBDTRanker(CONFIG, FeatureSpec())
    with pytest.raises(SpecError, match="1 buckets"):
        SparseColumn("k", 1)


def test_every_family_is_listed_under_its_own_name() -> None:
    assert all(model.family == family for family, model in MODELS.items())
