"""The hour's feature job on a real session: one range equals hour by hour, day tiles included."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.schemas import EVENTS, ITEMS, ROOMS, optional
from feature_store.tables import HourWriter, Staged, Store, Writer
from feature_store.tiles import day_content
from feature_store.views import VIEWS, FeatureView
from jobs.extract_features import JOB, extract
from jobs.support import blocks
from jobs.support.fencing import claim
from jobs.support.summary import RefusedError
from tests.session import uses_spark

pytestmark = uses_spark

START, ZONE = "2026-11-01T09", "Asia/Shanghai"
HOURS = hr.hour_range(START, hr.add(START, 60))
ENDS = [hour for hour in HOURS if hour.endswith("T15")]  # of business days
INGEST = Writer("ingest_events", "test")
NUMBERS = {view.name: view for view in VIEWS}


def events_of(hour: str, draw: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number in range(draw.randrange(30)):
        arrived = hr.start_of(hour) + dt.timedelta(minutes=draw.randrange(60))
        item = draw.randrange(6)
        rows.append({
            **dict.fromkeys(EVENTS.names), "event_id": f"{hour}-{number}", "ingested_at": arrived,
            "event_time": arrived - dt.timedelta(minutes=draw.choice([0, 3, 90])), "hour": hour,
            "user_id": f"u{draw.randrange(5)}", "target_type": "item", "target_id": f"i{item}",
            "item_id": f"i{item}", "room_id": f"r{item % 2}", "scene": "home",
            "query": draw.choice([None, None, "red shoes"]),
            "action": draw.choice(["impression", "impression", "click", "order"]),
            "value": 12.5,
        })  # fmt: skip
    return rows


def filled(folder: Path, seed: int = 11, warehouse: str = "") -> Store:
    """A store with validated events and their entities, and nothing else."""
    place = warehouse or str(folder / "warehouse")
    store, draw = Store(place, f"sqlite:///{folder}/catalog.db"), random.Random(seed)
    rows = {"events": {hour: events_of(hour, draw) for hour in HOURS}}
    known = {"valid_from": hr.start_of(START), "hour": START, "numeric": [],
             "categorical": [("shop", "s1")]}  # fmt: skip
    rows["items"] = {START: [
        {**known, "item_id": f"i{i}", "category": f"c{i % 3}", "room_id": None} for i in range(6)
    ]}  # fmt: skip
    rows["rooms"] = {START: [
        {**known, "room_id": f"r{i}", "category": None, "host_id": f"h{i}"} for i in range(2)
    ]}  # fmt: skip
    for table, schema in (("items", ITEMS), ("rooms", ROOMS), ("events", EVENTS)):
        staged = Staged(table)
        for hour in HOURS:
            writer = HourWriter(store, table, hour)
            writer.write(pa.Table.from_pylist(rows[table].get(hour, []), schema=optional(schema)))
            writer.close(staged)
        store.ledger.take_fence(INGEST.stage, HOURS, INGEST.token)
        store.commit(staged, INGEST)
    return store


def run(spark: SparkSession, store: Store, first: str, last: str) -> None:
    hours = hr.hour_range(first, last)
    extract(spark, store, hours, claim(store, JOB, hours, f"test {first}"), ZONE, dry=False)


def tables_of(view: FeatureView) -> tuple[str, ...]:
    return view.counts_table, view.day_counts_table, view.features_table


def contents(store: Store, first: str, last: str) -> dict[tuple[str, str], tuple[int, str]]:
    return {
        (table, hour): (done.rows, done.content_hash)
        for view in VIEWS
        for table in tables_of(view)
        for hour, done in store.ledger.readable(table, first, last).items()
    }


@pytest.fixture(scope="module")
def hourly(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A range up to the hour before a day's end, then four hours, each alone."""
    store = filled(tmp_path_factory.mktemp("hourly"))
    run(spark, store, START, hr.add(ENDS[-1], -2))
    for hour in hr.hour_range(hr.add(ENDS[-1], -1), hr.add(ENDS[-1], 2)):
        run(spark, store, hour, hour)
    return store


