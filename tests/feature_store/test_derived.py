"""Keys that events get from their entities, as known in the hour."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import hours as hr
from feature_store.derived import with_derived_keys
from feature_store.schemas import EVENTS, TABLES, optional
from feature_store.views import DERIVED_KEYS

START = "2026-11-01T00"
DERIVED = tuple(key.name for key in DERIVED_KEYS)


def at(hour: int, minute: int = 0) -> dt.datetime:
    return hr.start_of(hr.add(START, hour)) + dt.timedelta(minutes=minute)


def entity_rows(table: str, key: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of (key, valid from, hour of arrival, category, what else is looked up)."""
    schema = optional(TABLES[table].schema)
    found = []
    for name, since, hour, category, other in rows:
        row = {**dict.fromkeys(schema.names), key: name, "valid_from": since, "hour": hour}
        row |= {"category": category, "numeric": [], "categorical": []}
        if table == "items":
            row["categorical"] = [] if other is None else [("shop", other), ("x", "y")]
        else:
            row["host_id"] = other
        found.append(row)
    return pa.Table.from_pylist(found, schema=schema)


def test_derived_keys_are_those_known_in_the_hour(tmp_path: Path) -> None:
    items = entity_rows("items", "item_id", [
        ("i1", at(0), hr.add(START, 0), "old", "s1"),
        ("i1", at(2), hr.add(START, 2), "new", None),
        ("i1", at(1), hr.add(START, 2), "overruled", "s1"),
        ("i2", at(0), hr.add(START, 0), None, "s2"),
    ])  # fmt: skip
    rooms = entity_rows("rooms", "room_id", [("r1", at(0), hr.add(START, 1), "room's", "h1")])
    asked = [
        ("i1", "r1", 0, "old", None, "s1"), ("i1", None, 1, "old", None, "s1"),
        ("i1", None, 2, "new", None, None), ("i1", "r1", 9, "new", "h1", None),
        ("i2", "r1", 0, None, None, "s2"), ("i2", "r1", 1, "room's", "h1", "s2"),
        (None, "r1", 3, "room's", "h1", None), (None, None, 3, None, None, None),
        ("unknown", None, 3, None, None, None),
    ]  # fmt: skip
    events = [
        {**dict.fromkeys(EVENTS.names), "event_id": str(number), "item_id": item, "room_id": room,
         "hour": hr.add(START, hour)}
        for number, (item, room, hour, *_) in enumerate(asked)
    ]  # fmt: skip
    files = {}
    for table, rows in {"items": items, "rooms": rooms}.items():
        pq.write_table(rows, tmp_path / f"{table}.parquet", row_group_size=2)
        files[table] = [str(tmp_path / f"{table}.parquet")]
    found = with_derived_keys(pa.Table.from_pylist(events, schema=optional(EVENTS)), files)
    got = {r["event_id"]: tuple(r[name] for name in DERIVED) for r in found.to_pylist()}
    assert got == {str(number): row[3:] for number, row in enumerate(asked)}
    none = with_derived_keys(found.select(EVENTS.names), {})
    assert all(none[name].null_count == len(asked) for name in DERIVED)
