"""A day of samples for the trees, as build_samples writes it, with the clicks that a test wants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from feature_store import hours as hr
from feature_store.schemas import OUTCOMES, SAMPLES, optional
from feature_store.tables import HourWriter, Staged, Writer
from tests.jobs.conftest import HOUR, Project

NAME = "gbdt_ranker"
ROWS = 40
QUICK = {
    "tasks": ["click"], "rounds": 5, "early_stopping_rounds": 2, "num_leaves": 4,
    "min_data_in_leaf": 5, "min_positives": 20, "threads": 1,
}  # fmt: skip
HOURS = hr.hour_range(hr.add(HOUR, -24), hr.add(HOUR, -1))
EMPTY_HOUR = hr.add(HOUR, -3)


def samples(hour: str) -> pa.Table:
    """Groups of four impressions, early in the hour; only a column or two say anything."""
    start = np.datetime64(hr.start_of(hour).replace(tzinfo=None), "us")
    ids = [f"{hour}-{number}" for number in range(ROWS)]
    columns = {
        "sample_id": ids,
        "group_id": [f"{hour}|r|{number // 4}" for number in range(ROWS)],
        "user_id": [f"u{number % 9}" for number in range(ROWS)],
        "target_id": [f"i{number % 4}" for number in range(ROWS)],
        "hour": [hour] * ROWS,
        **{c: [start] * ROWS for c in ("as_of", "event_time", "ingested_at")},
        "target_type": ["item"] * ROWS,
        **{f"item_ctr_{w}": np.arange(ROWS, dtype=np.float32) % 4 for w in ("24h", "15d")},
        "position": np.arange(ROWS, dtype=np.int32) % 4 + 1,
    }
    arrays = []
    for field in optional(SAMPLES):
        if field.name in columns:
            arrays.append(pa.array(columns[field.name]).cast(field.type))
        else:
            arrays.append(pa.nulls(ROWS, field.type))
    return pa.Table.from_arrays(arrays, schema=optional(SAMPLES))


def clicks(hour: str, clicked: Callable[[int], bool]) -> pa.Table:
    at = hr.start_of(hour)
    rows = [
        {
            "event_id": f"{hour}-c{number}",
            "sample_id": f"{hour}-{number}",
            "action": "click",
            "event_time": at,
            "ingested_at": at,
            "value": None,
            "attribution": "impression_id",
            "hour": hour,
        }
        for number in range(ROWS)
        if clicked(number)
    ]
    return pa.Table.from_pylist(rows, schema=optional(OUTCOMES))


def fill(project: Project, name: str, rows: Callable[[str], pa.Table], hours: list[str]) -> None:
    """Commit ``hours`` of a table as build_samples does; EMPTY_HOUR has no rows."""
    store, staged = project.store(), Staged(name)
    store.ledger.take_fence("build_samples", hours, "test")
    for hour in hours:
        writer = HourWriter(store, name, hour)
        if hour != EMPTY_HOUR:
            writer.write(rows(hour))
        writer.close(staged)
    store.commit(staged, Writer("build_samples", "test"))
    store.close()


def fill_clicks(project: Project, clicked: Callable[[int], bool], hours: list[str] = HOURS) -> None:
    fill(project, "outcomes", lambda hour: clicks(hour, clicked), hours)
