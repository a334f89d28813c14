"""Small hours of one table, written and read back: what tests of the store's upkeep need."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from feature_store import hours as hr
from feature_store.schemas import GATE_RESULTS, PROMOTIONS
from feature_store.tables import HourWriter, Staged, Store, Writer

TABLE, STAGE = "gate_results", "validate_events"
HOURS = hr.hour_range("2026-11-11T00", "2026-11-11T05")
NOW = dt.datetime.now(dt.UTC)
LATER = NOW + dt.timedelta(days=10)
"""Older than any retention: everything of today is old then."""


def rows(hour: str, *values: float) -> pa.Table:
    listed = [
        {"gate": f"g{i}", "value": v, "level": "pass", "message": "", "hour": hour}
        for i, v in enumerate(values)
    ]
    return pa.Table.from_pylist(listed, schema=GATE_RESULTS)


def staged(store: Store, hour: str, *pieces: Iterable[float], table: str = TABLE) -> Staged:
    """One hour of as many files as there are ``pieces``, not committed."""
    made = Staged(table)
    for values in pieces:
        writer, part = HourWriter(store, table, hour), Staged(table)
        writer.write(rows(hour, *values))
        writer.close(part)
        made.files.setdefault(hour, []).extend(part.files[hour])
        made.rows[hour] = made.rows.get(hour, 0) + part.rows[hour]
        made.content[hour] = made.content.get(hour, "") + part.content[hour][:8]
    return made


def claim(store: Store, hour: str, run: str = "run") -> Writer:
    store.ledger.take_fence(STAGE, [hour], run)
    return Writer(STAGE, run)


def commit(store: Store, hour: str, *pieces: Iterable[float]) -> int:
    snapshot = store.commit(staged(store, hour, *pieces), claim(store, hour))
    assert snapshot is not None
    return snapshot


def values(store: Store, *hours: str, snapshot: int | None = None) -> list[float]:
    """The values of ``hours`` in the order in which readers get them."""
    return store.read(TABLE, list(hours), snapshot_id=snapshot)["value"].to_pylist()


def decide(store: Store, *versions: str) -> None:
    """Append a promotion for each of ``versions``, each in a transaction of its own."""
    texts = [f.name for f in PROMOTIONS if pa.types.is_string(f.type)]
    for version in versions:
        row = {**dict.fromkeys(texts, version), "decided_at": NOW}
        store.append(pa.Table.from_pylist([row], schema=PROMOTIONS), "promotions")


def decided(store: Store) -> list[str]:
    found: list[str] = store.read_all("promotions")["version"].to_pylist()
    return found


def on_disk(store: Store, table: str = TABLE) -> set[str]:
    """Every file below a table's folder."""
    folder = Path(store.warehouse) / "rankmill" / table
    return {str(path) for path in folder.rglob("*") if not path.is_dir()}


def age(path: Path | str, days: float) -> None:
    """Make a file or folder look as if it had been written ``days`` ago."""
    then = (NOW - dt.timedelta(days=days)).timestamp()
    os.utime(path, (then, then), follow_symlinks=False)
