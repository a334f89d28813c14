"""Two days of a store for deep rankers, written as build_samples does: samples, outcomes and
sequences, small and learnable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from feature_store import hours as hr
from feature_store.schemas import OUTCOMES, SAMPLES, TABLES, optional
from feature_store.sequence_views import SEQUENCE_VIEWS, SequenceView
from feature_store.tables import HourWriter, Staged, Writer
from tests.jobs.conftest import Project

DATE: Final = "2026-11-11"
FIRST: Final = f"{DATE}T00"
BEFORE: Final = hr.hour_range(hr.add(FIRST, -24), hr.add(FIRST, -1))
DAY: Final = hr.hour_range(FIRST, hr.add(FIRST, 23))
EMPTY: Final = (BEFORE[20], DAY[3])
"""Hours without rows."""

ROWS: Final = 48
USERS, ITEMS, ROOMS = 9, 7, 3

Rows = Callable[[str], pa.Table]


def _start(hour: str) -> np.datetime64:
    return np.datetime64(hr.start_of(hour).replace(tzinfo=None), "us")


def samples(hour: str) -> pa.Table:
    """Groups of four impressions at the hour's start, the positions 1 to 4."""
    number = np.arange(ROWS)
    columns: dict[str, Any] = {
        "sample_id": [f"{hour}-{n}" for n in number],
        "group_id": [f"{hour}|r|{n // 4}" for n in number],
        "user_id": [f"u{n // 4 % USERS}" for n in number],
        "target_id": [f"i{n % ITEMS}" for n in number],
        "item_id": [f"i{n % ITEMS}" for n in number],
        "room_id": [None if n % 5 == 0 else f"r{n % ROOMS}" for n in number],
        "target_type": ["item"] * ROWS,
        "hour": [hour] * ROWS,
        **{c: [_start(hour)] * ROWS for c in ("as_of", "event_time", "ingested_at")},
        "item_ctr_24h": (number % 4).astype(np.float32),
        "item_ctr_15d": (number % 3).astype(np.float32),
        "room_ctr_15d": np.zeros(ROWS, np.float32),
        "position": (number % 4 + 1).astype(np.int32),
    }
    schema = optional(SAMPLES)
    return pa.Table.from_arrays(
        [
            pa.array(columns[f.name]).cast(f.type) if f.name in columns else pa.nulls(ROWS, f.type)
            for f in schema
        ],
        schema=schema,
    )


def outcomes(hour: str, clicked: Callable[[int], bool] = lambda n: n % 4 == 0) -> pa.Table:
    """Clicks on every fourth impression, at once; a like for every eighth."""
    at = hr.start_of(hour)
    rows = [
        {
            "event_id": f"{hour}-{action}{n}", "sample_id": f"{hour}-{n}", "action": action,
            "event_time": at, "ingested_at": at, "value": 12.5 if action == "stay" else None,
            "attribution": "impression_id", "hour": hour,
        }
        for n in range(ROWS)
        for action in (["click", "stay"] if clicked(n) else []) + (["like"] if n % 8 == 1 else [])
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=optional(OUTCOMES))


def sequences(view: SequenceView) -> Rows:
    """Of every other key some elements, as long as its number says."""

    def rows(hour: str) -> pa.Table:
        prefix, count = ("u", USERS) if view.key == "user_id" else ("r", ROOMS)
        made: dict[str, Callable[[int], Any]] = {
            "item_id": lambda n: f"i{n % ITEMS}", "room_id": lambda n: f"r{n % ROOMS}",
            "action": lambda _: "click", "category": lambda n: None if n % 2 else f"c{n}",
            "gap": lambda n: 60 * n + 1, "stay": lambda n: float(n),
        }  # fmt: skip
        found = [
            {
                view.key: f"{prefix}{key}", "as_of": hr.start_of(hour), "hour": hour,
                **{e: [made[e](n) for n in range(key + 1)] for e in view.elements},
            }
            for key in range(0, count, 2)
        ]  # fmt: skip
        return pa.Table.from_pylist(found, schema=optional(TABLES[view.table].schema))

    return rows


def fill(project: Project, name: str, rows: Rows, hours: Iterable[str]) -> None:
    """Commit ``hours`` of a table; those in EMPTY have no rows."""
    store, staged, hours = project.store(), Staged(name), list(hours)
    store.ledger.take_fence("build_samples", hours, "test")
    for hour in hours:
        writer = HourWriter(store, name, hour)
        if hour not in EMPTY:
            writer.write(rows(hour))
        writer.close(staged)
    store.commit(staged, Writer("build_samples", "test"))
    store.close()


def fill_days(project: Project, hours: Iterable[str] = (*BEFORE, *DAY)) -> None:
    """Samples, outcomes and sequences of both days."""
    hours = list(hours)
    fill(project, "samples", samples, hours)
    fill(project, "outcomes", outcomes, hours)
    for view in SEQUENCE_VIEWS:
        fill(project, view.table, sequences(view), hours)
