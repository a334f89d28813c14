"""One hour's features beside DuckDB and plain PySpark, at 1, 5 and 20 million events of 15 days.

    python benchmarks/features.py                 # all sizes; an hour on two cores
    python benchmarks/features.py --millions 1    # results of other sizes are kept

Ours is the hour's job, `extract_features`: count the hour's events for all views, read what it
needs of the earlier counts, write and commit counts and features. The peers make the same rows of
features from raw events; every value is compared. Sessions are started before the clock runs.
Counts of the earlier hours are made beforehand, as the hours before would have; their seconds are
reported.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if "short" in sys.argv:
    import short_windows  # noqa: F401  (before anything that derives from the views)

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import ROOT, peers_python, watched

from feature_store import hours as hr
from feature_store.schemas import EVENTS, ITEMS, ROOMS, TIMESTAMP, optional
from feature_store.tables import HourWriter, Staged, Store, Writer
from feature_store.views import VALUE_ACTIONS, VIEWS, window_name
from jobs import extract_features as stage
from jobs.support.fencing import claim
from jobs.support.session import spark_session

RESULTS = ROOT / "benchmarks" / "results" / "features.jsonl"
HERE = Path(__file__).resolve()
START, DAYS = "2026-11-01T00", 15
HOUR = hr.add(START, DAYS * 24 + 9)  # its windows begin inside of days
ZONE, CORES, MEMORY = "UTC", 2, "8g"
INGEST = Writer("ingest_events", "bench")
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{ROOT}"}
ACTIONS = ("impression", "click", "long_view", "stay", "order", "follow")
SHARES = (0.72, 0.1, 0.05, 0.1, 0.01, 0.02)


def texts(prefix: str, numbers: np.ndarray, none: np.ndarray | None = None) -> pa.Array:
    known = pa.array([f"{prefix}{i}" for i in range(int(numbers.max(initial=0)) + 1)])
    return known.take(pa.array(numbers, mask=none))


def hour_of_events(hour: str, count: int, events: int, draw: np.random.Generator) -> pa.Table:
    """``count`` events; a log of ``events`` has a user per 50, and an item per 200 of them."""

    def popular(size: int) -> np.ndarray:
        return (size * draw.random(count) ** 2.5).astype(np.int64)

    start = int(hr.start_of(hour).timestamp() * 1e6)
    arrived = np.sort(start + draw.integers(0, 3_600_000_000, count))
    happened = arrived - draw.integers(0, 300_000_000, count)
    action = draw.choice(len(ACTIONS), count, p=SHARES)
    item, room = popular(max(events // 200, 100)), popular(max(events // 4000, 50))
    valued = np.isin(action, [ACTIONS.index(name) for name in VALUE_ACTIONS])
    columns = {
        "event_id": texts("", np.arange(count)),
        "event_time": pa.array(happened, TIMESTAMP), "ingested_at": pa.array(arrived, TIMESTAMP),
        "user_id": texts("u", popular(max(events // 50, 100))), "item_id": texts("i", item),
        "target_type": pa.repeat("item", count), "target_id": texts("i", item),
        "room_id": texts("r", room, none=draw.random(count) < 0.5),
        "scene": texts("scene", draw.integers(0, 6, count)),
        "query": texts("q", popular(5000), none=draw.random(count) < 0.9),
        "action": pa.array(ACTIONS).take(pa.array(action)),
        "value": pa.array(np.round(draw.gamma(2.0, 10.0, count), 2), mask=~valued),
        "hour": pa.repeat(hour, count),
    }  # fmt: skip
    schema = optional(EVENTS)
    nothing = {name: pa.nulls(count, schema.field(name).type) for name in schema.names}
    return pa.table({**nothing, **columns}, schema=schema)


def entities(events: int) -> dict[str, pa.Table]:
    """Items in 300 categories and 2,000 shops, rooms of hosts; all known from the start."""

    def common(count: int) -> dict[str, Any]:
        return {"valid_from": [hr.start_of(START)] * count, "numeric": [[]] * count,
                "hour": [START] * count}  # fmt: skip

    items, rooms = max(events // 200, 100), max(events // 4000, 50)
    numbers = np.arange(items)
    shops = texts("s", numbers % 2000).to_pylist()
    return {
        "items": pa.table({
            **common(items), "item_id": texts("i", numbers), "category": texts("c", numbers % 300),
            "room_id": pa.nulls(items, pa.string()), "categorical": [[("shop", s)] for s in shops],
        }, schema=optional(ITEMS)),
        "rooms": pa.table({
            **common(rooms), "room_id": texts("r", np.arange(rooms)), "categorical": [[]] * rooms,
            "host_id": texts("h", np.arange(rooms) // 2), "category": pa.nulls(rooms, pa.string()),
        }, schema=optional(ROOMS)),
    }  # fmt: skip


def open_store(folder: Path) -> Store:
    return Store(str(folder / "warehouse"), f"sqlite:///{folder}/catalog.db")


def fill(folder: Path, events: int) -> None:
    """The store with events and entities, and what the peers read."""
    store, draw = open_store(folder), np.random.default_rng(3)
    hours = hr.hour_range(START, HOUR)
    known = entities(events)
    staged = {table: Staged(table) for table in ("items", "rooms", "events")}
    for hour in hours:
        rows = {"events": hour_of_events(hour, events // (DAYS * 24), events, draw)}
        rows |= known if hour == START else {}
        for table, of in staged.items():
            writer = HourWriter(store, table, hour)
            if table in rows:
                writer.write(rows[table])
            writer.close(of)
    store.ledger.take_fence(INGEST.stage, hours, INGEST.token)
    for of in staged.values():
        store.commit(of, INGEST)
    shops = pa.array([entry[0][1] for entry in known["items"]["categorical"].to_pylist()])
    plain = known["items"].select(["item_id", "category"]).append_column("shop", shops)
    pq.write_table(plain, folder / "items.parquet")
    rooms = known["rooms"].select(["room_id", "host_id", "category"])
    pq.write_table(rooms, folder / "rooms.parquet")


def peers_task(folder: Path, out: Path) -> Path:
    """What the peers are asked for."""
    store = open_store(folder)
    task = {
        "events": store.files("events", hr.hour_range(hr.add(HOUR, -DAYS * 24 - 1), HOUR)),
        "items": [str(folder / "items.parquet")], "rooms": [str(folder / "rooms.parquet")],
        "as_of": int(hr.start_of(HOUR).timestamp()) + 3600,
        "out": str(out), "cores": CORES, "memory": MEMORY,
        "views": [
            {"name": v.name, "keys": v.keys, "actions": v.actions, "measures": v.measures(),
             "recency": v.recency, "windows": v.windows, "factors": VALUE_ACTIONS,
             "window_names": [window_name(w) for w in v.windows]}
            for v in VIEWS
        ],
    }  # fmt: skip
    path = out / "task.json"
    path.write_text(json.dumps(task))
    return path


def job(folder: Path, what: str) -> dict[str, Any]:
    """In a process of its own: the hour's job, or (prepare) the counts of the hours before."""
    store, begun = open_store(folder), time.monotonic()
    settings = {"spark.master": f"local[{CORES}]", "spark.driver.memory": MEMORY,
                "spark.local.dir": str(folder)}  # fmt: skip
    if what == "short":
        settings["spark.python.daemon.module"] = "short_windows"
    with spark_session("bench", settings) as spark:
        started = time.monotonic()
        if what == "prepare":
            for day in range(DAYS):
                hours = hr.hour_range(hr.add(START, 24 * day), hr.add(START, 24 * day + 23))
                count_day(spark, store, hours)
            count_day(spark, store, hr.hour_range(hr.add(hours[-1], 1), hr.add(HOUR, -1)))
        else:
            writer = claim(store, stage.JOB, [HOUR], "bench")
            stage.extract(spark, store, [HOUR], writer, ZONE, what != "hour")
        ended = time.monotonic()
    return {"seconds": ended - started, "session": started - begun}


