"""What a request is shown, in which order, and how likely that was.

Retrieval finds some candidates for every request: of the category that its session is about or that
is searched for, of what is displayed most, and from everywhere. A policy orders them; a set share
of the requests gets them in uniformly random order instead. The logged propensity of a target at a
position is that of the mixture, given the candidates and the policy's scores, noise included:

    (1 - uniform_share) * [the policy puts it there] + uniform_share / candidates
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.sources.simulator.policies import Candidates, Policy
from feature_store.sources.simulator.population import Floats, Ints, random_stream
from feature_store.sources.simulator.requests import LIVE, SEARCH, Requests
from feature_store.sources.simulator.world import World

__all__ = ["Served", "Slates", "ranks", "serve"]

_POOL = 4  # candidates per place
_ALL_ROOMS = 2 * _POOL  # up to so many live rooms per place all are candidates
_QUARTER_SECONDS = 900.0


@dataclass(frozen=True)
class Slates:
    """n impressions of ``len(requests)`` slates, by request and position."""

    requests: Requests
    request: Ints  # place in ``requests``
    position: Ints  # from 1
    is_room: npt.NDArray[np.bool_]
    item: Ints  # shown, or explained in the room that is shown
    room: Ints  # the item's host, or the room that is shown
    random: npt.NDArray[np.bool_]  # served in uniformly random order
    propensity: Floats

    @property
    def user(self) -> Ints:
        return self.requests.user[self.request]

    @property
    def intent(self) -> Ints:
        return self.requests.intent[self.request]

    @property
    def searched(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.requests.scene[self.request] == SEARCH)

    def attraction(self, world: World, hour: int) -> Floats:
        """Truth: the logit of a click on each impression, once looked at."""
        user, intent = self.user, self.intent
        return np.where(
            self.is_room,
            world.room_attraction(user, self.room, self.item, intent, hour),
            world.item_attraction(user, self.item, intent, self.searched, hour),
        )


@dataclass(frozen=True)
class Served:
    """Slates, and the candidates that they were made of: for items, then for rooms."""

    slates: Slates
    candidates: tuple[Candidates, Candidates]
    requests: tuple[Ints, Ints]  # which request each row of the candidates belongs to


def serve(
    world: World, hour: int, chunk: int, requests: Requests, policy: Policy, uniform_share: float
) -> Served:
    """Slates of ``requests``, the ``chunk``-th of the hour, ordered by ``policy``.

    Candidates and noise depend on the seed, the hour and the chunk, never on the policy.
    """
    seed, size = world.config.seed, world.config.slate_size
    rng = random_stream(seed, f"candidates {chunk}", hour)
    is_live = requests.scene == LIVE
    of = np.flatnonzero(~is_live), np.flatnonzero(is_live)
    explained = np.stack([world.explained(hour, quarter) for quarter in range(4)])  # 4 x rooms
    candidates = (
        _item_candidates(world, hour, rng, requests, of[0]),
        _room_candidates(world, hour, rng, requests, of[1], explained),
    )
    rng = random_stream(seed, f"policy {chunk}", hour)
    lot = rng.random(len(requests)) < uniform_share
    items, _ = world.supply(hour)
    item = np.zeros((len(requests), size), np.int64)
    room = np.zeros((len(requests), size), np.int64)
    there = np.zeros((len(requests), size), bool)
    chance = np.ones((len(requests), size))
    for rows, found in zip(of, candidates, strict=True):
        random = lot[rows]
        place, chance[rows] = _ordered(found, random, policy, rng, uniform_share, size)
        target = np.take_along_axis(found.target, place, axis=1)
        item[rows] = np.take_along_axis(found.item, place, axis=1)
        room[rows] = target if found.rooms else items.room[target]
        there[rows] = np.take_along_axis(found.there, place, axis=1)
    request, column = np.nonzero(there)
    slates = Slates(
        requests, request, column + 1, is_live[request], item[there], room[there], lot[request],
        chance[there],
    )  # fmt: skip
    return Served(slates, candidates, of)


def ranks(found: Candidates, scores: Floats) -> Ints:
    """The rank of each candidate by falling score, from 0; ties by place, absent ones last."""
    order = np.argsort(np.where(found.there, -scores, np.inf), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
    return rank


def _ordered(
    found: Candidates,
    random: npt.NDArray[np.bool_],
    policy: Policy,
    rng: np.random.Generator,
    uniform_share: float,
    size: int,
) -> tuple[Ints, Floats]:
    """The candidates' places that are shown, best first, and their propensities; (m, size)."""
    shuffle = rng.random(found.target.shape)
    rank = ranks(found, policy.scores(found, rng))
    shown = np.where(random[:, None], ranks(found, shuffle), rank)
    place = np.argsort(shown, axis=1, kind="stable")[:, :size]
    chosen = np.take_along_axis(rank, place, axis=1) == np.arange(place.shape[1])
    count = np.maximum(found.there.sum(axis=1, keepdims=True), 1)
    return place, np.where(chosen, 1.0 - uniform_share, 0.0) + uniform_share / count


