"""Rankers on the simulated log, offline and online, against plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats as reference

from benchmarks.offline_online import (
    Judged,
    measure_lines,
    measured,
    pearson,
    picture,
    policy_line,
    spearman,
)
from benchmarks.policies import standing
from feature_store.sources.simulator import MarketConfig, World
from feature_store.sources.simulator.policies import LoggingPolicy, TruthPolicy
from feature_store.sources.simulator.truth import served_in
from models.metrics import Interval
from tests.feature_store.sources.market import CLEAN

SIZE = 10


def test_standing_equals_a_plain_loop() -> None:
    world = World(
        MarketConfig(**CLEAN, requests_per_hour=60, users=200, items=200, rooms=60, categories=6)
    )
    policy, rng = TruthPolicy(world), np.random.default_rng(1)
    ((_, _, served),) = served_in(world, world.first, LoggingPolicy(world), 0.5)
    slates, found = served.slates, standing(served, policy, rng)
    lists = {}
    for candidates, rows in zip(served.candidates, served.requests, strict=True):
        scores = policy.scores(candidates, rng)
        for row, request in enumerate(rows.tolist()):
            there = np.flatnonzero(candidates.there[row])
            best = sorted(there, key=lambda place, s=scores[row]: -s[place])
            lists[request] = [(candidates.target[row, p], scores[row, p]) for p in best]
    for n, request in enumerate(slates.request.tolist()):
        shown = slates.room[n] if slates.is_room[n] else slates.item[n]
        own = lists[request][slates.position[n] - 1][0]
        assert found.own[n] == own
        assert found.same[n] == (own == shown)
        assert found.score[n] == dict(lists[request])[shown]
    assert 0 < found.same.mean() < 1


def _judged(requests: int = 300) -> Judged:
    rng = np.random.default_rng(2)
    n = requests * SIZE
    request = np.repeat(np.arange(requests) * 7, SIZE)
    return Judged(
        request, (rng.random(n) < 0.2).astype(np.float64),
        np.repeat(rng.random(requests) < 0.3, SIZE), rng.uniform(0.1, 1.0, n), rng.random(n),
        rng.random(n) < 0.4, np.full(n, 0.2), np.full(n, 0.2),
    )  # fmt: skip


def test_estimates_are_clicks_per_request() -> None:
    rows = _judged()
    found, estimate = measured(rows)
    weight = rows.same / rows.propensity
    assert found["ips"].mean == pytest.approx((weight * rows.click).sum() / 300, abs=1e-9)
    ratio = (weight * rows.click).sum() / weight.sum()
    assert found["snips"].mean == pytest.approx(ratio * SIZE, abs=1e-9)
    robust = 0.2 + (weight * (rows.click - 0.2)).mean()
    assert found["doubly_robust"].mean == pytest.approx(robust * SIZE, abs=1e-9)
    for interval in found.values():
        assert interval.low < interval.mean < interval.high
    assert estimate.overlap.rows == 3000


def test_correlations_equal_scipy() -> None:
    a, b = np.random.default_rng(4).random((2, 20))
    assert pearson(a, b) == pytest.approx(reference.pearsonr(a, b)[0], abs=1e-12)
    assert spearman(a, b) == pytest.approx(reference.spearmanr(a, b)[0], abs=1e-12)


def test_measures_are_told_by_what_they_would_choose() -> None:
    """A measure that likes the second best loses what is between the best and that."""
    found, estimate = measured(_judged())
    results = []
    for truth, ips in ((1.0, 1.0), (2.0, 2.5), (3.0, 2.2)):
        one = dict.fromkeys(found, Interval(truth, truth, truth))
        one["ips"] = Interval(ips, ips - 0.3, ips + 0.3)
        results.append(policy_line(f"ranker {truth}", truth, one, estimate))
    lines = {line["case"]: line for line in measure_lines(results)}
    assert lines["ips"]["ours"] == 0.5
    assert lines["ips"]["quality"]["clicks_lost"] == 1.0
    assert lines["ips"]["quality"]["intervals_that_hold_the_truth"] == 1
    assert lines["ndcg_logged"]["ours"] == 1.0
    assert lines["ndcg_logged"]["quality"]["clicks_lost"] == 0.0
    drawn = picture(results, list(lines.values()))
    assert [panel.get_xlabel() for panel in drawn.axes] == ["true clicks per request"] * 5
    assert json.loads(json.dumps(results)) == results
