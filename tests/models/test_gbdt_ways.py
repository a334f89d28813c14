"""Ways to be hourly: which trees a fit keeps, which it adds, and from whom it goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from models import ConfigError, ModelError, TrainingRefused, metrics
from models.gbdt import GBDTConfig, GBDTRanker
from models.gbdt_ways import tree_count
from models.plots import learning_curve_figure
from tests.models.conftest import CONFIG, SPEC, make_table
from tests.models.test_gbdt_ranking import CONFIG as RANKING
from tests.models.test_gbdt_ranking import SPEC as RANKING_SPEC
from tests.models.test_gbdt_ranking import groups_of
from tests.models.test_gbdt_weights import followed, read

TASKS = ("click", "follow")
CONTINUE = replace(CONFIG, way="continue", continue_rounds=4)
REFIT = replace(CONFIG, way="refit", refit_decay=0.5)


def trees(ranker: GBDTRanker, task: str) -> list[str]:
    """The booster's trees as LightGBM writes them."""
    text = ranker.booster_text(task)
    return text[text.index("Tree=0") : text.index("end of trees")].strip().split("\n\n\n")


def lines(tree: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in tree.splitlines() if "=" in line)


@pytest.fixture(scope="module")
def later() -> pa.Table:
    """Another hour's rows, in which clicks are rarer."""
    table = make_table(4000, 11)
    rare = table["label_click"].to_numpy() * (np.random.default_rng(2).random(4000) < 0.6)
    return table.set_column(
        table.column_names.index("label_click"), "label_click", pa.array(rare.astype(np.uint8))
    )


@pytest.fixture(scope="module")
def held(later: pa.Table) -> pa.Table:
    return later.slice(3000)


@pytest.fixture(scope="module")
def fresh(later: pa.Table) -> pa.Table:
    return later.slice(0, 3000)


def test_retraining_grows_new_trees(fitted: GBDTRanker, fresh: pa.Table, held: pa.Table) -> None:
    again = GBDTRanker(CONTINUE, SPEC)
    report = again.fit(fresh, held)  # no champion: as if it retrained
    plain = GBDTRanker(CONFIG, SPEC)
    plain.fit(fresh, held)
    for task in TASKS:
        assert trees(again, task) == trees(plain, task)
        assert trees(again, task)[0] != trees(fitted, task)[0]
        assert report.rounds[task] == len(trees(again, task)) == report.numbers[f"trees_{task}"]


def test_going_on_keeps_the_champions_trees_bit_for_bit(
    fitted: GBDTRanker, fresh: pa.Table, held: pa.Table
) -> None:
    before = fitted.tree_version
    ranker = GBDTRanker(CONTINUE, SPEC)
    report = ranker.fit(fresh, held, champion=fitted)
    for task in TASKS:
        old, new = trees(fitted, task), trees(ranker, task)
        assert 1 <= report.rounds[task] <= 4
        assert len(new) == len(old) + report.rounds[task] == report.numbers[f"trees_{task}"]
        assert new[: len(old)] == old
        # What is measured is of these rows, and of the whole booster.
        curve = report.curves[task]["valid"]
        assert len(curve) <= 4
        mature = held.filter(held[f"label_{task}"].is_valid())
        labels = mature[f"label_{task}"].to_numpy()
        assert curve[report.rounds[task] - 1] == pytest.approx(
            metrics.log_loss(labels, ranker.predict(mature)[task]), abs=1e-9
        )
        assert report.metrics()[f"fit_valid_loss_{task}"] == min(curve)
    assert ranker.tree_version != before == fitted.tree_version
    clicks = held["label_click"].to_numpy()
    assert report.metrics()["fit_valid_loss_click"] < metrics.log_loss(
        clicks, fitted.predict(held)["click"]
    )