def _item_candidates(
    world: World, hour: int, rng: np.random.Generator, requests: Requests, rows: Ints
) -> Candidates:
    items, _ = world.supply(hour)
    config = world.config
    shape = (len(rows), _POOL * config.slate_size)
    weight = np.where(world.sold_out(hour), 0.0, world.display(hour)[0])
    by_category = np.argsort(items.category, kind="stable")
    heat = np.cumsum(weight[by_category])
    in_category = np.bincount(items.category, weight, config.categories)
    before = np.cumsum(in_category) - in_category
    intent = requests.intent[rows][:, None]
    draw, kind = rng.random(shape), rng.random(shape)
    own = kind < np.where(requests.scene[rows] == SEARCH, 0.9, 0.5)[:, None]
    level = np.where(own, before[intent] + draw * in_category[intent], draw * heat[-1])
    weighted = by_category[np.minimum(np.searchsorted(heat, level, side="right"), len(heat) - 1)]
    in_stock = np.flatnonzero(weight)
    anything = in_stock[(draw * len(in_stock)).astype(np.int64)]
    pool = np.where(kind < 0.9, weighted, anything)
    there = _first_of_its_kind(pool) & (weight[pool] > 0)
    user, scene = requests.user[rows], requests.scene[rows]
    return Candidates(hour, False, user, scene, requests.intent[rows], pool, pool, there)


def _room_candidates(
    world: World, hour: int, rng: np.random.Generator, requests: Requests, rows: Ints,
    explained: Ints,
) -> Candidates:  # fmt: skip
    live = world.live(hour)
    size = world.config.slate_size
    if len(live) <= _ALL_ROOMS * size:
        pool = np.broadcast_to(live, (len(rows), len(live)))
        there = np.ones(pool.shape, bool)
    else:
        shape = (len(rows), _POOL * size)
        heat = np.cumsum(world.display(hour)[1][live])
        draw = rng.random(shape)
        hot = np.minimum(np.searchsorted(heat, draw * heat[-1], side="right"), len(live) - 1)
        anything = (draw * len(live)).astype(np.int64)
        pool = live[np.where(rng.random(shape) < 0.5, hot, anything)]
        there = _first_of_its_kind(pool)
    quarter = (requests.second[rows] // _QUARTER_SECONDS).astype(np.int64)
    item = explained[quarter[:, None], pool]
    user, scene = requests.user[rows], requests.scene[rows]
    return Candidates(hour, True, user, scene, requests.intent[rows], pool, item, there)


def _first_of_its_kind(pool: Ints) -> npt.NDArray[np.bool_]:
    """Where a row has a candidate for the first time."""
    order = np.argsort(pool, axis=1, kind="stable")
    in_order = np.take_along_axis(pool, order, axis=1)
    fresh = np.ones(pool.shape, bool)
    fresh[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    first = np.empty_like(fresh)
    np.put_along_axis(first, order, fresh, axis=1)
    return first
