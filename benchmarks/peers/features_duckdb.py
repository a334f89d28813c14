"""One hour's features by DuckDB, from raw events: python features_duckdb.py TASK.json."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import duckdb
from features_sql import JOINED, features, with_seconds


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    started = time.monotonic()
    connection = duckdb.connect(config={"threads": task["cores"]})
    connection.execute("SET TimeZone = 'UTC'")
    for table in ("events", "items", "rooms"):
        connection.read_parquet(task[table]).create_view(table)
    joined = JOINED.format(seconds="floor(epoch(e.ingested_at))")
    connection.execute(f"CREATE TEMP TABLE joined AS {joined}")
    for view in with_seconds(task["views"], "epoch(event_time)"):
        path = Path(task["out"]) / f"{view['name']}.parquet"
        query = features(view, task["as_of"], "joined")
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    print(json.dumps({"seconds": time.monotonic() - started, "version": duckdb.__version__}))


main()