def count_day(spark: Any, store: Store, hours: list[str]) -> None:
    """Counts of ``hours`` and, where they are a day, its day tile; no features."""
    writer = claim(store, stage.JOB, hours, "bench")
    counted = stage.count(spark, store, hours, START)
    for staged in [*counted, *stage.sum_days(spark, store, counted, START, ZONE)]:
        store.commit(staged, writer)


def compare(folder: Path, out: Path) -> int:
    """Rows that ours and a peer's have in common; ends the benchmark where any value differs."""
    store, rows = open_store(folder), 0
    for view in VIEWS:
        columns = [*view.keys, *view.count_columns(), *view.recency_columns()]
        order = [(key, "ascending") for key in view.keys]
        ours = store.read(view.features_table, [HOUR], columns).sort_by(order)
        theirs = pq.read_table(out / f"{view.name}.parquet").select(columns)
        theirs = theirs.cast(ours.schema).sort_by(order)
        if not ours.equals(theirs):
            raise SystemExit(
                f"{view.name}: {ours.num_rows} rows, {theirs.num_rows} of {out.name}; values differ"
            )
        rows += ours.num_rows
    return rows


def prepare(folder: Path, events: int, me: list[str]) -> dict[str, Any]:
    """Events, entities and the counts of the earlier hours; once per folder."""
    done = folder / "prepared.json"
    if not done.exists():
        fill(folder, events)
        run = watched([*me, "--job", "prepare"], ENVIRONMENT)
        shutil.copy(folder / "catalog.db", folder / "before.db")
        done.write_text(run.last_line)
    found: dict[str, Any] = json.loads(done.read_text())
    return found