def test_refitting_keeps_the_structure_and_changes_the_leaves(
    fitted: GBDTRanker, fresh: pa.Table, held: pa.Table
) -> None:
    ranker = GBDTRanker(REFIT, SPEC)
    report = ranker.fit(fresh, held, champion=fitted)
    for task in TASKS:
        old, new = trees(fitted, task), trees(ranker, task)
        assert len(new) == len(old) == report.numbers[f"trees_{task}"]
        for one, other in zip(map(lines, old), map(lines, new), strict=True):
            changed = {key for key in one if one[key] != other[key]}
            assert changed == {"leaf_value"}
        assert report.rounds[task] == 0
        mature = held.filter(held[f"label_{task}"].is_valid())
        loss = metrics.log_loss(mature[f"label_{task}"].to_numpy(), ranker.predict(mature)[task])
        assert report.curves[task] == {"valid": (pytest.approx(loss, abs=1e-9),)}
        assert report.metrics()[f"fit_valid_loss_{task}"] == pytest.approx(loss)
    clicks = held["label_click"].to_numpy()
    assert report.curves["click"]["valid"][0] < metrics.log_loss(
        clicks, fitted.predict(held)["click"]
    )
    [panel, _] = learning_curve_figure(report).axes
    assert panel.lines[0].get_marker() == "o", "a single number is seen"


def test_decay_says_how_much_of_a_leaf_stays(
    fitted: GBDTRanker, fresh: pa.Table, held: pa.Table
) -> None:
    def first_leaves(ranker: GBDTRanker) -> np.ndarray:
        return np.array(lines(trees(ranker, "click")[0])["leaf_value"].split(), dtype=float)

    old = first_leaves(fitted)
    by = {}
    for decay in (0.0, 0.25, 0.9):
        ranker = GBDTRanker(replace(REFIT, refit_decay=decay), SPEC)
        ranker.fit(fresh, held, champion=fitted)
        by[decay] = first_leaves(ranker)
    assert by[0.25] == pytest.approx(0.25 * old + 0.75 * by[0.0])
    assert by[0.9] == pytest.approx(0.9 * old + 0.1 * by[0.0])


@pytest.mark.parametrize("way", ["continue", "refit"])
def test_the_same_start_gives_the_same_trees(
    way: str, fitted: GBDTRanker, fresh: pa.Table, held: pa.Table
) -> None:
    versions = set()
    for _ in range(2):
        ranker = GBDTRanker(replace(CONTINUE, way=way, bagging_fraction=0.7), SPEC)
        ranker.fit(fresh, held, champion=fitted)
        versions.add(ranker.tree_version)
    assert len(versions) == 1


@pytest.mark.parametrize("way", ["continue", "refit"])
def test_weights_count_whatever_the_way(way: str) -> None:
    train, valid = followed(make_table(2000, 1)), followed(make_table(800, 2))
    weights = {"click": read({"conversion": 9, "stay": {"log": 1}})}
    config = replace(
        CONFIG, tasks=("click",), weights={}, way=way, sample_weights=weights, train_curve=True
    )
    champion = GBDTRanker(config, SPEC)
    champion.fit(train, valid)
    ranker = GBDTRanker(config, SPEC)
    report = ranker.fit(train, valid, champion=champion)
    clicks, found = valid["label_click"].to_numpy(), ranker.predict(valid)["click"]
    ordered = valid["label_conversion"].fill_null(0).to_numpy()
    stayed = np.log1p(valid["label_stay"].fill_null(0).to_numpy())
    weighed = metrics.log_loss(clicks, found, np.where(clicks == 1, 1 + 9 * ordered + stayed, 1))
    kept = max(report.rounds["click"] - 1, 0)
    assert report.curves["click"]["valid"][kept] == pytest.approx(weighed, abs=1e-6)
    assert len(report.curves["click"]["train"]) == len(report.curves["click"]["valid"])


