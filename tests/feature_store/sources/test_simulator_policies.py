"""Policies on the simulated marketplace: what each is worth, and that its log tells it."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.sources.simulator import MarketConfig, World, value_of
from feature_store.sources.simulator.behaviour import chances
from feature_store.sources.simulator.log import origin_events
from feature_store.sources.simulator.policies import (
    LoggingPolicy,
    PopularityPolicy,
    RandomPolicy,
    TruthPolicy,
)
from feature_store.sources.simulator.slates import ranks
from feature_store.sources.simulator.truth import served_in
from tests.feature_store.sources.market import CLEAN


def estimate(world, policy, hours_, *, random_only):
    """Value of ``policy`` in clicks per request from what was logged, and its standard error.

    IPS by item and position (Li et al., Offline Evaluation of Ranking Policies with Click Models,
    KDD 2018): clicks where the policy would have put the target there, over the propensity.
    """
    config, values = world.config, []
    for hour in hours_.tolist():
        for chunk, _, served in served_in(world, hour, LoggingPolicy(world), config.uniform_share):
            slates = served.slates
            rng = np.random.default_rng([hour, chunk])
            clicked = rng.random(len(slates.request)) < chances(world, hour, slates).click
            agrees = np.zeros((len(slates.requests), config.slate_size), bool)
            count = np.ones(len(slates.requests))
            shown = np.full(agrees.shape, -1)
            target = np.where(slates.is_room, slates.room, slates.item)
            shown[slates.request, slates.position - 1] = target
            for found, rows in zip(served.candidates, served.requests, strict=True):
                order = ranks(found, policy.scores(found, rng))
                for place in range(min(config.slate_size, found.target.shape[1])):
                    chosen = found.target[np.arange(len(rows)), np.argmax(order == place, axis=1)]
                    agrees[rows, place] = chosen == shown[rows, place]
                count[rows] = found.there.sum(axis=1)
            matched = agrees[slates.request, slates.position - 1] & clicked
            propensity = 1 / count[slates.request] if random_only else slates.propensity
            worth = np.bincount(
                slates.request, matched / propensity, minlength=len(slates.requests)
            )
            chosen = np.zeros(len(worth), bool)
            chosen[slates.request] = slates.random if random_only else True
            values.append(worth[chosen])
    flat = np.concatenate(values)
    return flat.mean(), flat.std() / np.sqrt(len(flat)), len(flat)


@pytest.fixture(scope="module")
def half_random():
    """A marketplace that serves every other request at random, and a day and a half of it."""
    world = World(MarketConfig(**CLEAN, uniform_share=0.5))
    return world, np.arange(world.first, world.first + 36)


class TestPolicies:
    @pytest.mark.parametrize("random_only", [True, False])
    @pytest.mark.parametrize("kind", [TruthPolicy, LoggingPolicy])
    def test_ips_finds_the_true_value(self, half_random, kind, random_only):
        """LoggingPolicy with noise of its own: another policy than the one that served."""
        world, span = half_random
        policy = kind(world)
        true = value_of(world, span, policy)
        value, error, requests = estimate(world, policy, span, random_only=random_only)
        assert requests > 5000
        assert error < 0.1 * true.clicks
        assert abs(value - true.clicks) < 2.58 * error  # its 99 % interval

    def test_who_knows_the_truth_is_worth_most(self, half_random):
        world, span = half_random
        log, _ = origin_events(world, world.first + 12, RandomPolicy())
        ranked = [RandomPolicy(), PopularityPolicy.from_events(log), TruthPolicy(world)]
        clicks = [value_of(world, span[:6], policy).clicks for policy in ranked]
        assert np.all(np.diff(clicks) > 0.1), clicks
