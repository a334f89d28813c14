"""The simulated world and its truth: who likes what, which products and hosts are good, when people
come, and how much a position is worth.

Every array here is hidden from training: features may only come from events and entity attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from feature_store import hours
from feature_store.sources.simulator.config import MarketConfig

__all__ = [
    "Items",
    "Rooms",
    "Users",
    "World",
    "hour_index",
    "intensity",
    "intensity_at",
    "position_bias",
    "random_stream",
    "sigmoid",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LOCAL_OFFSET_HOURS = 8  # Asia/Shanghai has no daylight saving time
_FAVOURITES = 4
_Supply = TypeVar("_Supply", "Items", "Rooms")
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
DEVICES = ("android", "ios")
CITY_TIERS = ("1", "2", "3", "4")


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-values)))


def random_stream(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """An independent generator for one purpose (``stream``) and one hour or day (``index``)."""
    return np.random.default_rng([seed, index, *stream.encode()])


def hour_index(hour: str) -> int:
    """Hours since the epoch."""
    return hours.difference(hour, "1970-01-01T00")


def position_bias(position: npt.ArrayLike, config: MarketConfig) -> Floats:
    """The probability that a user looks at a 1-based position: position ** -decay, 1 at the top."""
    return np.asarray(np.asarray(position, np.float64) ** -config.position_decay)


def intensity(hour: str) -> float:
    """Requests in ``hour`` over the day's mean: low at night, some at noon, most at 21 h."""
    return intensity_at(hour_index(hour))


def intensity_at(hour: int) -> float:
    """:func:`intensity` of an hour since the epoch."""
    local = (np.arange(24) + 0.5)[:, None]
    centre, width, height = np.array([[12.5, 2.0, 0.6], [21.0, 2.2, 2.0]]).T
    apart = np.abs(local - centre)
    apart = np.minimum(apart, 24 - apart)
    curve = 0.35 + (height * np.exp(-0.5 * (apart / width) ** 2)).sum(axis=1)
    of_day = (hour + _LOCAL_OFFSET_HOURS) % 24
    return float(curve[of_day] / curve.mean())


@dataclass(frozen=True)
class Users:
    """n users. ``taste`` is n x categories, in logits; ``activity`` sums to 1."""

    taste: Floats
    activity: Floats
    thrift: Floats  # how much a high price puts off
    age: Ints  # codes of AGE_BANDS
    device: Ints
    city: Ints
    registered_days: Ints


@dataclass(frozen=True)
class Items:
    """n products. ``appeal`` draws clicks and ``quality`` keeps and sells: they correlate at .3."""

    category: Ints
    appeal: Floats
    quality: Floats
    price: Floats
    heat: Floats  # display weight
    rating: Floats  # what everybody sees of the quality
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


