"""One hour of the marketplace: its requests, their slates, and everything that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import SOURCE_EVENTS, TIMESTAMP
from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.slates import LIVE_SCENE, Slates, make_slates
from feature_store.sources.simulator.world import (
    Floats,
    Ints,
    World,
    intensity_at,
    position_bias,
    random_stream,
    sigmoid,
)

__all__ = ["LOOSE_EVENTS", "MAX_LATE_SECONDS", "origin_events"]

# SOURCE_EVENTS as a dirty log has it: nothing can be relied upon to be there.
LOOSE_EVENTS: Final = pa.schema([field.with_nullable(True) for field in SOURCE_EVENTS])

MAX_LATE_SECONDS: Final = 6600.0  # inside the two hours that a log may be late
_MALL_SHARE = 0.4  # of the requests for items
_CHUNK_REQUESTS = 8192
_MAX_CLICK_SECONDS = 570.0  # click and stay end within the hour after the impression
_MAX_STAY_SECONDS = 2900.0
_MAX_ORDER_SECONDS = 6 * 3600.0
_LONG_VIEW_SECONDS = {"item": 30.0, "room": 90.0}
_SCENES = ("home", "mall", "live")
_ACTIONS = ("impression", "click", "long_view", "stay", "cart", "order", "follow")


@dataclass(frozen=True)
class _Happened:
    """Events of one action: the impression each is from, seconds after it, and its value."""

    action: str
    impression: Ints
    after: Floats
    value: Floats  # NaN where there is none


def origin_events(world: World, hour: int) -> pa.Table:
    """Everything that the requests of ``hour`` (hours since the epoch) lead to, clean, in no
    particular order, ``LOOSE_EVENTS``; much of it arrives in later hours."""
    config = world.config
    rng = random_stream(config.seed, "requests", hour)
    count = int(rng.poisson(config.requests_per_hour * intensity_at(hour)))
    user = np.searchsorted(np.cumsum(world.users.activity), rng.random(count))
    user = np.minimum(user, config.users - 1)
    second = np.sort(rng.random(count)) * 3600.0
    of_items = (rng.random(count) < _MALL_SHARE).astype(np.int64)
    scene = np.where(rng.random(count) < config.rooms_share, LIVE_SCENE, of_items)
    parts = []
    for start in range(0, count, _CHUNK_REQUESTS):
        chunk = slice(start, start + _CHUNK_REQUESTS)
        slates = make_slates(world, hour, rng, user[chunk], second[chunk], scene[chunk])
        parts.append(_events(world, hour, rng, slates, start))
    return pa.concat_tables(parts) if parts else LOOSE_EVENTS.empty_table()


def _events(
    world: World, hour: int, rng: np.random.Generator, slates: Slates, first_request: int
) -> pa.Table:
    happened = _outcomes(world, hour, rng, slates)
    action = np.concatenate([np.full(len(h.impression), i) for i, h in enumerate(happened)])
    impression = np.concatenate([h.impression for h in happened])
    after = np.concatenate([h.after for h in happened])
    value = np.concatenate([h.value for h in happened])
    event_second = slates.second[impression] + after
    # a slate is logged in one piece, so its impressions arrive together
    by_request = _lag(rng, slates.requests, world.config)[slates.request]
    lag = np.where(action == 0, by_request[impression], _lag(rng, len(action), world.config))
    request = first_request + slates.request[impression]
    lost = (rng.random(len(action)) < world.config.lost_impression_share) & (
        action >= _ACTIONS.index("cart")
    )
    lost_request = lost & (rng.random(len(action)) < 0.5)
    request_id = _text(f"q{hour}-", request)
    impression_id = _text(f"q{hour}-", request, "-", slates.position[impression])
    is_room = slates.is_room[impression]
    item, room = _text("i", slates.item[impression]), _text("r", slates.room[impression])
    columns = {
        "event_id": pc.binary_join_element_wise(
            _text(f"e{hour}-", request), _text("", np.arange(len(action))), "-"
        ),
        "event_time": _instant(hour, event_second),
        "ingested_at": _instant(hour, event_second + lag),
        "request_id": pc.if_else(pa.array(lost_request), None, request_id),
        "impression_id": pc.if_else(pa.array(lost), None, impression_id),
        "user_id": _text("u", slates.user[impression]),
        "target_type": pa.array(["item", "room"]).take(pa.array(is_room.astype(np.int64))),
        "target_id": pc.if_else(pa.array(is_room), room, item),
        "item_id": item,
        "room_id": room,
        "scene": pa.array(_SCENES).take(pa.array(slates.scene[impression])),
        "position": pc.if_else(
            pa.array(lost), None, pa.array(slates.position[impression].astype(np.int32))
        ),
        "action": pa.array(_ACTIONS).take(pa.array(action)),
        "value": pa.array(value, mask=np.isnan(value)),
        "query": pa.nulls(len(action), pa.string()),
        "propensity": pa.nulls(len(action), pa.float64()),
    }
    return pa.table(columns, schema=LOOSE_EVENTS)


def _outcomes(
    world: World, hour: int, rng: np.random.Generator, slates: Slates
) -> tuple[_Happened, ...]:
    """What follows from the slates, in the order of ``_ACTIONS``."""
    config, users = world.config, world.users
    items, rooms = world.supply(hour)
    everything = np.arange(len(slates.user))
    looked_at = position_bias(slates.position, config)
    clicked = np.flatnonzero(
        rng.random(len(everything)) < looked_at * sigmoid(slates.attraction(world, hour))
    )
    user, item, room = slates.user[clicked], slates.item[clicked], slates.room[clicked]
    is_room, n = slates.is_room[clicked], len(clicked)
    nothing = np.full(n, np.nan)
    click_after = np.clip(rng.lognormal(2.0, 1.0, n), 0.3, _MAX_CLICK_SECONDS)
    host = np.where(is_room, rooms.quality[room], 0.0)
    pull = 0.5 * items.quality[item] + 0.25 * users.taste[user, items.category[item]] + 0.6 * host
    stay = np.clip(np.exp(rng.normal(3.2 + is_room + pull, 0.9)), 1.0, _MAX_STAY_SECONDS)
    stay = np.round(stay, 3)
    threshold = np.where(is_room, _LONG_VIEW_SECONDS["room"], _LONG_VIEW_SECONDS["item"])
    long = stay >= threshold
    carted = rng.random(n) < sigmoid(world.sale(user, item, items) + 0.4 * host)
    cart_after = click_after + rng.random(n) * stay
    ordered = carted & (rng.random(n) < 0.4)
    order_after = cart_after + np.clip(rng.lognormal(6.6, 1.2, n), 10.0, _MAX_ORDER_SECONDS)
    follows = rng.random(n) < sigmoid(np.where(is_room, -3.2, -4.5) + 0.9 * host)
    follow_after = click_after + rng.random(n) * stay
    amount = items.price[item] * rng.choice([1.0, 2.0], n, p=[0.9, 0.1])

    def some(action: str, which: npt.NDArray[np.bool_], after: Floats, value: Floats) -> _Happened:
        return _Happened(action, clicked[which], after[which], value[which])

    always = np.ones(n, bool)
    return (
        _Happened("impression", everything, 0.0 * looked_at, np.nan * looked_at),
        some("click", always, click_after, nothing),
        some("long_view", long, click_after + threshold, nothing),
        some("stay", always, click_after + stay, stay),
        some("cart", carted, cart_after, nothing),
        some("order", ordered, order_after, np.round(amount, 2)),
        some("follow", follows, follow_after, nothing),
    )


def _lag(rng: np.random.Generator, count: int, config: MarketConfig) -> Floats:
    """Seconds from an event to its arrival: a few, or, for the late share, up to 110 minutes."""
    usual = np.clip(rng.exponential(3.0, count), 0.05, 100.0)
    late = rng.uniform(120.0, MAX_LATE_SECONDS, count)
    return np.where(rng.random(count) < config.late_share, late, usual)


def _instant(hour: int, second: Floats) -> pa.Array:
    micros = hour * 3_600_000_000 + np.round(second * 1e6).astype(np.int64)
    return pa.array(micros).cast(TIMESTAMP)


def _text(*parts: str | Ints) -> pa.Array:
    """The parts joined: texts as they are, numbers in decimal."""
    joined = [
        pa.scalar(part) if isinstance(part, str) else pa.array(part).cast(pa.string())
        for part in parts
    ]
    return pc.binary_join_element_wise(*joined, "")
