"""Events to tiles, and whose events do not count."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import hours as hr
from feature_store.counting import (
    CountTask,
    count,
    digest,
    measured,
    merged,
    partial_tiles,
    without_bots,
)
from feature_store.rowhash import add_sums
from feature_store.schemas import EVENTS, TABLES, optional
from feature_store.views import DERIVED_KEYS, VIEWS, BotRule

START = "2026-11-01T00"
DERIVED = tuple(key.name for key in DERIVED_KEYS)
ACTIONS = ("impression", "click", "long_view", "stay", "order")


def at(hour: int, minute: int = 0) -> dt.datetime:
    return hr.start_of(hr.add(START, hour)) + dt.timedelta(minutes=minute)


def event_rows(count: int) -> list[dict[str, Any]]:
    """Random events with missing keys, arriving up to two hours after they happened."""
    draw = random.Random(3)
    rows = []
    for number in range(count):
        happened = at(draw.randrange(4), draw.randrange(60))
        arrived = happened + dt.timedelta(minutes=draw.choice([0, 0, 5, 35, 90]))
        action = draw.choice(ACTIONS)
        rows.append({
            **dict.fromkeys(EVENTS.names),
            "event_id": f"e{number}", "event_time": happened, "ingested_at": arrived,
            "user_id": f"u{draw.randrange(5)}", "item_id": draw.choice([None, "i1", "i2"]),
            "room_id": draw.choice([None, "r1"]), "category": draw.choice([None, "c1", "c2"]),
            "host_id": draw.choice([None, "h1"]), "shop_id": None,
            "query": draw.choice([None, "q"]), "scene": "home",
            "action": action, "hour": arrived.strftime("%Y-%m-%dT%H"),
            "value": draw.choice([None, 1.063, 7.25]) if action in ("stay", "order") else None,
        })  # fmt: skip
    return rows


def frame(rows: list[dict[str, Any]], *added: str) -> pa.Table:
    schema = optional(EVENTS)
    for name in added:
        schema = schema.append(pa.field(name, pa.string()))
    return pa.Table.from_pylist(rows, schema=schema)


def test_counts_equal_a_naive_loop() -> None:
    rows = event_rows(600)
    count: Counter[tuple[Any, ...]] = Counter()
    total: Counter[tuple[Any, ...]] = Counter()
    last: dict[tuple[Any, ...], dt.datetime] = {}
    for row in rows:
        for number, view in enumerate(VIEWS):
            keys = [row[key] for key in view.keys]
            if None in keys or row["action"] not in view.actions:
                continue
            arrived = row["ingested_at"]
            tile = arrived.replace(minute=arrived.minute // 30 * 30)
            place = (number, keys[0], keys[1] if len(keys) > 1 else "", tile, row["action"])
            count[place] += 1
            unit = {"stay": 1000, "order": 100}.get(row["action"], 0)
            total[place] += round((row["value"] or 0) * unit)
            last[place] = max(last.get(place, row["event_time"]), row["event_time"])
    parts = [measured(frame(rows[start::3], *DERIVED)) for start in range(3)]
    found = []
    for number, view in enumerate(VIEWS):
        partial = pa.concat_tables([partial_tiles(part, number, view) for part in parts])
        found += [{"view": number, **row} for row in merged(partial, view).to_pylist()]
    assert len(found) == len(count) > 100
    for row in found:
        keys = [row[key] for key in VIEWS[row["view"]].keys]
        place = (row["view"], keys[0], *(keys[1:] or [""]), row["tile"], row["action"])
        got = (row["n"], row["total"], row["last_at"], row["hour"])
        hour = place[3].strftime("%Y-%m-%dT%H")
        assert got == (count[place], total[place], last[place], hour), place


def test_bots_do_not_count() -> None:
    rule = BotRule(max_events=20, min_impressions=10, max_click_rate=0.5)

    def of(user: str, action: str, count: int, hour: int = 0) -> list[dict[str, Any]]:
        row = {**dict.fromkeys(EVENTS.names), "user_id": user, "action": action}
        return [{**row, "hour": hr.add(START, hour)} for _ in range(count)]

    rows = [
        *of("busy", "impression", 21), *of("busy", "impression", 5, hour=1),
        *of("eager", "impression", 10), *of("eager", "click", 6),
        *of("keen", "impression", 10), *of("keen", "click", 5),
        *of("new", "impression", 2), *of("new", "click", 2),
    ]  # fmt: skip
    left = without_bots(frame(rows), rule)
    counted = Counter(zip(*(left[c].to_pylist() for c in ("user_id", "hour")), strict=True))
    assert counted == {
        ("busy", hr.add(START, 1)): 5, ("keen", START): 15, ("new", START): 4,
    }  # fmt: skip
    assert left.column_names == EVENTS.names


def test_a_task_writes_hours_as_if_each_was_alone(tmp_path: Path) -> None:
    rows = event_rows(300)
    hours = sorted({row["hour"] for row in rows})
    paths = {}
    for hour in hours:
        paths[hour] = str(tmp_path / f"{hour}.parquet")
        pq.write_table(frame([row for row in rows if row["hour"] == hour]), paths[hour])

    def written(folder: str, *of: str) -> dict[tuple[str, str], tuple[int, int]]:
        folders = [str(tmp_path / folder / view.name) for view in VIEWS]
        parts = list(count(CountTask([paths[hour] for hour in of], {}, folders)))
        for part in parts:
            rows = pq.read_table(part.path)
            assert rows.column_names == TABLES[part.table].schema.names
            assert part.digest == digest(rows)
            order = [("key_hash", "ascending"), ("tile", "ascending"), ("action", "ascending")]
            assert rows.sort_by(order).equals(rows)
        return {(part.table, part.hour): (part.rows, part.digest) for part in parts}

    alone: dict[tuple[str, str], tuple[int, int]] = {}
    for hour in hours:
        alone |= written(hour, hour)
    assert len(hours) > 3
    assert written("all", *hours) == alone
    assert written("none") == {}


def test_a_digest_does_not_depend_on_how_rows_are_split() -> None:
    tiles = merged(partial_tiles(measured(frame(event_rows(200), *DERIVED)), 0, VIEWS[0]), VIEWS[0])
    other = tiles.set_column(
        tiles.column_names.index("action"), "action", pa.repeat("click", len(tiles))
    )
    assert add_sums(digest(tiles[:50]), digest(tiles[50:])) == digest(tiles)
    assert digest(tiles.take(pa.array(range(len(tiles) - 1, -1, -1)))) == digest(tiles)
    assert digest(other) != digest(tiles)
