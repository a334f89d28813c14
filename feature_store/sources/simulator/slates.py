"""The logging policy of the simulated marketplace: what a request is shown, in which order.

Half of the candidates come from the categories that the user likes, 30 % from what is hot, the rest
from everywhere; the order follows a weak and noisy idea of relevance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.sources.simulator.world import Floats, Ints, World

__all__ = ["LIVE_SCENE", "Slates", "make_slates"]

_POOL = 4  # candidates per place
_RELEVANCE = 0.25  # weight of the true attraction in the order, against Gumbel noise of scale 1
_QUARTER_SECONDS = 900.0
LIVE_SCENE = 2  # the scene whose slates are of rooms


@dataclass(frozen=True)
class Slates:
    """n impressions; ``requests`` slates. Requests are numbered from 0, positions from 1."""

    requests: int
    request: Ints
    position: Ints
    second: Floats  # of the request, within the hour
    user: Ints
    scene: Ints
    is_room: npt.NDArray[np.bool_]
    item: Ints  # shown, or explained in the room that is shown
    room: Ints  # the item's host, or the room that is shown

    def attraction(self, world: World, hour: int) -> Floats:
        """Truth: the logit of a click on each impression, once looked at."""
        items, rooms = world.supply(hour)
        return np.where(
            self.is_room,
            world.room_attraction(self.user, self.room, self.item, rooms, items),
            world.item_attraction(self.user, self.item, items),
        )


def make_slates(
    world: World, hour: int, rng: np.random.Generator, user: Ints, second: Floats, scene: Ints
) -> Slates:
    """The slates of requests (m users, seconds within the hour, scenes)."""
    items, _ = world.supply(hour)
    explained = np.stack([world.explained(hour, quarter) for quarter in range(4)])  # 4 x rooms
    is_live = scene == LIVE_SCENE
    size = world.config.slate_size
    item = np.zeros((len(user), size), np.int64)
    room = np.zeros((len(user), size), np.int64)
    there = np.zeros((len(user), size), bool)

    mine = np.flatnonzero(~is_live)
    item[mine], there[mine] = _item_slates(world, hour, rng, user[mine])
    room[mine] = items.room[item[mine]]

    mine = np.flatnonzero(is_live)
    quarter = (second[mine] // _QUARTER_SECONDS).astype(np.int64)
    room[mine], there[mine] = _room_slates(world, hour, rng, user[mine], explained, quarter)
    item[mine] = explained[quarter[:, None], room[mine]]

    request, place = np.nonzero(there)
    return Slates(
        requests=len(user),
        request=request,
        position=place + 1,
        second=second[request],
        user=user[request],
        scene=scene[request],
        is_room=is_live[request],
        item=item[there],
        room=room[there],
    )


def _item_slates(
    world: World, hour: int, rng: np.random.Generator, user: Ints
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """m x slate items for m users, and whether each place is filled."""
    items, _ = world.supply(hour)
    shape = (len(user), _POOL * world.config.slate_size)
    by_category = np.argsort(items.category, kind="stable")
    heat = np.cumsum(items.heat[by_category])
    in_category = np.bincount(items.category, items.heat, world.config.categories)
    before = np.cumsum(in_category) - in_category
    liked = _liked_categories(world, rng, user, shape[1])
    draw = rng.random(shape)
    kind = rng.random(shape)
    level = np.where(kind < 0.5, before[liked] + draw * in_category[liked], draw * heat[-1])
    weighted = by_category[np.minimum(np.searchsorted(heat, level, side="right"), len(heat) - 1)]
    anything = (draw * len(heat)).astype(np.int64)
    pool = np.where(kind < 0.8, weighted, anything)
    idea = _RELEVANCE * world.item_attraction(np.broadcast_to(user[:, None], shape), pool, items)
    return _best(pool, idea, rng, world.config.slate_size)


def _room_slates(
    world: World,
    hour: int,
    rng: np.random.Generator,
    user: Ints,
    explained: Ints,
    quarter: Ints,
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """m x slate live rooms for m users, and whether each place is filled."""
    items, rooms = world.supply(hour)
    live = world.live(hour)
    size = world.config.slate_size
    shape = (len(user), _POOL * size)
    if len(live) <= 2 * _POOL * size:  # few enough to look at all of them
        shape = (len(user), len(live))
        pool = np.broadcast_to(live, shape)
        bonus = 0.5 * np.log(rooms.heat[pool])
    else:
        heat = np.cumsum(rooms.heat[live])
        draw = rng.random(shape)
        hot = np.minimum(np.searchsorted(heat, draw * heat[-1], side="right"), len(live) - 1)
        anything = (draw * len(live)).astype(np.int64)
        pool = live[np.where(rng.random(shape) < 0.5, hot, anything)]
        bonus = np.zeros(shape)
    item = explained[quarter[:, None], pool]
    who = np.broadcast_to(user[:, None], shape)
    idea = _RELEVANCE * world.room_attraction(who, pool, item, rooms, items)
    return _best(pool, idea + bonus, rng, size)


def _liked_categories(world: World, rng: np.random.Generator, user: Ints, count: int) -> Ints:
    """m x count categories, drawn by the softmax of each user's taste."""
    weight = np.exp(world.users.taste[user])
    upper = np.cumsum(weight, axis=1)  # m x categories
    level = rng.random((len(user), count)) * upper[:, -1:]
    above = (level[:, :, None] > upper[:, None, :]).sum(axis=2, dtype=np.int64)
    return np.asarray(np.minimum(above, upper.shape[1] - 1))


def _best(
    pool: Ints, idea: Floats, rng: np.random.Generator, size: int
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The ``size`` best distinct candidates of each row by a noisy ``idea`` of their relevance.

    Returns:
        m x size candidates, best first, and m x size booleans: False where a row has no more.
    """
    order = np.argsort(pool, axis=1, kind="stable")
    sorted_pool = np.take_along_axis(pool, order, axis=1)
    again = np.zeros(pool.shape, bool)
    repeated = np.zeros(pool.shape, bool)
    repeated[:, 1:] = sorted_pool[:, 1:] == sorted_pool[:, :-1]
    np.put_along_axis(again, order, repeated, axis=1)
    score = np.where(again, -np.inf, idea + rng.gumbel(size=pool.shape))
    top = np.argsort(-score, axis=1, kind="stable")[:, :size]
    there = np.isfinite(np.take_along_axis(score, top, axis=1))
    return np.take_along_axis(pool, top, axis=1), there
