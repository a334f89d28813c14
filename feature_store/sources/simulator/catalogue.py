"""Entities of the simulated marketplace as everybody sees them: no taste, no appeal, no quality."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from feature_store.schemas import ENTITY_TABLES, ITEMS, ROOM_ITEMS, ROOMS, TIMESTAMP, USERS
from feature_store.sources.arrow import attribute_map, hour_of_micros
from feature_store.sources.simulator.population import AGE_BANDS, CITY_TIERS, DEVICES, Ints
from feature_store.sources.simulator.text import joined_text
from feature_store.sources.simulator.world import LIFECYCLE, World

__all__ = ["entity_rows"]

_HOUR_MICROS = 3_600_000_000
_CORE_ITEMS = 5


def entity_rows(world: World, table: str, hour: int) -> pa.Table:
    """The rows of an entity table that become known in ``hour`` (hours since the epoch)."""
    build = {"users": _users, "items": _items, "rooms": _rooms, "room_items": _room_items}
    rows = build[table](world, hour)
    return rows if rows is not None else ENTITY_TABLES[table].empty_table()


def _users(world: World, hour: int) -> pa.Table | None:
    """All users at first, then those whose stage of life changes."""
    users, stage = world.users, world.lifecycle(hour)
    chosen = np.ones(len(stage), bool)
    if hour != world.first:
        chosen = stage != world.lifecycle(hour - 1)
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return None
    return _table(
        USERS,
        hour,
        {"user_id": joined_text("u", rows)},
        {"register_days": pa.array(np.maximum(hour - users.joined[rows], 0) // 24)},
        {
            "age_band": pa.array(AGE_BANDS).take(pa.array(users.age[rows])),
            "device": pa.array(DEVICES).take(pa.array(users.device[rows])),
            "city_tier": pa.array(CITY_TIERS).take(pa.array(users.city[rows])),
            "lifecycle": pa.array(LIFECYCLE).take(pa.array(stage[rows])),
        },
    )


def _items(world: World, hour: int) -> pa.Table | None:
    """New items, and those that are sold out or in stock again."""
    items, _ = world.supply(hour)
    born, gone = items.born == hour, world.sold_out(hour)
    changed = np.zeros(len(gone), bool)
    if hour > world.first:
        before = world.sold_out(hour - 1)
        changed[: len(before)] = gone[: len(before)] != before
    rows = np.flatnonzero(born | changed)
    if not len(rows):
        return None
    level = world.category_price[items.category[rows]]
    band = np.digitize(items.price[rows] / level, [0.7, 1.3])
    return _table(
        ITEMS,
        hour,
        {
            "item_id": joined_text("i", rows),
            "category": joined_text("c", items.category[rows]),
            "room_id": joined_text("r", items.room[rows]),
        },
        {
            "price": pa.array(items.price[rows]),
            "rating": pa.array(items.rating[rows]),
            "stock": pa.array(np.where(gone, 0, items.stock)[rows]),
            "published_day": pa.array((items.born[rows] - world.first) // 24),
        },
        {
            "price_band": pa.array(["low", "middle", "high"]).take(pa.array(band)),
            "shop": joined_text("s", items.shop[rows]),
        },
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
            "room_id": joined_text("r", new),
            "host_id": joined_text("h", new),
            "category": joined_text("c", rooms.category[new]),
        },
        {
            "rating": pa.array(rooms.rating[new]),
            "host_level": pa.array(np.round(rooms.rating[new])),
            "usual_hours": pa.array(rooms.length[new]),
        },
        {"usual_start": joined_text(rooms.opens[new])},
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
        "room_id": joined_text("r", np.concatenate([np.tile(live, 4), core_room])),
        "item_id": joined_text("i", np.concatenate([explained, core_item])),
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
