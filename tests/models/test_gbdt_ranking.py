"""Ranking objectives: graded groups, what they learn, and that their outputs are scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from models import (
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
from models.boosting import Labels, with_labels
from models.gbdt import GBDTConfig, GBDTRanker
from models.graded import graded_rows, ndcg_of
from models.plots import learning_curve_figure, standard_plots

GRADES = {"click": 1, "long_view": 2, "conversion": 4}
CONFIG = GBDTConfig(
    tasks=tuple(GRADES), objective="lambdarank", grades=GRADES, rounds=30, learning_rate=0.2,
    early_stopping_rounds=10, min_data_in_leaf=10, threads=1,
)  # fmt: skip
SPEC = FeatureSpec(
    dense=("x", "noise"),
    sparse=(SparseColumn("kind", 16),),
    labels=tuple(f"label_{task}" for task in GRADES),
)
POSITION = SparseColumn("position", 64, kind="integer")
EXAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "lightgbm_rank"


def groups_of(many: int, seed: int, shuffled: bool = True) -> pa.Table:
    """Slates of four: a click by ``x`` and ``kind``, a long view and an order by ``x`` after it."""
    rng = np.random.default_rng(seed)
    rows = many * 4
    x, kind = rng.normal(size=rows), rng.integers(0, 6, rows)
    clicked = rng.random(rows) < 1 / (1 + np.exp(-(1.5 * x + 2.0 * (kind == 3) - 1.0)))
    viewed = clicked & (rng.random(rows) < 1 / (1 + np.exp(-x)))
    ordered = viewed & (rng.random(rows) < 0.3)
    table = pa.table({
        "group_id": [f"g{row // 4}" for row in range(rows)],
        "x": x, "noise": rng.normal(size=rows), "kind": [f"kind-{code}" for code in kind],
        "label_click": clicked.astype(np.float32),
        "label_long_view": viewed.astype(np.float32),
        "label_conversion": pa.array(ordered.astype(np.float32), mask=rng.random(rows) < 0.3),
        "position": pa.array(np.tile([1, 2, 3, 4], many), pa.int32()),
    })  # fmt: skip
    return table.take(rng.permutation(rows)) if shuffled else table


@pytest.fixture(scope="module")
def train() -> pa.Table:
    return groups_of(800, 1)


@pytest.fixture(scope="module")
def valid() -> pa.Table:
    return groups_of(300, 2)


@pytest.fixture(scope="module")
def ranked(train: pa.Table, valid: pa.Table) -> GBDTRanker:
    ranker = GBDTRanker(CONFIG, SPEC)
    ranker.fit(train, valid)
    return ranker


def gains(table: pa.Table) -> npt.NDArray[np.float64]:
    found = np.zeros(table.num_rows)
    for task, grade in GRADES.items():
        liked = table[f"label_{task}"].fill_null(0).to_numpy() == 1
        found = np.where(liked, 2.0**grade - 1, found)
    return found


def ndcg(table: pa.Table, scores: npt.NDArray[np.float64], k: int = 10) -> float:
    return float(np.nanmean(metrics.ndcg_at_k(gains(table), scores, table["group_id"], k).values))


# Groups and grades


def test_groups_come_whole_and_in_order_with_their_grades() -> None:
    """Against a loop over the groups, on rows in any order and some of them immature."""
    table = groups_of(60, 5)
    hidden = np.random.default_rng(0).random(table.num_rows) < 0.05
    place = table.column_names.index("label_click")
    table = table.set_column(
        place, "label_click", pa.array(table["label_click"].to_numpy(), mask=hidden)
    )
    found = graded_rows(table, CONFIG, POSITION, "training")
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(table["group_id"].to_pylist()):
        rows.setdefault(group, []).append(row)
    wanted: list[list[int]] = []
    immature = alike = 0
    grade = np.zeros(table.num_rows)
    for task, value in GRADES.items():
        for row, label in enumerate(table[f"label_{task}"].to_pylist()):
            grade[row] = max(grade[row], value if label == 1 else 0)
    for members in rows.values():
        if any(hidden[members]):
            immature += 1
        elif len(set(grade[members])) == 1:
            alike += 1
        else:
            wanted.append(members)
    order = np.concatenate(wanted)
    assert np.array_equal(found.labels.order, order)
    assert np.array_equal(found.labels.values, grade[order])
    assert found.labels.groups.tolist() == [len(members) for members in wanted]
    assert np.array_equal(found.labels.positions, table["position"].to_numpy()[order])
    assert (found.groups, found.immature, found.alike) == (len(wanted), immature, alike)
    assert min(immature, alike) > 0
    assert found.labels.immature == hidden.sum()


def test_groups_that_do_not_add_up_are_refused() -> None:
    data = lgb.Dataset(np.zeros((4, 1)), label=np.zeros(4), params={"verbosity": -1}).construct()
    labels = Labels(np.zeros(4, np.float32), None, 0, groups=np.array([2, 1], np.int32))
    with pytest.raises(ModelError, match="groups of 3 rows for 4 binned ones"):
        with_labels(data, labels)


def test_rows_of_a_group_need_not_be_neighbours(train: pa.Table, valid: pa.Table) -> None:
    """The order of the groups is another, and no more: splits see sums over all of them."""
    sorted_rows = train.take(np.argsort(train["group_id"].to_pylist(), kind="stable"))
    config = replace(CONFIG, rounds=3)
    boosters = [GBDTRanker(config, SPEC), GBDTRanker(config, SPEC)]
    for ranker, rows in zip(boosters, (train, sorted_rows), strict=True):
        ranker.fit(rows, valid)
    assert boosters[0].score(valid) == pytest.approx(boosters[1].score(valid), abs=1e-6)


def test_groups_of_one_grade_change_nothing(train: pa.Table, valid: pa.Table) -> None:
    kept = graded_rows(train, CONFIG, None, "training").labels.order
    assert kept is not None
    assert len(kept) < train.num_rows
    boosters = [GBDTRanker(CONFIG, SPEC), GBDTRanker(CONFIG, SPEC)]
    for ranker, rows in zip(boosters, (train, train.take(kept)), strict=True):
        ranker.fit(rows, valid)
    assert boosters[0].tree_version == boosters[1].tree_version


# What is learned


@pytest.mark.parametrize("objective", ["lambdarank", "rank_xendcg"])
def test_it_learns_the_order(objective: str, train: pa.Table, valid: pa.Table) -> None:
    ranker = GBDTRanker(replace(CONFIG, objective=objective), SPEC)
    report = ranker.fit(train, valid)
    scores = ranker.score(valid)
    ideal = 1.5 * valid["x"].to_numpy() + 2.0 * (np.array(valid["kind"].to_pylist()) == "kind-3")
    assert ndcg(valid, scores) > ndcg(valid, ideal) - 0.02
    assert ndcg(valid, scores) > ndcg(valid, valid["noise"].to_numpy()) + 0.15
    curve = report.curves["relevance"]["valid"]
    assert report.rounds == {"relevance": int(np.argmax(curve)) + 1}
    assert max(curve) == pytest.approx(ndcg(valid, scores), abs=1e-12)
    assert report.metrics()["fit_valid_ndcg_at_10_relevance"] == max(curve)
    assert set(report.history()) == {"ndcg_at_10_valid_relevance"}
    assert report.numbers["groups"] + report.numbers["groups_of_one_grade"] == 800


def test_gains_say_what_an_order_is_worth(train: pa.Table, valid: pa.Table) -> None:
    """Long views and orders come by x, clicks by kind as well."""
    shares = []
    for gain in ((0.0, 1.0, 1.1, 1.2, 1.3), (0.0, 0.001, 1.0, 2.0, 30.0)):
        ranker = GBDTRanker(replace(CONFIG, label_gain=gain), SPEC)
        found = ranker.fit(train, valid).importances["relevance"]
        shares.append(found["kind"] / sum(found.values()))
    assert shares[0] > 1.5 * shares[1]


def test_ties_do_not_profit_from_the_order_of_the_rows() -> None:
    data = lgb.Dataset(
        np.zeros((6, 1)), label=[1, 0, 0, 2, 1, 0], group=[3, 3], params={"verbosity": -1}
    ).construct()
    scores = np.zeros(6)
    name, value, larger = ndcg_of((0.0, 1.0, 3.0))(scores, data)
    groups = np.repeat([0, 1], 3)
    wanted = metrics.ndcg_at_k([1, 0, 0, 3, 1, 0], scores, groups, 10).values.mean()
    assert (name, larger) == ("ndcg_at_10", True)
    assert value == pytest.approx(wanted)
    assert value < 0.9


def shown(many: int, seed: int) -> pa.Table:
    """Slates looked at with 1 / position; ``noise`` nearly says the position, ``wanted`` is the
    click that there would be at the top."""
    rng = np.random.default_rng(seed + 10)
    table = groups_of(many, seed, shuffled=False)
    table = table.append_column("wanted", table["label_click"])
    position = table["position"].to_numpy()
    seen = rng.random(table.num_rows) < 1.0 / position
    clicked = (table["label_click"].to_numpy() * seen).astype(np.float32)
    columns = {"noise": position + rng.normal(size=len(seen)) * 0.5, "label_click": clicked}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def test_positions_are_kept_out_of_the_scores() -> None:
    """Debiased, the model finds more of what is wanted; regularised away, it is as without."""
    train, valid = shown(3000, 1), shown(1000, 2)
    config = replace(CONFIG, tasks=("click",), grades={})
    spec = replace(SPEC, training_only=(POSITION,))
    found, shares = [], []
    for debias, much in (("none", 0.0), ("position", 0.0), ("position", 1e9)):
        ranker = GBDTRanker(replace(config, debias=debias, position_regularization=much), spec)
        gained = ranker.fit(train, valid).importances["relevance"]
        shares.append(gained["noise"] / sum(gained.values()))
        scores = ranker.score(valid.drop_columns(["position"]))
        wanted = valid["wanted"].to_numpy()
        found.append(np.nanmean(metrics.ndcg_at_k(wanted, scores, valid["group_id"], 10).values))
    assert found[1] > found[0] + 0.01
    assert shares[1] < 0.85 * shares[0]
    assert (found[2], shares[2]) == pytest.approx((found[0], shares[0]), abs=2e-3)


def test_positions_that_are_not_there_are_named(train: pa.Table, valid: pa.Table) -> None:
    config = replace(CONFIG, debias="position")
    with pytest.raises(SpecError, match="0 training-only columns"):
        GBDTRanker(config, SPEC)
    with pytest.raises(SpecError, match="training rows have no column position"):
        GBDTRanker(config, replace(SPEC, training_only=(POSITION,))).fit(
            train.drop_columns(["position"]), valid
        )


# Scores


def test_outputs_are_scores(ranked: GBDTRanker, valid: pa.Table) -> None:
    found = ranked.predict(valid)
    assert set(found) == {"relevance"} == set(ranked.tasks)
    assert np.array_equal(ranked.score(valid), found["relevance"])
    assert found["relevance"].min() < 0
    assert ranked.probabilities == ()
    assert [column.name for column in ranked.returns()] == ["relevance", "score"]
    bare = valid.drop_columns(["group_id", *SPEC.labels])
    assert np.array_equal(ranked.score(bare), found["relevance"])


def test_a_score_has_no_reliability_and_its_curve_is_no_loss(
    train: pa.Table, valid: pa.Table
) -> None:
    report = GBDTRanker(replace(CONFIG, rounds=2), SPEC).fit(train, valid)
    assert set(standard_plots(report, {}, {})) == {"learning_curve", "feature_importance"}
    [panel] = learning_curve_figure(report).axes
    assert panel.get_ylabel() == "ndcg_at_10"
    between = np.linspace(0.1, 0.9, valid.num_rows)
    labels = valid["label_click"].to_numpy()
    report_of = metrics.evaluate_ranking(labels, between, valid["group_id"], probabilities=False)
    assert "log_loss" not in report_of
    assert "log_loss" in metrics.evaluate_ranking(labels, between, valid["group_id"])


def test_a_saved_ranker_scores_the_same(
    ranked: GBDTRanker, valid: pa.Table, tmp_path: Path
) -> None:
    ranked.save(tmp_path)
    assert (tmp_path / "boosters" / "relevance.txt").is_file()
    again = load_ranker(tmp_path)
    assert isinstance(again, GBDTRanker)
    assert again.config == CONFIG
    assert np.array_equal(again.score(valid), ranked.score(valid))


# What is refused


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"objective": "listnet"}, "'listnet'; known are binary, lambdarank, rank_xendcg"),
        ({"grades": {"click": 1}}, "grades is given, but objective binary"),
        ({"objective": "lambdarank", "weights": {"click": 2}}, "weights is given"),
        ({"objective": "lambdarank", "sample_weights": {"click": {"click": 2}}}, "sample_weights"),
        ({"objective": "lambdarank", "grades": {"click": 0}}, "from 1 to 30"),
        ({"objective": "lambdarank", "grades": {"click": 1.5}}, "whole number"),
        ({"objective": "lambdarank", "grades": {"order": 1}}, r"each of the tasks \['click'\]"),
        ({"objective": "lambdarank", "tasks": ["click", "follow"]}, "each of the tasks"),
        ({"objective": "lambdarank", "label_gain": [0]}, "1 gains; .* needs 2"),
        ({"objective": "lambdarank", "label_gain": [0, 0]}, "must rise"),
        ({"objective": "lambdarank", "label_gain": [-1, 1]}, "must rise"),
        ({"objective": "lambdarank", "debias": "towers"}, "'towers'; known are none, position"),
        ({"objective": "rank_xendcg", "debias": "position"}, "only lambdarank"),
        ({"debias": "position"}, "only lambdarank"),
        ({"objective": "lambdarank", "position_regularization": 1}, "debias is none"),
        ({"min_sum_hessian": -1}, "min_sum_hessian is -1"),
    ],
)
def test_a_wrong_objective_is_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GBDTConfig.from_dict(values)


def test_a_ranking_configuration_survives_json() -> None:
    config = replace(
        CONFIG, label_gain=(0.0, 1.0, 2.0, 3.0, 9.0), debias="position",
        position_regularization=0.5, min_sum_hessian=5.0,
    )  # fmt: skip
    assert GBDTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.reads == tuple(GRADES)
    assert config.params()["min_sum_hessian_in_leaf"] == 5.0
    assert CONFIG.gains == (0.0, 1.0, 3.0, 7.0, 15.0)


def test_tables_without_an_order_are_refused(train: pa.Table, valid: pa.Table) -> None:
    ranker = GBDTRanker(CONFIG, SPEC)
    with pytest.raises(SpecError, match="training rows have no column group_id"):
        ranker.fit(train.drop_columns(["group_id"]), valid)
    place = train.column_names.index("group_id")
    single = train.set_column(place, "group_id", pa.array([str(n) for n in range(len(train))]))
    with pytest.raises(TooFewPositives, match=r"0 of 0 .*3,200 groups left out for one grade"):
        ranker.fit(single, valid)
    with pytest.raises(TooFewPositives, match="0 of 0"):
        ranker.fit(train.slice(0, 0), valid)
    with pytest.raises(TrainingRefused, match="no early-stopping group has two grades"):
        ranker.fit(train, valid.slice(0, 1))
    one = groups_of(2600, 1)
    one = one.set_column(one.column_names.index("group_id"), "group_id", pa.array(["g"] * len(one)))
    with pytest.raises(TrainingRefused, match="a group of the training rows has 10,400 rows"):
        ranker.fit(one, valid)


# LightGBM's own example


def example(part: str) -> pa.Table:
    """A file of LightGBM's ranking example: grade g as labels at_least_1 .. at_least_g."""
    lines = (EXAMPLE / f"rank.{part}").read_text().splitlines()
    grades = np.array([int(line.split()[0]) for line in lines])
    values = np.zeros((len(lines), 301), dtype=np.float32)
    for row, line in enumerate(lines):
        for pair in line.split()[1:]:
            column, value = pair.split(":")
            values[row, int(column)] = float(value)
    sizes = np.loadtxt(EXAMPLE / f"rank.{part}.query", dtype=int)
    columns = {f"f{column}": values[:, column] for column in range(301)}
    labels = {f"label_at_least_{g}": (grades >= g).astype(np.float32) for g in range(1, 5)}
    groups = np.repeat([f"q{number}" for number in range(len(sizes))], sizes)
    return pa.table({**columns, **labels, "group_id": groups, "grade": grades})


