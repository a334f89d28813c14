"""Which offline number foretells what a ranker brings online?

    python benchmarks/offline_online.py [--hours 24]

Twenty rankers are judged on one log of the simulated marketplace: by NDCG@10 of clicks on the
logged slates and on those shown at random, and by estimates of the clicks per request that they
would bring (IPS for each item at its position, SNIPS and doubly robust, from the logged
propensities). All are set against the clicks per request that each truly brings when it is put in
charge of the same requests. One JSON line per ranker, and one per measure: Spearman's correlation
with the truth beside Pearson's, and the clicks lost by choosing the ranker that it likes best. All
read one log, so their errors go together: how many of their intervals hold the truth is one draw.

The rankers blend what everybody truly wants, popularity and noise in different shares, beside the
four of benchmarks/policies.py. A fifth of the log is shown in random order, so every target has a
propensity at every position. The doubly robust estimate reads click rates by target, from the hours
before, times those of the position.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from benchmarks.policies import CONFIG, JUDGED, LEARNED, logged, standing  # noqa: E402
from feature_store.sources.simulator import World, value_of  # noqa: E402
from feature_store.sources.simulator.log import origin_events  # noqa: E402
from feature_store.sources.simulator.policies import (  # noqa: E402
    Candidates,
    LoggingPolicy,
    Policy,
    PopularityPolicy,
    RandomPolicy,
    TruthPolicy,
)
from models.metrics import Interval, ndcg_at_k, paired_bootstrap  # noqa: E402
from models.off_policy import (  # noqa: E402
    Estimate,
    doubly_robust,
    item_position_ips,
    snips,
    weigh,
)

RESULTS: Final = ROOT / "benchmarks" / "results" / "offline_online.jsonl"
PICTURE: Final = ROOT / "docs" / "pictures" / "offline-online.png"
SEED: Final = 5
# shares of the truth, of popularity and of noise in a score, all in logits
BLENDS: Final = tuple(itertools.product((-0.2, 0.1, 0.3, 0.6), (0.0, 0.5), (0.4, 1.5)))
MEASURES: Final = {
    "ndcg_logged": "NDCG@10, logged slates",
    "ndcg_random": "NDCG@10, random slates",
    "ips": "IPS, clicks per request",
    "snips": "SNIPS, clicks per request",
    "doubly_robust": "doubly robust, clicks per request",
}

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Blend:
    """A ranker that knows a part of the truth, follows the crowd and errs."""

    truth: TruthPolicy
    popularity: PopularityPolicy
    shares: tuple[float, float, float]

    @property
    def name(self) -> str:
        return "truth {:g}, popularity {:g}, noise {:g}".format(*self.shares)

    def scores(self, candidates: Candidates, rng: np.random.Generator) -> Floats:
        known, crowd, noise = self.shares
        rate = self.popularity.scores(candidates, rng)
        found = known * self.truth.scores(candidates, rng) + crowd * np.log(rate / (1 - rate))
        return np.asarray(found + noise * rng.gumbel(size=candidates.target.shape))


@dataclass(frozen=True)
class Market:
    """The world, what was learned before the judged hours, and the rankers."""

    world: World
    hours: range
    popularity: PopularityPolicy
    place_rates: Floats  # click rate by position over the mean one; [0] is not used
    policies: Sequence[Policy]


def market(hours: int) -> Market:
    """The rankers of a world, judged on ``hours`` after those they learned from."""
    world = World(CONFIG)
    begin = world.first + LEARNED
    log = pa.concat_tables(
        origin_events(world, hour, LoggingPolicy(world))[0] for hour in range(world.first, begin)
    )
    popularity, truth = PopularityPolicy.from_events(log), TruthPolicy(world)
    blends = [Blend(truth, popularity, shares) for shares in BLENDS]
    policies = [RandomPolicy(), popularity, LoggingPolicy(world), truth, *blends]
    return Market(world, range(begin, begin + hours), popularity, place_rates(log), policies)


def place_rates(log: pa.Table) -> Floats:
    """(K + 1,) click rate by position over the mean click rate."""
    shown, clicked = (
        np.bincount(pc.drop_null(log.filter(pc.equal(log["action"], action))["position"]))
        for action in ("impression", "click")
    )
    rate = np.pad(clicked, (0, len(shown) - len(clicked))) / np.maximum(shown, 1)
    return np.asarray(rate * shown.sum() / clicked.sum())


@dataclass(frozen=True)
class Judged:
    """The logged impressions of all judged hours, and what one policy makes of them; (N,) each."""

    request: Ints
    click: Floats
    random: npt.NDArray[np.bool_]  # in a slate of random order
    propensity: Floats
    score: Floats
    same: npt.NDArray[np.bool_]
    predicted: Floats  # click rate of what was shown, by the reward model
    expected: Floats  # and of what the policy would show there


def judged(place: Market, policy: Policy, seed: int) -> Judged:
    """One pass over the log for one policy, whose own noise is drawn by ``seed``."""
    parts = list(_parts(place, policy, seed))
    return Judged(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _parts(place: Market, policy: Policy, seed: int) -> Iterator[tuple[Any, ...]]:
    crowd = place.popularity
    for number, served, clicked in logged(place.world, place.hours):
        slates = served.slates
        found = standing(served, policy, np.random.default_rng([SEED, seed, number]))
        look = place.place_rates[np.minimum(slates.position, len(place.place_rates) - 1)]
        shown = np.where(slates.is_room, slates.room, slates.item)
        predicted, expected = (
            look * _rates(crowd, slates.is_room, target) for target in (shown, found.own)
        )
        yield (
            number * 1_000_000 + slates.request, clicked.astype(np.float64), slates.random,
            slates.propensity, found.score, found.same, predicted, expected,
        )  # fmt: skip


def _rates(crowd: PopularityPolicy, is_room: npt.NDArray[np.bool_], target: Ints) -> Floats:
    """Smoothed click rates of targets; the prior for what the log before had not seen."""
    found = np.full(len(target), crowd.prior)
    for rooms, rates in ((False, crowd.item_rate), (True, crowd.room_rate)):
        known = (is_room == rooms) & (target < len(rates))
        found[known] = rates[target[known]]
    return found


def ndcg(rows: Judged, chosen: npt.NDArray[np.bool_]) -> Interval:
    """NDCG@10 of clicks on the chosen slates, with its interval."""
    values = ndcg_at_k(rows.click[chosen], rows.score[chosen], rows.request[chosen], 10).values
    return paired_bootstrap(values, SEED)


def measured(rows: Judged) -> tuple[dict[str, Interval], Estimate]:
    """Every measure with its interval, estimates in clicks per request; and the IPS estimate."""
    log = weigh(rows.click, rows.propensity, rows.same.astype(np.float64), rows.request)
    by_row = len(rows.click) / len(np.unique(rows.request))  # rows of a request
    found = item_position_ips(log, SEED)
    per_row = {
        "snips": snips(log, SEED),
        "doubly_robust": doubly_robust(log, rows.predicted, rows.expected, SEED),
    }
    return {
        "ndcg_logged": ndcg(rows, ~rows.random),
        "ndcg_random": ndcg(rows, rows.random),
        "ips": Interval(found.value, found.low, found.high),
        **{name: Interval(e.value * by_row, e.low * by_row, e.high * by_row)
           for name, e in per_row.items()},
    }, found  # fmt: skip


def pearson(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def spearman(a: Floats, b: Floats) -> float:
    """Pearson's correlation of the ranks; no two rankers tie."""
    return pearson(*(np.argsort(np.argsort(values)).astype(np.float64) for values in (a, b)))


