"""Behavioural checks: a ranker fitted on a small market passes, and each check catches one that
does what it forbids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.point_in_time import never
from feature_store.views import VIEWS
from jobs.support import behaviour_changes as change
from jobs.support.behaviour import CHECKS, run_checks, sampled
from jobs.support.contenders import Contender, baselines, unregistered
from jobs.support.report import CheckLine
from models import FeatureSpec, SparseColumn
from models.base import ModelError
from models.gbdt import GBDTConfig, GBDTRanker

Floats = npt.NDArray[np.float64]
SPEC = FeatureSpec(
    dense=(
        "hour_of_day", "item_price", "user_ctr_24h", "user_category_ctr_7d",
        "item_impression_24h", "item_click_24h", "item_ctr_24h", "item_click_7d",
        "item_click_trend_24h_7d", "item_cvr_24h", "item_hours_since_click", "item_ctr_15d",
        "room_click_24h", "room_impression_24h", "host_click_7d", "user_room_click_7d",
    ),
    sparse=(SparseColumn("user_activity", 64), SparseColumn("target_type", 8)),
    labels=("label_click",),
)  # fmt: skip
GROUPS, SIZE = 400, 8


def market(seed: int = 0, groups: int = GROUPS) -> pa.Table:
    """Groups of eight items of some hosts; clicks follow rates, tastes and, a little, hosts."""
    rng = np.random.default_rng(seed)
    rows = groups * SIZE
    item, group = rng.integers(0, 300, rows), np.repeat(np.arange(groups), SIZE)
    truth = np.random.default_rng(7)
    attract, shown = truth.beta(2, 15, 300), truth.poisson(60, 300)
    clicks = truth.binomial(shown, attract)
    room, size = item % 20, truth.gamma(2, 30, 20)
    taste = rng.beta(2, 15, rows)
    ctr = (clicks + 1) / (shown + 10)
    columns = {
        "hour_of_day": rng.integers(0, 24, groups)[group],
        "item_price": truth.gamma(2, 10, 300)[item],
        "user_ctr_24h": rng.beta(2, 15, groups)[group],
        "user_category_ctr_7d": taste,
        "item_impression_24h": shown[item], "item_click_24h": clicks[item],
        "item_ctr_24h": ctr[item], "item_click_7d": 7 * clicks[item],
        "item_click_trend_24h_7d": np.ones(rows), "item_cvr_24h": np.full(rows, 0.02),
        "item_hours_since_click": np.where(clicks[item] > 0, 3.0, np.nan),
        "item_ctr_15d": ctr[item], "room_ctr_15d": np.full(rows, 0.1),
        "room_click_24h": size[room], "room_impression_24h": 10 * size[room],
        "host_click_7d": 7 * size[room], "user_room_click_7d": rng.poisson(0.2, rows),
    }  # fmt: skip
    logit = np.log(ctr[item]) + 1.0 + 3 * taste + 0.002 * size[room] + 1.0
    dense = {name: pa.array(values.astype(np.float32), from_pandas=True)
             for name, values in columns.items()}  # fmt: skip
    return pa.table(
        {
            "sample_id": [f"s{row}" for row in range(rows)],
            "group_id": [f"g{code}" for code in group],
            "user_id": [f"u{code % 50}" for code in group],
            "target_id": [f"i{code}" for code in item],
            "item_id": [f"i{code}" for code in item],
            "room_id": [f"r{code}" for code in room],
            "target_type": ["item"] * rows,
            "user_activity": [f"a{code % 3}" for code in group],
            **dense,
            "label_click": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32),
        }
    )


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return market()


@pytest.fixture(scope="module")
def ranker() -> GBDTRanker:
    config = GBDTConfig(rounds=60, early_stopping_rounds=10, num_leaves=7, min_data_in_leaf=40,
                        learning_rate=0.1, threads=1)  # fmt: skip
    model = GBDTRanker(config, SPEC)
    model.fit(market(1, 1200), market(2))
    return model


@pytest.fixture(scope="module")
def good(ranker: GBDTRanker) -> Contender:
    return unregistered("candidate", ranker, "2026-11-11T04", "2026-11-11T05")


def by_name(lines: list[CheckLine]) -> dict[str, CheckLine]:
    return {line.name: line for line in lines}


def seen(rows: pa.Table, score: Callable[[pa.Table], Floats], name: str) -> CheckLine:
    return by_name(run_checks(score, rows, "click"))[name]


def numbers(table: pa.Table, name: str, null: float = np.nan) -> Floats:
    filled: Floats = pc.fill_null(table[name].cast(pa.float64()), null).to_numpy()
    return filled


def ctr(table: pa.Table) -> Floats:
    return numbers(table, "item_ctr_24h", 0.1)


def test_a_fitted_ranker_passes_every_check(good: Contender, rows: pa.Table) -> None:
    lines = run_checks(good, rows, "click")
    assert [line.name for line in lines] == [check.name for check in CHECKS]
    assert {line.name: line.level for line in lines} == {check.name: "pass" for check in CHECKS}
    for line in lines:
        assert line.expected and line.about and "{" not in line.expected
        assert any(letter.isdigit() for letter in line.seen)
        assert line.example.startswith("sample_id s") and " after" in line.example
    assert run_checks(good, rows, "click") == lines


def test_popularity_is_checked_on_what_it_reads(rows: pa.Table) -> None:
    levels = {line.name: line.level for line in run_checks(baselines()[0], rows, "click")}
    assert levels == {
        "permuted features": "pass", "rows apart": "pass", "new user": "skip", "new item": "pass",
        "sold-out item": "skip", "dominating host": "skip", "higher CTR": "pass",
        "missing features": "pass",
    }  # fmt: skip


def test_a_leak_of_the_label_survives_a_permutation(rows: pa.Table) -> None:
    line = seen(rows, lambda t: ctr(t) + 0.1 * numbers(t, "label_click"), "permuted features")
    assert line.level == "fail"
    assert "AUC" in line.seen
    assert seen(rows, ctr, "permuted features").level == "pass"


def test_a_leak_through_the_order_of_rows_survives_a_permutation(rows: pa.Table) -> None:
    ordered = rows.sort_by([("label_click", "descending")])
    line = seen(ordered, lambda t: ctr(t) - np.arange(t.num_rows), "permuted features")
    assert line.level == "fail"


def test_permuted_features_are_skipped_with_one_class(rows: pa.Table) -> None:
    place = rows.column_names.index("label_click")
    unknown = rows.set_column(place, "label_click", pa.nulls(rows.num_rows, pa.float32()))
    assert seen(unknown, ctr, "permuted features").level == "skip"


@pytest.mark.parametrize(
    "score",
    [
        lambda t: ctr(t) + 1e-4 * np.arange(t.num_rows),
        lambda t: ctr(t) - ctr(t).mean(),
        lambda t: np.append(0.0, ctr(t)[:-1]),
    ],
    ids=["place", "mean of the batch", "neighbour"],
)
def test_a_score_that_depends_on_other_rows_is_caught(
    rows: pa.Table, score: Callable[[pa.Table], Floats]
) -> None:
    assert seen(rows, score, "rows apart").level == "fail"
    assert seen(rows, ctr, "rows apart").level == "pass"


def known(table: pa.Table) -> Floats:
    """Whether anything is declared of the user."""
    found: Floats = table["user_activity"].is_valid().cast(pa.float64()).to_numpy()
    return found


@pytest.mark.parametrize(
    "score, words",
    [
        (lambda t: np.where(known(t) > 0, ctr(t), np.nan), "3200 of 3200 scores"),
        (lambda t: 1 + ctr(t) * known(t), "0 of 400 groups still ranked"),
        (lambda t: ctr(t) * np.where(known(t) > 0, 1, 9), "9.00 times the usual"),
        (lambda t: ctr(t) - 9 * (known(t) == 0) - 1, "standard deviation"),
    ],
    ids=["NaN", "all the same", "far higher", "far lower, not positive"],
)
def test_a_ranker_that_does_not_know_new_users_is_caught(
    rows: pa.Table, score: Callable[[pa.Table], Floats], words: str
) -> None:
    line = seen(rows, score, "new user")
    assert line.level == "fail"
    assert words in line.seen
    assert seen(rows, ctr, "new user").level == "pass"


def test_a_ranker_that_buries_new_items_is_caught(rows: pa.Table) -> None:
    line = seen(rows, lambda t: numbers(t, "item_click_7d", 0) + ctr(t), "new item")
    assert line.level == "fail"
    assert line.seen.startswith("first in 0.0% of 400 groups, 12.5% by chance")
    with np.errstate(divide="ignore"):
        line = seen(rows, lambda t: np.log(numbers(t, "item_impression_24h")), "new item")
    assert (line.level, "not finite" in line.seen) == ("fail", True)
    assert seen(rows, ctr, "new item").level == "pass"
    few = seen(rows.slice(0, 10 * SIZE), ctr, "new item")
    assert (few.level, "1.2 first places by chance" in few.seen) == ("skip", True)


def test_an_inverted_ctr_is_caught(rows: pa.Table) -> None:
    levels = {line.name: line.level for line in run_checks(lambda t: -ctr(t), rows, "click")}
    assert levels["sold-out item"] == levels["higher CTR"] == "fail"
    assert levels["rows apart"] == levels["permuted features"] == "pass"
    levels = {line.name: line.level for line in run_checks(ctr, rows, "click")}
    assert levels["sold-out item"] == levels["higher CTR"] == "pass"


def test_a_ranker_by_host_popularity_alone_is_caught(rows: pa.Table) -> None:
    line = seen(rows, lambda t: numbers(t, "room_click_24h", 0), "dominating host")
    assert line.level == "fail"
    assert "times the odds" in line.seen
    mixed = seen(
        rows, lambda t: ctr(t) + 1e-3 * np.log1p(numbers(t, "room_click_24h", 0)), "dominating host"
    )
    assert mixed.level == "pass"
    assert seen(rows.drop_columns(["room_id"]), ctr, "dominating host").level == "skip"


def test_an_outage_that_breaks_the_ranker_is_caught(rows: pa.Table) -> None:
    line = seen(rows, lambda t: numbers(t, "item_ctr_24h"), "missing features")
    assert (line.level, line.seen.split(" scores")[0]) == ("fail", "3200 of 3200")
    assert line.example.endswith("before, nan after")
    assert seen(rows, ctr, "missing features").level == "pass"

    def refusing(table: pa.Table) -> Floats:
        if table["item_price"].null_count:
            raise ModelError("item_price is null; mend it")
        return ctr(table)

    line = seen(rows, refusing, "missing features")
    assert (line.level, line.seen) == ("fail", "refused: item_price is null; mend it")


def test_scores_that_are_not_finite_to_begin_with_fail_every_check(rows: pa.Table) -> None:
    lines = run_checks(lambda t: np.where(ctr(t) > 0.2, np.inf, ctr(t)), rows, "click")
    assert {line.level for line in lines} == {"fail"}
    assert "as they are are not finite" in lines[0].seen


def test_no_rows_and_missing_columns() -> None:
    empty = market().slice(0, 0)
    assert {line.level for line in run_checks(ctr, empty, "click")} == {"skip"}
    with pytest.raises(ValueError, match="rows lack target_id, label_order"):
        run_checks(ctr, empty.drop_columns(["target_id"]), "order")
    with pytest.raises(ValueError, match=r"rows were given scores of shape \(2,\)"):
        run_checks(lambda _: np.zeros(2), market(), "click")


def test_a_sample_is_of_whole_groups_and_always_the_same(rows: pa.Table) -> None:
    few = sampled(rows, 1000)
    assert few.num_rows == 1000
    counts = few["group_id"].value_counts()
    assert {count["counts"].as_py() for count in counts} == {SIZE}
    assert sampled(rows, 1000).equals(few)
    shuffled = rows.take(pa.array(np.random.default_rng(3).permutation(rows.num_rows)))
    theirs = sampled(shuffled, 1000)
    assert set(theirs["sample_id"].to_pylist()) == set(few["sample_id"].to_pylist())
    assert sampled(rows, 3).num_rows == SIZE
    assert sampled(rows, 10_000) is rows


def test_changes_leave_rows_alone_that_they_are_not_about(rows: pa.Table) -> None:
    was = rows.to_pydict()
    found = change.new_item(rows, [n for n in rows.column_names if n in change.ITEM_COLUMNS])
    assert found.marked.sum() == GROUPS
    kept = pa.array(~found.marked)
    assert found.rows.filter(kept).equals(rows.filter(kept))
    fresh = found.rows.filter(pa.array(found.marked))
    assert set(fresh["item_ctr_24h"].to_pylist()) == {float(np.float32(0.1))}
    assert fresh["item_hours_since_click"].null_count == GROUPS
    assert fresh["item_price"].null_count == 0
    assert rows.to_pydict() == was


def test_a_stranger_is_what_the_views_say_of_a_key_never_seen(rows: pa.Table) -> None:
    view = next(view for view in VIEWS if view.name == "user_category")
    default = dict(zip(view.sample_columns(), never(view), strict=True))["user_category_ctr_7d"]
    names = ["user_category_ctr_7d", "user_activity", "user_id"]
    found = change.new_user(rows, names).rows
    assert set(found["user_category_ctr_7d"].to_pylist()) == {float(default)}
    assert found["user_activity"].null_count == rows.num_rows
    assert set(found["user_id"].to_pylist()) == {"never seen"}
    lists = pa.table({"user_clicks_item_id": [["a"], ["b", "c"]]})
    name = next(n for n in change.USER_COLUMNS if n.endswith("_item_id"))
    told = change.new_user(lists.rename_columns([name]), [name]).rows
    assert told[name].to_pylist() == [[], []]


def test_sold_out_items_have_the_rates_of_no_clicks(rows: pa.Table) -> None:
    names = [n for n in rows.column_names if n in change.SALES_COLUMNS]
    found = change.sold_out(rows, names).rows
    assert set(found["item_click_24h"].to_pylist()) == {0.0}
    rate = np.float32(1 / (numbers(rows, "item_impression_24h") + 10))
    told = numbers(found, "item_ctr_24h")
    np.testing.assert_allclose(told, np.minimum(rate, ctr(rows)), rtol=1e-6)
    trend = 5 / (numbers(rows, "item_click_7d") / 7 + 5)
    np.testing.assert_allclose(numbers(found, "item_click_trend_24h_7d"), trend, rtol=1e-6)
    ages = numbers(found, "item_hours_since_click")
    np.testing.assert_array_equal(np.isnan(ages), numbers(rows, "item_click_24h") == 0)
    assert set(ages[~np.isnan(ages)]) == {24.0}
    alone = change.sold_out(rows.select(["item_ctr_24h"]), ["item_ctr_24h"]).rows
    assert set(alone["item_ctr_24h"].to_pylist()) == {0.0}


def test_only_one_of_several_hosts_is_raised() -> None:
    table = pa.table(
        {
            "group_id": list("aaabbbcc"),
            "room_id": ["r1", "r2", "r1", "r1", "r1", "r1", None, "r3"],
            "room_click_24h": np.arange(8, dtype=np.float32),
        }
    )
    found = change.popular_host(table, ["room_click_24h"])
    # Group a raises its first host, b has no other, and what c would raise has none.
    assert found.marked.tolist() == [True, False, True, *[False] * 5]
    assert found.rows["room_click_24h"].to_pylist() == [0, 1, 20, 3, 4, 5, 6, 7]
