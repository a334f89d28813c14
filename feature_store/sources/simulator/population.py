"""Who and what a simulated marketplace begins with, and what arrives later: drawn once a day."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from feature_store.sources.simulator.config import MarketConfig

__all__ = [
    "AGE_BANDS",
    "CITY_TIERS",
    "DEVICES",
    "ORDERS_PER_IMPRESSION",
    "Floats",
    "Ints",
    "Items",
    "Rooms",
    "Users",
    "joined",
    "make_items",
    "make_rooms",
    "make_users",
    "random_stream",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ORDERS_PER_IMPRESSION = 0.01  # about what the funnel comes to, to plan the stock
_FAVOURITES = 4
_SHOPS_PER_ITEM = 0.05
_LATER_SHARE, _LATER_HOURS = 0.25, 60 * 24  # users who register after the start, and within when
_RECENT_SHARE, _RECENT_HOURS = 0.1, 14 * 24
_REGISTERED_HOURS = 2000 * 24
_STAY_HOURS = 3000 * 24  # mean time until a user is lost
_Supply = TypeVar("_Supply", "Items", "Rooms")
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
DEVICES = ("android", "ios")
CITY_TIERS = ("1", "2", "3", "4")


def random_stream(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """An independent generator for one purpose (``stream``) and one hour or day (``index``)."""
    return np.random.default_rng([seed, index, *stream.encode()])


@dataclass(frozen=True)
class Users:
    """n users. ``taste`` is n x categories, in logits; it swings with ``period`` (hours) from
    ``phase`` (turns, n x categories)."""

    taste: Floats
    phase: npt.NDArray[np.float32]
    period: Floats
    activity: Floats
    thrift: Floats  # how much a high price puts off
    age: Ints  # codes of AGE_BANDS
    device: Ints
    city: Ints
    joined: Ints  # hour index of the registration, and of leaving for good
    leaves: Ints


@dataclass(frozen=True)
class Items:
    """n products. ``appeal`` draws clicks and ``quality`` keeps and sells: they correlate at .3."""

    category: Ints
    shop: Ints
    appeal: Floats
    quality: Floats
    price: Floats
    heat: Floats  # display weight
    rating: Floats  # what everybody sees of the quality
    stock: Ints  # pieces a day
    room: Ints  # the host who sells it
    born: Ints  # hour index


@dataclass(frozen=True)
class Rooms:
    """n live rooms, each open for ``length`` hours a day from local hour ``opens``."""

    category: Ints
    quality: Floats  # of the host
    rating: Floats  # what everybody sees of it
    heat: Floats
    opens: Ints
    length: Ints
    born: Ints


def make_users(config: MarketConfig, first: int) -> Users:
    """The users of all times, the bots last; ``first`` is the first hour."""
    rng = random_stream(config.seed, "users")
    n, c = config.users + config.bots, config.categories
    age = rng.integers(0, len(AGE_BANDS), n)
    by_age = rng.normal(0.0, 0.5, (len(AGE_BANDS), c))
    taste = rng.normal(-0.9, 0.5, (n, c)) + by_age[age]
    favourites = rng.random((n, c)).argsort(axis=1)[:, :_FAVOURITES]
    np.put_along_axis(
        taste,
        favourites,
        np.take_along_axis(taste, favourites, axis=1) + rng.uniform(1.5, 3.0, favourites.shape),
        axis=1,
    )
    lot, when = rng.random(n), rng.random(n)
    since = np.where(lot < _LATER_SHARE, when * _LATER_HOURS, -when * _REGISTERED_HOURS)
    recent = (lot >= _LATER_SHARE) & (lot < _LATER_SHARE + _RECENT_SHARE)
    registered = first + np.where(recent, -when * _RECENT_HOURS, since).astype(np.int64)
    return Users(
        taste=taste,
        phase=rng.random((n, c), np.float32),
        period=rng.uniform(5.0, 20.0, n) * 24,
        activity=rng.lognormal(0.0, 1.0, n),
        thrift=rng.uniform(0.0, 2.0, n),
        age=age,
        device=rng.integers(0, len(DEVICES), n),
        city=rng.integers(0, len(CITY_TIERS), n),
        joined=registered,
        leaves=registered + 24 + rng.exponential(_STAY_HOURS, n).astype(np.int64),
    )


def make_items(
    config: MarketConfig, count: int, day: int, born: int, category_heat: Floats,
    category_price: Floats, rooms: Rooms,
) -> Items:  # fmt: skip
    """The ``count`` products that arrive on a day (counted from the start)."""
    rng = random_stream(config.seed, "items", day)
    appeal = rng.normal(0.0, 1.0, count)
    category = rng.choice(config.categories, count, p=category_heat)
    quality = 0.3 * appeal + np.sqrt(1 - 0.3**2) * rng.normal(0.0, 1.0, count)
    heat = rng.lognormal(0.0, 1.0, count) * np.exp(0.3 * appeal)
    a_day = 24 * config.requests_per_hour * config.slate_size * (1 - config.rooms_share)
    usual = ORDERS_PER_IMPRESSION * a_day * heat / (config.items * np.exp(0.5 + 0.5 * 0.09))
    return Items(
        category=category,
        shop=rng.integers(0, max(1, round(config.items * _SHOPS_PER_ITEM)), count),
        appeal=appeal,
        quality=quality,
        price=np.round(category_price[category] * rng.lognormal(0.0, 0.5, count), 2),
        heat=heat,
        rating=_rating(rng, quality),
        stock=np.ceil(usual * rng.lognormal(0.7, 0.6, count)).astype(np.int64),
        room=_sellers(rng, category, rooms),
        born=np.full(count, born),
    )


def _sellers(rng: np.random.Generator, category: Ints, rooms: Rooms) -> Ints:
    """A host for each item: of its own category four times in five, where there is one."""
    order = np.argsort(rooms.category, kind="stable")
    size = np.bincount(rooms.category, minlength=int(category.max(initial=0)) + 1)
    begin = np.cumsum(size) - size
    pick = rng.random(len(category))
    place = begin[category] + (pick * size[category]).astype(np.int64)
    own = order[np.minimum(place, len(order) - 1)]
    anyone = (pick * len(order)).astype(np.int64)
    return np.where((rng.random(len(category)) < 0.8) & (size[category] > 0), own, anyone)


def make_rooms(
    config: MarketConfig, count: int, day: int, born: int, category_heat: Floats
) -> Rooms:
    """The ``count`` live rooms that arrive on a day (counted from the start)."""
    rng = random_stream(config.seed, "rooms", day)
    quality = rng.normal(0.0, 1.0, count)
    evening = rng.random(count) < 0.5
    return Rooms(
        category=rng.choice(config.categories, count, p=category_heat),
        quality=quality,
        rating=_rating(rng, quality),
        heat=rng.lognormal(0.0, 1.0, count) * np.exp(0.3 * quality),
        opens=np.where(evening, rng.integers(17, 21, count), rng.integers(0, 24, count)),
        length=rng.integers(4, 11, count),
        born=np.full(count, born),
    )


def _rating(rng: np.random.Generator, quality: Floats) -> Floats:
    """One to five stars in tenths, a noisy view of the quality."""
    stars = np.clip(4.0 + 0.4 * quality + rng.normal(0.0, 0.3, len(quality)), 1.0, 5.0)
    return np.asarray(np.round(stars, 1), np.float64)


def joined(old: _Supply, new: _Supply) -> _Supply:
    """What there was, then what is new."""
    names = [field.name for field in fields(old)]
    return type(old)(
        **{name: np.concatenate([getattr(old, name), getattr(new, name)]) for name in names}
    )
