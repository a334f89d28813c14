"""A marketplace whose truth is known: users with tastes, products, live rooms, slates, outcomes.

``World`` holds the truth, ``write_simulation`` makes a log of it, ``SimulatorSource`` reads the
log. ``value_of`` says what a ranker would really be worth.

    population   who and what there is            requests    who asks for what, in sessions
    world        tastes, display, festival        slates      candidates, order, propensity
    policies     rankers that can be in charge    behaviour   the funnel: chances and outcomes
    log          canonical events                 truth       what no training code may read
    dirt         what real logs contain           writer      files, hour of arrival by hour
"""

from __future__ import annotations

from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.source import SimulatorSource
from feature_store.sources.simulator.truth import PolicyValue, value_of
from feature_store.sources.simulator.world import World, intensity, position_bias
from feature_store.sources.simulator.writer import Written, read_manifest, write_simulation

__all__ = [
    "MarketConfig",
    "PolicyValue",
    "SimulatorSource",
    "World",
    "Written",
    "intensity",
    "position_bias",
    "read_manifest",
    "value_of",
    "write_simulation",
]