def policy_line(
    name: str, truth: float, found: Mapping[str, Interval], estimate: Estimate
) -> dict[str, Any]:
    """A ranker: what it truly brings beside the doubly robust estimate of it."""
    overlap = estimate.overlap
    robust = found["doubly_robust"].mean
    return {
        **_head(name, "clicks per request, estimated beside true", "truth"),
        "ours": round(robust, 4), "theirs": round(truth, 4), "ratio": round(robust / truth, 3),
        "quality": {
            **{key: [round(bound, 4) for bound in value] for key, value in found.items()},
            "effective_share": round(overlap.effective_share, 5),
            "effective_rewards": round(overlap.effective_rewards, 1),
            "overlap": overlap.level, "warning": overlap.warning,
        },
    }  # fmt: skip


def measure_lines(results: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """How well each measure puts the rankers in the order of the truth."""
    truth = np.array([r["theirs"] for r in results])
    for name in MEASURES:
        values = np.array([r["quality"][name][0] for r in results])
        order, linear = spearman(values, truth), pearson(values, truth)
        inside = [r["quality"][name][1] <= r["theirs"] <= r["quality"][name][2] for r in results]
        quality = {
            "pearson": round(linear, 4),
            "clicks_lost": round(float(truth.max() - truth[values.argmax()]), 4),
            "rankers": len(results),
        }
        if not name.startswith("ndcg"):
            quality["intervals_that_hold_the_truth"] = sum(inside)
        yield {
            **_head(name, "Spearman's correlation with the truth", "perfect order"),
            "ours": round(order, 4), "theirs": 1.0, "ratio": round(order, 3), "quality": quality,
        }  # fmt: skip


def _head(case: str, unit: str, peer: str) -> dict[str, Any]:
    return {
        "bench": "offline_online", "case": case, "ours": None, "peer": peer,
        "peer_version": "same run", "theirs": None, "unit": unit, "ratio": None,
        "ours_peak_mb": None, "theirs_peak_mb": None, "quality": {}, "repetitions": 1,
        "cores": os.cpu_count(), "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def picture(results: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel a measure: the measure with its interval against the truth, a point a ranker."""
    figure = Figure(figsize=(4.0 * len(lines), 4.0), layout="constrained")
    truth = [r["theirs"] for r in results]
    for panel, line in zip(figure.subplots(1, len(lines)), lines, strict=True):
        mean, low, high = np.array([r["quality"][line["case"]] for r in results]).T
        panel.errorbar(truth, mean, [mean - low, high - mean], fmt="o", markersize=4, linewidth=1)
        if not line["case"].startswith("ndcg"):
            panel.axline((min(truth), min(truth)), slope=1, color="grey", linestyle="dashed")
        panel.set(
            title=f"Spearman {line['ours']:.3f}, Pearson {line['quality']['pearson']:.3f}",
            xlabel="true clicks per request", ylabel=MEASURES[line["case"]],
        )  # fmt: skip
        panel.grid(alpha=0.3)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--hours", type=int, default=JUDGED, help="that the rankers are judged on")
    place = market(parser.parse_args().hours)
    results = []
    for seed, policy in enumerate(place.policies):
        truth = value_of(place.world, np.array(place.hours), policy).clicks
        results.append(policy_line(policy.name, truth, *measured(judged(place, policy, seed))))
        print(json.dumps(results[-1]), flush=True)
    lines = list(measure_lines(results))
    for line in lines:
        print(json.dumps(line), flush=True)
    RESULTS.write_text("".join(json.dumps(result) + "\n" for result in [*results, *lines]))
    picture(results, lines).savefig(PICTURE, dpi=80)
    return 0


if __name__ == "__main__":
    sys.exit(main())
