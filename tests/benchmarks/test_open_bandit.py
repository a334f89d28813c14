"""The Open Bandit benchmark: its log, targets and reward model against plain counting."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.open_bandit import FOLDS, WEIGHT, Log, cross_fitted, estimates, observed, read

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "open_bandit"


def _log(rows: int = 600, items: int = 7) -> Log:
    rng = np.random.default_rng(3)
    return Log(
        (rng.random(rows) < 0.2).astype(np.float64), rng.integers(0, items, rows),
        rng.integers(0, 3, rows), np.full(rows, 1 / items),
    )  # fmt: skip


@pytest.mark.shared
@pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data/open_bandit")
def test_the_log_that_is_read_is_the_published_one() -> None:
    log = read(DATA, "bts", "all")
    with gzip.open(DATA / "bts_all.csv.gz", "rt") as file:
        rows = [
            (float(r["click"]), int(r["item_id"]), int(r["position"]) - 1,
             float(r["propensity_score"])) for r in csv.DictReader(file)
        ]  # fmt: skip
    found = zip(log.click, log.item, log.place, log.propensity, strict=True)
    assert Counter(found) == Counter(rows)
    assert log.truth.mean == sum(row[0] for row in rows) / len(rows)


def test_observed_shares_are_counted_by_place() -> None:
    log = _log()
    shares = observed(log, 8)
    assert shares.sum(axis=0) == pytest.approx(np.ones(3), abs=1e-12)
    assert shares[7].tolist() == [0, 0, 0]
    here = log.place == 1
    assert shares[4, 1] == pytest.approx((log.item[here] == 4).mean(), abs=1e-12)


def test_rates_are_told_from_other_folds() -> None:
    log = _log()
    rates, fold = cross_fitted(log, 7)
    assert set(fold.tolist()) == set(range(FOLDS))
    for number in range(FOLDS):
        others = fold != number
        mine = others & (log.item == 5)
        prior = WEIGHT * log.click[others].mean()
        assert rates[number, 5] == pytest.approx(
            (log.click[mine].sum() + prior) / (mine.sum() + WEIGHT), abs=1e-12
        )


def test_expected_reward_is_summed_over_the_items_of_the_place() -> None:
    """With predictions that are the clicks' own, doubly robust is their mean under the target."""
    log = _log()
    target = np.random.default_rng(1).dirichlet(np.ones(7), 3).T
    rates, fold = cross_fitted(log, 7)
    *_, robust = estimates(log, target, rates, fold)
    total = 0.0
    for click, item, place, chance, number in zip(
        log.click, log.item, log.place, log.propensity, fold, strict=True
    ):
        total += sum(target[a, place] * rates[number, a] for a in range(7))
        total += target[item, place] / chance * (click - rates[number, item])
    assert robust.value == pytest.approx(total / len(log.click), abs=1e-12)
