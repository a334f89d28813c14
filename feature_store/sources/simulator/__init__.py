"""A marketplace whose truth is known: users with tastes, products, live rooms, slates, outcomes.

``World`` holds the truth, ``write_simulation`` makes a log of it, ``SimulatorSource`` reads it.
"""

from __future__ import annotations

from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.source import SimulatorSource
from feature_store.sources.simulator.world import World, intensity, position_bias
from feature_store.sources.simulator.writer import Written, read_manifest, write_simulation

__all__ = [
    "MarketConfig",
    "SimulatorSource",
    "World",
    "Written",
    "intensity",
    "position_bias",
    "read_manifest",
    "write_simulation",
]
