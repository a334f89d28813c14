"""Does NDCG from logs put rankers in the order of their true value?

    python benchmarks/policies.py

In the simulated marketplace a ranker that knows what everybody wants, the logging policy,
popularity and a random order are put in charge of the same requests: what they are truly worth, in
clicks, orders and seconds of stay per request, beside their NDCG@10 on the slates that the logging
policy showed and on those shown at random. One JSON line per ranker, compared with random order.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.sources.simulator import MarketConfig, World, value_of
from feature_store.sources.simulator.behaviour import chances
from feature_store.sources.simulator.log import origin_events
from feature_store.sources.simulator.policies import (
    LoggingPolicy,
    Policy,
    PopularityPolicy,
    RandomPolicy,
    TruthPolicy,
)
from feature_store.sources.simulator.slates import Served, ranks
from feature_store.sources.simulator.truth import served_in
from models.metrics import ndcg_at_k

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "policies.jsonl"
CONFIG = MarketConfig(requests_per_hour=1500, uniform_share=0.2, bot_share=0.0)
LEARNED, JUDGED = 24, 24  # hours: what popularity is counted on, and what all are judged on


@dataclass(frozen=True)
class Standing:
    """What a policy makes of n impressions that another showed, in the order of the slates."""

    score: np.ndarray  # of the target that was shown
    same: np.ndarray  # whether the policy puts that target at that position
    own: np.ndarray  # the target that it puts there


def standing(served: Served, policy: Policy, rng: np.random.Generator) -> Standing:
    """The policy asked about everything that was shown."""
    slates = served.slates
    n = len(slates.request)
    found = Standing(np.empty(n), np.zeros(n, bool), np.empty(n, np.int64))
    target = np.where(slates.is_room, slates.room, slates.item)
    for candidates, rows in zip(served.candidates, served.requests, strict=True):
        scores = policy.scores(candidates, rng)
        order = np.argsort(ranks(candidates, scores), axis=1)
        place = np.full(len(slates.requests), -1)
        place[rows] = np.arange(len(rows))
        mine = np.flatnonzero(slates.is_room == candidates.rooms)
        row = place[slates.request[mine]]
        column = np.argmax(candidates.target[row] == target[mine][:, None], axis=1)
        own = order[row, slates.position[mine] - 1]
        found.score[mine] = scores[row, column]
        found.same[mine] = own == column
        found.own[mine] = candidates.target[row, own]
    return found


def logged(world: World, hours: range) -> Iterator[tuple[int, Served, np.ndarray]]:
    """What the logging policy showed in ``hours``, and what was clicked: (id, slates, clicks)."""
    for hour in hours:
        mixed = served_in(world, hour, LoggingPolicy(world), CONFIG.uniform_share)
        for chunk, _, served in mixed:
            rng = np.random.default_rng([CONFIG.seed, hour, chunk])
            truth = chances(world, hour, served.slates)
            yield hour * 100 + chunk, served, rng.random(len(truth.click)) < truth.click


def ndcg(
    world: World, hours: range, policies: list[Policy], at_random: bool
) -> dict[str, tuple[float, float]]:
    """Mean NDCG@10 of clicks on the logged slates, and its standard error, by policy."""
    labels, groups = [], []
    scores: dict[str, list[np.ndarray]] = {policy.name: [] for policy in policies}
    for number, served, clicked in logged(world, hours):
        chosen = served.slates.random == at_random
        labels.append(clicked[chosen])
        groups.append(number * 1_000_000 + served.slates.request[chosen])
        for policy in policies:
            rng = np.random.default_rng([5, number])
            scores[policy.name].append(standing(served, policy, rng).score[chosen])
    group = pa.array(np.concatenate(groups))
    found = {}
    for name, parts in scores.items():
        clicks = np.concatenate(labels).astype(float)
        values = ndcg_at_k(clicks, np.concatenate(parts), group, 10).values
        values = values[np.isfinite(values)]
        found[name] = float(values.mean()), float(values.std() / np.sqrt(len(values)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.parse_args()
    world = World(CONFIG)
    begin = world.first + LEARNED
    judged = range(begin, begin + JUDGED)
    log = pa.concat_tables(
        origin_events(world, hour, LoggingPolicy(world))[0] for hour in range(world.first, begin)
    )
    policies: list[Policy] = [
        RandomPolicy(),
        PopularityPolicy.from_events(log),
        LoggingPolicy(world),
        TruthPolicy(world),
    ]
    values = {policy.name: value_of(world, np.array(judged), policy) for policy in policies}
    shown, random = (ndcg(world, judged, policies, at_random) for at_random in (False, True))
    base = values["random"]
    results = []
    for name, value in values.items():
        results.append({
            "bench": "policies", "case": name, "ours": round(value.clicks, 4), "peer": "random",
            "peer_version": "same run", "theirs": round(base.clicks, 4),
            "unit": "true clicks/request", "ratio": round(value.clicks / base.clicks, 3),
            "ours_peak_mb": None, "theirs_peak_mb": None,
            "quality": {
                "orders": round(value.orders, 4), "stay_seconds": round(value.stay_seconds, 2),
                "ndcg_on_logged": [round(v, 4) for v in shown[name]],
                "ndcg_on_random": [round(v, 4) for v in random[name]],
                "requests": value.requests,
            },
            "repetitions": 1, "cores": os.cpu_count(),
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
        })  # fmt: skip
        print(json.dumps(results[-1]), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("".join(json.dumps(result) + "\n" for result in results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
