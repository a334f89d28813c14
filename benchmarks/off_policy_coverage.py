"""Do the intervals of the off-policy estimators hold the truth as often as they say?

    python benchmarks/off_policy_coverage.py [--worlds 500]

Each world is a small contextual bandit whose policy values are known by enumeration: 5 contexts,
6 actions, slates of 3 drawn without replacement by two softmax (Plackett-Luce) policies, clicks by
an item-position model with a mood that the rows of a request share. A log of one policy is drawn,
the value of the other is estimated, and it is counted how often the 95 % interval holds the truth.
One JSON line per case and estimator. ``near`` policies like the same actions, ``far`` ones do not,
and in the ``thin`` case neither is the log long, which the warnings must say.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from models.off_policy import (  # noqa: E402
    Estimate,
    doubly_robust,
    ips,
    item_position_ips,
    snips,
    weigh,
)

RESULTS: Final = ROOT / "benchmarks" / "results" / "off_policy_coverage.jsonl"
CONTEXTS, ACTIONS, PLACES = 5, 6, 3
WORLDS: Final = 500
# requests a log; how far the target's preferences are from the logging policy's
CASES: Final[Mapping[str, tuple[int, float]]] = {
    "near": (2000, 2.0),
    "far": (2000, -5.0),
    "thin": (300, -12.0),
}
LEVEL: Final = 0.95

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_SLATES: Final = np.array(list(itertools.permutations(range(ACTIONS), PLACES)))


def slate_chances(preferences: Floats) -> Floats:
    """(C, S): the chance of each ordered slate of ``_SLATES`` by context, drawn one after another
    without replacement (Plackett, 1975), of ``preferences`` (C, A)."""
    strength = np.exp(preferences)
    chance = np.ones((len(preferences), len(_SLATES)))
    left = np.ones((len(_SLATES), ACTIONS))
    for place in range(PLACES):
        drawn = _SLATES[:, place]
        chance *= strength[:, drawn] / (strength @ left.T)
        left[np.arange(len(drawn)), drawn] = 0.0
    return chance


def place_chances(slates: Floats) -> Floats:
    """(C, A, K): the chance of each action at each place, of (C, S) chances of slates."""
    found = np.zeros((len(slates), ACTIONS, PLACES))
    for place in range(PLACES):
        for action in range(ACTIONS):
            found[:, action, place] = slates[:, _SLATES[:, place] == action].sum(axis=1)
    return found


@dataclass(frozen=True)
class BanditWorld:
    """What is true: the context's chances (C,), the policies' chances and the click rates."""

    contexts: Floats
    slates: Floats  # (C, S) of the logging policy
    logged: Floats  # (C, A, K)
    target: Floats  # (C, A, K)
    rates: Floats  # (C, A, K), over all moods

    @property
    def value(self) -> float:
        """Expected clicks per request of the target policy, by enumeration."""
        return float(np.einsum("c,cak,cak->", self.contexts, self.target, self.rates))


def bandit_world(seed: int, distance: float) -> BanditWorld:
    """A world; ``distance`` scales how the target's preferences differ."""
    rng = np.random.default_rng(seed)
    appeal = rng.normal(0.0, 1.0, (CONTEXTS, ACTIONS))
    logging = 0.5 * appeal + rng.normal(0.0, 0.5, appeal.shape)
    target = logging + distance * (0.5 * appeal + rng.normal(0.0, 0.2, appeal.shape))
    slates = slate_chances(logging)
    looks = 1 / np.log2(np.arange(2, PLACES + 2))
    rates = 0.7 / (1 + np.exp(1.5 - appeal))[:, :, None] * looks
    return BanditWorld(
        rng.dirichlet(np.full(CONTEXTS, 5.0)), slates, place_chances(slates),
        place_chances(slate_chances(target)), rates,
    )  # fmt: skip


@dataclass(frozen=True)
class BanditLog:
    """N = requests * K rows, request by request."""

    request: Ints
    context: Ints
    action: Ints
    place: Ints
    click: Floats


def drawn(world: BanditWorld, requests: int, rng: np.random.Generator) -> BanditLog:
    """What the logging policy showed and what was clicked. A mood, .5 or 1.5 times the rate, is
    drawn for each request, so that its rows are dependent and the rates remain."""
    context = rng.choice(CONTEXTS, requests, p=world.contexts)
    upper = np.cumsum(world.slates, axis=1)
    level = rng.random((requests, 1)) * upper[context, -1:]
    slate = (level > upper[context]).sum(axis=1)
    action = _SLATES[slate].ravel()
    place = np.tile(np.arange(PLACES), requests)
    context = np.repeat(context, PLACES)
    mood = np.repeat(rng.choice([0.5, 1.5], requests), PLACES)
    click = rng.random(len(action)) < world.rates[context, action, place] * mood
    request = np.repeat(np.arange(requests), PLACES)
    return BanditLog(request, context, action, place, click.astype(np.float64))


