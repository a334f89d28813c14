"""The hourly GBDT job beside `lightgbm.train` alone, and how long an hour waits for its model.

    make bench-gbdt                                       # 15 minutes on two cores
    python benchmarks/gbdt.py --case job_100k --repetitions 1 --trial

- job_100k, job_1M: `train_gbdt` and `evaluate` as processes (start, read the samples of 24 hours
  from Iceberg, join labels, bin, boost, plots, register in MLflow; load, judge on the next hour,
  log), against `lightgbm.train` with the same parameters on the same rows, its matrix already in
  memory. Both tell the judged hour: their log loss and AUC, and whether the trees are the same.
- alias_100k, alias_1M: an hour with so many impressions is committed; `train_gbdt`, `evaluate`
  and `promote` as processes one after the other, as the DAG runs them, until the alias has moved.
  Seconds by step. The 24 hours that are fitted have 100,000 impressions each; the second case is
  the hour after the first, so that there is a champion to be compared with.

60 columns, 6 of them categorical; configuration as GBDTConfig has it (300 rounds, stopped early).
MLflow is a server on this machine with a SQLite database, the catalog SQLite. Samples are drawn
(gbdt_samples.py). What a process takes before and after its job is the step `start`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import yaml
from gbdt_job import NAME as SERVICE
from gbdt_job import SIXTY
from gbdt_samples import commit_hours, hours_before, open_store
from measuring import ROOT, Watched, watched

from feature_store import hours as hr
from feature_store.sources.base import DEFAULT_WINDOWS
from feature_store.tables import Store
from feature_store.training_set import training_set
from jobs.support.stopwatch import STEPS
from jobs.support.training import split
from models import encode_sparse
from models.gbdt import GBDTConfig, GBDTRanker
from models.metrics import auc, log_loss
from models.registry import Registry

HERE: Final = Path(__file__).resolve().parent
RESULTS: Final = HERE / "results" / "gbdt.jsonl"
HOUR: Final = "2026-11-11T05"
NEXT: Final = hr.add(HOUR, 1)
JOBS: Final = {"job_100k": 100_000, "job_1M": 1_000_000}
ALIASES: Final = {"alias_100k": 100_000, "alias_1M": 1_000_000}
EARLIER: Final = 100_000
"""Impressions of each hour before those of `alias_...`."""
CONFIG: Final = GBDTConfig()


@dataclass(frozen=True)
class Place:
    """A store, a configuration and the address of MLflow."""

    folder: Path
    tracking: str

    def run(self, job: str, name: str, hour: str = HOUR) -> tuple[dict[str, Any], Watched]:
        """A job as a process: its summary, and what was seen of it."""
        command = [
            sys.executable, str(HERE / "gbdt_job.py"), job, "--hour", hour, "--name", name,
            "--config", str(self.folder / "conf.yaml"),
            "--warehouse", str(self.folder / "warehouse"),
            "--catalog-uri", f"sqlite:///{self.folder}/catalog.db",
            "--tracking-uri", self.tracking,
        ]  # fmt: skip
        seen = watched(command, environment())
        summary = json.loads(seen.last_line)
        print(f"# {name} {job}: {seen.seconds:.2f} s, {summary['message']}", file=sys.stderr)
        return summary, seen


def environment() -> dict[str, str]:
    """What `make run` gives its jobs, and where they find the project."""
    return {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE",
        "NO_PROXY": "127.0.0.1", "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }  # fmt: skip


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Place]:
    """An empty store beside an MLflow server of its own."""
    folder.mkdir()
    document = {
        "source": {"name": "parquet", "options": {"path": str(folder / "log")}},
        "train": {"feature_service": SERVICE},
        "evaluation": {"labels": ["click"]},
    }
    (folder / "conf.yaml").write_text(yaml.safe_dump(document))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "mlflow"),
    ]  # fmt: skip
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment(), stdout=log, stderr=log, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(server, address)
        Registry(address).versions("nobody")  # its first answer takes a second
        yield Place(folder, address)
    finally:
        server.terminate()
        server.wait(30)


def wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(720):
        if server.poll() is not None:
            raise SystemExit(f"the MLflow server ended with {server.returncode}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            opener.open(f"{address}/health", timeout=3).close()
            return
        time.sleep(0.25)
    raise SystemExit("the MLflow server did not get ready within 3 minutes")


def steps_of(parts: Mapping[str, tuple[dict[str, Any], Watched]]) -> dict[str, dict[str, float]]:
    """Seconds by job and step; `start` is what the process took outside of its job."""
    found = {}
    for job, (summary, seen) in parts.items():
        steps = {
            "start": seen.seconds - summary["seconds"],
            **summary["details"][STEPS],
        }
        steps["other"] = seen.seconds - sum(steps.values())
        found[job] = {name: round(seconds, 2) for name, seconds in steps.items()}
    return found


def peer_task(folder: Path, store: Store) -> tuple[dict[str, Any], np.ndarray]:
    """What `lightgbm.train` is given, as files; the sizes of it, and the labels that are told."""
    [*_, last] = hours = hours_before(HOUR, 24)
    table = training_set(store, hours[0], last, HOUR, DEFAULT_WINDOWS, SIXTY)
    fitted, stopping = split(table)
    told = training_set(store, HOUR, HOUR, NEXT, DEFAULT_WINDOWS, SIXTY)
    for name, rows in {"fitted": fitted, "stopping": stopping, "told": told}.items():
        np.save(folder / f"{name}.npy", matrix_of(rows))
        np.save(folder / f"{name}_labels.npy", rows["label_click"].to_numpy().astype(np.float32))
    task = {
        "params": CONFIG.params(), "rounds": CONFIG.rounds,
        "early_stopping_rounds": CONFIG.early_stopping_rounds,
        "categorical": list(range(len(SIXTY.dense()), len(SIXTY.columns()))),
    }  # fmt: skip
    (folder / "task.json").write_text(json.dumps(task))
    sizes = {"samples": table.num_rows, "columns": len(SIXTY.columns()),
             "arrow_table_mb": round(table.nbytes / 2**20)}  # fmt: skip
    return sizes, told["label_click"].to_numpy()


def matrix_of(rows: pa.Table) -> np.ndarray:
    """The columns that the job's booster reads, (rows, 60) float32."""
    dense = [rows[name].to_numpy() for name in SIXTY.dense()]
    sparse = [encode_sparse(rows[name], buckets) for name, buckets in SIXTY.sparse()]
    return np.column_stack([*dense, *sparse]).astype(np.float32)


