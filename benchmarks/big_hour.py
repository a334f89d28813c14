"""One hour of ten million events through the hour's jobs, on a Spark standalone cluster here.

    make bench-big_hour                                # 10 M events, a master and two workers
    make bench-big_hour ARGS="--millions 1 --folder /tmp/big"

A marketplace of 17,000 events an hour is simulated and its first 24 hours are filled set-wise. The
hour after them has every user six hundred times: new users with the same taste, who see and do the
same at the same moments, under identifiers of their own. Then, each as a process: `ingest_events`,
`validate_events`, `build_samples`, `extract_features` and `evaluate` of that hour, and `train_gbdt`
of the next, which reads it. The model that is judged was fitted on the 24 hours before.

Seconds and memory by step. Memory is resident memory, summed over the processes of a kind at one
moment: the driver's Python and JVM, the executors' JVMs and their Python workers; and the largest
single process of all. The log is made once and kept in the folder; the store is made anew.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from small_stack import ROOT, SmallStack, clear, small_stack, tree
from standalone import Cluster

from feature_store import hours as hr
from feature_store.sources.simulator import MarketConfig, write_simulation

RESULTS: Final = ROOT / "benchmarks" / "results" / "big_hour.jsonl"
START: Final = "2026-11-08T16"
BEFORE: Final = 24
HOUR: Final = hr.add(START, BEFORE)
NEXT: Final = hr.add(HOUR, 1)
MARKET: Final = MarketConfig(
    start=START, requests_per_hour=1_000, users=20_000, items=10_000, rooms=1_000,
    new_items_per_day=0, new_rooms_per_day=0,
)  # fmt: skip
CONFIGURATION: Final = {
    "source": {"name": "simulator"},
    "train": {"gbdt": {"tasks": ["click"], "rounds": 150, "num_leaves": 31}},
    "evaluation": {"labels": ["click", "long_view"]},
}
PERSONAL: Final = ("event_id", "request_id", "impression_id", "user_id")
BATCH: Final = 4_096
SPARK: Final = {"spark.executor.memory": "2g", "spark.driver.memory": "2g"}
KINDS: Final = ("driver", "driver_jvm", "executor_jvm", "python_workers")


def multiplied(rows: pa.RecordBatch | pa.Table, times: int, columns: Sequence[str]) -> pa.Table:
    """Every row ``times`` times in a row; the first keeps its identifiers, the others have theirs.

    ``columns`` are identifiers of a user; the n-th copy of ``u7`` is ``u7~n``.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    copies = np.arange(table.num_rows * times) % times
    found = table.take(pa.array(np.arange(table.num_rows * times) // times))
    names = pa.array(["", *(f"~{n}" for n in range(1, times))]).take(pa.array(copies))
    for name in columns:
        place = found.schema.get_field_index(name)
        own = pc.binary_join_element_wise(found[name], names, "").cast(
            found.schema.field(name).type
        )
        found = found.set_column(place, found.schema.field(name), own)
    return found


def write_log(folder: Path, log: Path, millions: float) -> int:
    """The simulated hours, and the last of them multiplied; how many events that one has.

    The same log is found again in ``folder`` by the next call, and linked to ``log``.
    """
    kept = folder / f"log-{millions:g}"
    done = kept / "multiplied.json"
    if not done.exists():
        shutil.rmtree(kept, ignore_errors=True)
        write_simulation(MARKET, kept, BEFORE + 1, lambda _h, _r: None, with_truth=False)
        small = kept / "events" / f"hour={HOUR}" / "part-0.parquet"
        times = max(1, round(millions * 1e6 / pq.read_metadata(small).num_rows))
        rows = multiply_file(small, times, PERSONAL)
        users = [pq.read_table(path) for path in sorted((kept / "users").glob("*/*.parquet"))]
        (new := kept / "users" / f"hour={HOUR}").mkdir(exist_ok=True)
        multiply_users(pa.concat_tables(users), times, new / "part-0.parquet")
        done.write_text(json.dumps({"events": rows, "times": times}))
    if not log.exists():
        log.symlink_to(kept, target_is_directory=True)
    return int(json.loads(done.read_text())["events"])


def multiply_file(path: Path, times: int, columns: Sequence[str]) -> int:
    """Replace a Parquet file by one in which every row stands ``times`` times."""
    draft, rows = path.with_name("draft"), 0
    source = pq.ParquetFile(path)
    with pq.ParquetWriter(draft, source.schema_arrow) as writer:
        for batch in source.iter_batches(BATCH):
            made = multiplied(batch, times, columns)
            writer.write_table(made)
            rows += made.num_rows
    draft.replace(path)
    return rows


def multiply_users(users: pa.Table, times: int, path: Path) -> None:
    """What is known of the new users becomes known with the hour."""
    with pq.ParquetWriter(path, users.schema) as writer:
        for batch in users.to_batches(BATCH):
            made = multiplied(batch, times, ["user_id"])
            copy = pa.array(np.arange(made.num_rows) % times > 0)
            made = made.filter(copy)
            place = made.schema.get_field_index("valid_from")
            kind = made.schema.field("valid_from")
            since = pa.repeat(pa.scalar(hr.start_of(HOUR), kind.type), made.num_rows)
            writer.write_table(made.set_column(place, kind, since))


class Memory:
    """Watches a job and the cluster while it runs."""

    def __init__(self, job: int, workers: Sequence[int]) -> None:
        self.job, self.workers = job, workers
        self.peak = dict.fromkeys((*KINDS, "all", "largest"), 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            now = dict.fromkeys((*KINDS, "all", "largest"), 0.0)
            for kind, process in self._processes():
                with contextlib.suppress(psutil.Error):
                    size = process.memory_info().rss / 2**20
                    now[kind] += size
                    now["all"] += size
                    now["largest"] = max(now["largest"], size)
            self.peak = {kind: max(size, now[kind]) for kind, size in self.peak.items()}

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        kinds = [(self.job, "driver_jvm", "driver", 0)]
        kinds += [(pid, "executor_jvm", "python_workers", 1) for pid in self.workers]
        for pid, java, python, first in kinds:
            for process in tree(pid)[first:]:
                with contextlib.suppress(psutil.Error):
                    yield java if "java" in process.name() else python, process


def run_step(
    place: SmallStack, cluster: Cluster, job: str, arguments: Sequence[str], spark: bool
) -> dict[str, Any]:
    """A job as a process: its summary, seconds and memory."""
    path = str(ROOT / "jobs" / f"{job}.py")
    command = [sys.executable, path, *arguments]
    env = {**place.env, "RANKMILL_SPARK_MASTER": cluster.url}
    if spark:
        options = [word for key, value in SPARK.items() for word in ("--conf", f"{key}={value}")]
        submit = str(Path(sys.executable).with_name("spark-submit"))
        command = [submit, "--master", cluster.url, *options, path, *arguments]
    log = place.stack.logs / f"{job}.log"
    began = time.monotonic()
    with log.open("w+") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        with Memory(process.pid, cluster.workers) as memory:
            process.wait()
    seconds, words = time.monotonic() - began, log.read_text()
    if process.returncode:
        raise SystemExit(f"{job} ended with {process.returncode} after {seconds:.0f} s:\n"
                         f"{words[-4000:]}\npeak memory, MB: {memory.peak}")  # fmt: skip
    summaries = [line for line in words.splitlines() if line.startswith("{")]
    return {
        "job": job, "seconds": round(seconds, 1),
        "peak_mb": {kind: round(size) for kind, size in memory.peak.items()},
        "summary": json.loads(summaries[-1]),
    }  # fmt: skip


def steps() -> list[tuple[str, list[str], bool, bool]]:
    """(job, arguments, through spark-submit, reported) in order."""
    at = ["--hour", HOUR]
    return [
        ("ingest_events", at, False, True),
        ("validate_events", [*at, "--accept", "a big hour on purpose"], False, True),
        ("build_samples", at, True, True),
        ("extract_features", at, True, True),
        ("train_gbdt", at, False, False),
        ("evaluate", at, False, True),
        ("train_gbdt", ["--hour", NEXT], False, True),
    ]


def fill(place: SmallStack, cluster: Cluster) -> None:
    """The 24 hours before, as `bootstrap` does it, but for the model."""
    hours = ["--from-hour", START, "--to-hour", hr.add(HOUR, -1)]
    for job, more, spark in (
        ("ingest_events", [], False), ("validate_events", ["--accept", "first hours"], False),
        ("extract_features", [], True), ("build_samples", [], True),
    ):  # fmt: skip
        done = run_step(place, cluster, job, [*hours, *more], spark)
        print(f"# {job} of 24 hours: {done['seconds']} s", file=sys.stderr, flush=True)


def line(step: Mapping[str, Any], events: int, millions: float) -> dict[str, Any]:
    summary = step["summary"]
    return {
        "bench": "big_hour", "case": f"{step['job']} {millions:g} M", "ours": step["seconds"],
        "peer": "none", "peer_version": "-", "theirs": None, "unit": "s", "ratio": None,
        "ours_peak_mb": step["peak_mb"]["all"], "theirs_peak_mb": None,
        "quality": {
            "events": events, "rows_in": summary["rows_in"], "rows_out": summary["rows_out"],
            "peak_mb": step["peak_mb"],
            "steps": summary["details"].get("seconds_by_step"),
            "load": round(os.getloadavg()[0], 1),
        },
        "repetitions": 1, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def keep(result: dict[str, Any]) -> None:
    """Replace what is known of this case; others stay."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    others = [one for one in map(json.loads, lines) if one["case"] != result["case"]]
    RESULTS.write_text("".join(json.dumps(one) + "\n" for one in [*others, result]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--millions", type=float, default=10.0, help="events [%(default)s M]")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".rankmill" / "big_hour", help="scratch [%(default)s]"
    )
    parser.add_argument("--trial", action="store_true", help="write no result")
    parser.add_argument("--go-on", action="store_true", help="use the store that is there")
    parser.add_argument("--only", nargs="+", metavar="JOB", help="only these steps")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if not arguments.go_on:
        clear(folder)
    with (
        small_stack(folder, CONFIGURATION) as place,
        Cluster(folder / "cluster", place.env, workers=2, cores=1, memory="3g") as cluster,
    ):
        events = write_log(folder, place.log, arguments.millions)
        print(f"# {events:,} events in {HOUR}", file=sys.stderr, flush=True)
        if not arguments.go_on:
            fill(place, cluster)
        for job, given, spark, reported in steps():
            if arguments.only and job not in arguments.only:
                continue
            made = line(run_step(place, cluster, job, given, spark), events, arguments.millions)
            if reported:
                print(json.dumps(made), flush=True)
                if not arguments.trial:
                    keep(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
