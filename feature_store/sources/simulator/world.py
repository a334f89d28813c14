"""The simulated world and its truth: who likes what and when, which products and hosts are good,
when people come, and how much a position is worth.

Every array here is hidden from training: features may only come from events and entity attributes.
Everything follows from the configuration and the hour, so that any hour can be made alone.
"""

from __future__ import annotations

import datetime as dt
from functools import cached_property

import numpy as np
import numpy.typing as npt

from feature_store import hours
from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.population import (
    ORDERS_PER_IMPRESSION,
    Floats,
    Ints,
    Items,
    Rooms,
    joined,
    make_items,
    make_rooms,
    make_users,
    random_stream,
)

__all__ = [
    "LIFECYCLE",
    "World",
    "hour_index",
    "intensity",
    "intensity_at",
    "local_day",
    "position_bias",
    "sigmoid",
    "trust_bias",
]

_LOCAL_OFFSET_HOURS = 8  # Asia/Shanghai has no daylight saving time
LIFECYCLE = ("potential", "new", "mature", "churned")
_ACTIVITY = np.array([0.05, 1.2, 1.0, 0.03])  # by stage of the lifecycle
_NEW_HOURS = 7 * 24
_DEAL_HOURS = 6.0  # after which a festival's deals are in other categories
_INTENDED, _SEARCHED = 0.8, 1.5  # logits for what a session is about
_FEATURED_SHARE, _FEATURED_HEAT = 0.03, 8.0


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-values)))


def hour_index(hour: str) -> int:
    """Hours since the epoch."""
    return hours.difference(hour, "1970-01-01T00")


