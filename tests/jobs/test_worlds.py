"""A thousand random worlds through the real jobs: features by hand, and nothing from the future.

Every world has users, items and rooms of its own, so that one log holds them all and a loop over
one world's few events says what its samples must be.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.schemas import SAMPLES
from feature_store.sequence_sets import with_sequences
from feature_store.sequence_views import SEQUENCE_VIEWS
from feature_store.tables import Store, Writer
from feature_store.views import VIEWS
from jobs import build_samples, extract_features
from jobs.ingest_events import ingest
from jobs.support.fencing import claim
from jobs.support.settings import Settings, load_settings
from tests.jobs.conftest import Project
from tests.session import uses_spark

pytestmark = uses_spark

WORLDS, EVENTS, SEED = 1000, 24, 20
START = "2026-11-11T02"
HOURS = hr.hour_range(START, hr.add(START, 5))
ACTIONS = ("impression", "impression", "click", "click", "stay", "order", "follow")
TOKEN = "test"  # noqa: S105

Row = dict[str, Any]


def at(minute: int) -> dt.datetime:
    return hr.start_of(START) + dt.timedelta(minutes=minute)


def event(draw: random.Random, world: int, number: int | str, arrived: int) -> Row:
    """An event that arrives in ``arrived`` (minutes): in time, late, too late or of the future."""
    happened = arrived - draw.choice([0, 0, 0, 1, 20, 75, 119, 121, 300, -3])
    item, action = draw.randrange(3), draw.choice(ACTIONS)
    return {
        "event_id": f"w{world}-{number}", "event_time": at(happened), "ingested_at": at(arrived),
        "user_id": f"w{world}-u{draw.randrange(2)}", "item_id": f"w{world}-i{item}",
        "room_id": draw.choice([None, f"w{world}-r{item % 2}"]), "target_type": "item",
        "target_id": f"w{world}-i{item}", "scene": f"w{world}-home", "action": action,
        "request_id": draw.choice([None, f"w{world}-q{draw.randrange(4)}"]),
        "value": draw.choice([1.5, 20.25]) if action in ("stay", "order") else None,
    }  # fmt: skip


def world_log(draw: random.Random, world: int) -> list[Row]:
    rows = [event(draw, world, n, draw.randrange(60 * len(HOURS))) for n in range(EVENTS)]
    again = draw.choice(rows)  # the same event once more, an hour later if there is one
    later = min(again["ingested_at"] + dt.timedelta(hours=1), at(60 * len(HOURS) - 1))
    return [*rows, {**again, "ingested_at": draw.choice([again["ingested_at"], later])}]


@dataclass
class World:
    """All of a log's worlds in one store, with their samples and sequences."""

    store: Store
    rows: list[Row]
    samples: pa.Table


def made(spark: SparkSession, folder: Path, rows: list[Row]) -> World:
    """The log ``rows`` through ingestion, samples and features, one range each."""
    folder.mkdir()
    project = Project(folder)
    project.configure(ingest={"max_bad_share": 1.0})
    project.write(sorted(rows, key=lambda row: (row["ingested_at"], row["event_id"])))
    given = project.arguments("--from-hour", HOURS[0], "--to-hour", HOURS[-1])
    arguments = build_samples.build_parser().parse_args(given)
    settings, store = load_settings(arguments), project.store()
    ingest(store, settings, HOURS, TOKEN, False)
    store.ledger.validate("events", dict.fromkeys(HOURS, True))
    build(spark, store, settings)
    samples = store.read("samples", HOURS)
    return World(store, rows, with_sequences(store, samples, SEQUENCE_VIEWS, HOURS))


def build(spark: SparkSession, store: Store, settings: Settings) -> None:
    zone = settings.open_source().time_zone
    writer: Writer = claim(store, extract_features.JOB, HOURS, TOKEN)
    extract_features.extract(spark, store, HOURS, writer, zone, dry=False)
    writer = claim(store, build_samples.JOB, HOURS, TOKEN)
    build_samples.build(spark, store, settings, HOURS, writer, dry=False)


@pytest.fixture(scope="module")
def log() -> list[Row]:
    draw = random.Random(SEED)
    return [row for world in range(WORLDS) for row in world_log(draw, world)]


@pytest.fixture(scope="module")
def worlds(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory, log: list[Row]
) -> Iterator[World]:
    world = made(spark, tmp_path_factory.mktemp("worlds") / "store", log)
    yield world
    world.store.close()


def world_of(identifier: str) -> str:
    return identifier.split("-")[0]


def in_time(rows: list[Row]) -> list[Row]:
    """What is to be known: once each, not of the future and not too late."""
    kept: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["ingested_at"]):
        lag = row["ingested_at"] - row["event_time"]
        if dt.timedelta(0) <= lag <= dt.timedelta(hours=2):
            kept.setdefault(row["event_id"], row)
    return list(kept.values())