def cross_fitted(log: BanditLog, folds: int = 2, weight: float = 10.0) -> Floats:
    """(N, A): smoothed click rates of every action at the row's place, in its context, told from
    the other requests' folds."""
    found = np.empty((len(log.click), ACTIONS))
    cell = (log.context * ACTIONS + log.action) * PLACES + log.place
    cells = CONTEXTS * ACTIONS * PLACES
    for fold in range(folds):
        mine = log.request % folds == fold
        prior = log.click[~mine].mean()
        clicks = np.bincount(cell[~mine], log.click[~mine], cells) + weight * prior
        rate = clicks / (np.bincount(cell[~mine], minlength=cells) + weight)
        by_cell = rate.reshape(CONTEXTS, ACTIONS, PLACES)
        found[mine] = by_cell[log.context[mine], :, log.place[mine]]
    return found


def estimates(
    world: BanditWorld, log: BanditLog, seed: int, resamples: int = 1000
) -> dict[str, tuple[Estimate, float]]:
    """Every estimator on a log, each beside the truth that it is after."""
    at = log.context, log.action, log.place
    rows = weigh(log.click, world.logged[at], world.target[at], log.request)
    q = cross_fitted(log)
    predicted = q[np.arange(len(q)), log.action]
    expected = (world.target[log.context, :, log.place] * q).sum(axis=1)
    per_row, draw = world.value / PLACES, (seed, resamples, LEVEL)
    return {
        "ips": (ips(rows, *draw), per_row),
        "snips": (snips(rows, *draw), per_row),
        "doubly_robust": (doubly_robust(rows, predicted, expected, *draw), per_row),
        "item_position_ips": (item_position_ips(rows, *draw), world.value),
    }


def wilson(hits: int, tries: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, Journal of the American Statistical Association 22,
    1927)."""
    z = 1.959964
    centre = (hits + z * z / 2) / (tries + z * z)
    half = z / (tries + z * z) * math.sqrt(hits * (tries - hits) / tries + z * z / 4)
    return centre - half, centre + half


@dataclass(frozen=True)
class Coverage:
    """What an estimator did in all worlds of a case."""

    held: int  # intervals that hold the truth
    worlds: int
    bias: float  # mean relative error
    error: float  # root of the mean squared relative error
    width: float  # mean relative width of the interval
    levels: Mapping[str, int]
    effective_share: float  # mean


def coverage(
    case: str, worlds: int, first_seed: int = 0, resamples: int = 1000
) -> dict[str, Coverage]:
    """Every estimator over ``worlds`` worlds of a case."""
    requests, distance = CASES[case]
    found: dict[str, list[tuple[Estimate, float]]] = {}
    for seed in range(first_seed, first_seed + worlds):
        world = bandit_world(seed, distance)
        log = drawn(world, requests, np.random.default_rng([seed, 1]))
        for name, pair in estimates(world, log, seed, resamples).items():
            found.setdefault(name, []).append(pair)
    return {name: summed(pairs) for name, pairs in found.items()}


def summed(pairs: list[tuple[Estimate, float]]) -> Coverage:
    """Estimates of one estimator, each with its truth, taken together."""
    off = np.array([(e.value - truth) / truth for e, truth in pairs])
    levels = [e.overlap.level for e, _ in pairs]
    return Coverage(
        held=sum(e.low <= truth <= e.high for e, truth in pairs),
        worlds=len(pairs),
        bias=float(off.mean()),
        error=float(np.sqrt((off**2).mean())),
        width=float(np.mean([(e.high - e.low) / truth for e, truth in pairs])),
        levels={level: levels.count(level) for level in ("good", "poor", "unusable")},
        effective_share=float(np.mean([e.overlap.effective_share for e, _ in pairs])),
    )


def line(case: str, name: str, found: Coverage) -> dict[str, Any]:
    """The result of one estimator as a benchmark's line; the peer is what 95 % promises."""
    share = found.held / found.worlds
    return {
        "bench": "off_policy_coverage", "case": f"{case}, {name}", "ours": round(share, 4),
        "peer": "nominal level", "peer_version": "-", "theirs": LEVEL,
        "unit": "share of intervals that hold the truth", "ratio": round(share / LEVEL, 3),
        "ours_peak_mb": None, "theirs_peak_mb": None,
        "quality": {
            "interval": [round(bound, 4) for bound in wilson(found.held, found.worlds)],
            "worlds": found.worlds, "requests": CASES[case][0],
            "bias": round(found.bias, 4), "error": round(found.error, 4),
            "width": round(found.width, 4), "levels": dict(found.levels),
            "effective_share": round(found.effective_share, 4),
        },
        "repetitions": 1, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--worlds", type=int, default=WORLDS)
    chosen = parser.parse_args()
    results = []
    for case in CASES:
        for name, found in coverage(case, chosen.worlds).items():
            results.append(line(case, name, found))
            print(json.dumps(results[-1]), flush=True)
    RESULTS.write_text("".join(json.dumps(result) + "\n" for result in results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
