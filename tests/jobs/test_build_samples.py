"""Sequences as build_samples writes them: the same in a range as by the hour, and as by hand."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.schemas import ITEMS, ROOM_ITEMS, SOURCE_EVENTS, optional
from feature_store.sequence_sets import with_sequences
from feature_store.sequence_views import BEHAVIOUR_ACTIONS, MAX_LOOKBACK_HOURS, SEQUENCE_VIEWS
from feature_store.tables import Staged, Store, StoreError, Writer
from feature_store.views import VIEWS
from jobs import build_samples
from jobs.build_samples import JOB, behaviour_hours, build, build_parser, require
from jobs.ingest_events import ingest
from jobs.support import blocks
from jobs.support.settings import Settings, load_settings
from jobs.support.summary import RefusedError
from tests.feature_store.test_sequences import naive
from tests.jobs.conftest import HOUR, Project
from tests.session import uses_spark

pytestmark = uses_spark

HOURS = hr.hour_range(HOUR, hr.add(HOUR, 3))
TABLES = ["samples", "outcomes", "behaviour", *(view.table for view in SEQUENCE_VIEWS)]
TOKEN = "test"  # noqa: S105


def at(minutes: float) -> dt.datetime:
    return hr.start_of(HOUR) + dt.timedelta(minutes=minutes)


def log() -> list[dict[str, Any]]:
    """Impressions and what followed, up to two hours late, some without their impression."""
    draw = random.Random(11)
    rows: list[dict[str, Any]] = []

    def event(action: str, happened: float, **given: Any) -> None:
        late = draw.choice([0, 0, 0, 1, 70, 115])
        arrived = min(max(happened, 0) + late, 60 * len(HOURS) - 1)
        rows.append({
            "event_id": f"e{len(rows)}", "event_time": at(happened), "ingested_at": at(arrived),
            "action": action, "value": None, **given,
        })  # fmt: skip

    for number in range(160):
        shown = draw.uniform(0, 60 * len(HOURS) - 20)
        item, is_room = draw.randrange(9), draw.random() < 0.3
        room = None if item == 8 else f"r{item % 3}"
        common = {
            "user_id": f"u{draw.randrange(4)}", "item_id": f"i{item}", "room_id": room,
            "target_type": "room" if is_room and room else "item",
            "target_id": room if is_room and room else f"i{item}",
        }  # fmt: skip
        event("impression", shown, **common, impression_id=f"s{number}",
              request_id=f"q{number // 3}")  # fmt: skip
        named = {"impression_id": f"s{number}"} if draw.random() < 0.7 else {}
        if draw.random() < 0.7:
            event("click", shown + 1, **common, **named)
            event("stay", shown + 3, **{**common, **named, "value": draw.choice([2.5, 40.063])})
        for action in ("cart", "order", "follow", "like"):
            if draw.random() < 0.2:
                event(action, shown + 5, **common, **named)
    return rows


def offers() -> list[dict[str, Any]]:
    """Core products, one of them declared twice; each quarter a product is explained."""

    def row(room: int, item: int, hour: int, begin: float, end: float | None, core: bool) -> Any:
        return {"room_id": f"r{room}", "item_id": f"i{item}", "valid_from": at(begin),
                "valid_to": None if end is None else at(end), "core": core,
                "hour": HOURS[hour]}  # fmt: skip

    found = [row(room, item, 0, -60, None, True) for room in range(3) for item in (room, room + 3)]
    found += [row(0, 0, 2, 125, None, True), row(1, 7, 1, 70, 80, True)]
    for room in range(2):
        for quarter in range(4 * len(HOURS)):
            begin = 15 * quarter
            end = None if quarter % 5 == 3 else begin + 15
            found.append(row(room, (quarter + room) % 6, quarter // 4, begin, end, False))
    return found


def categories() -> list[dict[str, Any]]:
    """Half the items have one; it changes in the third hour."""
    return [
        {"item_id": f"i{item}", "valid_from": at(60 * hour), "category": f"c{item}-{hour}",
         "hour": HOURS[hour]}
        for item in range(0, 9, 2) for hour in (0, 2)
    ]  # fmt: skip


@dataclass
class Built:
    """A store with the hours as one range made them."""

    project: Project
    store: Store
    settings: Settings
    writer: Writer

    def completions(self) -> dict[str, dict[str, tuple[int, str]]]:
        ledger = self.store.ledger
        return {
            table: {
                hour: (done.rows, done.content_hash)
                for hour, done in ledger.completions(table, HOURS[0], HOURS[-1]).items()
            }
            for table in TABLES
        }

    def build(self, spark: SparkSession, hours: list[str]) -> Any:
        return build(spark, self.store, self.settings, hours, self.writer, dry=False)


def write(project: Project, table: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path = project.data / table / "a.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=optional(schema)), path)


def prepared(folder: Path, warehouse: str = "") -> Built:
    """A store with the log's events, entities and features; nothing is known of anybody."""
    project = Project(folder, warehouse=warehouse)
    project.configure()
    write(project, "events", log(), SOURCE_EVENTS)
    write(project, "items", categories(), ITEMS)
    write(project, "room_items", offers(), ROOM_ITEMS)
    given = project.arguments("--from-hour", HOURS[0], "--to-hour", HOURS[-1])
    settings, store = load_settings(build_parser().parse_args(given)), project.store()
    ingest(store, settings, HOURS, TOKEN, False)
    store.ledger.validate("events", dict.fromkeys(HOURS, True))
    writer = Writer(JOB, TOKEN)
    store.ledger.take_fence(JOB, HOURS, TOKEN)
    for view in VIEWS:
        store.commit(Staged(view.features_table).add_empty(HOURS), writer)
    return Built(project, store, settings, writer)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Iterator[Built]:
    made = prepared(tmp_path_factory.mktemp("built"))
    made.build(spark, HOURS)
    yield made
    made.store.close()


