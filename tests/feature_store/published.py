"""A store with published features that follow the contract: a row per change, a full base a day."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_store import hours as hr
from feature_store.point_in_time import base_hours
from feature_store.schemas import TABLES, optional
from feature_store.tables import HourWriter, Staged, Store, Writer
from feature_store.views import VIEWS, FeatureView

START = "2026-11-10T07"
ZONE = "Asia/Shanghai"
# Texts that look alike when glued, so that keys must be compared column by column.
NAMES = ("a", "a|", "a|b", "b", "|b")


def open_store(folder: Path) -> Store:
    return Store(str(folder / "warehouse"), f"sqlite:///{folder}/catalog.db")


def publish(
    store: Store, table: str, hours: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Commit ``rows`` of a table, by their hour; hours without rows are complete and empty."""
    store.ledger.take_fence("test", hours, "test")
    staged, schema = Staged(table), optional(TABLES[table].schema)
    for hour in hours:
        writer = HourWriter(store, table, hour)
        mine = [dict(row) for row in rows if row["hour"] == hour]
        writer.write(pa.Table.from_pylist(mine, schema=schema))
        writer.close(staged)
    store.commit(staged, Writer("test", "test"))


def feature_rows(
    view: FeatureView, hours: Sequence[str], seed: int, names: Sequence[str], change: float
) -> list[dict[str, Any]]:
    """Random rows of a view: some keys change in some hours, and a base repeats every key's row."""
    draw = random.Random(f"{seed}|{view.name}")
    others = names if len(view.keys) > 1 else ("",)
    keys = [(first, second) for first in names for second in others]
    bases, newest, rows = set(base_hours(hours, ZONE)), {}, []
    for hour in hours:
        as_of = hr.start_of(hr.add(hour, 1))
        for key in keys:
            if draw.random() < change:
                counts = {name: draw.randrange(1, 99) for name in view.count_columns()}
                last = as_of - dt.timedelta(seconds=draw.randrange(1, 7200))
                times = dict.fromkeys(view.recency_columns(), last)
                newest[key] = {**counts, **times}
            elif hour not in bases or key not in newest:
                continue
            named = dict(zip(view.keys, key, strict=False))
            rows.append({**named, "as_of": as_of, **newest[key], "hour": hour})
    return rows


def world(
    folder: Path, count: int, seed: int, names: Sequence[str] = NAMES, change: float = 0.1
) -> tuple[Store, dict[str, list[dict[str, Any]]]]:
    """A store with ``count`` hours of all features tables, and its rows by view.

    ``change`` is a key's chance of new counts in an hour.
    """
    store, hours = open_store(folder), hr.hour_range(START, hr.add(START, count - 1))
    rows = {view.name: feature_rows(view, hours, seed, names, change) for view in VIEWS}
    for view in VIEWS:
        publish(store, view.features_table, hours, rows[view.name])
    return store, rows
