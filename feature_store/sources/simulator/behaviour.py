"""What people do with what they are shown: how likely each action is, and what then happens.

``chances`` is the only home of the funnel's formulas; the log is drawn from it and the truth is
written from it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from feature_store.sources.simulator.population import Floats, Ints, random_stream
from feature_store.sources.simulator.slates import Slates
from feature_store.sources.simulator.world import World, position_bias, sigmoid, trust_bias

__all__ = [
    "ACTIONS",
    "MAX_STAY_SECONDS",
    "STAY_SPREAD",
    "Chances",
    "Happened",
    "chances",
    "long_view_seconds",
    "outcomes",
]

ACTIONS: Final = (
    "impression", "click", "long_view", "stay", "cart", "order", "cancel", "follow", "comment",
    "like", "share", "hate",
)  # fmt: skip
_LONG_VIEW_SECONDS: Final = {"item": 30.0, "room": 90.0}
MAX_STAY_SECONDS: Final = 2900.0
STAY_SPREAD: Final = 0.9  # of the logarithm
_MAX_CLICK_SECONDS = 570.0  # click and stay end within the hour after the impression
_MAX_ORDER_SECONDS = 6 * 3600.0
_MAX_CANCEL_SECONDS = 12 * 3600.0

_BOT_CLICK = 0.8


@dataclass(frozen=True)
class Chances:
    """Truth of n impressions. ``look`` and ``wanted`` make the click; the rest is given a click,
    but ``order`` given the cart, ``cancel`` given the order and ``hate`` given a look without a
    click."""

    look: Floats
    wanted: Floats
    click: Floats  # look * (wanted + trust * (1 - wanted))
    stay_log_mean: Floats  # of the seconds, before they are cut at MAX_STAY_SECONDS
    cart: Floats
    order: Floats
    cancel: Floats
    follow: Floats
    comment: Floats
    like: Floats
    share: Floats
    hate: Floats

    def take(self, rows: Ints) -> Chances:
        """The chances of some of the impressions."""
        return Chances(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def chances(world: World, hour: int, slates: Slates) -> Chances:
    """How likely everything is for each impression of ``slates``."""
    items, rooms = world.supply(hour)
    user, item = slates.user, slates.item
    bot = world.is_bot(user)
    taste = world.taste(user, items.category[item], hour)
    host = np.where(slates.is_room, rooms.quality[slates.room], 0.0)
    look = np.where(bot, 1.0, position_bias(slates.position, world.config))
    attraction = slates.attraction(world, hour)
    wanted = np.where(bot, _BOT_CLICK, sigmoid(attraction))
    trust = np.where(bot, 0.0, trust_bias(slates.position, world.config))
    log_mean = 3.2 + slates.is_room + 0.5 * items.quality[item] + 0.25 * taste + 0.6 * host
    log_mean = np.where(bot, 0.5, log_mean)
    person = np.where(bot, 0.0, 1.0)
    pays = 0.6 if world.is_festival(hour) else 0.4
    live = slates.is_room
    return Chances(
        look=look,
        wanted=wanted,
        click=look * (wanted + trust * (1 - wanted)),
        stay_log_mean=log_mean,
        cart=person * sigmoid(world.sale(user, item, hour) + 0.4 * host),
        order=np.where(world.sold_out(hour)[item], 0.0, pays),
        cancel=sigmoid(-2.4 - 0.5 * items.quality[item]),
        follow=person * sigmoid(np.where(live, -3.2, -4.5) + 0.9 * host),
        comment=person * sigmoid(np.where(live, -2.6, -4.5) + 0.5 * host),
        like=person * sigmoid(-2.2 + 0.5 * taste + 0.4 * host),
        share=person * sigmoid(-4.2 + 0.4 * items.quality[item]),
        hate=person * sigmoid(-6.0 - 0.8 * (attraction + 2.0)),
    )


def long_view_seconds(is_room: npt.NDArray[np.bool_]) -> Floats:
    """From which stay on a view is a long one."""
    return np.where(is_room, _LONG_VIEW_SECONDS["room"], _LONG_VIEW_SECONDS["item"])


@dataclass(frozen=True)
class Happened:
    """Events of one action: the impression each is from, seconds after it, and its value."""

    action: str
    impression: Ints
    after: Floats
    value: Floats  # NaN where there is none


def outcomes(
    world: World, hour: int, chunk: int, slates: Slates, truth: Chances
) -> tuple[Happened, ...]:
    """What follows from the slates, in the order of ``ACTIONS``."""
    items, _ = world.supply(hour)
    rng = random_stream(world.config.seed, f"behaviour {chunk}", hour)
    everything = np.arange(len(slates.request))
    lot = rng.random(len(everything))
    clicked = np.flatnonzero(lot < truth.click)
    given, n = truth.take(clicked), len(clicked)
    hated = (rng.random(len(everything)) < truth.look * truth.hate) & (lot >= truth.click)
    item = slates.item[clicked]
    click_after = np.clip(rng.lognormal(2.0, 1.0, n), 0.3, _MAX_CLICK_SECONDS)
    stay = np.exp(rng.normal(given.stay_log_mean, STAY_SPREAD))
    stay = np.minimum(stay, MAX_STAY_SECONDS).round(3)
    threshold = long_view_seconds(slates.is_room[clicked])
    carted = rng.random(n) < given.cart
    cart_after = click_after + rng.random(n) * stay
    ordered = carted & (rng.random(n) < given.order)
    order_after = cart_after + np.clip(rng.lognormal(6.6, 1.2, n), 10.0, _MAX_ORDER_SECONDS)
    cancelled = ordered & (rng.random(n) < given.cancel)
    cancel_after = order_after + np.clip(rng.lognormal(8.5, 1.0, n), 60.0, _MAX_CANCEL_SECONDS)
    pieces = rng.choice([1.0, 2.0], n, p=[0.9, 0.1])
    amount = (items.price[item] * pieces).round(2)
    nothing = np.full(n, np.nan, np.float64)

    def some(
        action: str, which: npt.NDArray[np.bool_], after: Floats, value: Floats = nothing
    ) -> Happened:
        return Happened(action, clicked[which], after[which], value[which])

    def during(action: str, chance: Floats) -> Happened:
        which = rng.random(n) < chance
        return some(action, which, click_after + rng.random(n) * stay)

    always = np.ones(n, bool)
    of_hated = np.flatnonzero(hated)
    return (
        Happened("impression", everything, np.zeros(len(lot)), np.full(len(lot), np.nan)),
        some("click", always, click_after),
        some("long_view", stay >= threshold, click_after + threshold),
        some("stay", always, click_after + stay, stay),
        some("cart", carted, cart_after),
        some("order", ordered, order_after, amount),
        some("cancel", cancelled, cancel_after, amount),
        during("follow", given.follow),
        during("comment", given.comment),
        during("like", given.like),
        during("share", given.share),
        Happened(
            "hate",
            of_hated,
            rng.uniform(1.0, 60.0, len(of_hated)),
            np.full(len(of_hated), np.nan),
        ),
    )
