"""The truth about a simulated log: written beside it, for evaluation only.

    OUT/truth/impressions/hour=H/part-0.parquet   the chances of every impression shown in H
    OUT/truth/slates/hour=H/part-0.parquet        of every request in H: the best slate there was
    OUT/truth/positions.parquet                   the curves of position bias and trust bias

``hour`` is that of the request, not of the arrival. No source, job or model reads these files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from feature_store.sources.simulator.behaviour import (
    MAX_STAY_SECONDS,
    STAY_SPREAD,
    Chances,
    chances,
    long_view_seconds,
)
from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.policies import Policy, TruthPolicy
from feature_store.sources.simulator.population import Floats, Ints
from feature_store.sources.simulator.requests import make_requests
from feature_store.sources.simulator.slates import Served, Slates, serve
from feature_store.sources.simulator.text import request_names, target_names
from feature_store.sources.simulator.world import World, position_bias, trust_bias

__all__ = [
    "CHUNK_REQUESTS",
    "PolicyValue",
    "TruthTables",
    "positions",
    "probabilities",
    "served_in",
    "truth_of",
    "value_of",
]

CHUNK_REQUESTS: Final = 8192
_erfc = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True)
class TruthTables:
    """Truth of some requests: a row per impression, a row per request."""

    impressions: pa.Table
    slates: pa.Table


@dataclass(frozen=True)
class PolicyValue:
    """What a policy is worth: expected outcomes per request."""

    policy: str
    requests: int
    clicks: float
    orders: float
    stay_seconds: float


def _normal_tail(values: Floats) -> Floats:
    """1 - Phi(x)."""
    return np.asarray(0.5 * np.asarray(_erfc(values / math.sqrt(2.0)), np.float64))


def expected_stay(log_mean: Floats) -> Floats:
    """Mean seconds of a stay, min(X, m) for X lognormal:

    E = exp(mu + s^2 / 2) Phi((ln m - mu - s^2) / s) + m (1 - Phi((ln m - mu) / s)).
    """
    s, top = STAY_SPREAD, math.log(MAX_STAY_SECONDS)
    body = np.exp(log_mean + s**2 / 2) * (1 - _normal_tail((top - log_mean - s**2) / s))
    return np.asarray(body + MAX_STAY_SECONDS * _normal_tail((top - log_mean) / s))


def probabilities(slates: Slates, truth: Chances) -> dict[str, Floats]:
    """The chance of every action for n impressions, by action; ``stay_seconds`` is their mean."""
    click = truth.click
    long_after = (np.log(long_view_seconds(slates.is_room)) - truth.stay_log_mean) / STAY_SPREAD
    cart = click * truth.cart
    return {
        "click": click,
        "long_view": click * _normal_tail(long_after),
        "stay": click,
        "cart": cart,
        "order": cart * truth.order,
        "cancel": cart * truth.order * truth.cancel,
        **{name: click * getattr(truth, name) for name in ("follow", "comment", "like", "share")},
        # a look without a click: looked at, and drawn neither by the wish nor by the place
        "hate": truth.look * truth.hate * (1 - click),
        "stay_seconds": click * expected_stay(truth.stay_log_mean),
    }


def truth_of(world: World, hour: int, first_request: int, served: Served) -> TruthTables:
    """The truth about ``served``, whose requests are numbered from ``first_request``."""
    slates = served.slates
    truth = chances(world, hour, slates)
    request = first_request + slates.request
    target = target_names(slates.is_room, slates.item, slates.room)
    impressions = pa.table(
        {
            "request_id": request_names(hour, request),
            "impression_id": request_names(hour, request, slates.position),
            "target_id": target,
            "position": pa.array(slates.position.astype(np.int32)),
            "random": pa.array(slates.random),
            "bot": pa.array(world.is_bot(slates.user)),
            "propensity": pa.array(slates.propensity),
            "look": pa.array(truth.look),
            "wanted": pa.array(truth.wanted),
            **{f"p_{name}": pa.array(p) for name, p in probabilities(slates, truth).items()},
        }
    )
    return TruthTables(impressions, _best(world, hour, first_request, served))


def _best(world: World, hour: int, first_request: int, served: Served) -> pa.Table:
    """For every request the targets that its user wants most, best first."""
    size = world.config.slate_size
    best, parts = TruthPolicy(world), []
    unused = np.random.default_rng(0)
    for found, rows in zip(served.candidates, served.requests, strict=True):
        scores = np.where(found.there, best.scores(found, unused), -np.inf)
        place = np.argsort(-scores, axis=1, kind="stable")[:, :size]
        there = np.take_along_axis(found.there, place, axis=1)
        target = np.take_along_axis(found.target, place, axis=1)[there]
        rooms = np.full(len(target), found.rooms)
        offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32))
        names = target_names(rooms, target, target).combine_chunks()
        parts.append(
            pa.table(
                {
                    "request_id": request_names(hour, first_request + rows),
                    "candidates": pa.array(found.there.sum(axis=1)),
                    "best": pa.ListArray.from_arrays(offsets, names),
                }
            )
        )
    return pa.concat_tables(parts)


def positions(config: MarketConfig) -> pa.Table:
    """Both curves, by position."""
    places = np.arange(1, config.slate_size + 1)
    return pa.table(
        {
            "position": places.astype(np.int32),
            "look": position_bias(places, config),
            "trust": trust_bias(places, config),
        }
    )


def served_in(
    world: World, hour: int, policy: Policy, uniform_share: float
) -> list[tuple[int, int, Served]]:
    """What the requests of ``hour`` are served: (chunk, first request, slates) by chunk."""
    requests = make_requests(world, hour)
    return [
        (
            chunk,
            start,
            serve(
                world, hour, chunk, requests.part(start, start + CHUNK_REQUESTS), policy,
                uniform_share,
            ),
        )
        for chunk, start in enumerate(range(0, len(requests), CHUNK_REQUESTS))
    ]  # fmt: skip


def value_of(world: World, hours: Ints, policy: Policy, uniform_share: float = 0.0) -> PolicyValue:
    """What ``policy`` would be worth in ``hours`` (since the epoch), for people; nothing is drawn
    but who asks for what."""
    count, totals = 0, np.zeros(3)
    for hour in hours.tolist():
        for _, _, served in served_in(world, hour, policy, uniform_share):
            slates = served.slates
            people = ~world.is_bot(slates.user)
            expected = probabilities(slates, chances(world, hour, slates))
            count += int((~world.is_bot(slates.requests.user)).sum())
            totals += [expected[n][people].sum() for n in ("click", "order", "stay_seconds")]
    clicks, orders, stay = (totals / max(count, 1)).tolist()
    return PolicyValue(policy.name, count, clicks, orders, stay)