def local_day(hour: int) -> dt.date:
    """The business day of an hour since the epoch."""
    return dt.date(1970, 1, 1) + dt.timedelta(days=(hour + _LOCAL_OFFSET_HOURS) // 24)


def position_bias(position: npt.ArrayLike, config: MarketConfig) -> Floats:
    """The probability that a user looks at a 1-based position: position ** -decay, 1 at the top."""
    return np.asarray(np.asarray(position, np.float64) ** -config.position_decay)


def trust_bias(position: npt.ArrayLike, config: MarketConfig) -> Floats:
    """The probability of a click on something seen and not wanted, because it stands there:
    trust_bias / position (Agarwal et al., Addressing Trust Bias, WWW 2019, section 4)."""
    return np.asarray(config.trust_bias / np.asarray(position, np.float64))


def intensity(hour: str) -> float:
    """Requests in ``hour`` over an ordinary day's mean: few at night, most at 21 h."""
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


class World:
    """The marketplace of a configuration; arrivals of later days are appended, never inserted."""

    def __init__(self, config: MarketConfig) -> None:
        self.config = config
        self.first = hour_index(config.start)
        self.users = make_users(config, self.first)
        # price level and popularity of the categories: known to nobody
        rng = random_stream(config.seed, "categories")
        self.category_price = np.exp(rng.normal(4.0, 0.7, config.categories))
        self.category_heat = rng.dirichlet(np.full(config.categories, 3.0))
        self._deals = rng.normal(0.0, 0.9, (2, config.categories))
        self._supplies: dict[int, tuple[Items, Rooms]] = {}  # of the last few days

    # -- what there is -----------------------------------------------------------------------------

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
        config, born = self.config, self.first + 24 * day
        heat = self.category_heat
        if day == 0:
            rooms = make_rooms(config, config.rooms, 0, born, heat)
            prices = self.category_price
            return make_items(config, config.items, 0, born, heat, prices, rooms), rooms
        old_items, old_rooms = self._supplies[day - 1]
        new_rooms = make_rooms(config, config.new_rooms_per_day, day, born, heat)
        rooms = joined(old_rooms, new_rooms)
        new = make_items(
            config, config.new_items_per_day, day, born, heat, self.category_price, rooms
        )
        return joined(old_items, new), rooms

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

    def sold_out(self, hour: int) -> npt.NDArray[np.bool_]:
        """Which items have no stock left in ``hour``; it is filled up at local midnight."""
        items, _ = self.supply(hour)
        midnight = hour - (hour + _LOCAL_OFFSET_HOURS) % 24
        requests = sum(self.volume(earlier) for earlier in range(midnight, hour))
        shown = requests * self.config.slate_size * (1 - self.config.rooms_share)
        expected = ORDERS_PER_IMPRESSION * shown * items.heat / items.heat.sum()
        gone = expected > items.stock
        if (~gone).sum() < 4 * self.config.slate_size:
            return np.zeros(len(gone), bool)
        return np.asarray(gone)

    def display(self, hour: int) -> tuple[Floats, Floats]:
        """How much items and rooms are displayed: their heat, times 8 for the day's featured ones,
        who need not be good."""
        items, rooms = self.supply(hour)
        day = (local_day(hour) - dt.date(1970, 1, 1)).days
        heats = []
        for name, heat in (("items", items.heat), ("rooms", rooms.heat)):
            lot = random_stream(self.config.seed, f"featured {name}", day).random(len(heat))
            heats.append(heat * np.where(lot < _FEATURED_SHARE, _FEATURED_HEAT, 1.0))
        return heats[0], heats[1]

    # -- who comes ---------------------------------------------------------------------------------

    def is_festival(self, hour: int) -> bool:
        """Whether ``hour`` lies on the festival's local day."""
        return local_day(hour).isoformat() == self.config.festival

    def volume(self, hour: int) -> float:
        """Expected requests in ``hour``; a festival begins with a rush at midnight."""
        usual = self.config.requests_per_hour * intensity_at(hour)
        if not self.is_festival(hour):
            return usual
        rush = {0: 4.0, 1: 2.0}.get((hour + _LOCAL_OFFSET_HOURS) % 24, 1.0)
        return usual * self.config.festival_volume * rush

    def lifecycle(self, hour: int) -> Ints:
        """Codes of ``LIFECYCLE`` of all users in ``hour``."""
        users = self.users
        stage = np.where(hour < users.joined + _NEW_HOURS, 1, 2)
        stage = np.where(hour < users.joined, 0, stage)
        return np.where(hour >= users.leaves, 3, stage)

    def activity(self, hour: int) -> Floats:
        """Share of the hour's sessions that each user starts; bots, at the end, have their own."""
        weight: Floats = self.users.activity * _ACTIVITY[self.lifecycle(hour)]
        people, share = self.config.users, self.config.bot_share
        weight[:people] *= (1 - share) / weight[:people].sum()
        weight[people:] *= share / max(weight[people:].sum(), 1e-300)
        return weight

    def is_bot(self, user: Ints) -> npt.NDArray[np.bool_]:
        """Which of the users are no people."""
        return np.asarray(user >= self.config.users)

    # -- who likes what ----------------------------------------------------------------------------

    def taste(self, user: Ints, category: Ints, hour: int) -> Floats:
        """Truth: what user i feels for category i in ``hour``, in logits."""
        users = self.users
        swing = np.sin(2 * np.pi * (hour / users.period[user] + users.phase[user, category]))
        drifting = users.taste[user, category] + self.config.taste_drift * swing
        return np.asarray(drifting + self._deal_pull(hour)[category])

    def tastes(self, user: Ints, hour: int) -> Floats:
        """:meth:`taste` of each user for every category, (users, categories)."""
        every = np.arange(self.config.categories)
        shape = (len(user), len(every))
        return self.taste(
            np.broadcast_to(user[:, None], shape), np.broadcast_to(every, shape), hour
        )

    def _deal_pull(self, hour: int) -> Floats:
        if not self.is_festival(hour):
            return self._no_deals
        turn = np.pi * ((hour + _LOCAL_OFFSET_HOURS) % 24) / (2 * _DEAL_HOURS)
        return np.asarray(self._deals[0] * np.cos(turn) + self._deals[1] * np.sin(turn))

    @cached_property
    def _no_deals(self) -> Floats:
        return np.zeros(self.config.categories)

    def item_attraction(
        self, user: Ints, item: Ints, intent: Ints, searched: npt.NDArray[np.bool_], hour: int
    ) -> Floats:
        """Truth: the logit of a click, once looked at, of user i on item i.

        Args:
            intent: the category that each user's session is about.
            searched: whether it was asked for by a query.
        """
        items, _ = self.supply(hour)
        category = items.category[item]
        wanted = np.where(category == intent, np.where(searched, _SEARCHED, _INTENDED), 0.0)
        taste = self.taste(user, category, hour) + wanted
        return taste + 0.6 * items.appeal[item] - 0.3 * self._dearness(user, item, items) - 2.2

    def room_attraction(
        self, user: Ints, room: Ints, item: Ints, intent: Ints, hour: int
    ) -> Floats:
        """Truth: the logit of a click, once looked at, of user i on room i explaining item i."""
        items, rooms = self.supply(hour)
        drawn = 0.6 * self.taste(user, rooms.category[room], hour)
        drawn += 0.4 * self.taste(user, items.category[item], hour)
        drawn += np.where(rooms.category[room] == intent, _INTENDED, 0.0)
        return np.asarray(drawn + 0.7 * rooms.quality[room] + 0.2 * items.appeal[item] - 2.0)

    def sale(self, user: Ints, item: Ints, hour: int) -> Floats:
        """Truth: the logit of putting the product into the cart after a click."""
        items, _ = self.supply(hour)
        taste = self.taste(user, items.category[item], hour)
        dear = self._dearness(user, item, items)
        festive = 0.7 if self.is_festival(hour) else 0.0
        return 0.4 * taste + 0.9 * items.quality[item] - 0.8 * dear - 3.0 + festive

    def _dearness(self, user: Ints, item: Ints, items: Items) -> Floats:
        level = np.log(items.price[item] / self.category_price[items.category[item]])
        return self.users.thrift[user] * level