def known_rows(store: Store) -> list[dict[str, Any]]:
    """Behaviour and offers as rows of ``KNOWN``, from the raw tables; users and rooms differ."""
    linked = {r["event_id"]: r["sample_id"] for r in store.read("outcomes", HOURS).to_pylist()}
    entries = store.read("items", HOURS).to_pylist()

    def category(item: str | None, hour: str) -> str | None:
        found = [e for e in entries if e["item_id"] == item and e["hour"] <= hour]
        return max(found, key=lambda e: e["hour"])["category"] if found else None

    rows = []
    for event in store.read("events", HOURS).to_pylist():
        if event["action"] in BEHAVIOUR_ACTIONS:
            seconds = event["value"] if event["action"] == "stay" else 0
            rows.append({
                "key": event["user_id"], "known": micros(event["ingested_at"]),
                "at": micros(event["event_time"]), "ends": None, "tie": event["event_id"],
                "action": event["action"], "item_id": event["item_id"],
                "room_id": event["room_id"], "category": category(event["item_id"], event["hour"]),
                "stay": round(seconds * 1000), "link": linked.get(event["event_id"]),
            })  # fmt: skip
    for offer in store.read("room_items", HOURS).to_pylist():
        ends = None if offer["valid_to"] is None else micros(offer["valid_to"])
        rows.append({
            "key": offer["room_id"], "known": micros(hr.start_of(offer["hour"])),
            "at": micros(offer["valid_from"]), "ends": ends, "tie": offer["item_id"],
            "action": "core" if offer["core"] else "explain", "item_id": offer["item_id"],
            "room_id": offer["room_id"], "category": category(offer["item_id"], offer["hour"]),
            "stay": None, "link": None,
        })  # fmt: skip
    return rows


def micros(instant: dt.datetime) -> int:
    return round(instant.timestamp() * 1_000_000)


def test_every_sample_has_the_sequences_of_its_as_of(built: Built) -> None:
    samples = built.store.read("samples", HOURS)
    shuffled = samples.take(pa.array(random.Random(5).sample(range(160), 160)))
    joined = with_sequences(built.store, shuffled, SEQUENCE_VIEWS, HOURS)
    assert joined.column_names[: len(shuffled.column_names)] == shuffled.column_names
    assert joined["sample_id"].equals(shuffled["sample_id"])
    rows, lengths = known_rows(built.store), {view.name: 0 for view in SEQUENCE_VIEWS}
    late = 0
    for sample in joined.to_pylist():
        as_of = micros(sample["as_of"])
        late += sample["as_of"] < hr.start_of(sample["hour"])
        for view in SEQUENCE_VIEWS:
            lists = [sample[column] for column in view.columns()]
            found = [dict(zip(view.elements, e, strict=True)) for e in zip(*lists, strict=True)]
            expected = naive(view, rows, sample[view.key], as_of)
            for element in expected:
                if "stay" in element:
                    element["stay"] = pytest.approx(element["stay"], rel=1e-6)
            assert found == expected, (view.name, sample[view.key], sample["as_of"])
            lengths[view.name] += len(found)
    assert late > 5
    assert min(lengths.values()) > 20, lengths


