"""Entities of the simulated marketplace as everybody sees them: no taste, no appeal, no quality."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from feature_store.schemas import ENTITY_TABLES, ITEMS, ROOM_ITEMS, ROOMS, TIMESTAMP, USERS
from feature_store.sources.arrow import attribute_map, hour_of_micros
from feature_store.sources.simulator.world import AGE_BANDS, CITY_TIERS, DEVICES, Ints, World

__all__ = ["entity_rows"]

_HOUR_MICROS = 3_600_000_000
_CORE_ITEMS = 5


def entity_rows(world: World, table: str, hour: int) -> pa.Table:
    """The rows of an entity table that become known in ``hour`` (hours since the epoch)."""
    build = {"users": _users, "items": _items, "rooms": _rooms, "room_items": _room_items}
    rows = build[table](world, hour)
    return rows if rows is not None else ENTITY_TABLES[table].empty_table()


def _users(world: World, hour: int) -> pa.Table | None:
    if hour != world.first:
        return None
    users = world.users
    return _table(
        USERS,
        hour,
        {"user_id": _ids("u", np.arange(world.config.users))},
        {"registered_days": pa.array(users.registered_days)},
        {
            "age_band": pa.array(AGE_BANDS).take(pa.array(users.age)),
            "device": pa.array(DEVICES).take(pa.array(users.device)),
            "city_tier": pa.array(CITY_TIERS).take(pa.array(users.city)),
        },
    )


def _items(world: World, hour: int) -> pa.Table | None:
    items, _ = world.supply(hour)
    new = np.flatnonzero(items.born == hour)
    if not len(new):
        return None
    level = world.category_price[items.category[new]]
    band = np.digitize(items.price[new] / level, [0.7, 1.3])
    return _table(
        ITEMS,
        hour,
        {
            "item_id": _ids("i", new),
            "category": _ids("c", items.category[new]),
            "room_id": _ids("r", items.room[new]),
        },
        {"price": pa.array(items.price[new]), "rating": pa.array(items.rating[new])},
        {"price_band": pa.array(["low", "middle", "high"]).take(pa.array(band))},
    )


def _rooms(world: World, hour: int) -> pa.Table | None:
    _, rooms = world.supply(hour)
    new = np.flatnonzero(rooms.born == hour)
    if not len(new):
        return None
    return _table(
        ROOMS,
        hour,
        {
            "room_id": _ids("r", new),
            "host_id": _ids("h", new),
            "category": _ids("c", rooms.category[new]),
        },
        {"rating": pa.array(rooms.rating[new]), "usual_hours": pa.array(rooms.length[new])},
        {"usual_start": _ids("", rooms.opens[new])},
    )


def _room_items(world: World, hour: int) -> pa.Table:
    """What the open rooms explain in the four quarters of ``hour``; core items of new rooms."""
    items, rooms = world.supply(hour)
    live = world.live(hour)
    quarter = np.repeat(np.arange(4), len(live))
    explained = np.concatenate([world.explained(hour, q)[live] for q in range(4)])
    begin = hour * _HOUR_MICROS + quarter * (_HOUR_MICROS // 4)
    core_room, core_item = _core(items.room, items.heat, np.flatnonzero(rooms.born == hour))
    none = np.zeros(len(core_room), np.int64)
    since = np.concatenate([begin, none + hour * _HOUR_MICROS])
    until = np.concatenate([begin + _HOUR_MICROS // 4, none])
    core = np.concatenate([np.zeros(len(begin), bool), np.ones(len(none), bool)])
    columns = {
        "room_id": _ids("r", np.concatenate([np.tile(live, 4), core_room])),
        "item_id": _ids("i", np.concatenate([explained, core_item])),
        "valid_from": pa.array(since).cast(TIMESTAMP),
        "valid_to": pa.array(until, mask=core).cast(TIMESTAMP),
        "core": pa.array(core),
        "hour": pa.repeat(hour_of_micros(hour * _HOUR_MICROS), len(core)),
    }
    return pa.table(columns, schema=ROOM_ITEMS)


def _core(room: Ints, heat: np.ndarray, new_rooms: Ints) -> tuple[Ints, Ints]:
    """The hottest items of each new room: pairs of a room and an item."""
    order = np.lexsort((-heat, room))
    sorted_room = room[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_room, sorted_room)
    keep = (rank < _CORE_ITEMS) & np.isin(sorted_room, new_rooms)
    return sorted_room[keep], order[keep]


def _ids(prefix: str, numbers: Ints) -> pa.Array:
    return pa.array([f"{prefix}{number}" for number in numbers.tolist()], pa.string())


def _table(
    schema: pa.Schema,
    hour: int,
    keys: Mapping[str, pa.Array],
    numeric: Mapping[str, pa.Array],
    categorical: Mapping[str, pa.Array],
) -> pa.Table:
    count = len(next(iter(keys.values())))
    columns = {
        **keys,
        "valid_from": pa.array(np.full(count, hour * _HOUR_MICROS)).cast(TIMESTAMP),
        "numeric": attribute_map(numeric, pa.float64()),
        "categorical": attribute_map(categorical, pa.string()),
        "hour": pa.repeat(hour_of_micros(hour * _HOUR_MICROS), count),
    }
    return pa.table(columns, schema=schema)