@pytest.mark.parametrize("way", ["continue", "refit"])
@pytest.mark.parametrize("objective", ["lambdarank", "rank_xendcg"])
def test_a_ranking_objective_goes_on_too(way: str, objective: str) -> None:
    train, valid = groups_of(800, 1), groups_of(300, 2)
    config = replace(RANKING, objective=objective, way=way, continue_rounds=3)
    champion = GBDTRanker(config, RANKING_SPEC)
    champion.fit(train, valid)
    ranker = GBDTRanker(config, RANKING_SPEC)
    report = ranker.fit(groups_of(800, 3), valid, champion=champion)
    old, new = trees(champion, "relevance"), trees(ranker, "relevance")
    if way == "continue":
        assert new[: len(old)] == old
        assert len(old) < len(new) <= len(old) + 3
    else:
        changed = [
            {key for key in one if one[key] != other[key]}
            for one, other in zip(map(lines, old), map(lines, new), strict=True)
        ]
        assert all(keys == {"leaf_value"} for keys in changed)
    gains = np.zeros(valid.num_rows)
    for task, grade in RANKING.grades.items():
        liked = valid[f"label_{task}"].fill_null(0).to_numpy() == 1
        gains = np.where(liked, 2.0**grade - 1, gains)
    judged = metrics.ndcg_at_k(gains, ranker.score(valid), valid["group_id"], 10).values
    kept = max(report.rounds["relevance"] - 1, 0)
    assert report.curves["relevance"]["valid"][kept] == pytest.approx(np.nanmean(judged), abs=1e-9)


# From whom


def test_who_does_not_fit_is_not_gone_on_from(
    fitted: GBDTRanker, fresh: pa.Table, held: pa.Table
) -> None:
    ready = GBDTRanker(CONTINUE, SPEC)
    assert ready.warm_refusal(fitted) is None
    narrower = replace(SPEC, dense=("x",))
    others = {
        r"its tasks is \('click', 'follow'\), not \('click',\)": GBDTRanker(
            replace(CONTINUE, tasks=("click",), weights={}), SPEC
        ),
        "its objective is 'binary', not 'lambdarank'": GBDTRanker(
            replace(CONTINUE, weights={}, objective="lambdarank", grades={"click": 1, "follow": 2}),
            SPEC,
        ),
        "its sample_weights is {}": GBDTRanker(
            replace(CONTINUE, sample_weights={"click": read({"click": 2})}), SPEC
        ),
        "only there: noise": GBDTRanker(CONTINUE, narrower),
        "way is 'retrain'": GBDTRanker(CONFIG, SPEC),
    }
    for text, ranker in others.items():
        with pytest.raises(ModelError, match=f"no warm start: .*{text}"):
            ranker.fit(fresh, held, champion=fitted)


def test_too_many_trees_are_grown_anew(fitted: GBDTRanker) -> None:
    most = max(tree_count(fitted.booster_text(task)) for task in TASKS)
    enough = replace(CONTINUE, max_trees=most + 4)
    assert GBDTRanker(enough, SPEC).warm_refusal(fitted) is None
    refusal = GBDTRanker(replace(enough, max_trees=most + 3), SPEC).warm_refusal(fitted)
    assert refusal is not None
    assert f"it has {most} trees for" in refusal
    assert f"above max_trees {most + 3}" in refusal
    assert GBDTRanker(replace(REFIT, max_trees=30), SPEC).warm_refusal(fitted) is None


def test_rows_to_go_on_with_are_checked_as_any(
    fitted: GBDTRanker, fresh: pa.Table, held: pa.Table
) -> None:
    flat = fresh.set_column(
        fresh.column_names.index("label_click"), "label_click", pa.array([0] * fresh.num_rows)
    )
    for config in (CONTINUE, REFIT):
        with pytest.raises(TrainingRefused, match="too few positives"):
            GBDTRanker(config, SPEC).fit(flat, held, champion=fitted)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"way": "warm"}, "'warm'; known are retrain, continue, refit"),
        ({"continue_rounds": 0}, "continue_rounds 0 must be at least 1"),
        ({"continue_rounds": 50, "max_trees": 50}, "below max_trees 50"),
        ({"refit_decay": 1}, "refit_decay is 1"),
        ({"refit_decay": -0.1}, "refit_decay is -0.1"),
        ({"way": "refit", "objective": "lambdarank", "debias": "position"}, "without knowing"),
    ],
)
def test_a_wrong_way_is_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GBDTConfig.from_dict(values)


def test_a_way_survives_json() -> None:
    for config in (CONTINUE, REFIT):
        assert GBDTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