def test_one_range_leaves_the_tables_of_hours_alone(
    spark: SparkSession, hourly: Store, tmp_path: Path
) -> None:
    store, last = filled(tmp_path), hr.add(ENDS[-1], 2)
    run(spark, store, START, last)
    expected, found = contents(hourly, START, last), contents(store, START, last)
    assert found == expected
    for view in VIEWS:
        days = [hour for table, hour in expected if table == view.day_counts_table]
        assert days == ENDS[1:], "the first day is not whole"
        names = [(name, "ascending") for name in (*view.keys, "as_of")]
        one, other = (s.read(view.features_table, [*HOURS[50:], last]).sort_by(names)
                      for s in (store, hourly))  # fmt: skip
        assert one.equals(other)
        assert one.num_rows > 0


def test_hours_that_no_task_can_hold_leave_the_same_tables(
    spark: SparkSession, hourly: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "TOGETHER", 5)
    store, last = filled(tmp_path), HOURS[20]
    run(spark, store, START, last)
    found, expected = contents(store, START, last), contents(hourly, START, last)
    assert {place: of for place, of in found.items() if place[0].startswith("counts")} == {
        place: of for place, of in expected.items() if place[0].startswith("counts")
    }


def test_features_are_what_a_loop_counts(hourly: Store) -> None:
    last = hr.add(ENDS[-1], 2)
    as_of = hr.start_of(last) + dt.timedelta(hours=1)
    events = hourly.read("events", [h for h in HOURS if h <= last]).to_pylist()
    for name, entity in {
        "user": lambda e: (e["user_id"],),
        "host": lambda e: (f"h{e['room_id'][1:]}",),
        "shop": lambda _: ("s1",),
        "user_category": lambda e: (e["user_id"], f"c{int(e['item_id'][1:]) % 3}"),
        "query": lambda e: (e["query"],),
    }.items():
        view = NUMBERS[name]
        rows = hourly.read(view.features_table, [last]).to_pylist()
        assert rows, name
        for row in rows:
            mine = [e for e in events if entity(e) == tuple(row[key] for key in view.keys)]
            for column, hours in (("click_24h", 24), ("impression_7d", 168)):
                since = as_of - dt.timedelta(hours=hours)
                inside = [e for e in mine if since <= e["ingested_at"] < as_of]
                assert row[column] == sum(e["action"] == column.split("_")[0] for e in inside), (
                    name,
                    column,
                    row,
                )


def test_a_day_tile_of_other_hours_is_not_read(spark: SparkSession, tmp_path: Path) -> None:
    """An hour of the day was made again, otherwise: its day tile is stale, the hours are not."""
    store, day = filled(tmp_path), ENDS[1]
    after = hr.add(day, 30)
    run(spark, store, START, hr.add(after, -1))
    view = NUMBERS["item"]
    hours = hr.date_hours("2026-11-02", ZONE)
    counts = store.ledger.readable(view.counts_table, hours[0], hours[-1])
    tile = store.ledger.readable(view.day_counts_table, day, day)[day]
    assert tile.content_hash == day_content({h: c.content_hash for h, c in counts.items()})

    rows = store.read(view.counts_table, [hours[5]])
    doubled = rows.set_column(rows.schema.get_field_index("n"), "n", pc.multiply(rows["n"], 1000))
    writer, staged = HourWriter(store, view.counts_table, hours[5]), Staged(view.counts_table)
    writer.write(doubled)
    writer.close(staged)
    token = claim(store, JOB, [hours[5]], "by hand")
    store.commit(staged, token)
    run(spark, store, after, after)
    found = store.read(view.features_table, [after])
    assert max(found["impression_3d"].to_pylist()) >= 1000


def test_an_earlier_hour_that_is_missing_is_named(spark: SparkSession, tmp_path: Path) -> None:
    store = filled(tmp_path)
    run(spark, store, START, HOURS[5])
    with pytest.raises(RefusedError, match=f"extract_features.py .*{HOURS[6]}"):
        run(spark, store, HOURS[8], HOURS[8])
