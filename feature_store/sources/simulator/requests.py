"""Who asks for what in an hour: sessions of a few requests, with something in mind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_store.sources.simulator.population import Floats, Ints, random_stream
from feature_store.sources.simulator.world import World

__all__ = ["HOME", "LIVE", "MALL", "SCENES", "SEARCH", "Requests", "make_requests"]

SCENES = ("home", "mall", "live", "search")
HOME, MALL, LIVE, SEARCH = range(4)
_MALL_SHARE = 0.4  # of the requests for items that are no searches
_MEAN_REQUESTS = 2.5  # of a session
_MEAN_GAP_SECONDS = 50.0
_MAX_SPAN_SECONDS = 3000.0


@dataclass(frozen=True)
class Requests:
    """n requests, in the order of their sessions.

    ``intent`` is the category that the session is about. Nobody sees it, but a search spells it
    out in its query.
    """

    user: Ints
    second: Floats  # within the hour
    scene: Ints  # places in SCENES
    intent: Ints

    def __len__(self) -> int:
        return len(self.user)

    def part(self, start: int, stop: int) -> Requests:
        """Requests ``start`` to ``stop`` - 1."""
        part = slice(start, stop)
        return Requests(self.user[part], self.second[part], self.scene[part], self.intent[part])


def make_requests(world: World, hour: int) -> Requests:
    """The requests of ``hour`` (hours since the epoch)."""
    config = world.config
    rng = random_stream(config.seed, "requests", hour)
    sessions = int(rng.poisson(world.volume(hour) / _MEAN_REQUESTS))
    visitor = np.searchsorted(np.cumsum(world.activity(hour)), rng.random(sessions))
    visitor = np.minimum(visitor, config.users + config.bots - 1)
    liked = _liked_categories(world, rng, visitor, hour)
    of_items = (rng.random(sessions) < _MALL_SHARE).astype(np.int64)
    of_items = np.where(rng.random(sessions) < config.search_share, SEARCH, of_items)
    scene = np.where(rng.random(sessions) < config.rooms_share, LIVE, of_items)
    length = rng.geometric(1 / _MEAN_REQUESTS, sessions)
    session = np.repeat(np.arange(sessions), length)
    return Requests(
        visitor[session], _seconds(rng, session, length), scene[session], liked[session]
    )


def _seconds(rng: np.random.Generator, session: Ints, length: Ints) -> Floats:
    """When each request comes: after one another inside a session, and all inside the hour."""
    gap = rng.exponential(_MEAN_GAP_SECONDS, len(session))
    begin = np.cumsum(length) - length
    gap[begin] = 0.0
    passed = np.cumsum(gap)
    passed -= np.repeat(passed[begin], length)
    end = begin + length - 1
    factor = np.minimum(1.0, _MAX_SPAN_SECONDS / np.maximum(passed[end], 1e-9))
    start = rng.random(len(length)) * (3599.0 - passed[end] * factor)
    return np.asarray(start[session] + passed * factor[session])


def _liked_categories(world: World, rng: np.random.Generator, user: Ints, hour: int) -> Ints:
    """One category for each of ``user``, drawn by the softmax of the user's tastes."""
    upper = np.cumsum(np.exp(world.tastes(user, hour)), axis=1)
    level = rng.random((len(user), 1)) * upper[:, -1:]
    above = (level > upper).sum(axis=1)
    return np.asarray(np.minimum(above, upper.shape[1] - 1), np.int64)