class World:
    """The marketplace of a configuration; arrivals of later days are appended, never inserted."""

    def __init__(self, config: MarketConfig) -> None:
        self.config = config
        self.first = hour_index(config.start)
        self.users = _make_users(config)
        # price level and popularity of the categories: known to nobody
        rng = random_stream(config.seed, "categories")
        self.category_price = np.exp(rng.normal(4.0, 0.7, config.categories))
        self.category_heat = rng.dirichlet(np.full(config.categories, 3.0))
        self._supplies: dict[int, tuple[Items, Rooms]] = {}  # of the last few days

    def supply(self, hour: int) -> tuple[Items, Rooms]:
        """What there is in ``hour`` (hours since the epoch), the oldest first."""
        day = max(hour - self.first, 0) // 24
        if day not in self._supplies:
            known = max((d for d in self._supplies if d < day), default=-1)
            for later in range(known + 1, day + 1):
                self._supplies[later] = self._make_supply(later)
                self._supplies.pop(later - 3, None)
        return self._supplies[day]

    def _make_supply(self, day: int) -> tuple[Items, Rooms]:
        if day == 0:
            rooms = _make_rooms(self, self.config.rooms, 0)
            return _make_items(self, self.config.items, 0, rooms), rooms
        old_items, old_rooms = self._supplies[day - 1]
        rooms = _joined(old_rooms, _make_rooms(self, self.config.new_rooms_per_day, day))
        return _joined(
            old_items, _make_items(self, self.config.new_items_per_day, day, rooms)
        ), rooms

    def item_attraction(self, user: Ints, item: Ints, items: Items) -> Floats:
        """Truth: the logit of a click, once looked at, of user i on item i."""
        taste = self.users.taste[user, items.category[item]]
        return taste + 0.6 * items.appeal[item] - 0.3 * self._dearness(user, item, items) - 2.0

    def room_attraction(
        self, user: Ints, room: Ints, item: Ints, rooms: Rooms, items: Items
    ) -> Floats:
        """Truth: the logit of a click, once looked at, of user i on room i explaining item i."""
        taste = self.users.taste
        drawn = 0.6 * taste[user, rooms.category[room]] + 0.4 * taste[user, items.category[item]]
        return drawn + 0.7 * rooms.quality[room] + 0.2 * items.appeal[item] - 1.8

    def sale(self, user: Ints, item: Ints, items: Items) -> Floats:
        """Truth: the logit of putting the product into the cart after a click."""
        taste = self.users.taste[user, items.category[item]]
        dear = self._dearness(user, item, items)
        return 0.4 * taste + 0.9 * items.quality[item] - 0.8 * dear - 3.0

    def explained(self, hour: int, quarter: int) -> Ints:
        """Truth and display: the item that each room explains in a quarter of ``hour``; n_rooms."""
        items, rooms = self.supply(hour)
        order = np.argsort(items.room, kind="stable")
        count = np.bincount(items.room, minlength=len(rooms.born))
        begin = np.cumsum(count) - count
        rng = random_stream(self.config.seed, "explained", 4 * hour + quarter)
        pick = rng.random(len(rooms.born))
        own = order[np.minimum(begin + (pick * count).astype(np.int64), len(order) - 1)]
        anything = (pick * len(order)).astype(np.int64)
        return np.where(count > 0, own, anything)

    def live(self, hour: int) -> Ints:
        """The rooms that are open in ``hour``; at least a slate of them, the nearest to opening."""
        _, rooms = self.supply(hour)
        since = (hour + _LOCAL_OFFSET_HOURS - rooms.opens) % 24
        overdue = since - rooms.length
        enough = np.sort(overdue)[self.config.slate_size - 1]
        return np.flatnonzero((overdue < 0) | (overdue <= enough))

    def _dearness(self, user: Ints, item: Ints, items: Items) -> Floats:
        level = np.log(items.price[item] / self.category_price[items.category[item]])
        return self.users.thrift[user] * level


def _make_users(config: MarketConfig) -> Users:
    rng = random_stream(config.seed, "users")
    n, c = config.users, config.categories
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
    activity = rng.lognormal(0.0, 1.0, n)
    return Users(
        taste=taste,
        activity=activity / activity.sum(),
        thrift=rng.uniform(0.0, 2.0, n),
        age=age,
        device=rng.integers(0, len(DEVICES), n),
        city=rng.integers(0, len(CITY_TIERS), n),
        registered_days=rng.integers(0, 2000, n),
    )


def _make_items(world: World, count: int, day: int, rooms: Rooms) -> Items:
    rng = random_stream(world.config.seed, "items", day)
    appeal = rng.normal(0.0, 1.0, count)
    category = rng.choice(world.config.categories, count, p=world.category_heat)
    quality = 0.3 * appeal + np.sqrt(1 - 0.3**2) * rng.normal(0.0, 1.0, count)
    return Items(
        category=category,
        appeal=appeal,
        quality=quality,
        price=np.round(world.category_price[category] * rng.lognormal(0.0, 0.5, count), 2),
        heat=rng.lognormal(0.0, 1.0, count) * np.exp(0.3 * appeal),
        rating=_rating(rng, quality),
        room=_sellers(rng, category, rooms),
        born=np.full(count, world.first + 24 * day),
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


def _make_rooms(world: World, count: int, day: int) -> Rooms:
    rng = random_stream(world.config.seed, "rooms", day)
    quality = rng.normal(0.0, 1.0, count)
    evening = rng.random(count) < 0.5
    return Rooms(
        category=rng.choice(world.config.categories, count, p=world.category_heat),
        quality=quality,
        rating=_rating(rng, quality),
        heat=rng.lognormal(0.0, 1.0, count) * np.exp(0.3 * quality),
        opens=np.where(evening, rng.integers(17, 21, count), rng.integers(0, 24, count)),
        length=rng.integers(4, 11, count),
        born=np.full(count, world.first + 24 * day),
    )


def _rating(rng: np.random.Generator, quality: Floats) -> Floats:
    """One to five stars in tenths, a noisy view of the quality."""
    stars = np.clip(4.0 + 0.4 * quality + rng.normal(0.0, 0.3, len(quality)), 1.0, 5.0)
    return np.asarray(np.round(stars, 1), np.float64)


def _joined(old: _Supply, new: _Supply) -> _Supply:
    names = [field.name for field in fields(old)]
    return type(old)(
        **{name: np.concatenate([getattr(old, name), getattr(new, name)]) for name in names}
    )
