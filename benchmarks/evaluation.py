"""NDCG@10 of a million requests beside the tools that people use for it, and the bootstrap.

    python benchmarks/evaluation.py                      # some minutes on two cores
    python benchmarks/evaluation.py --requests 100000 --repetitions 1

Every tool runs in a process of its own, in turn, and reads the same arrays. Its seconds are those
of the computation; building what it reads is timed apart. Values are compared by request, or by
their mean where a tool gives no more; ranx's MAP, MRR, recall and precision, too. Where scores are
tied, only ours and scikit-learn's slow way take the expected value over the orders of a tie.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import ROOT, peers_python, watched

from models import metrics

RESULTS = ROOT / "benchmarks" / "results" / "evaluation.jsonl"
HERE = Path(__file__).resolve()
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{ROOT}"}
ITEMS, K = 10, 10
FAST = ("NumPy", "scikit-learn, ties ignored", "ranx", "DuckDB", "Polars")
CASES = (
    ("clicks", 1, FAST),
    ("grades", 1, FAST),
    ("clicks", 10, ("scikit-learn", "pytrec_eval")),
    ("ties", 10, ("scikit-learn",)),
)
"""What the rows are like, the divisor of the requests, the tools; some would take minutes."""
RESAMPLES = 1000


def fill(folder: Path, case: str, requests: int) -> None:
    """Labels and scores; every request has a label of 0 and one above, so that all tools count it.

    Scores are whole numbers of 1/1000, as a C float (trec_eval's) holds them apart.
    """
    draw = np.random.default_rng(11)
    shape = (requests, ITEMS)
    if case == "grades":
        labels = draw.integers(0, 5, shape).astype(np.float64)
    else:
        labels = (draw.random(shape) < 0.2).astype(np.float64)
    labels[:, 0], labels[:, 1] = 0.0, np.maximum(labels[:, 1], 1.0)
    places = draw.permuted(np.tile(np.arange(ITEMS), (requests, 1)), axis=1)
    if case == "ties":
        places //= 3
    np.save(folder / "labels.npy", draw.permuted(labels, axis=1))
    np.save(
        folder / "scores.npy", places * 0.1 + (case != "ties") * draw.integers(0, 90, shape) / 1e3
    )


def ours(folder: Path) -> dict[str, Any]:
    """In a process of its own."""
    labels, scores = np.load(folder / "labels.npy").ravel(), np.load(folder / "scores.npy").ravel()
    metrics.ndcg_at_k(labels[:500], scores[:500], np.repeat(np.arange(50), ITEMS), K)
    started = time.perf_counter()
    requests = np.repeat(np.arange(len(labels) // ITEMS), ITEMS)
    built, busy = time.perf_counter(), time.process_time()
    found = metrics.ndcg_at_k(labels, scores, requests, K)
    mean = found.means()
    ended, spent = time.perf_counter(), time.process_time()
    by = metrics.grouped(requests)
    others = (metrics.map_at_ks, metrics.mrr_at_ks, metrics.recall_at_ks, metrics.precision_at_ks)
    all_values = [found.values, *(one(labels, scores, by, (K,)).values[:, 0] for one in others)]
    np.save(folder / "ours.npy", np.stack(all_values, axis=1))
    return {"seconds": ended - built, "building_seconds": built - started,
            "cpu_seconds": spent - busy, "mean": float(mean)}  # fmt: skip


def bootstrap(folder: Path) -> dict[str, Any]:
    """1,000 resamples of a difference a request, ours and NumPy's, in turn."""
    values = np.load(folder / "differences.npy")
    metrics.paired_bootstrap(values[:100], 1, 10)
    started = time.perf_counter()
    mine = metrics.paired_bootstrap(values, 1, RESAMPLES)
    between = time.perf_counter()
    draw = np.random.default_rng(1)
    means = [values[draw.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    ended = time.perf_counter()
    low, high = np.quantile(means, [0.025, 0.975])
    return {"seconds": between - started, "numpy_seconds": ended - between,
            "interval": [mine.low, mine.high], "numpy_interval": [low, high]}  # fmt: skip


def compare(folder: Path, tool: str) -> float:
    """The largest difference to a tool's values, by request where it gives them; ends the
    benchmark where they are not equal."""
    mine, theirs = np.load(folder / "ours.npy"), np.load(folder / f"{tool}.npy")
    if theirs.ndim == 0:
        apart = abs(float(mine[:, 0].mean() - theirs))
    elif theirs.ndim == 1:
        apart = float(np.abs(mine[:, 0] - theirs).max())
    else:
        apart = float(np.abs(mine - theirs).max())
    if not apart < 1e-9:
        raise SystemExit(f"{tool}: values differ by up to {apart}")
    return apart


def measure(
    folder: Path, case: str, requests: int, tools: Sequence[str], repetitions: int
) -> Iterator[dict[str, Any]]:
    """Every tool's runs of one case, alternating with ours."""
    fill(folder, case, requests)
    script, peers = HERE.parent / "peers" / "evaluation_tools.py", peers_python()
    commands = {tool: [peers, str(script), tool, str(folder)] for tool in tools}
    commands = {"ours": job("ours", folder), **commands}
    taken: dict[str, list[dict[str, Any]]] = {tool: [] for tool in commands}
    for _ in range(repetitions):
        for tool, command in commands.items():
            run = watched(command, ENVIRONMENT)
            result = {**json.loads(run.last_line), "peak_mb": run.peak_mb}
            print(f"# {case}, {tool}: {result}", file=sys.stderr, flush=True)
            taken[tool].append(result)
    words = f"ndcg_at_10, {requests:,} x {ITEMS}, {case}"
    for tool in tools:
        quality = {"largest_difference": compare(folder, tool), **seconds(taken, tool)}
        yield line(words, tool, taken[tool][0]["version"], taken["ours"], taken[tool], quality)


def seconds(taken: dict[str, list[dict[str, Any]]], tool: str) -> dict[str, Any]:
    """Seconds of building what is read, those of all cores together, and the range of the runs."""
    found: dict[str, Any] = {"building_seconds": {}, "cpu_seconds": {}, "range": {}}
    for name, runs in (("ours", taken["ours"]), ("theirs", taken[tool])):
        for key in ("building_seconds", "cpu_seconds"):
            found[key][name] = round(statistics.median(run[key] for run in runs), 3)
        all_seconds = [run["seconds"] for run in runs]
        found["range"][name] = [round(min(all_seconds), 3), round(max(all_seconds), 3)]
    return found


def measure_bootstrap(folder: Path, requests: int, repetitions: int) -> dict[str, Any]:
    values = np.random.default_rng(5).normal(0.001, 0.2, requests)
    np.save(folder / "differences.npy", values)
    runs = []
    for _ in range(repetitions):
        run = watched(job("bootstrap", folder), ENVIRONMENT)
        runs.append({**json.loads(run.last_line), "peak_mb": run.peak_mb})
        print(f"# bootstrap: {runs[-1]}", file=sys.stderr, flush=True)
    theirs = [{"seconds": run["numpy_seconds"], "peak_mb": run["peak_mb"]} for run in runs]
    quality = {"interval": runs[0]["interval"], "numpy_interval": runs[0]["numpy_interval"]}
    case = f"paired_bootstrap, {RESAMPLES:,} resamples of {requests:,}"
    return line(case, "NumPy", np.__version__, runs, theirs, quality)


def job(name: str, folder: Path) -> list[str]:
    return [sys.executable, str(HERE), "--job", name, "--folder", str(folder)]


def line(
    case: str, peer: str, version: str, mine: Sequence[dict[str, Any]],
    theirs: Sequence[dict[str, Any]], quality: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    first, second = (statistics.median(r["seconds"] for r in runs) for runs in (mine, theirs))
    return {
        "bench": "evaluation", "case": case, "ours": round(first, 3), "peer": peer,
        "peer_version": version, "theirs": round(second, 3), "unit": "s",
        "ratio": round(second / first, 2),
        "ours_peak_mb": round(max(r["peak_mb"] for r in mine)),
        "theirs_peak_mb": round(max(r["peak_mb"] for r in theirs)),
        "quality": quality, "repetitions": len(mine), "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", choices=("ours", "bootstrap"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jobs: dict[str, Callable[[Path], dict[str, Any]]] = {"ours": ours, "bootstrap": bootstrap}
    if arguments.job:
        print(json.dumps(jobs[arguments.job](arguments.folder)))
        return 0
    requests, repetitions = arguments.requests, arguments.repetitions
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as name:
        for case, share, tools in CASES:
            lines.extend(measure(Path(name), case, requests // share, tools, repetitions))
        lines.append(measure_bootstrap(Path(name), requests, repetitions))
    text = "".join(f"{json.dumps(result)}\n" for result in lines)
    print(text, end="")
    RESULTS.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