def measure_job(case: str, folder: Path, repetitions: int) -> dict[str, Any]:
    """The job and `lightgbm.train` in turns."""
    with place(folder) as here:
        store = open_store(folder)
        each = JOBS[case] // 24
        commit_hours(store, dict.fromkeys([*hours_before(HOUR, 24), HOUR], each))
        sizes, labels = peer_task(folder, store)
        runs, theirs = [], []
        for number in range(repetitions):
            name = f"gbdt_{number}"  # a model of its own: a known run is not fitted again
            runs.append({job: here.run(job, name) for job in ("train_gbdt", "evaluate")})
            script = str(HERE / "peers" / "gbdt_lightgbm.py")
            seen = watched([sys.executable, script, str(folder)], environment())
            theirs.append({**json.loads(seen.last_line), "peak_mb": seen.peak_mb})
            print(f"# lightgbm: {theirs[-1]}", file=sys.stderr)
        quality = {**sizes, **same(here, folder, labels)}
        store.close()
    walls = [sum(seen.seconds for _, seen in run.values()) for run in runs]
    typical = runs[int(np.argsort(walls)[len(walls) // 2])]
    quality["steps"] = steps_of(typical)
    other = statistics.median(run["seconds"] for run in theirs)
    peaks = [seen.peak_mb for run in runs for _, seen in run.values()]
    return line(case, walls, peaks, other, theirs, quality)


def same(here: Place, folder: Path, labels: np.ndarray) -> dict[str, Any]:
    """Log loss and AUC of both on the judged hour, and whether their trees are equal."""
    ours = Registry(here.tracking).load("gbdt_0", 1).model
    if not isinstance(ours, GBDTRanker):
        raise TypeError(f"gbdt_0 version 1 is a {type(ours).__name__}")
    told = training_set(open_store(folder), HOUR, HOUR, NEXT, DEFAULT_WINDOWS, SIXTY)
    predicted = {"ours": ours.predict(told)["click"], "theirs": np.load(folder / "predicted.npy")}
    texts = ours.booster_text("click"), (folder / "booster.txt").read_text()
    trees = [text[text.index("Tree=0") : text.index("end of trees")] for text in texts]
    return {
        "log_loss": {k: round(log_loss(labels, p), 6) for k, p in predicted.items()},
        "auc": {k: round(auc(labels, p), 6) for k, p in predicted.items()},
        "same_trees": trees[0] == trees[1], "rounds": trees[0].count("Tree="),
        "judged_samples": len(labels),
    }  # fmt: skip


def measure_alias(folder: Path, cases: list[str]) -> Iterator[dict[str, Any]]:
    """From an hour's samples to the alias, in one store."""
    with place(folder) as here:
        store = open_store(folder)
        commit_hours(store, dict.fromkeys(hours_before(HOUR, 24), EARLIER))
        for hour, (case, count) in zip((HOUR, NEXT), ALIASES.items(), strict=True):
            commit_hours(store, {hour: count})
            if case not in cases and case != "alias_100k":
                continue
            parts = {
                job: here.run(job, "gbdt_ranker", hour)
                for job in ("train_gbdt", "evaluate", "promote")
            }
            walls = [sum(seen.seconds for _, seen in parts.values())]
            quality = {
                "samples": parts["train_gbdt"][0]["rows_in"],
                "judged_samples": parts["evaluate"][0]["rows_in"],
                "columns": len(SIXTY.columns()), "steps": steps_of(parts),
                "decision": parts["promote"][0]["message"],
            }  # fmt: skip
            peaks = [seen.peak_mb for _, seen in parts.values()]
            yield line(case, walls, peaks, None, [], quality)
        store.close()


def line(
    case: str, walls: list[float], peaks: list[float], other: float | None,
    theirs: list[dict[str, Any]], quality: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    mine = statistics.median(walls)
    alone = other is None
    return {
        "bench": "gbdt",
        "case": case,
        "ours": round(mine, 2),
        "peer": "none" if alone else "lightgbm.train",
        "peer_version": "-" if alone else theirs[0]["version"],
        "theirs": None if other is None else round(other, 2),
        "unit": "s",
        "ratio": None if other is None else round(other / mine, 2),
        "ours_peak_mb": round(max(peaks)),
        "theirs_peak_mb": None if alone else round(max(run["peak_mb"] for run in theirs)),
        "quality": quality,
        "repetitions": len(walls),
        "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def keep(lines: list[dict[str, Any]]) -> None:
    """Put ``lines`` in the place of earlier results of their cases."""
    earlier = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    known = {r["case"]: r for r in [*map(json.loads, earlier), *lines]}
    RESULTS.write_text("".join(f"{json.dumps(result)}\n" for result in known.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="not used")
    every = [*JOBS, *ALIASES]
    parser.add_argument("--case", nargs="+", choices=every, default=every, metavar="CASE",
                        help=f"only these of {', '.join(every)}")  # fmt: skip
    parser.add_argument("--repetitions", type=int, default=3, help="of job_... [%(default)s]")
    parser.add_argument("--trial", action="store_true", help="print results and keep none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as scratch:

        def results() -> Iterator[dict[str, Any]]:
            for case in JOBS:
                if case in arguments.case:
                    yield measure_job(case, Path(scratch) / case, arguments.repetitions)
            if set(ALIASES) & set(arguments.case):
                yield from measure_alias(Path(scratch) / "alias", arguments.case)

        for result in results():
            print(json.dumps(result), flush=True)
            if not arguments.trial:
                keep([result])
    return 0


if __name__ == "__main__":
    sys.exit(main())