def test_rows_are_one_per_key_and_as_of_and_never_empty(built: Built) -> None:
    for view in SEQUENCE_VIEWS:
        for hour in HOURS:
            rows = built.store.read(view.table, [hour]).to_pylist()
            keys = [(row[view.key], row["as_of"]) for row in rows]
            assert keys == sorted(set(keys))
            assert all(row["gap"] for row in rows)


def test_behaviour_is_what_happened_in_the_hour_by_user(built: Built) -> None:
    for hour in HOURS:
        rows = built.store.read("behaviour", [hour]).to_pylist()
        events = built.store.read("events", [hour]).to_pylist()
        wanted = {e["event_id"] for e in events if e["action"] in BEHAVIOUR_ACTIONS}
        assert {row["event_id"] for row in rows} == wanted
        order = [(row["user_id"], row["event_time"], row["event_id"]) for row in rows]
        assert order == sorted(order)


def test_hour_by_hour_leaves_the_same_tables(built: Built, spark: SparkSession) -> None:
    before = built.completions()
    assert all(len(hours) == len(HOURS) for hours in before.values())
    with built.store.ledger.holding(JOB, HOURS, TOKEN):
        for table in TABLES:
            built.store.ledger.forget(table, HOURS)
    with pytest.raises(
        RefusedError, match=f"behaviour of {HOURS[0]} .*build_samples.py --from-hour"
    ):
        require(built.store, built.settings, HOURS[1:2])
    for hour in HOURS:
        built.build(spark, [hour])
    assert built.completions() == before


def test_hours_that_no_task_can_hold_leave_the_same_tables(
    built: Built, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark moves the rows to where they meet, and everything comes out as before."""
    monkeypatch.setattr(blocks, "TOGETHER", 20)
    before = built.completions()
    with built.store.ledger.holding(JOB, HOURS, TOKEN):
        for table in TABLES:
            built.store.ledger.forget(table, HOURS)
    built.build(spark, HOURS)
    assert built.completions() == before


def test_samples_of_a_large_hour_are_put_together_in_parts(
    built: Built, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task has more of them than fit, and all of them are there, each as before."""
    before, rows = built.completions(), built.store.read("samples", HOURS)
    assert {len(built.store.files("samples", [hour])) for hour in HOURS} == {1}
    monkeypatch.setattr(blocks, "TOGETHER", 20)
    monkeypatch.setattr(build_samples, "WIDE", 7)
    with built.store.ledger.holding(JOB, HOURS, TOKEN):
        for table in TABLES:
            built.store.ledger.forget(table, HOURS)
    built.build(spark, HOURS)
    after = built.completions()
    assert {table: after[table] for table in TABLES if table != "samples"} == {
        table: before[table] for table in TABLES if table != "samples"
    }
    assert {hour: done[0] for hour, done in after["samples"].items()} == {
        hour: done[0] for hour, done in before["samples"].items()
    }
    found = built.store.read("samples", HOURS)
    # As text: what is not a number equals nothing.
    assert sorted(map(str, found.to_pylist())) == sorted(map(str, rows.to_pylist()))
    assert min(len(built.store.files("samples", [hour])) for hour in HOURS) > 2
    with built.store.ledger.holding(JOB, HOURS, TOKEN):
        built.store.ledger.forget("samples", HOURS)
    monkeypatch.undo()
    built.build(spark, HOURS)
    assert built.completions() == before


def test_sequences_that_are_not_there_are_not_taken_for_empty_ones(built: Built) -> None:
    samples = built.store.read("samples", HOURS[:1])
    missing = hr.add(HOURS[-1], 1)
    with pytest.raises(StoreError, match=f"sequences_user_items of {missing} .*build_samples"):
        with_sequences(built.store, samples, SEQUENCE_VIEWS, [HOURS[0], missing])
    with pytest.raises(StoreError, match=HOURS[0]):
        with_sequences(built.store, samples, SEQUENCE_VIEWS, HOURS[1:])
    none = with_sequences(built.store, samples.slice(0, 0), SEQUENCE_VIEWS, [])
    assert none.num_rows == 0
    assert none.column_names[-1] == "room_live_items_gap"


def test_behaviour_is_read_from_the_lookback_of_the_latest_group_on() -> None:
    start = hr.add(HOUR, -1000)
    found = behaviour_hours([HOUR, hr.add(HOUR, 1)], start, 2)
    assert found == hr.hour_range(hr.add(HOUR, -2 - MAX_LOOKBACK_HOURS), hr.add(HOUR, -1))
    assert behaviour_hours([HOUR], hr.add(HOUR, -3), 2) == hr.hour_range(
        hr.add(HOUR, -3), hr.add(HOUR, -1)
    )
    assert behaviour_hours([HOUR], HOUR, 2) == []