PUBLISHED = {
    # The settings of its examples/lambdarank/train.conf.
    "lambdarank": (0.5674, 0.578, {
        "rounds": 100, "min_data_in_leaf": 50, "min_sum_hessian": 5.0, "bagging_fraction": 0.9,
    }),
    # Those of the test that states the bounds: its defaults, and a seed, which moves NDCG@1 over
    # these 50 groups by as much as .03.
    "rank_xendcg": (0.6211, 0.6253, {"rounds": 50, "min_data_in_leaf": 20, "seed": 5}),
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs ../shared/data/lightgbm_rank")
@pytest.mark.parametrize("objective", PUBLISHED)
def test_the_published_example_is_reached(objective: str) -> None:
    """The bounds that LightGBM's own tests state, on its own example.

    As there, the round is chosen on the rows that are judged, and a group without any relevant row
    counts as 1.
    """
    first, third, settings = PUBLISHED[objective]
    tasks = tuple(f"at_least_{grade}" for grade in range(1, 5))
    config = GBDTConfig(
        tasks=tasks, objective=objective, grades={t: int(t[-1]) for t in tasks}, num_leaves=31,
        learning_rate=0.1, early_stopping_rounds=100, threads=1, **settings,
    )  # fmt: skip
    spec = FeatureSpec(
        dense=tuple(f"f{n}" for n in range(301)), labels=tuple(f"label_{t}" for t in tasks)
    )
    train, test = example("train"), example("test")
    ranker = GBDTRanker(config, spec)
    ranker.fit(train, test)
    gain = 2.0 ** test["grade"].to_numpy() - 1
    found = metrics.ndcg_at_ks(gain, ranker.score(test), test["group_id"], (1, 3)).values
    reached = np.nan_to_num(found, nan=1.0).mean(axis=0)
    assert reached[0] > first
    assert reached[1] > third
