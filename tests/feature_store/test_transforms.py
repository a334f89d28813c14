"""What Spark does with rows, on a real session: events to counts, counts to features, outcomes."""

from __future__ import annotations

import datetime as dt
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.attribution import attribute
from feature_store.counting import merged
from feature_store.extraction import Unit, work
from feature_store.schemas import EVENTS, TABLES, optional
from feature_store.spark_io import meet
from feature_store.tiles import key_ranges
from feature_store.transforms import (
    KEYS,
    count_tiles,
    entity_schema,
    run_units,
    stacked_entities,
    with_derived_keys,
    without_bots,
)
from feature_store.views import DERIVED_KEYS, VIEWS, BotRule
from jobs.support.session import spark_session

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(shutil.which("java") is None, reason="a Spark session needs Java"),
    # pyspark leaves the sockets of its gateway to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

START = "2026-11-01T00"
DERIVED = tuple(key.name for key in DERIVED_KEYS)
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


def test_rows_of_a_key_meet_after_a_join_on_it(spark: SparkSession) -> None:
    """Spark drops a second partitioning by the same keys, and may then read the join's shuffle by
    its writers: a key would be scattered."""
    draw = random.Random(7)
    rows = [(draw.randrange(3), str(draw.randrange(12)), n) for n in range(4000)]
    schema = "view int, k1 string, n int"
    # from Python, hence of unknown size: a join is replanned as it runs, as it is over files
    tiles = spark.createDataFrame(rows, schema).mapInArrow(lambda b: b, schema)
    joined = tiles.join(tiles.select("view", "k1").distinct(), ["view", "k1"], "left_semi")

    def keys_of(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            table = pa.Table.from_batches(pieces).group_by(["view", "k1"]).aggregate([])
            yield from table.to_batches()

    for frame in (tiles, joined):
        found = meet(frame, ("view", "k1")).mapInArrow(keys_of, "view int, k1 string").collect()
        assert len(found) == len(set(found)) == 36, "every key in one partition only"


def test_units_are_done_by_tasks(spark: SparkSession, tmp_path: Path) -> None:
    """What a unit writes is the same wherever it is done."""
    view, hour = VIEWS[0], START
    tile = at(0, 30)
    counts = pa.table({
        "user_id": [f"u{i}" for i in range(9)], "key_hash": [i * 2**59 for i in range(9)],
        "tile": [tile] * 9, "action": ["click"] * 9, "n": range(9), "total": [0] * 9,
        "last_at": [tile] * 9, "hour": [hour] * 9,
    }).cast(optional(TABLES[view.counts_table].schema))  # fmt: skip
    pq.write_table(counts, tmp_path / "tiles.parquet")
    path = str(tmp_path / "tiles.parquet")
    units = [
        Unit(0, hour, hour, str(tmp_path / "out"), [path], within=keys) for keys in key_ranges(3)
    ]
    units.append(Unit(0, hour, hour, str(tmp_path / "day"), [path], day=True))
    done = run_units(spark, units)
    assert [(unit.day, part.rows) for unit, part in done] == [
        (False, 6), (False, 3), (True, 9)
    ]  # fmt: skip
    for unit, part in done:
        [here] = work(unit)
        assert (part.hour, part.rows, part.digest) == (here.hour, here.rows, here.digest)
        assert pq.read_table(part.path).equals(pq.read_table(here.path))
    assert run_units(spark, []) == []


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
    partial = count_tiles(frame(spark, rows, *DERIVED)).toArrow()
    by_view = [partial.filter(pc.equal(partial["view"], n)) for n in range(len(VIEWS))]
    found = [
        {"view": n, **row} for n, part in enumerate(by_view) for row in merged(part).to_pylist()
    ]
    assert len(found) == len(count) > 100
    for row in found:
        place = tuple(row[name] for name in (*KEYS, "tile", "action"))
        measured = (row["n"], row["total"], row["last_at"], row["hour"])
        hour = place[3].strftime("%Y-%m-%dT%H")
        assert measured == (count[place], total[place], last[place], hour), place


def test_derived_keys_are_those_known_in_the_hour(spark: SparkSession) -> None:
    items = [
        ("i1", at(0), hr.add(START, 0), "old", "s1"),
        ("i1", at(1), hr.add(START, 2), "overruled", "s1"),
        ("i1", at(2), hr.add(START, 2), "new", None),
        ("i2", at(0), hr.add(START, 0), None, "s2"),
    ]
    rooms = [("r1", at(0), hr.add(START, 1), "room's", "h1")]
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
    entities = {
        "items": spark.createDataFrame(items, entity_schema("items")),
        "rooms": spark.createDataFrame(rooms, entity_schema("rooms")),
    }
    for small in (False, True):
        found = with_derived_keys(frame(spark, events), entities, small=small).toArrow()
        got = {r["event_id"]: tuple(r[name] for name in DERIVED) for r in found.to_pylist()}
        assert got == {str(number): row[3:] for number, row in enumerate(asked)}


def test_entities_are_read_with_what_keys_are_derived_from() -> None:
    texts = pa.map_(pa.string(), pa.string())
    rows = pa.table({
        "item_id": ["i1", "i2"], "valid_from": [at(0), at(1)], "category": ["c", None],
        "categorical": pa.array([[("shop", "s1"), ("x", "y")], []], texts),
        "hour": [START, START],
    })  # fmt: skip
    found = stacked_entities(rows, "items")
    assert ", ".join(found.column_names) == "item_id, valid_from, hour, category, shop"
    assert found["shop"].to_pylist() == ["s1", None]


def test_bots_do_not_count(spark: SparkSession) -> None:
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
    left = without_bots(frame(spark, rows), rule).toArrow()
    counted = Counter(zip(*(left[c].to_pylist() for c in ("user_id", "hour")), strict=True))
    assert counted == {
        ("busy", hr.add(START, 1)): 5, ("keen", START): 15, ("new", START): 4,
    }  # fmt: skip
    assert left.column_names == EVENTS.names


def test_an_outcome_belongs_to_an_impression_that_its_own_hour_can_know(
    spark: SparkSession,
) -> None:
    """A range of hours reads impressions that an hour alone does not: they must not count."""

    def row(event_id: str, action: str, hour: int, request: str | None = None) -> dict[str, Any]:
        target = {"user_id": "u", "target_type": "item", "target_id": event_id[-1]}
        known = {"event_id": event_id, "action": action, "event_time": at(hour)}
        known |= {"hour": hr.add(START, hour), "request_id": request}
        return {**dict.fromkeys(EVENTS.names), **known, **target}

    late = {"event_time": at(4, 59)}  # arrived after what followed from it
    shown = [
        row("s1", "impression", 2, "q1"), row("s2", "impression", 1, "q2"),
        {**row("s3", "impression", 6, "q3"), **late}, {**row("s4", "impression", 6), **late},
    ]  # fmt: skip
    outcomes = [
        row("in reach 1", "click", 5, "q1"), row("too long ago 2", "click", 5, "q2"),
        row("not known yet 3", "click", 5, "q3"), row("nor by touch 4", "click", 5),
    ]  # fmt: skip
    found = attribute(frame(spark, outcomes), frame(spark, shown), {"click": 600}, lookback=3)
    assert found.toArrow()["event_id"].to_pylist() == ["in reach 1"]


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
        frame(spark, outcomes), frame(spark, shown), {"click": 600, "order": 3600}, lookback=5
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