def test_samples_are_what_a_loop_over_each_world_says(worlds: World) -> None:
    events: dict[str, list[Row]] = defaultdict(list)
    for row in in_time(worlds.rows):
        events[world_of(row["event_id"])].append(row)
    samples = worlds.samples.to_pylist()
    shown = [row for rows in events.values() for row in rows if row["action"] == "impression"]
    assert len(samples) == len(shown) > 3 * WORLDS
    by_id = {sample["sample_id"]: sample for sample in samples}
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in shown:
        sample = by_id[row["event_id"]]
        own = row["request_id"] or (row["user_id"], row["event_time"].hour)
        groups[row["ingested_at"].hour, own].append(row)
        assert sample["hour"] == hour_of(row["ingested_at"])
    views = [view for view in VIEWS if view.name in ("user", "item", "user_room", "scene")]
    checked = 0
    for group in groups.values():
        first = min(row["event_time"] for row in group)
        as_of = first.replace(minute=0, second=0, microsecond=0)
        for row in group:
            sample = by_id[row["event_id"]]
            assert sample["as_of"] == as_of
            for view in views:
                mine = [] if any(row[key] is None for key in view.keys) else [
                    e for e in events[world_of(row["event_id"])]
                    if all(e[key] == row[key] for key in view.keys) and e["ingested_at"] < as_of
                ]  # fmt: skip
                for action in ("impression", "click"):
                    for window, minutes in (("1h", 60), ("24h", 1440), ("30m", 30)):
                        column = f"{view.name}_{action}_{window}"
                        if column not in sample:
                            continue
                        since = as_of - dt.timedelta(minutes=minutes)
                        count = sum(e["action"] == action and e["ingested_at"] >= since
                                    for e in mine)  # fmt: skip
                        assert sample[column] == count, (column, row)
                        checked += count
    assert checked > 5 * WORLDS, "counts are not all zero"


def hour_of(instant: dt.datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H")


def altered(draw: random.Random, rows: list[Row], probe: set[str], as_of: dt.datetime) -> list[Row]:
    """The world's log with everything else that arrived at or after ``as_of`` shuffled."""
    early = [r for r in rows if r["ingested_at"] < as_of or r["event_id"] in probe]
    late = [r for r in rows if r["ingested_at"] >= as_of and r["event_id"] not in probe]
    first = int((as_of - at(0)).total_seconds() // 60)
    for row in late:
        if draw.random() < 0.3:
            continue  # never happened
        arrived = draw.randrange(max(first, 0), 60 * len(HOURS))
        world = int(world_of(row["event_id"])[1:])
        fresh = event(draw, world, f"x{len(early)}", arrived)
        # It must not join the probe's group: that would be another group, of another as_of.
        early.append({**fresh, "request_id": f"w{world}-other"})
    return early


def test_what_arrives_at_or_after_as_of_changes_nothing(
    spark: SparkSession, worlds: World, tmp_path: Path
) -> None:
    draw = random.Random(SEED + 1)
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in worlds.rows:
        rows[world_of(row["event_id"])].append(row)
    groups: dict[str, list[Row]] = defaultdict(list)
    for sample in worlds.samples.select(["sample_id", "group_id", "as_of"]).to_pylist():
        groups[sample["group_id"]].append(sample)
    of_world: dict[str, list[list[Row]]] = defaultdict(list)
    for group in groups.values():
        of_world[world_of(group[0]["sample_id"])].append(group)
    probes: set[str] = set()
    other: list[Row] = []
    for world, found in of_world.items():
        probe = draw.choice(found)
        ids = {sample["sample_id"] for sample in probe}
        probes |= ids
        other += altered(draw, rows[world], ids, probe[0]["as_of"])
    changed = made(spark, tmp_path / "altered", other)
    try:
        assert changed.samples.num_rows != worlds.samples.num_rows
        before, after = (of_probes(world.samples, probes) for world in (worlds, changed))
    finally:
        changed.store.close()
    assert len(before) == len(probes) > WORLDS
    columns = set(SAMPLES.names) - {"label"}
    assert columns <= set(before.column_names)
    for name in before.column_names:
        assert before[name].equals(after[name]), name


def of_probes(samples: pa.Table, probes: set[str]) -> pa.Table:
    """The probes' rows in order; NaN, which equals nothing, as null."""
    wanted = pa.array(sorted(probes))
    mine = samples.filter(pa.compute.is_in(samples["sample_id"], wanted)).sort_by("sample_id")
    return pa.table({
        name: pa.compute.if_else(pa.compute.is_nan(column), None, column)
        if pa.types.is_floating(column.type) else column
        for name, column in zip(mine.column_names, mine.columns, strict=True)
    })  # fmt: skip
