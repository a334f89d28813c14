"""What Spark does with rows, on a real session: events to counts, counts to features, outcomes."""

from __future__ import annotations

import datetime as dt
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.attribution import attribute
from feature_store.schemas import EVENTS
from feature_store.transforms import (
    KEYS,
    TILES,
    count_tiles,
    extract_windows,
    unpack_features,
    with_category,
)
from feature_store.views import VIEWS
from feature_store.windows import HOUR_MICROS, timestamps, window_features
from jobs.support.session import spark_session

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(shutil.which("java") is None, reason="a Spark session needs Java"),
    # pyspark leaves the sockets of its gateway to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

START = "2026-11-01T00"
ACTIONS = ("impression", "click", "long_view", "stay", "order")


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """A session as the jobs make it; small partitions stay apart, as large ones would."""
    configured = {
        "spark.master": "local[2]",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
    }
    with spark_session("tests", configured) as session:
        yield session


def at(hour: int, minute: int = 0) -> dt.datetime:
    return hr.start_of(hr.add(START, hour)) + dt.timedelta(minutes=minute)


def tile_rows(count: int, hours: int) -> list[tuple[Any, ...]]:
    """Random tiles of all views, of few keys, in ``hours`` hours."""
    draw = random.Random(7)
    found = {}
    for _ in range(count):
        number, hour = draw.randrange(len(VIEWS)), draw.randrange(hours)
        key = str(draw.randrange(12)), "x" if len(VIEWS[number].keys) > 1 else ""
        action = draw.choice(ACTIONS)
        row = (number, *key, at(hour), action, draw.randint(1, 4), draw.randint(0, 99))
        found[number, key, hour, action] = (*row, at(hour, 20), hr.add(START, hour))
    return list(found.values())


def test_a_single_hour_sees_all_tiles_of_its_keys(spark: SparkSession) -> None:
    """A join on the keys before it must not scatter them; Spark may read its shuffle locally."""
    rows, hour = tile_rows(4000, 60), hr.add(START, 59)
    # from Python, hence of unknown size: a join is replanned as it runs, as it is over files
    tiles = spark.createDataFrame(rows, TILES).mapInArrow(lambda b: b, TILES)
    keys = tiles.select(*KEYS).distinct()
    joined = tiles.join(keys, list(KEYS), "left_semi")
    for frame in (tiles, joined):
        found = extract_windows(frame, hour, hour, []).toArrow()
        for number, view in enumerate(VIEWS):
            mine = unpack_features(found.filter(pc.equal(found["view"], number)), view)
            assert mine.num_rows > 0
            assert contents(mine, view.keys) == expected(rows, number, hour)


