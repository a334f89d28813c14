"""What features add to a row's score: it adds up, it tells columns apart, and it can be drawn."""

from __future__ import annotations

from dataclasses import replace

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

from models import ModelError
from models.gbdt import GBDTConfig, GBDTRanker
from models.gbdt_contributions import Contributions, contributions, spread_rows
from models.gbdt_plots import contributions_figure
from models.plots import STOPPING_ROWS
from tests.models.conftest import CONFIG, SPEC, make_table


def raw_scores(ranker: GBDTRanker, task: str, table: pa.Table) -> np.ndarray:
    booster = lgb.Booster(model_str=ranker.booster_text(task))
    return np.asarray(booster.predict(ranker.matrix(table), raw_score=True))


def as_groups(table: pa.Table) -> pa.Table:
    ids = pa.array([f"g{row // 5}" for row in range(table.num_rows)])
    return table.append_column("group_id", ids)


@pytest.mark.parametrize("config", [
    CONFIG,
    GBDTConfig(
        tasks=("click",), objective="lambdarank", rounds=10, min_data_in_leaf=10, threads=1
    ),
    replace(CONFIG, tasks=("click",), weights={}, negative_share=0.5),
], ids=["binary", "lambdarank", "down-sampled"])  # fmt: skip
def test_contributions_add_up_to_the_raw_score(config: GBDTConfig) -> None:
    train, valid = (as_groups(make_table(rows, seed)) for rows, seed in ((2000, 1), (800, 2)))
    ids = pa.array([str(row) for row in range(train.num_rows)])
    ranker = GBDTRanker(config, SPEC)
    ranker.fit(train.append_column("sample_id", ids), valid)
    found = contributions(ranker, valid)
    assert tuple(found) == ranker.tasks
    for task, one in found.items():
        assert one.features == SPEC.columns
        assert one.values.shape == one.ranks.shape == (800, 3)
        total = one.values.sum(axis=1) + one.base
        assert total == pytest.approx(raw_scores(ranker, task, valid), abs=1e-6)


def test_they_tell_columns_and_categories_apart(fitted: GBDTRanker, valid: pa.Table) -> None:
    click = contributions(fitted, valid)["click"]
    assert click.top(3) == [0, 2, 1]  # x, kind, noise
    assert click.top(1) == [0]
    x, kinds = valid["x"].to_numpy(), np.array(valid["kind"].to_pylist())
    assert np.corrcoef(x, click.values[:, 0])[0, 1] > 0.9
    clicked = click.values[kinds == "kind-3", 2]
    assert clicked.min() > click.values[kinds == "kind-1", 2].max()


def test_ranks_are_of_numbers_alone(fitted: GBDTRanker) -> None:
    table = pa.table({
        "x": [5.0, 1.0, 5.0, -2.0, 7.0],
        "noise": pa.array([None, 3.0, float("nan"), 1.0, None]),
        "kind": ["kind-1"] * 5,
    })  # fmt: skip
    ranks = contributions(fitted, table)["click"].ranks
    assert ranks[:, 0].tolist() == [0.625, 0.25, 0.625, 0.0, 1.0]
    assert np.isnan(ranks[[0, 2, 4], 1]).all()
    assert ranks[[1, 3], 1].tolist() == [1.0, 0.0]
    assert np.isnan(ranks[:, 2]).all()


def test_rows_are_spread_and_bounded() -> None:
    table = pa.table({"row": np.arange(1001)})
    some = spread_rows(table, 11)["row"].to_pylist()
    assert some == list(range(0, 1001, 100))
    assert spread_rows(table, 1001) is table


def test_no_rows_are_refused(fitted: GBDTRanker, valid: pa.Table) -> None:
    with pytest.raises(ModelError, match="no rows; pass at least one"):
        contributions(fitted, valid.slice(0, 0))


def test_the_figure_has_a_panel_a_task_and_a_dot_a_row(fitted: GBDTRanker, valid: pa.Table) -> None:
    found = contributions(fitted, spread_rows(valid, 200))
    figure = contributions_figure(found, "log odds", STOPPING_ROWS, top=2)
    assert figure.get_suptitle() == STOPPING_ROWS
    click, follow, bar = figure.axes
    assert [panel.get_title() for panel in (click, follow)] == [
        "click: what features add", "follow: what features add",
    ]  # fmt: skip
    assert [label.get_text() for label in click.get_yticklabels()] == ["kind", "x"]
    assert "missing, or a category" in bar.get_ylabel()
    for place, column in enumerate((2, 0)):
        dots = np.asarray(click.collections[place].get_offsets())
        assert np.array_equal(dots[:, 0], found["click"].values[:, column])
        assert np.abs(dots[:, 1] - place).max() == pytest.approx(0.4)
    figure.canvas.draw()


def test_columns_that_add_nothing_can_be_drawn() -> None:
    nothing = Contributions(("a",), np.zeros((3, 1)), 0.0, np.full((3, 1), np.nan))
    figure = contributions_figure({"click": nothing}, "log odds", "Three rows")
    figure.canvas.draw()
    dots = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert sorted(dots[:, 1].tolist()) == pytest.approx([-0.4, 0.0, 0.4])
