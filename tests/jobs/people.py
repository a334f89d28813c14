"""A day of what some people did, through the real jobs, and where anything names one of them."""

from __future__ import annotations

import html
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.schemas import USERS, optional
from jobs import build_graph, build_samples, extract_features
from jobs.support.fencing import claim
from jobs.support.settings import Settings, load_settings
from tests.jobs.conftest import Project, event
from tests.jobs.gbdt_day import QUICK

DATE = "2026-11-10"
DAY = hr.date_hours(DATE, "UTC")
HOURS = [*DAY, hr.add(DAY[-1], 1)]
LAST, NEXT = HOURS[-1], hr.add(HOURS[-1], 1)
PEOPLE = [f"person-{name}" for name in ("ada", "bob", "cyd", "dan", "eve", "fay")]
GONE, OTHER = PEOPLE[0], PEOPLE[1]
EMBEDDING = {
    "metapaths": ["user-item-user"],
    "skip_gram": {"dimensions": 8, "walks_per_node": 2, "walk_length": 10},
}


def log_of(hours: Sequence[str]) -> list[dict[str, Any]]:
    """Slates of four items with a click on each, and an order now and then; somebody's comment has
    an unknown action, and is quarantined."""
    rows: list[dict[str, Any]] = []
    for hour in hours:
        draw = random.Random(hour)
        for number in range(9):
            user = PEOPLE[(number + len(hour) + draw.randrange(6)) % 6]
            shown = draw.sample(range(8), 4)
            minute = 3.0 + 5 * number
            for place, item in enumerate(shown):
                name = f"{hour}-{number}-{place}"
                common = {
                    "request_id": f"q-{hour}-{number}", "user_id": user, "room_id": f"r{item % 2}",
                    "target_id": f"i{item}", "item_id": f"i{item}", "scene": "home",
                }  # fmt: skip
                rows.append(event(0, hour, **common, event_id=f"{name}-s", impression_id=name,
                                  position=place + 1, arrived=minute))  # fmt: skip
                actions = ["click"] if item == min(shown) else []
                actions += ["order", "follow", "stay"] if actions and number % 3 == 0 else []
                rows += [
                    event(0, hour, **common, event_id=f"{name}-{action}", impression_id=name,
                          position=None, action=action, value=2.5, arrived=minute + 1)
                    for action in actions
                ]  # fmt: skip
        rows.append(event(0, hour, event_id=f"{hour}-odd", user_id=PEOPLE[number % 2],
                          action="teleport"))  # fmt: skip
    return rows


def write_log(project: Project, hours: Sequence[str] = (*HOURS, NEXT)) -> None:
    project.write(log_of(hours))
    known = [
        {**dict.fromkeys(USERS.names), "user_id": user, "hour": hour, "numeric": [],
         "categorical": [("activity", "high")], "valid_from": hr.start_of(hour)}
        for user in PEOPLE for hour in (HOURS[0], HOURS[7], NEXT)
    ]  # fmt: skip
    path = project.data / "users" / "a.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(known, schema=optional(USERS)), path)


def configure(project: Project) -> Settings:
    project.configure(
        source={"name": "parquet", "options": {"path": str(project.data), "time_zone": "UTC"}},
        ingest={"max_bad_share": 0.1, "min_bad_rows": 5},
        train={"gbdt": QUICK},
        embedding=EMBEDDING,
        evaluation={"labels": ["click"], "resamples": 20},
    )
    parser = extract_features.build_parser()
    return load_settings(parser.parse_args(project.arguments("--hour", LAST)))


def ingest(project: Project, first: str, last: str) -> dict[str, Any]:
    """Ingested and validated hours; the summary of the former."""
    hours = ("--from-hour", first, "--to-hour", last)
    done = project.run("ingest_events", *hours)
    assert done.code == 0, done.err
    judged = project.run("validate_events", *hours, "--accept", "small on purpose")
    assert judged.code == 0, judged.err
    return done.summary


def derive(spark: SparkSession, project: Project, settings: Settings, hours: list[str]) -> None:
    """Features and samples of ``hours``."""
    store = project.store()
    writer = claim(store, extract_features.JOB, hours, "test")
    extract_features.extract(spark, store, hours, writer, "UTC", dry=False)
    writer = claim(store, build_samples.JOB, hours, "test")
    build_samples.build(spark, store, settings, hours, writer, dry=False)
    store.close()


def embed(spark: SparkSession, project: Project, settings: Settings) -> None:
    """The day's graph and its vectors."""
    store = project.store()
    writer = claim(store, build_graph.JOB, DAY[-1:], "test")
    build_graph.build(spark, store, settings, DATE, writer, dry=False)
    store.close()
    done = project.run("embed_graph", "--date", DATE)
    assert done.code == 0, done.err


def train(project: Project, hour: str = LAST) -> None:
    for job in ("train_gbdt", "evaluate", "promote"):
        done = project.run(job, "--hour", hour)
        assert done.code == 0, done.err


def traces(folder: Path, user: str) -> Iterator[str]:
    """Files below ``folder`` that name ``user``: in their bytes, or in a column of a Parquet
    file."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if user.encode() in content or html.escape(user).encode() in content:
            yield str(path.relative_to(folder))
        elif path.suffix == ".parquet":
            rows = pq.read_table(path, partitioning=None)
            if any(user in json.dumps(row, default=str) for row in rows.to_pylist()):
                yield str(path.relative_to(folder))