def contents(rows: pa.Table, keys: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Key and values of feature rows, in order."""
    names = [c for c in rows.column_names if c not in (*keys, "hour", "as_of")]
    plain = [tuple(row[c] for c in (*keys, *names)) for row in rows.to_pylist()]
    return sorted(plain, key=str)


def expected(rows: list[tuple[Any, ...]], number: int, hour: str) -> list[tuple[Any, ...]]:
    """The same from all tiles of the view at once, without Spark."""
    view, names = VIEWS[number], ("tile", "action", "n", "total", "last_at", "hour")
    mine = [row for row in rows if row[0] == number]
    table = pa.table({
        **{key: pa.array([row[1 + place] for row in mine]) for place, key in enumerate(view.keys)},
        **{name: pa.array([row[3 + place] for row in mine]) for place, name in enumerate(names)},
    })  # fmt: skip
    keys, as_of, values = window_features(table, view, hour, hour, [])
    split = len(view.count_columns())
    columns = dict(zip(view.count_columns(), values[:, :split].T, strict=True))
    last = {
        name: timestamps(column.copy(), never=0)
        for name, column in zip(view.recency_columns(), values[:, split:].T, strict=True)
    }
    assert set((as_of * HOUR_MICROS).tolist()) == {int(at(60).timestamp() * 1e6)}
    columns_of_keys = dict(zip(view.keys, keys.columns, strict=True))
    return contents(pa.table({**columns_of_keys, **columns, **last}), view.keys)


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
            "action": action, "hour": arrived.strftime("%Y-%m-%dT%H"),
            "value": draw.choice([None, 1.063, 7.25]) if action in ("stay", "order") else None,
        })  # fmt: skip
    return rows


def frame(spark: SparkSession, rows: list[dict[str, Any]], *added: str) -> Any:
    schema = EVENTS
    for name in added:
        schema = schema.append(pa.field(name, pa.string()))
    loose = pa.schema([field.with_nullable(True) for field in schema])
    return spark.createDataFrame(pa.Table.from_pylist(rows, schema=loose)).repartition(3)


def test_counts_equal_a_naive_loop(spark: SparkSession) -> None:
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
    found = count_tiles(frame(spark, rows, "category")).toArrow().to_pylist()
    assert len(found) == len(count) > 100
    for row in found:
        place = tuple(row[name] for name in (*KEYS, "tile", "action"))
        measured = (row["n"], row["total"], row["last_at"], row["hour"])
        hour = place[3].strftime("%Y-%m-%dT%H")
        assert measured == (count[place], total[place], last[place], hour), place


def test_a_category_is_the_one_known_in_the_hour(spark: SparkSession) -> None:
    entity = "category string, valid_from timestamp, hour string"
    items = [
        ("i1", "old", at(0), hr.add(START, 0)),
        ("i1", "overruled", at(1), hr.add(START, 2)),
        ("i1", "new", at(2), hr.add(START, 2)),
        ("i2", None, at(0), hr.add(START, 0)),
    ]
    rooms = [("r1", "room's", at(0), hr.add(START, 1))]
    asked = [
        ("i1", "r1", 0, "old"), ("i1", None, 1, "old"), ("i1", None, 2, "new"),
        ("i1", None, 9, "new"), ("i2", "r1", 0, None), ("i2", "r1", 1, "room's"),
        (None, "r1", 3, "room's"), (None, None, 3, None), ("unknown", None, 3, None),
    ]  # fmt: skip
    events = [
        {**dict.fromkeys(EVENTS.names), "event_id": str(number), "item_id": item, "room_id": room,
         "hour": hr.add(START, hour)}
        for number, (item, room, hour, _) in enumerate(asked)
    ]  # fmt: skip
    found = with_category(
        frame(spark, events),
        spark.createDataFrame(items, f"item_id string, {entity}"),
        spark.createDataFrame(rooms, f"room_id string, {entity}"),
    ).toArrow()
    got = {row["event_id"]: row["category"] for row in found.to_pylist()}
    assert got == {str(number): category for number, (*_, category) in enumerate(asked)}


def test_outcomes_find_their_impression(spark: SparkSession) -> None:
    def row(event_id: str, action: str, minute: int, **given: Any) -> dict[str, Any]:
        known = {"event_id": event_id, "action": action, "event_time": at(0, minute)}
        target = {"user_id": "u", "target_type": "item", "target_id": "i", "hour": START}
        return {**dict.fromkeys(EVENTS.names), **known, **target, **given}

    shown = [
        row("s1", "impression", 0, impression_id="first", request_id="q1"),
        row("s2", "impression", 5, impression_id="second", request_id="q2"),
        row("s3", "impression", 6, target_id="other"),
        row("s4", "impression", 30, impression_id="later"),
    ]
    outcomes = [
        row("named", "click", 7, impression_id="first", request_id="q2"),
        row("by request", "click", 7, request_id="q1"),
        row("by touch", "click", 7),
        row("of a request without it", "click", 7, request_id="q9"),
        row("other target", "click", 7, target_id="other"),
        row("too late", "click", 16),
        row("long window", "order", 29),
        row("before any", "order", -1),
        row("somebody else", "click", 7, user_id="v"),
        row("the room of that name", "click", 7, target_type="room"),
    ]
    found = attribute(
        frame(spark, outcomes), frame(spark, shown), {"click": 600, "order": 3600}
    ).toArrow()
    got = {r["event_id"]: (r["sample_id"], r["attribution"]) for r in found.to_pylist()}
    assert got == {
        "named": ("first", "impression_id"),
        "by request": ("first", "request"),
        "by touch": ("second", "last_touch"),
        "of a request without it": ("second", "last_touch"),
        "other target": ("s3", "last_touch"),
        "long window": ("second", "last_touch"),
    }