def measure(folder: Path, events: int, repetitions: int) -> Iterator[dict[str, Any]]:
    me = [sys.executable, str(HERE), "--folder", str(folder)]
    prepared = prepare(folder, events, me)
    python = {"duckdb": peers_python(), "pyspark": sys.executable}
    script = {"duckdb": "features_duckdb.py", "pyspark": "features_spark.py"}
    taken: dict[str, list[dict[str, Any]]] = {}
    rows = 0

    def note(name: str, command: list[str]) -> None:
        run = watched(command, ENVIRONMENT)
        result = {**json.loads(run.last_line), "peak_mb": run.peak_mb, "wall": run.seconds}
        print(f"# {events} events, {name}: {result}", file=sys.stderr, flush=True)
        taken.setdefault(name, []).append(result)

    for _ in range(repetitions):
        shutil.copy(folder / "before.db", folder / "catalog.db")
        note("ours", [*me, "--job", "hour"])
        note("dry", [*me, "--job", "dry"])
        note("short", [*me, "--job", "short"])
        for peer in script:
            out = folder / peer
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            task = str(peers_task(folder, out))
            note(peer, [python[peer], str(HERE.parent / "peers" / script[peer]), task])
            rows = compare(folder, out)
    quality = {"events": events, "feature_rows": rows, "values_equal": True,
               "counting_all_hours_seconds": round(prepared["seconds"], 1)}  # fmt: skip
    name = f"{events // 10**6}M"
    for peer in script:
        version = taken[peer][0]["version"]
        yield line(f"hour_{name}", taken["ours"], peer, version, taken[peer], quality)
    yield line(f"15d_or_24h_windows_{name}", taken["dry"], "24 h at most", "same run",
               taken["short"], quality)  # fmt: skip


def line(
    case: str, ours: list[dict[str, Any]], peer: str, version: str, theirs: list[dict[str, Any]],
    quality: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    mine, other = (statistics.median(r["seconds"] for r in runs) for runs in (ours, theirs))
    return {
        "bench": "features",
        "case": case,
        "ours": round(mine, 2),
        "peer": peer,
        "peer_version": version,
        "theirs": round(other, 2),
        "unit": "s",
        "ratio": round(other / mine, 2),
        "ours_peak_mb": round(max(r["peak_mb"] for r in ours)),
        "theirs_peak_mb": round(max(r["peak_mb"] for r in theirs)),
        "quality": {
            **quality,
            "session_seconds": {
                "ours": round(ours[0]["session"], 1),
                "theirs": round(theirs[0].get("session", 0.0), 1),
            },
        },
        "repetitions": len(ours),
        "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument(
        "--keep",
        type=Path,
        help="prepare events and counts in this folder, and keep them",
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--job", choices=("prepare", "hour", "dry", "short"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(job(arguments.folder, arguments.job)))
        return 0
    lines: list[dict[str, Any]] = []
    for millions in arguments.millions:
        with work_folder(arguments.keep, millions) as folder:
            for result in measure(folder, millions * 10**6, arguments.repetitions):
                print(json.dumps(result), flush=True)
                lines.append(result)
            keep(lines)
    return 0


@contextmanager
def work_folder(kept: Path | None, millions: int) -> Iterator[Path]:
    """A folder for one size, deleted in the end unless it is to be kept."""
    if kept is not None:
        folder = kept.resolve() / f"{millions}M"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    (ROOT / ".rankmill").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-", dir=ROOT / ".rankmill") as name:
        yield Path(name)


def keep(lines: list[dict[str, Any]]) -> None:
    """Put ``lines`` in the place of earlier results of their cases."""
    earlier = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    known = {(r["case"], r["peer"]): r for r in [*map(json.loads, earlier), *lines]}
    RESULTS.write_text("".join(f"{json.dumps(result)}\n" for result in known.values()))


if __name__ == "__main__":
    sys.exit(main())
